"""Several datasets as one, some of their samples more often than others: a store of its own that shares its parts' latents.

    join(folder, [Part(name="mine", folder=..., repeats=10), Part(name="more", folder=...)])

The joined store has every sample of its parts once, bucket by bucket, part by part; its IDs begin with the part's name.
Shards are hard links to the parts' files (copies where those lie on another disk); index and captions are written anew. How
often a training takes the samples of a part in an epoch stands in the manifest, so the store's digest covers it; `Repeated`
is the store as a training counts it, the way sd-scripts fills its buckets with `num_repeats`: a bucket holds a picture as
many times.
"""

import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from astolfo.data.store import CAPTIONS, INDEX, MANIFEST, TABLE_ROWS, Sample, Store
from astolfo.data.write import PART_SCHEMA, shard_name, write_manifest, write_tables
from astolfo.errors import StoreError
from astolfo.files import written


@dataclass(frozen=True, kw_only=True)
class Part:
    """A dataset of a joined one: its name, its store, and how often an epoch takes each of its samples."""

    name: str
    folder: Path
    repeats: int = 1


def join(folder: Path, parts: Sequence[Part], about: dict[str, Any] | None = None) -> str:
    """Writes the joined store of `parts` and returns its digest. Raises StoreError for stores that do not fit together."""
    stores = [Store(part.folder) for part in parts]
    buckets = _buckets(parts, stores)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, f"{MANIFEST}.sha256"):
        (folder / name).unlink(missing_ok=True)  # until it is whole, it is no store
    shards: list[dict[str, Any]] = []
    offsets: dict[tuple[int, int], int] = {}  # of (part, its bucket): by how much its shards' numbers move
    for number, bucket in enumerate(buckets):
        for index, store in enumerate(stores):
            shards += _linked(folder, store, _number(store, bucket), number, bucket, shards, offsets, index)
    write_tables(folder, _rows(parts, stores, buckets, offsets))
    said = [
        {"dataset": part.name, "digest": store.digest, "repeats": part.repeats, "counts": [_count(store, b) for b in buckets]}
        for part, store in zip(parts, stores, strict=True)
    ]
    return write_manifest(folder, buckets, shards, {**(about or {}), "parts": said})


class Repeated:
    """A store as a training counts it: in a joined one each sample stands as often as its part repeats, in any other once."""

    def __init__(self, store: Store):
        self.store, self.folder = store, store.folder
        parts = store.manifest["about"].get("parts") or [{"counts": store.counts, "repeats": 1}]
        self.counts = [sum(part["counts"][number] * part["repeats"] for part in parts) for number in range(len(store.counts))]
        stretches = [(part["counts"][number], part["repeats"]) for number in range(len(store.counts)) for part in parts]
        self._sizes = [count for count, _ in stretches]
        self._firsts = list(accumulate((count for count, _ in stretches), initial=0))
        self._counted = list(accumulate((count * repeats for count, repeats in stretches), initial=0))

    def __len__(self) -> int:
        return self._counted[-1]

    def row(self, counted: int) -> int:
        """The row of the store that stands at a place of the count."""
        stretch = bisect_right(self._counted, counted) - 1
        return self._firsts[stretch] + (counted - self._counted[stretch]) % self._sizes[stretch]

    def sample(self, counted: int) -> Sample:
        """The sample at a place of the count."""
        return self.store.sample(self.row(counted))

    def let_go(self) -> None:
        """As the store's."""
        self.store.let_go()


def _buckets(parts: Sequence[Part], stores: Sequence[Store]) -> list[dict[str, Any]]:
    """The buckets of all parts by size, with the number of samples that they have together."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for part, store in zip(parts, stores, strict=True):
        for bucket in store.buckets:
            size = bucket["height"], bucket["width"]
            known = found.setdefault(size, {**bucket, "count": 0})
            for key in ("latents", "dtype"):
                if known[key] != bucket[key]:
                    raise StoreError(
                        f"{part.folder} has latents of {key} {bucket[key]} for pictures of {size[1]}x{size[0]}, another part has "
                        f"{known[key]}. Import both with the same autoencoder and dtype."
                    )
            known["count"] += bucket["count"]
    return [found[size] for size in sorted(found)]


def _number(store: Store, bucket: dict[str, Any]) -> int | None:
    """Which of a store's buckets has that size."""
    sizes = [(one["height"], one["width"]) for one in store.buckets]
    size = bucket["height"], bucket["width"]
    return sizes.index(size) if size in sizes else None


def _count(store: Store, bucket: dict[str, Any]) -> int:
    own = _number(store, bucket)
    return 0 if own is None else store.counts[own]


def _linked(
    folder: Path, store: Store, own: int | None, number: int, bucket: dict[str, Any], before: list[dict[str, Any]],
    offsets: dict[tuple[int, int], int], part: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Links the shards of a part's bucket after those `before`; returns their entries and notes by how much they moved."""
    found: list[dict[str, Any]] = []
    of_bucket = sum(shard["bucket"] == number for shard in before)
    for at, shard in enumerate(store.manifest["shards"]):
        if shard["bucket"] != own:
            continue
        offsets.setdefault((part, shard["bucket"]), len(before) - at)
        name = shard_name(bucket["height"], bucket["width"], of_bucket + len(found))
        _link(store.folder / shard["file"], folder / name)
        found.append({**shard, "file": name, "bucket": number})
    return found


def _link(source: Path, target: Path) -> None:
    """The same file at another place, or a copy where it lies on another disk."""
    with written(target) as beside:
        beside.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), beside)
        except OSError:
            shutil.copyfile(source, beside)


def _rows(
    parts: Sequence[Part], stores: Sequence[Store], buckets: list[dict[str, Any]], offsets: dict[tuple[int, int], int]
) -> Iterator[pa.RecordBatch]:
    """The joined store's rows, in its order."""
    for number, bucket in enumerate(buckets):
        for index, (part, store) in enumerate(zip(parts, stores, strict=True)):
            own = _number(store, bucket)
            if own is None:
                continue
            first = sum(store.counts[:own])
            for batch in _slices(store, first, first + store.counts[own]):
                yield _moved(batch, f"{part.name}/", number, offsets[index, own])


def _slices(store: Store, first: int, last: int) -> Iterator[pa.RecordBatch]:
    """Rows `first` to before `last` of a store's tables together."""
    for number, (index, captions) in enumerate(zip(store.batches(INDEX), store.batches(CAPTIONS), strict=True)):
        begin, end = max(first - number * TABLE_ROWS, 0), min(last - number * TABLE_ROWS, index.num_rows)
        if begin < end:
            columns = [*index.slice(begin, end - begin).columns, *captions.slice(begin, end - begin).columns]
            yield pa.RecordBatch.from_arrays(columns, schema=PART_SCHEMA)


def _moved(batch: pa.RecordBatch, prefix: str, bucket: int, offset: int) -> pa.RecordBatch:
    """The same rows with IDs that name their part, and with the joined store's numbers of bucket and shard."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["id"] = pa.array([prefix + name for name in columns["id"].to_pylist()], pa.string())
    columns["bucket"] = pa.array([bucket] * batch.num_rows, pa.int16())
    columns["shard"] = pa.array([shard + offset for shard in columns["shard"].to_pylist()], pa.int32())
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=PART_SCHEMA)
