"""Several datasets as one, some of their samples more often than others: a store of its own that shares its parts' latents.

    join(folder, [Part(name="mine", folder=..., repeats=10), Part(name="more", folder=...)])
    join(folder, [Part(name="", folder=...), Part(name="mirrored", folder=..., repeats=0, mirrors=0)])

The joined store has every sample of its parts once, bucket by bucket, part by part; its IDs begin with the part's name.
Shards are hard links to the parts' files (copies where those lie on another disk); index and captions are written anew. How
often a training takes the samples of a part in an epoch stands in the manifest, so the store's digest covers it; `Repeated`
is the store as a training counts it, the way sd-scripts fills its buckets with `num_repeats`: a bucket holds a picture as
many times. A part may be the mirror of another, the same pictures the other way round: its samples are not counted, but
taken in place of the other's.
"""

import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from astolfo.data.store import CAPTIONS, INDEX, LEFT_OUT, MANIFEST, TABLE_ROWS, Sample, Store
from astolfo.data.write import PART_SCHEMA, shard_name, write_manifest, write_tables
from astolfo.errors import StoreError
from astolfo.files import written

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A dataset of a joined one: its name ("": IDs stay as they are), its store, and how often an epoch takes each sample.

    `mirrors`: the number of the part, made of one store, whose pictures it has the other way round, in the same order.
    """

    name: str
    folder: Path
    repeats: int = 1
    mirrors: int | None = None


def join(folder: Path, parts: Sequence[Part], about: dict[str, Any] | None = None) -> str:
    """Writes the joined store of `parts` and returns its digest. Raises StoreError for stores that do not fit together."""
    stores = [Store(part.folder) for part in parts]
    for part, store in zip(parts, stores, strict=True):
        if part.mirrors is not None and list(_ids(store)) != list(_ids(stores[part.mirrors])):
            raise StoreError(
                f"{part.folder} is no mirror of {parts[part.mirrors].folder}: it has other samples. Import both again."
            )
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
    return write_manifest(folder, buckets, shards, {**(about or {}), "parts": _manifest_parts(parts, stores, buckets)})


def both_ways(folder: Path, make: Callable[[Path, bool], Made], about: dict[str, Any]) -> tuple[str, Made]:
    """A store of pictures and of their mirrors, as `make(folder, mirrored)` makes each: its digest, and what the plain one gave.

    The two lie beside it, hidden, until they are joined, so that an interrupted making goes on.
    """
    plain, mirrored = (folder.with_name(f".{folder.name}.{name}") for name in ("plain", "mirrored"))
    if not (mirrored / MANIFEST).exists():
        make(mirrored, True)
    if (plain / MANIFEST).exists():  # stopped while they were joined: what its making gave is not known
        shutil.rmtree(plain)
    made = make(plain, False)
    parts = [Part(name="", folder=plain), Part(name="mirrored", folder=mirrored, repeats=0, mirrors=0)]
    folder.mkdir(parents=True, exist_ok=True)
    if (plain / LEFT_OUT).exists():
        shutil.copyfile(plain / LEFT_OUT, folder / LEFT_OUT)
    digest = join(folder, parts, about)
    for half in (plain, mirrored):
        shutil.rmtree(half)
    return digest, made


def parts_of(store: Store) -> list[dict[str, Any]]:
    """What a store is made of: of each part its samples by bucket, how often each counts, and which part it mirrors, if any."""
    return store.manifest["about"].get("parts") or [{"counts": store.counts, "repeats": 1}]


class Repeated:
    """A store as a training counts it: in a joined one each sample stands as often as its part repeats, in any other once."""

    def __init__(self, store: Store):
        self.store, self.folder = store, store.folder
        parts = parts_of(store)
        self.counts = [sum(part["counts"][number] * part["repeats"] for part in parts) for number in range(len(store.counts))]
        stretches = [(part["counts"][number], part["repeats"]) for number in range(len(store.counts)) for part in parts]
        self._sizes = [count for count, _ in stretches]
        self._firsts = list(accumulate((count for count, _ in stretches), initial=0))
        self._counted = list(accumulate((count * repeats for count, repeats in stretches), initial=0))
        mirrors = {part["mirrors"]: number - part["mirrors"] for number, part in enumerate(parts) if "mirrors" in part}
        self._mirrors = [mirrors.get(number % len(parts)) for number in range(len(stretches))]  # how many stretches further

    def __len__(self) -> int:
        return self._counted[-1]

    @property
    def mirrored(self) -> bool:
        """Whether it has mirrors of some of its samples."""
        return any(self._mirrors)

    def row(self, counted: int, mirrored: bool = False) -> int:
        """The row of the store that stands at a place of the count; `mirrored`: its mirror's, where it has one."""
        stretch = bisect_right(self._counted, counted) - 1
        within = (counted - self._counted[stretch]) % self._sizes[stretch]
        return self._firsts[stretch + (self._mirrors[stretch] or 0 if mirrored else 0)] + within

    def sample(self, counted: int, mirrored: bool = False) -> Sample:
        """The sample at a place of the count, or its mirror."""
        return self.store.sample(self.row(counted, mirrored))

    def release(self) -> None:
        """As the store's."""
        self.store.release()


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


def _manifest_parts(parts: Sequence[Part], stores: Sequence[Store], buckets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the manifest says of the parts: those of a part that is joined itself stand one by one."""
    found: list[dict[str, Any]] = []
    for part, store in zip(parts, stores, strict=True):
        first = len(found)
        for one in parts_of(store):
            counts = [0 if (own := _number(store, bucket)) is None else one["counts"][own] for bucket in buckets]
            entry = {"dataset": part.name, "digest": store.digest, "repeats": part.repeats * one["repeats"], "counts": counts}
            if "mirrors" in one:
                entry["mirrors"] = first + one["mirrors"]
            if part.mirrors is not None:
                entry["mirrors"] = part.mirrors
            found.append(entry)
    return found


def _ids(store: Store) -> Iterator[str]:
    """Every ID, in the store's order."""
    for batch in store.batches():
        yield from batch.column(0).to_pylist()


def _number(store: Store, bucket: dict[str, Any]) -> int | None:
    """Which of a store's buckets has that size."""
    sizes = [(one["height"], one["width"]) for one in store.buckets]
    size = bucket["height"], bucket["width"]
    return sizes.index(size) if size in sizes else None


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
                yield _moved(batch, part.name and f"{part.name}/", number, offsets[index, own])


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
