"""The dataset store: what the trainer reads, the same format for 20 images and for 12.4 million.

    index.arrow                       Arrow IPC, uncompressed: one row per sample, grouped by bucket
    captions.arrow                    tags and sentences in the same order; another version of them is another store, which
                                      shares index and latents
    latents-<h>x<w>-<n>.safetensors   latents of one bucket, in the index's order: `latents` [rows, channels, h, w]
    left-out.jsonl                    what an import left out, and why; only where it did
    store.json                        the manifest: buckets, shards, the sha256 of every file, and the root of their tree

A store is written once (`astolfo.data.write`) and never changed. The tables are memory-mapped and latents are read where
they lie: memory belongs to the page cache, there is no Python object per sample, and opening takes the same time whatever
the size. Shards are read, not mapped: a full-scale store has more of them than a process may hold mapped. Latents are
unscaled (the model's scaling factor is applied when they are used).
"""

import json
import math
import mmap
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astolfo.data import merkle
from astolfo.errors import StoreError
from astolfo.files import sha256_of

FORMAT = 2
MANIFEST, INDEX, CAPTIONS, LEFT_OUT = "store.json", "index.arrow", "captions.arrow", "left-out.jsonl"
TABLE_ROWS = 1 << 16  # rows of a record batch of index and captions; all but the last are full
INDEX_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("bucket", pa.int16()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("original_height", pa.int32()),
        ("original_width", pa.int32()),
        ("crop_top", pa.int32()),
        ("crop_left", pa.int32()),
        ("digest", pa.binary(32)),
    ]
)
CAPTION_SCHEMA = pa.schema([("tags", pa.string()), ("sentence", pa.string())])
_OPEN_SHARDS = 512  # files that stay open; more are opened for one reading


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as the trainer uses it. `latents`: (channels, h, w), unscaled, as stored; sizes in pixels."""

    id: str
    latents: np.ndarray
    original_size: tuple[int, int]
    crop: tuple[int, int]
    target_size: tuple[int, int]
    tags: str
    sentence: str


class Store:
    """An open store. Raises StoreError for a missing, truncated or malformed one. Threads may share it, and so may forks."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self._files: dict[int, int] = {}
        self._parts: dict[tuple[pa.RecordBatchFileReader, int], pa.RecordBatch] = {}
        self.manifest = _manifest(self.folder)
        self._maps: list[mmap.mmap] = []
        self._index, self._captions = (self._table(self.folder / name) for name in (INDEX, CAPTIONS))
        self._first_rows = np.cumsum([0, *(shard["rows"] for shard in self.manifest["shards"])]).tolist()
        if self._first_rows[-1] != len(self) or sum(self.counts) != len(self):
            raise StoreError(f"{self.folder}: {len(self):,} images, but {self._first_rows[-1]:,} in its shards. Make it again.")

    def _table(self, path: Path) -> pa.RecordBatchFileReader:
        """A table over a map of our own: Arrow's would ask the disk for a whole record batch when one row is wanted."""
        try:
            with open(path, "rb") as file:
                found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            found.madvise(mmap.MADV_RANDOM)
            self._maps.append(found)
            return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(found)))
        except FileNotFoundError:
            raise StoreError(f"There is no dataset store in {self.folder}: {path.name} is missing.") from None
        except (pa.ArrowInvalid, ValueError) as error:
            raise StoreError(f"The dataset store in {self.folder} is damaged: {path.name}: {error}. Make it again.") from None

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_files", {}).values():
            os.close(descriptor)

    @property
    def buckets(self) -> list[dict[str, Any]]:
        """Per bucket: height and width in pixels, count of samples, shape and dtype of a sample's latents."""
        return self.manifest["buckets"]

    @property
    def counts(self) -> list[int]:
        """Samples per bucket."""
        return [bucket["count"] for bucket in self.buckets]

    @property
    def digest(self) -> str:
        """The root of the store's tree (hex): what names it."""
        return self.manifest["digest"]

    def __len__(self) -> int:
        return self.manifest["images"]

    def sample(self, row: int) -> Sample:
        """The sample at `row` of the index."""
        index, captions = self.row(row), self.captions(row)
        bucket = self.buckets[index["bucket"]]
        return Sample(
            id=index["id"],
            latents=self.latents(row),
            original_size=(index["original_height"], index["original_width"]),
            crop=(index["crop_top"], index["crop_left"]),
            target_size=(bucket["height"], bucket["width"]),
            tags=captions[0],
            sentence=captions[1],
        )

    def row(self, row: int) -> dict[str, Any]:
        """The index's columns of one row."""
        batch, at = self._batch(self._index, row)
        return {name: column[at].as_py() for name, column in zip(INDEX_SCHEMA.names, batch.columns, strict=True)}

    def captions(self, row: int) -> tuple[str, str]:
        """Tags and sentence of one row."""
        batch, at = self._batch(self._captions, row)
        return batch.column(0)[at].as_py(), batch.column(1)[at].as_py()

    def batches(self, table: str = INDEX) -> Iterator[pa.RecordBatch]:
        """The record batches of a table, in the order of its rows, memory-mapped."""
        reader = {INDEX: self._index, CAPTIONS: self._captions}[table]
        return (reader.get_batch(number) for number in range(reader.num_record_batches))

    def _batch(self, reader: pa.RecordBatchFileReader, row: int) -> tuple[pa.RecordBatch, int]:
        number, at = divmod(row, TABLE_ROWS)
        if (reader, number) not in self._parts:
            self._parts[reader, number] = reader.get_batch(number)  # a few pointers into the map
        return self._parts[reader, number], at

    def release(self) -> None:
        """Gives the mapped pages of the tables back to the page cache, which keeps them; the next reading finds them there."""
        for found in self._maps:
            found.madvise(mmap.MADV_DONTNEED)

    def latents(self, row: int) -> np.ndarray:
        """The latents at `row`, in their own dtype: one read of just their bytes."""
        number = bisect_right(self._first_rows, row) - 1
        shape, dtype, size, start = self._layouts[number]
        found = np.empty(shape, dtype)
        descriptor, kept = self._open(number)
        try:
            read = os.preadv(descriptor, [found], start + (row - self._first_rows[number]) * size)
        finally:
            if not kept:
                os.close(descriptor)
        if read != size:
            raise self._truncated(number)
        return found

    @cached_property
    def _layouts(self) -> list[tuple[tuple[int, ...], np.dtype, int, int]]:
        """Per shard: shape, dtype and bytes of a sample, and where the first begins."""
        kinds = [(tuple(bucket["latents"]), np.dtype(bucket["dtype"])) for bucket in self.buckets]
        return [(*kinds[s["bucket"]], math.prod(kinds[s["bucket"]][0]) * kinds[s["bucket"]][1].itemsize, s["start"])
                for s in self.manifest["shards"]]  # fmt: skip

    def _open(self, number: int) -> tuple[int, bool]:
        """A descriptor of a shard whose size is right, and whether it stays open."""
        if number in self._files:
            return self._files[number], True
        shard = self.manifest["shards"][number]
        try:
            descriptor = os.open(self.folder / shard["file"], os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreError(f"{self.folder / shard['file']} is missing. Restore it, or make the store again.") from None
        if os.fstat(descriptor).st_size != self._layouts[number][3] + shard["rows"] * self._layouts[number][2]:
            os.close(descriptor)
            raise self._truncated(number)
        if len(self._files) < _OPEN_SHARDS and self._files.setdefault(number, descriptor) == descriptor:
            return descriptor, True
        return descriptor, False  # too many are open, or another thread was faster

    def _truncated(self, number: int) -> StoreError:
        path = self.folder / self.manifest["shards"][number]["file"]
        return StoreError(f"{path} is truncated, or another file. `astolfo dataset verify {self.folder}` says which are damaged.")

    def find(self, name: str) -> int:
        """The row of the sample with this ID. Raises StoreError when there is none."""
        import pyarrow.compute as pc

        for number, batch in enumerate(self.batches()):
            if (at := pc.index(batch.column(0), pa.scalar(name)).as_py()) >= 0:
                return number * TABLE_ROWS + at
        raise StoreError(f"{self.folder} has no sample {name!r}. IDs look like {self.row(0)['id']!r}.")

    def verify(self, pattern: str = "*") -> Iterator[str]:
        """Yields one line per file whose bytes are not the manifest's; nothing when all is well.

        The root is always checked, the files those whose names match `pattern`. Hashing uses every core.
        """
        if (found := tree_root(self.manifest)) != self.digest:
            yield f"{self.folder / MANIFEST}: expected the root {self.digest}, found {found}"
        files = {name: digest for name, digest in file_digests(self.manifest) if fnmatch(name, pattern)}
        if not files:
            raise StoreError(f"{self.folder} has no file that matches {pattern!r}.")
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for (name, expected), found in zip(files.items(), pool.map(self._digest_of, files), strict=True):
                if found != expected:
                    yield f"{self.folder / name}: expected sha256 {expected}, found {found}"

    def _digest_of(self, name: str) -> str:
        return sha256_of(self.folder / name) if (self.folder / name).exists() else "missing"


def tree_root(manifest: dict[str, Any]) -> str:
    """The root (hex) of a store's tree. Its leaves: what the store is, each table, then the shards in their order."""
    return merkle.root([merkle.leaf(value) for value in tree_leaves(manifest)]).hex()


def tree_leaves(manifest: dict[str, Any]) -> list[Any]:
    """The values that a store's digest covers."""
    head = {key: manifest[key] for key in ("format", "images", "buckets", "about")}
    return [head, *({"file": name, "sha256": digest} for name, digest in manifest["tables"].items()), *manifest["shards"]]


def file_digests(manifest: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Name and sha256 of every file that a manifest names."""
    yield from manifest["tables"].items()
    yield from ((shard["file"], shard["sha256"]) for shard in manifest["shards"])


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        found = manifest.get("format")
    except FileNotFoundError:
        raise StoreError(f"There is no dataset store in {folder}: {MANIFEST} is missing.") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise StoreError(f"The dataset store in {folder} is damaged: {MANIFEST}: {error}. Make it again.") from None
    if found != FORMAT:
        raise StoreError(f"{folder}: expected store format {FORMAT}, found {found!r}. Make the store again with this program.")
    return manifest
