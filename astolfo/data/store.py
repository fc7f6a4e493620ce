"""The dataset store: what the trainer reads, the same format for 20 images and for 12.4 million.

    index.arrow               Arrow IPC, uncompressed: one row per sample, grouped by bucket
    latents-<bucket>-<n>.safetensors   latents of one bucket, in the index's order: `latents` [rows, channels, h, w]
    store.json                the manifest: buckets, shards, and the sha256 of every file

Index and shards are memory-mapped: memory belongs to the page cache, there is no Python object per sample, and opening
takes the same time whatever the size. Latents are unscaled (the model's scaling factor is applied when they are used).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.errors import StoreError
from astolfo.files import canonical_json, json_digest, sha256_of, write_json, write_sidecar, written

FORMAT = 1
MANIFEST = "store.json"
INDEX = "index.arrow"
SHARD_ROWS = 4096
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("bucket", pa.int16()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("original_height", pa.int32()),
        ("original_width", pa.int32()),
        ("crop_top", pa.int32()),
        ("crop_left", pa.int32()),
        ("tags", pa.string()),
        ("sentence", pa.string()),
        ("digest", pa.binary(32)),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as the trainer uses it. `latents`: float32 (channels, h, w), unscaled; sizes in pixels."""

    id: str
    latents: np.ndarray
    original_size: tuple[int, int]
    crop: tuple[int, int]
    target_size: tuple[int, int]
    tags: str
    sentence: str


class Store:
    """An open store. Raises StoreError for a missing, truncated or malformed one."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self._shards: dict[int, np.ndarray] = {}
        try:
            self.manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
            self._index = pa.ipc.open_file(pa.memory_map(str(self.folder / INDEX)))
        except FileNotFoundError as error:
            raise StoreError(f"There is no dataset store in {self.folder}: {error.filename or MANIFEST} is missing.") from None
        except (json.JSONDecodeError, pa.ArrowInvalid) as error:
            raise StoreError(f"The dataset store in {self.folder} is damaged: {error}. Make it again.") from None
        if self.manifest.get("format") != FORMAT:
            raise StoreError(f"{self.folder}: store format {self.manifest.get('format')!r}, this program reads {FORMAT}.")

    @cached_property
    def table(self) -> pa.Table:
        """The index as a memory-mapped Arrow table."""
        return self._index.read_all()

    @property
    def buckets(self) -> list[dict[str, Any]]:
        """Per bucket: height and width in pixels, count of samples, first row."""
        return self.manifest["buckets"]

    @property
    def counts(self) -> list[int]:
        """Samples per bucket."""
        return [bucket["count"] for bucket in self.buckets]

    def __len__(self) -> int:
        return self.manifest["images"]

    def sample(self, row: int) -> Sample:
        """The sample at `row` of the index."""
        column = {name: self.table.column(name)[row].as_py() for name in SCHEMA.names if name != "digest"}
        bucket = self.buckets[column["bucket"]]
        return Sample(
            id=column["id"],
            latents=self._shard(column["shard"])[column["row"]].astype(np.float32),
            original_size=(column["original_height"], column["original_width"]),
            crop=(column["crop_top"], column["crop_left"]),
            target_size=(bucket["height"], bucket["width"]),
            tags=column["tags"],
            sentence=column["sentence"],
        )

    def verify(self) -> Iterator[str]:
        """Yields one line per file whose bytes are not the manifest's; nothing when all is well."""
        files = {INDEX: self.manifest["index"]} | {shard["file"]: shard["sha256"] for shard in self.manifest["shards"]}
        for name, expected in files.items():
            path = self.folder / name
            found = sha256_of(path) if path.exists() else "missing"
            if found != expected:
                yield f"{path}: expected sha256 {expected}, found {found}"

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            entry = self.manifest["shards"][number]
            self._shards[number] = open_file(self.folder / entry["file"]).array("latents")
        return self._shards[number]


@dataclass(frozen=True, kw_only=True)
class NewSample:
    """A sample on its way into a store. `latents`: (channels, h, w), unscaled; sizes in pixels."""

    id: str
    latents: np.ndarray
    bucket: tuple[int, int]
    original_size: tuple[int, int]
    crop: tuple[int, int]
    tags: str
    sentence: str


def write_store(folder: Path | str, samples: list[NewSample], about: dict[str, Any]) -> str:
    """Writes a store of `samples`, grouped by bucket, and returns its digest. `about` goes into the manifest."""
    folder = Path(folder)
    samples = sorted(samples, key=lambda sample: sample.bucket)  # stable: the given order inside a bucket
    buckets, shards, columns = [], [], {name: [] for name in SCHEMA.names}
    for size in dict.fromkeys(sample.bucket for sample in samples):
        members = [sample for sample in samples if sample.bucket == size]
        buckets.append({"height": size[0], "width": size[1], "count": len(members)})
        for first in range(0, len(members), SHARD_ROWS):
            part = members[first : first + SHARD_ROWS]
            shards.append(_write_shard(folder, f"latents-{size[0]}x{size[1]}-{first // SHARD_ROWS:05d}.safetensors", part))
            for row, sample in enumerate(part):
                _append(columns, sample, bucket=len(buckets) - 1, shard=len(shards) - 1, row=row)
    with written(folder / INDEX) as beside, pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.table(columns, schema=SCHEMA))
    manifest = {
        "format": FORMAT,
        "images": len(samples),
        "buckets": buckets,
        "shards": shards,
        "index": sha256_of(folder / INDEX),
        "about": json.loads(canonical_json(about)),
    }
    write_json(folder / MANIFEST, {**manifest, "digest": json_digest(manifest)})
    write_sidecar(folder / MANIFEST)
    return json_digest(manifest)


def _write_shard(folder: Path, name: str, samples: list[NewSample]) -> dict[str, Any]:
    latents = np.stack([sample.latents for sample in samples])
    if not np.isfinite(latents).all():
        bad = [sample.id for sample, one in zip(samples, latents, strict=True) if not np.isfinite(one).all()]
        raise StoreError(f"Latents with NaN or infinity, nothing written: {', '.join(bad[:10])}. Encode them again.")
    digest = write_file(folder / name, {"latents": latents}, {"rows": str(len(samples))})
    return {"file": name, "rows": len(samples), "sha256": digest}


def _append(columns: dict[str, list], sample: NewSample, *, bucket: int, shard: int, row: int) -> None:
    values = {
        "id": sample.id, "bucket": bucket, "shard": shard, "row": row,
        "original_height": sample.original_size[0], "original_width": sample.original_size[1],
        "crop_top": sample.crop[0], "crop_left": sample.crop[1], "tags": sample.tags, "sentence": sample.sentence,
        "digest": hashlib.sha256(np.ascontiguousarray(sample.latents).tobytes()).digest(),
    }  # fmt: skip
    for name, value in values.items():
        columns[name].append(value)
