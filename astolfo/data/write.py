"""Writes dataset stores: shards one by one, then the tables and the manifest over them.

    write_shard(path, latents)                  one shard, whole or absent
    write_tables(folder, parts)                 index and captions from the parts' rows, in bounded memory
    write_manifest(folder, buckets, shards, about)

The same samples give the same bytes in every file. The manifest comes last: a folder without it is no store.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astolfo.checkpoint.safefile import plan
from astolfo.data.store import (
    CAPTION_SCHEMA,
    CAPTIONS,
    FORMAT,
    INDEX,
    INDEX_SCHEMA,
    LEFT_OUT,
    MANIFEST,
    TABLE_ROWS,
    tree_root,
)  # fmt: skip
from astolfo.files import canonical_json, sha256_of, write_json, write_sidecar, written

SHARD_BYTES = 1 << 27
SHARD_ROWS = 4096
PART_SCHEMA = pa.schema([*INDEX_SCHEMA, *CAPTION_SCHEMA])
_BLOCK = 1 << 24
_NAMES = {"float32": "F32", "float16": "F16"}
DTYPES = tuple(_NAMES)


def shard_rows(shape: tuple[int, ...], dtype: str) -> int:
    """How many samples a shard holds: at most SHARD_ROWS, and about SHARD_BYTES."""
    return max(1, min(SHARD_ROWS, SHARD_BYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize)))


def shard_name(height: int, width: int, number: int) -> str:
    """The file of shard `number` of a bucket (in pixels)."""
    return f"latents-{height}x{width}-{number:05d}.safetensors"


def write_shard(path: Path, latents: np.ndarray) -> dict[str, Any]:
    """Writes latents (rows, channels, h, w) as a safetensors file; returns its manifest entry, less the bucket.

    There is no side-car: the manifest has the digest.
    """
    header, places = plan({"latents": (_NAMES[str(latents.dtype)], latents.shape)}, {})
    digest, data = hashlib.sha256(header), memoryview(np.ascontiguousarray(latents).reshape(-1).view(np.uint8))
    with written(path) as beside, open(beside, "wb") as file:
        file.write(header)
        for start in range(0, len(data), _BLOCK):
            digest.update(data[start : start + _BLOCK])
            file.write(data[start : start + _BLOCK])
    return {"file": path.name, "rows": len(latents), "start": places["latents"].start, "sha256": digest.hexdigest()}


def write_tables(folder: Path, parts: Iterable[pa.RecordBatch]) -> int:
    """Writes index and captions from record batches of PART_SCHEMA, in the order given; returns the number of rows."""
    rows = 0
    with (
        written(folder / INDEX) as index,
        written(folder / CAPTIONS) as captions,
        _table(index, INDEX_SCHEMA) as first,
        _table(captions, CAPTION_SCHEMA) as second,
    ):
        for batch in rebatched(parts):
            rows += batch.num_rows
            first.write_batch(batch.select(INDEX_SCHEMA.names))
            second.write_batch(batch.select(CAPTION_SCHEMA.names))
    return rows


def write_captions(folder: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes a store's captions from record batches of CAPTION_SCHEMA."""
    with written(folder / CAPTIONS) as beside, _table(beside, CAPTION_SCHEMA) as writer:
        for batch in rebatched(batches):
            writer.write_batch(batch)


def rebatched(batches: Iterable[pa.RecordBatch], size: int = TABLE_ROWS) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `size`, the last one shorter; nothing else of the input decides the bytes of a table."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        while batch.num_rows:
            waiting.append(batch.slice(0, size - count))
            count += waiting[-1].num_rows
            batch = batch.slice(waiting[-1].num_rows)
            if count == size:
                yield pa.concat_batches(waiting)
                waiting, count = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def _table(path: Path, schema: pa.Schema) -> pa.RecordBatchFileWriter:
    return pa.ipc.new_file(str(path), schema, options=pa.ipc.IpcWriteOptions(compression=None))


def write_manifest(folder: Path, buckets: list[dict], shards: list[dict], about: dict[str, Any]) -> str:
    """Writes the manifest over the files of `folder` and returns the store's digest, the root of its tree."""
    tables = {name: sha256_of(folder / name) for name in (INDEX, CAPTIONS, LEFT_OUT) if (folder / name).exists()}
    manifest = {
        "format": FORMAT,
        "images": sum(bucket["count"] for bucket in buckets),
        "buckets": buckets,
        "shards": shards,
        "tables": dict(sorted(tables.items())),
        "about": json.loads(canonical_json(about)),
    }
    manifest["digest"] = tree_root(manifest)
    write_json(folder / MANIFEST, manifest)
    write_sidecar(folder / MANIFEST)
    return manifest["digest"]
