"""The road into a store, the same for every source:

    list      the source's rows, written to the work folder by bucket (`listing`)
    convert   shard by shard: read in threads, checked, encoded where they are pixels, written
    finish    index, captions, what was left out, manifest

The work folder `.<name>.importing` lies beside the store. A killed import goes on with the shard that it was at; the listing
begins anew if it was not done. Neither a kill nor the number of threads leaves a trace in the store. Memory is bounded by a
shard and some rows per bucket, whatever the number of samples, and eight bytes for each of them.
"""

import errno
import hashlib
import json
import logging
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astolfo.data.ingest.listing import Listing
from astolfo.data.ingest.source import LeftOut, Loaded, Refused, Row, Source, ahead, shown
from astolfo.data.store import CAPTIONS, INDEX, LEFT_OUT, MANIFEST
from astolfo.data.write import PART_SCHEMA, shard_name, write_manifest, write_shard, write_tables
from astolfo.errors import InputError, StateError
from astolfo.files import canonical_json, exclusive, json_digest, write_json, written

log = logging.getLogger(__name__)
_SAY_EVERY = 10.0  # seconds
_UNDER_WAY = 4  # samples per thread
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # of this process and not of a sample
_OURS_BY_NAME = re.compile(
    rf"{re.escape(MANIFEST)}(\..+)?|({re.escape(INDEX)}|{re.escape(CAPTIONS)}|{re.escape(LEFT_OUT)}"
    r"|latents-\d+x\d+-\d+\.safetensors)(\.sha256)?"
)
_TOGETHER = 64  # samples that are settled at once where nothing is encoded


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Turns pixels into latents, `batch` pictures of one size at a time: uint8 (height, width, 3) -> float32 (c, h, w) each."""

    encode: Callable[[list[np.ndarray]], list[np.ndarray]]
    batch: int
    identity: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of an import. `left_out` counts reasons, numbers in them apart; the store has every one. `notes` count what
    was changed or not looked at in what is in the store; `hint` says what would make more of the source usable."""

    folder: Path
    digest: str
    images: int
    left_out: Counter
    notes: Counter
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.folder}: {self.images:,} samples, {self.left_out.total():,} left out. Digest {self.digest}."]
        lines += [f"  {count:>10,}  {reason}" for reason, count in self.left_out.most_common(12)]
        if self.left_out:
            lines.append(f"{self.folder / LEFT_OUT} names each of them with its reason.")
        lines += (
            ["Of those in the store:", *(f"  {n:>10,}  {note}" for note, n in sorted(self.notes.items()))] if self.notes else []
        )
        lines += [self.hint] if self.hint else []
        return "\n".join(lines)


def refuse_another(folder: Path, replace: bool) -> None:
    """Raises InputError where a store is in the way and may not be replaced."""
    if (folder / MANIFEST).exists() and not replace:
        raise InputError(f"{folder} is a store already. Choose another folder, or move it away.")


def run(
    source: Source, folder: Path, *, encoding: Encoding | None = None, dtype: str = "float32", workers: int = 2,
    strict: bool = False, replace: bool = False,
) -> Report:  # fmt: skip
    """Makes the store `folder` from a source.

    `dtype` is that of the stored latents. `strict`: anything left out is an error, at the end of its stage. `replace`: a store
    that is there already may go. Raises InputError when nothing can be used or the folder is taken, StateError when an
    interrupted import of something else is in the way.
    """
    place = folder.resolve()
    work = place.with_name(f".{place.name}.importing")
    with exclusive(work.with_suffix(".lock"), f"The import into {folder}"), ThreadPoolExecutor(workers) as pool:
        importer = _Importer(source, folder, work, encoding, dtype, pool, workers)
        importer.begin(replace)
        importer.survey()
        importer.check(strict)
        importer.convert()
        importer.check(strict)
        report = importer.finish()
    shutil.rmtree(work, ignore_errors=True)
    work.with_suffix(".lock").unlink(missing_ok=True)
    return report


@dataclass
class _Importer:
    source: Source
    folder: Path
    work: Path
    encoding: Encoding | None
    dtype: str
    pool: Executor
    workers: int

    def begin(self, replace: bool) -> None:
        """Makes sure that the work folder is this import's, and that nothing valuable is in the way."""
        if (self.folder / MANIFEST).exists() and not replace:
            shutil.rmtree(self.work, ignore_errors=True)  # of an import that was killed when it was done
        refuse_another(self.folder, replace)
        encoding = {"batch": self.encoding.batch, **self.encoding.identity} if self.encoding else None
        identity = {"source": self.source.identity, "about": self.source.about, "encoding": encoding, "dtype": self.dtype}
        record = self.work / "import.json"
        if record.exists() and json.loads(record.read_text())["identity"] != json_digest(identity):
            raise StateError(
                f"{self.work} is what an interrupted import with another source or other settings left. Call that command again "
                "to finish it, or move the folder away to begin anew."
            )
        if not record.exists():
            for old in self.folder.glob("*"):
                if _OURS_BY_NAME.fullmatch(old.name) and old.is_file():
                    old.unlink()
            write_json(record, {"identity": json_digest(identity), "settings": identity})
        for name in ("rows", "parts"):
            (self.work / name).mkdir(exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.listing = Listing(self.work / "rows")

    def survey(self) -> None:
        """Lists the source's rows, unless that is done."""
        if not self.listing.found:
            rows = _logged(self.source.rows(self.pool), "listed")
            self.listing.write(rows, self.source, self.dtype)
        log.info("%s: %d rows in %d buckets", self.folder.name, self.listing.total, len(self.listing.buckets))

    def check(self, strict: bool) -> None:
        """Raises InputError when something was left out that must not be."""
        if strict and (found := [one for one in self._left_out() if not one["stray"]]):
            hint = f" {self.listing.hint}" if self.listing.hint else ""
            self._forget()
            names = "; ".join(f"{one['id']}: {one['reason']}" for one in found[:5])
            raise InputError(f"{len(found):,} samples cannot be used ({names}). Mend them, or import without --strict.{hint}")

    def _forget(self) -> None:
        """Has the next call look again at what was left out, and at everything after an incomplete listing."""
        if any(not one["stray"] for one in self.listing.left_out()):
            shutil.rmtree(self.work)
            return
        for bucket in self.listing.buckets:
            for number, (_, summary, _) in enumerate(self._parts_of(bucket)):
                if summary["left"]:
                    self._part(bucket, number).unlink()

    def convert(self) -> None:
        """Makes every shard that is not there."""
        done, begun, total = 0, time.monotonic(), max(1, self.listing.total)
        for bucket in self.listing.buckets:
            for number, (rows, left) in enumerate(self.listing.units(bucket)):
                part = self._part(bucket, number)
                if not part.exists():
                    self._convert(rows, left, bucket, number)
                done += len(rows) + len(left)
                if time.monotonic() - begun > _SAY_EVERY or done == total:
                    log.info("%s: %d of %d samples (%.0f %%)", self.folder.name, done, total, 100 * done / total)
                    begun = time.monotonic()

    def _convert(self, rows: list[Row], left: list[LeftOut], bucket: tuple[int, int], number: int) -> None:
        """One shard and its part record, in this order: where the record stands, the shard is whole."""
        unit = _Unit(self, bucket, len(rows))
        for row, future in ahead(self.pool, lambda row: self._attempt(row, unit), rows, self.workers * _UNDER_WAY):
            unit.add(row, future.result())
        unit.settle()
        shard = None
        if unit.kept:
            shard = write_shard(self.folder / shard_name(*bucket, number), unit.latents[: len(unit.kept)])
        summary = {"shard": shard, "left": [asdict(one) for one in (*left, *unit.left)], "notes": unit.notes}
        schema = PART_SCHEMA.with_metadata({"said": canonical_json(summary)})
        columns: list[Any] = list(zip(*unit.kept, strict=True)) or [[] for _ in PART_SCHEMA]
        with written(self._part(bucket, number)) as beside, pa.ipc.new_file(str(beside), schema) as writer:
            writer.write_batch(
                pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
            )

    def _attempt(self, row: Row, unit: "_Unit") -> "Loaded | _Ready | LeftOut":
        """What a thread does for a sample: everything but encoding."""
        try:
            found = self.source.load(row)
            return found if found.latents is None else unit.ready(found, found.latents)
        except Refused as error:
            return LeftOut(row.id, str(error))
        except OSError as error:
            if error.errno in _OURS:
                raise
            return LeftOut(row.id, f"cannot be read: {error.strerror or error}")

    def _part(self, bucket: tuple[int, int], number: int) -> Path:
        return self.work / "parts" / f"{bucket[0]}x{bucket[1]}-{number:05d}.arrow"

    def _parts(self) -> Iterator[tuple[tuple[int, int], dict[str, Any], pa.RecordBatch]]:
        """Bucket, summary, and rows of every part that is done, in the store's order."""
        for bucket in self.listing.buckets:
            yield from self._parts_of(bucket)

    def _parts_of(self, bucket: tuple[int, int]) -> Iterator[tuple[tuple[int, int], dict[str, Any], pa.RecordBatch]]:
        number = 0
        while (path := self._part(bucket, number)).exists():
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                yield bucket, json.loads(reader.schema.metadata[b"said"]), reader.get_batch(0)
            number += 1

    def _left_out(self) -> Iterator[dict[str, Any]]:
        yield from self.listing.left_out()
        for _, summary, _ in self._parts():
            yield from summary["left"]

    def finish(self) -> Report:
        """Writes the tables, the report and the manifest."""
        reasons: Counter = Counter()
        with written(self.folder / LEFT_OUT) as beside, open(beside, "w", encoding="utf-8") as file:
            for one in self._left_out():
                reasons[_kind(one["reason"])] += 1
                file.write(canonical_json({"id": shown(one["id"]), "reason": one["reason"]}) + "\n")
        if not reasons:
            (self.folder / LEFT_OUT).unlink()
        buckets: list[dict[str, Any]] = []
        shards: list[dict[str, Any]] = []
        images = write_tables(self.folder, self._numbered(buckets, shards))
        if not images:
            found = "; ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3)) or "the source is empty"
            hint = f" {self.listing.hint}" if self.listing.hint else ""
            shutil.rmtree(self.work)
            raise InputError(f"No sample can be used: {found}.{hint}")
        digest = write_manifest(self.folder, buckets, shards, self.source.about)
        notes: Counter = Counter()
        for _, summary, _ in self._parts():
            notes.update(summary["notes"])
        return Report(folder=self.folder, digest=digest, images=images, left_out=reasons, notes=notes, hint=self.listing.hint)

    def _numbered(self, buckets: list[dict[str, Any]], shards: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
        """The rows of all parts with their bucket's and shard's numbers; fills in the manifest's lists on the way."""
        for (height, width), summary, batch in self._parts():
            if summary["shard"] is None:
                continue
            if not buckets or (buckets[-1]["height"], buckets[-1]["width"]) != (height, width):
                shape = list(self.source.shape((height, width)))
                buckets.append({"height": height, "width": width, "count": 0, "latents": shape, "dtype": self.dtype})
            buckets[-1]["count"] += batch.num_rows
            shards.append({**summary["shard"], "bucket": len(buckets) - 1})
            numbers = {"bucket": len(buckets) - 1, "shard": len(shards) - 1}
            columns = [
                pa.array(np.full(batch.num_rows, numbers[field.name]), field.type) if field.name in numbers else column
                for field, column in zip(PART_SCHEMA, batch.columns, strict=True)
            ]
            yield pa.record_batch(columns, schema=PART_SCHEMA)


@dataclass(frozen=True)
class _Ready:
    """A sample's latents as they are stored, their digest, and its four sizes in the index's order."""

    latents: np.ndarray
    digest: bytes
    sizes: tuple[int, ...]
    notes: tuple[str, ...] = ()


class _Unit:
    """The samples of one shard while they come in."""

    def __init__(self, importer: _Importer, bucket: tuple[int, int], most: int):
        self.encoding, self.shape, self.dtype = importer.encoding, importer.source.shape(bucket), np.dtype(importer.dtype)
        self.latents = np.empty((most, *self.shape), importer.dtype)
        self.waiting: list[tuple[Row, Loaded | _Ready]] = []
        self.kept: list[tuple] = []
        self.left: list[LeftOut] = []
        self.notes: Counter = Counter()

    def add(self, row: Row, found: "Loaded | _Ready | LeftOut") -> None:
        """Takes the next sample; the order of calls is the order in the shard."""
        if isinstance(found, LeftOut):
            self.left.append(found)
            return
        self.waiting.append((row, found))
        if len(self.waiting) == (self.encoding.batch if self.encoding else _TOGETHER):
            self.settle()

    def settle(self) -> None:
        """Encodes what is waiting for it, and gives everything its place."""
        pixels: list[Any] = [found.pixels for _, found in self.waiting if isinstance(found, Loaded)]
        encoded = iter(self.encoding.encode(pixels) if pixels and self.encoding else ())
        for row, found in self.waiting:
            try:
                self._place(row, self.ready(found, next(encoded)) if isinstance(found, Loaded) else found)
            except Refused as error:
                self.left.append(LeftOut(row.id, str(error)))
        self.waiting = []

    def ready(self, found: Loaded, latents: np.ndarray) -> _Ready:
        """Checks latents and brings them to the store's dtype. Raises Refused."""
        if latents.shape != self.shape:
            raise Refused(f"latents of shape {list(latents.shape)}, its bucket has {list(self.shape)}")
        if not np.abs(latents).max() <= np.finfo(self.dtype).max:  # false for NaN, too
            raise Refused(f"NaN, infinity or a number beyond {self.dtype} in its latents")
        latents = np.ascontiguousarray(latents, self.dtype)
        return _Ready(latents, hashlib.sha256(latents).digest(), (*found.original_size, *found.crop), found.notes)

    def _place(self, row: Row, found: _Ready) -> None:
        at = len(self.kept)
        self.latents[at] = found.latents
        self.notes.update(found.notes)
        self.kept.append((row.id, 0, 0, at, *found.sizes, found.digest, row.tags, row.sentence))


def _logged(rows: Iterable[Any], what: str) -> Iterator[Any]:
    """The same rows, with a word in the log now and then."""
    begun = reported = time.monotonic()
    for number, row in enumerate(rows, start=1):
        yield row
        if not number % 1024 and (now := time.monotonic()) - reported > _SAY_EVERY:
            reported = now
            log.info("%s %d rows, %.0f a second", what, number, number / (now - begun))


def _kind(reason: str) -> str:
    """A reason without its particulars, to count by."""
    return re.sub(r"\d[\d,.x]*", "N", reason.partition(": ")[0])
