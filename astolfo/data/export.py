"""Ways out of a store: sd-scripts' own layout, a Parquet table, and the same store with other captions.

export_kohya(store, folder)         meta_lat.json and a .npz per sample, as that trainer reads them
export_table(store, path)           index and captions for exchange; tags and sentences can be edited in it ...
recaptioned(store, path, folder)    ... and come back as a new store that shares the latents
"""

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from astolfo.data.ingest.bucketing import letterbox
from astolfo.data.ingest.source import Refused, ahead, checked_id, checked_text
from astolfo.data.store import CAPTION_SCHEMA, CAPTIONS, INDEX, INDEX_SCHEMA, Store, file_digests
from astolfo.data.write import write_captions, write_manifest
from astolfo.errors import InputError, StateError, StoreError
from astolfo.files import write_text, written

INDEX_FILE = "meta_lat.json"
_MARK = ".astolfo-export"


def export_kohya(store: Store, folder: Path, *, sized: bool = False, workers: int = 2) -> None:
    """Writes every sample below `folder`; the index comes last, after a flush: where it stands, everything does.

    Both readers find the files by the index (kohya-ss 48d368f, and the fork that trains from caches alone): see `names`. `sized`:
    as kohya-ss names its own caches now, which the fork does not read. A killed export goes on where it was. Raises StateError
    when another store's export is in the way, StoreError for an ID that is no path below a folder.
    """
    mark = folder / _MARK
    if (folder / INDEX_FILE).exists():
        raise InputError(f"{folder / INDEX_FILE} is there already. Choose another folder, or move it away first.")
    content = f"{store.digest}{' sized' if sized else ''}"
    if mark.exists() and mark.read_text().strip() != content:
        raise StateError(f"{folder} holds an unfinished export of another store. Finish that one, or choose another folder.")
    if not sized:
        _check_names(store)
    write_text(mark, f"{content}\n")
    with written(folder / INDEX_FILE) as beside:
        with open(beside, "w", encoding="utf-8") as index, ThreadPoolExecutor(workers) as pool:
            separator = "{\n"
            for _, future in ahead(pool, lambda row: _export(store, row, folder, sized), range(len(store)), 8 * workers):
                name, entry = future.result()
                index.write(f"{separator}{json.dumps(name)}: {json.dumps(entry)}")
                separator = ",\n"
            index.write("\n}\n")
        os.sync()
    mark.unlink()


def names(identity: str, size: tuple[int, int], sized: bool) -> tuple[str, list[str]]:
    """The key of a sample in the index, and the names of its latents: the first is written, others are links to it.

    kohya-ss cuts what follows the key's last dot and adds `.npz`, or the `size` (width, height) of its entry and `_sdxl.npz`
    (`SdSdxlLatentsCachingStrategy.get_latents_npz_path`); the fork adds `.npz` to the key as it is (`FineTuningDataset` with
    `--skip_cache_check`). One name serves both where the ID has no dot. Where it has one, the key ends in `.png`, and the
    latents have a name for each.
    """
    dotted = "." in identity.rpartition("/")[2]
    key = f"{identity}.png" if dotted else identity
    if sized:
        return key, [f"{identity}_{size[0]:04d}x{size[1]:04d}_sdxl.npz"]
    return key, [f"{identity}.npz", f"{key}.npz"] if dotted else [f"{identity}.npz"]


def _export(store: Store, row: int, folder: Path, sized: bool) -> tuple[str, dict[str, Any]]:
    """Writes one sample; returns its key and entry of the index."""
    index, (tags, sentence) = store.row(row), store.captions(row)
    bucket = store.buckets[index["bucket"]]
    size = bucket["width"], bucket["height"]
    try:
        key, (first, *others) = names(checked_id(index["id"]), size, sized)
    except Refused as error:
        raise StoreError(f"{store.folder}: sample {index['id']!r} cannot be exported: {error}.") from None
    path = folder / first
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        with open(beside, "wb") as file:
            arrays: dict[str, Any] = _arrays(store.latents(row), index, size)
            np.savez(file, **arrays)
        os.replace(beside, path)
    for other in others:
        _share(path, folder / other)
    texts = {"tags": tags, "caption": sentence}
    # kohya-ss puts a sample into the bucket that fits its image_size best: of a bucket's own size that is the bucket
    sizes = {"train_resolution": list(size), "image_size": list(size)}
    return key, {**{name: text for name, text in texts.items() if text}, **sizes}


def _check_names(store: Store) -> None:
    """Raises StoreError when the second name of one sample's latents is the first of another's: IDs that differ by .png only."""
    cut = pa.concat_arrays([_without_png(batch.column(0)) for batch in store.batches()])
    for batch in store.batches():
        found = batch.column(0).filter(pc.is_in(batch.column(0), value_set=cut))
        if clashing := [name for name in found.to_pylist() if "." in name.rpartition("/")[2]]:
            both = f"{clashing[0]!r} and {clashing[0] + '.png'!r}"
            raise StoreError(f"{store.folder}: {both} need the same file name in that trainer's layout. Rename one of them.")


def _without_png(names: pa.Array) -> pa.Array:
    """The names that end in .png, without it."""
    return pc.utf8_slice_codeunits(names.filter(pc.ends_with(names, ".png")), 0, -4)


def _arrays(latents: np.ndarray, index: dict[str, Any], bucket: tuple[int, int]) -> dict[str, np.ndarray]:
    """The arrays of a .npz; right and bottom of the crop follow from the sizes, as that trainer computes them."""
    original = index["original_width"], index["original_height"]
    left, top, right, bottom = letterbox(*original, bucket)
    return {
        "latents": latents.astype(np.float32),
        "original_size": np.array(original),
        "crop_ltrb": np.array([index["crop_left"], index["crop_top"], index["crop_left"] + right - left,
                               index["crop_top"] + bottom - top]),
    }  # fmt: skip


def export_table(store: Store, path: Path) -> None:
    """Writes a Parquet table: the index's columns, bucket sizes instead of numbers, tags and sentences, in the store's order."""
    sizes = [(bucket["height"], bucket["width"]) for bucket in store.buckets]
    kept = [field for field in INDEX_SCHEMA if field.name not in ("bucket", "shard", "row")]
    schema = pa.schema([*kept, ("height", pa.int32()), ("width", pa.int32()), *CAPTION_SCHEMA])
    with written(path) as beside, pq.ParquetWriter(str(beside), schema, compression="zstd") as writer:
        for index, captions in zip(store.batches(INDEX), store.batches(CAPTIONS), strict=True):
            numbers = index.column("bucket").to_numpy()
            size = np.array(sizes, np.int32)[numbers]
            columns = [index.column(field.name) for field in kept]
            writer.write_batch(pa.record_batch([*columns, pa.array(size[:, 0]), pa.array(size[:, 1]), *captions.columns],
                                               schema=schema))  # fmt: skip


def recaptioned(store: Store, table: Path, folder: Path) -> str:
    """Writes the store with the captions of a Parquet table to `folder` and returns its digest; latents and index are shared.

    The table has columns id, tags, sentence, and rows in the store's order (as `export_table` gives them); samples without a
    row keep their captions. Raises StoreError for a row that is not in the store, or not in its order.
    """
    if folder.exists():
        raise InputError(f"{folder} is there already. Choose another folder, or move it away.")
    write_captions(folder, _merged(store, _captions(table), table))
    for name, _ in file_digests(store.manifest):
        if name != CAPTIONS:
            _share(store.folder / name, folder / name)
    about = {**store.manifest["about"], "captions": "replaced"}
    return write_manifest(folder, store.buckets, store.manifest["shards"], about)


def _captions(table: Path) -> Iterator[tuple[str, str, str]]:
    """ID, tags and sentence of every row of a table."""
    try:
        file = pq.ParquetFile(table)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{table} is no Parquet table: {error}.") from None
    if missing := {"id", "tags", "sentence"} - set(file.schema_arrow.names):
        raise InputError(f"{table}: expected columns id, tags and sentence, it lacks {', '.join(sorted(missing))}.")
    try:
        for batch in file.iter_batches(columns=["id", "tags", "sentence"]):
            yield from zip(*(batch.column(name).to_pylist() for name in ("id", "tags", "sentence")), strict=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{table} cannot be read on: {error}. Get the file again.") from None


def _merged(store: Store, changes: Iterator[tuple[str, str, str]], table: Path) -> Iterator[pa.RecordBatch]:
    change = next(changes, None)
    for index, captions in zip(store.batches(INDEX), store.batches(CAPTIONS), strict=True):
        columns = [column.to_pylist() for column in captions.columns]
        for at, name in enumerate(index.column("id").to_pylist()):
            if change is not None and change[0] == name:
                for column, what, text in zip(columns, ("tags", "sentence"), change[1:], strict=True):
                    column[at] = _checked_field(what, text or "", name, table)
                change = next(changes, None)
        yield pa.record_batch(columns, schema=CAPTION_SCHEMA)
    if change is not None:
        raise StoreError(f"{table}: {change[0]!r} is not in {store.folder}, comes twice, or not in the store's order.")


def _checked_field(what: str, text: str, name: str, table: Path) -> str:
    try:
        return checked_text(what, text)
    except Refused as error:
        raise InputError(f"{table}: {name}: {error}.") from None


def _share(source: Path, target: Path) -> None:
    """The same file under a second name; across file systems a link to it."""
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    try:
        os.link(source.resolve(), target)
    except OSError:
        target.symlink_to(source.resolve())
