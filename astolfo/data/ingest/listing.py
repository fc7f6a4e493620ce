"""The first half of an import: a source's rows, written down by bucket, in units that become one shard each.

    rows/<h>x<w>.arrow    a record batch per unit, in the source's order
    listed.json           buckets, and the rows whose ID comes again later (the last one counts, as in a JSON object)
    left-out.jsonl        rows that cannot be used

Memory: a unit of rows per bucket and eight bytes for every row.
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astolfo.data.ingest.source import LeftOut, Refused, Row, Source
from astolfo.data.write import shard_rows
from astolfo.files import canonical_json, write_json

MOST_BUCKETS = 512
_SCHEMA = pa.schema(
    [("id", pa.string()), ("tags", pa.string()), ("sentence", pa.string()), ("where", pa.string()), ("number", pa.int64())]
)


class Listing:
    """The rows of a source below `folder`, once `write` has run to its end there."""

    def __init__(self, folder: Path):
        self.folder, self.done = folder, folder / "listed.json"
        self.found: dict[str, Any] = json.loads(self.done.read_text()) if self.done.exists() else {}
        self._again = set(self.found.get("again", ()))

    @property
    def total(self) -> int:
        """How many rows were listed, those that come again included."""
        return self.found["rows"]

    @property
    def buckets(self) -> list[tuple[int, int]]:
        """Height and width in pixels of every bucket, ascending."""
        return [(height, width) for height, width in self.found["buckets"]]

    def units(self, bucket: tuple[int, int]) -> Iterator[tuple[list[Row], list[LeftOut]]]:
        """The rows of a bucket, unit by unit, and those of them that count no more."""
        with pa.memory_map(str(self._path(bucket))) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                yield self._unit(reader.get_batch(number), bucket)

    def _unit(self, batch: pa.RecordBatch, bucket: tuple[int, int]) -> tuple[list[Row], list[LeftOut]]:
        rows, left = [], []
        columns = [batch.column(field.name).to_pylist() for field in _SCHEMA]
        for name, tags, sentence, where, number in zip(*columns, strict=True):
            if number in self._again:
                left.append(LeftOut(name, "the same ID comes again later; the last one counts"))
            else:
                rows.append(Row(id=name, tags=tags, sentence=sentence, where=where, bucket=bucket))
        return rows, left

    @property
    def hint(self) -> str:
        """What the source said would make more of it usable."""
        return self.found["hint"]

    def left_out(self) -> Iterator[dict[str, Any]]:
        """What the listing left out."""
        with open(self.folder / "left-out.jsonl", encoding="utf-8") as file:
            yield from map(json.loads, file)

    def write(self, rows: Iterable[Row | LeftOut], source: Source, dtype: str) -> None:
        """Writes down all `rows`; the listing is there when this ends, and begun anew when it was killed."""
        hashes, writers = array("q"), _Writers(self, source, dtype)
        with writers, open(self.folder / "left-out.jsonl", "w", encoding="utf-8") as left:
            for row in rows:
                refused = row if isinstance(row, LeftOut) else writers.add(row, len(hashes))
                if refused is None:
                    hashes.append(hash(row.id))
                else:
                    left.write(canonical_json(asdict(refused)) + "\n")
        found: dict[str, Any] = {"rows": len(hashes), "buckets": sorted(writers.buckets), "hint": source.hint()}
        self.found = {**found, "again": self._repeated(np.frombuffer(hashes, np.int64), found["buckets"])}
        self._again = set(self.found["again"])
        write_json(self.done, self.found)

    def _repeated(self, hashes: np.ndarray, buckets: list[tuple[int, int]]) -> list[int]:
        """The numbers of all rows whose ID a later row has too. Hashes only say where to look."""
        ordered = np.sort(hashes)
        doubtful = np.flatnonzero(np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]]))
        if not len(doubtful):
            return []
        numbers: dict[str, list[int]] = defaultdict(list)
        for bucket in buckets:
            with pa.memory_map(str(self._path(bucket))) as source:
                for batch in pa.ipc.open_file(source).read_all().to_batches():
                    for at in np.flatnonzero(np.isin(batch.column("number").to_numpy(), doubtful)).tolist():
                        numbers[batch.column("id")[at].as_py()].append(batch.column("number")[at].as_py())
        return sorted(number for same in numbers.values() for number in sorted(same)[:-1])

    def _path(self, bucket: tuple[int, int]) -> Path:
        return self.folder / f"{bucket[0]}x{bucket[1]}.arrow"


class _Writers:
    """One file per bucket, each with the columns of the unit that is being filled."""

    def __init__(self, listing: Listing, source: Source, dtype: str):
        self.listing, self.source, self.dtype = listing, source, dtype
        self.buckets: dict[tuple[int, int], tuple[pa.RecordBatchFileWriter, int, list[list]]] = {}

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for writer, _size, columns in self.buckets.values():
            if kind is None and columns[0]:
                self._flush(writer, columns)
            writer.close()

    def add(self, row: Row, number: int) -> LeftOut | None:
        """Writes the row down, or says why not."""
        if row.bucket not in self.buckets:
            try:
                self._begin(row.bucket)
            except Refused as error:
                return LeftOut(row.id, str(error))
        writer, size, columns = self.buckets[row.bucket]
        for column, value in zip(columns, (row.id, row.tags, row.sentence, row.where, number), strict=True):
            column.append(value)
        if len(columns[0]) == size:
            self._flush(writer, columns)
        return None

    def _begin(self, bucket: tuple[int, int]) -> None:
        if len(self.buckets) == MOST_BUCKETS:
            raise Refused(f"a bucket beyond the first {MOST_BUCKETS}: are these sizes right?")
        size = shard_rows(self.source.shape(bucket), self.dtype)
        self.buckets[bucket] = (pa.ipc.new_file(str(self.listing._path(bucket)), _SCHEMA), size, [[] for _ in _SCHEMA])

    @staticmethod
    def _flush(writer: pa.RecordBatchFileWriter, columns: list[list]) -> None:
        writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
        for column in columns:
            column.clear()
