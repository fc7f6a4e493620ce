"""Sources of pictures: a folder with captions beside them, WebDataset tars, a Parquet table.

folder     a/1.jpg with a/1.txt (tags) and a/1.caption (a sentence), either of which may be missing; the ID is a/1
tars       members of the same names, and a .json with "tags" and "caption"; the ID is the name up to its first dot
table      columns id, image (bytes, or a struct with bytes, or a path beside the table), tags, caption or sentence
"""

import json
import os
import tarfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from astolfo.data.ingest.bucketing import Bucketing
from astolfo.data.ingest.pictures import MOST_BYTES, SUFFIXES, probe, read
from astolfo.data.ingest.source import (
    LONGEST_CAPTION,
    LeftOut,
    Loaded,
    Refused,
    Row,
    Source,
    ahead,
    checked_id,
    checked_text,
    shown,
)
from astolfo.errors import InputError

_UNDER_WAY = 64
Found = tuple[str, dict[str, str], str] | LeftOut  # ID, texts by "tags" and "sentence", where


class Pictures(Source):
    """What the sources of pictures share. `factor` and `channels` are the autoencoder's; `crop` names how crops are recorded."""

    kind: str

    def __init__(self, places: Sequence[Path], bucketing: Bucketing, *, crop: str, draw: str, factor: int = 8, channels: int = 4):
        for place in places:
            if not place.exists():
                raise InputError(f"Expected pictures at {place}, found nothing there. Check the path.")
        self.places, self.bucketing, self.crop, self.factor, self.channels = list(places), bucketing, crop, factor, channels
        if bucketing.step % factor or bucketing.smallest % factor:
            raise InputError(f"Buckets of {bucketing.smallest} pixels in steps of {bucketing.step} are no multiples of {factor}.")
        self.about = {
            "made by": f"astolfo dataset import {self.kind}", "bucketing": asdict(bucketing), "crop": crop, "latents": draw,
        }  # fmt: skip
        self.identity = {"kind": self.kind, "places": [str(place.resolve()) for place in places]}

    def shape(self, bucket: tuple[int, int]) -> tuple[int, int, int]:
        """The autoencoder's channels, one latent for `factor` pixels."""
        return self.channels, bucket[0] // self.factor, bucket[1] // self.factor

    def load(self, row: Row) -> Loaded:
        """The pixels of a row."""
        return read(self.data(row.where), row.bucket, self.crop)

    def rows(self, workers: Executor) -> Iterator[Row | LeftOut]:
        """Every picture with its bucket."""
        for found, future in ahead(workers, self._row, self.found(), _UNDER_WAY):
            try:
                yield future.result()
            except Refused as error:
                yield LeftOut(shown(found[0]), str(error))
            except OSError as error:
                yield LeftOut(shown(found[0]), f"the picture cannot be read: {error.strerror or error}")

    def _row(self, found: Found) -> Row | LeftOut:
        if isinstance(found, LeftOut):
            return found
        name, texts, where = found
        checked = {what: checked_text(what, texts.get(what, "")) for what in ("tags", "sentence")}
        return Row(id=checked_id(name), **checked, where=where, bucket=probe(self.data(where), self.bucketing))

    @abstractmethod
    def found(self) -> Iterator[Found]:
        """Every picture that there is, in the source's order."""

    @abstractmethod
    def data(self, where: str) -> Any:
        """The picture's bytes, or its path."""


class Folder(Pictures):
    """A folder of pictures and those below it, by name."""

    kind = "folder"

    def found(self) -> Iterator[Found]:
        """Pictures in the order of their paths."""
        for folder, folders, files in os.walk(self.places[0]):
            folders.sort()
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in SUFFIXES:
                    path = Path(folder, name).relative_to(self.places[0])
                    yield self._one(path.parent / stem, path.as_posix())

    def _one(self, stem: Path, where: str) -> Found:
        texts = {}
        for what, suffix in (("tags", ".txt"), ("sentence", ".caption")):
            path = self.places[0] / f"{stem.as_posix()}{suffix}"
            try:
                with open(path, "rb") as file:
                    texts[what] = _text(file.read(4 * LONGEST_CAPTION + 1), what)
            except FileNotFoundError:
                pass
            except Refused as error:
                return LeftOut(shown(stem.as_posix()), str(error))
        return stem.as_posix(), texts, where

    def data(self, where: str) -> Path:
        """The picture's path."""
        return self.places[0] / where


class Tars(Pictures):
    """WebDataset tars, one after the other. They are read twice, so they must be uncompressed files."""

    kind = "tars"

    def found(self) -> Iterator[Found]:
        """Samples in the order of the tars and their members."""
        for number, place in enumerate(self.places):
            try:
                with tarfile.open(place, "r:") as tar:
                    yield from self._samples(tar, number)
            except (tarfile.TarError, EOFError, OSError) as error:
                hint = " Unpack a compressed one first." if place.suffix in (".gz", ".tgz", ".zst", ".bz2", ".xz") else ""
                yield LeftOut(place.name, f"the tar cannot be read on: {error}.{hint}")

    def _samples(self, tar: tarfile.TarFile, number: int) -> Iterator[Found]:
        name, texts, where = None, {}, None
        size = os.fstat(tar.fileobj.fileno()).st_size  # type: ignore[union-attr]
        for member in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one
            if not member.isreg():
                continue
            folder, _, file = member.name.rpartition("/")
            stem, _, suffix = file.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if key != name and name is not None:
                yield self._sample(name, texts, where)
            if key != name:
                name, texts, where = key, {}, None
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"it breaks off in {shown(member.name)}")
            if f".{suffix.lower()}" in SUFFIXES:
                where = f"{number}:{member.offset_data}:{member.size}"
            elif suffix in ("txt", "caption", "json"):
                texts |= _texts(suffix, tar.extractfile(member).read(4 * LONGEST_CAPTION + 1))  # type: ignore[union-attr]
        if name is not None:
            yield self._sample(name, texts, where)

    @staticmethod
    def _sample(name: str, texts: dict[str, Any], where: str | None) -> Found:
        if "refused" in texts:
            return LeftOut(shown(name), texts["refused"])
        return (name, texts, where) if where else LeftOut(shown(name), "no picture among its members")

    def data(self, where: str) -> bytes:
        """The member's bytes."""
        number, start, size = map(int, where.split(":"))
        if size > MOST_BYTES:
            raise Refused(f"the picture has {size:,} bytes")
        with open(self.places[number], "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, start)


class Table(Pictures):
    """Parquet tables. A row group is read at a time, once in the listing and once for every bucket in it."""

    kind = "table"

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._files = []
        self._group: tuple[tuple[int, int], list[Any]] = ((-1, -1), [])
        for place in self.places:
            try:
                self._files.append(pq.ParquetFile(place))
            except (pa.ArrowInvalid, OSError) as error:
                raise InputError(f"{place} is no Parquet table: {error}.") from None
            columns = self._files[-1].schema_arrow.names
            if "id" not in columns or "image" not in columns:
                raise InputError(f"{place}: expected columns id and image, found {', '.join(columns)}.")

    def found(self) -> Iterator[Found]:
        """Rows in the order of the tables."""
        for number, file in enumerate(self._files):
            texts = [name for name in ("tags", "sentence", "caption") if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                for at, row in enumerate(file.read_row_group(group, ["id", *texts]).to_pylist()):
                    found = {"tags": row.get("tags") or "", "sentence": row.get("sentence") or row.get("caption") or ""}
                    yield str(row["id"]), found, f"{number}:{group}:{at}"

    def data(self, where: str) -> Any:
        """The picture's bytes, or its path."""
        number, group, at = map(int, where.split(":"))
        key, images = self._group
        if key != (number, group):
            images = self._files[number].read_row_group(group, ["image"]).column(0).to_pylist()
            self._group = ((number, group), images)
        image = images[at]
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str):
            return self.places[number].parent / checked_id(image)
        if not isinstance(image, bytes):
            raise Refused(f"expected bytes or a path as image, found {type(image).__name__}")
        return image


def _text(data: bytes, what: str) -> str:
    try:
        return checked_text(what, data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        if len(data) > 4 * LONGEST_CAPTION:
            raise Refused(f"{what} of more than {len(data) - 1:,} bytes") from None
        raise Refused(f"the {what} are not UTF-8") from None


def _texts(suffix: str, data: bytes) -> dict[str, str]:
    """The texts of a tar's member, or why they are refused."""
    try:
        if suffix != "json":
            what = "tags" if suffix == "txt" else "sentence"
            return {what: _text(data, what)}
        found = json.loads(data)
        if not isinstance(found, dict):
            raise Refused("its .json holds no object")
        texts = {"tags": found.get("tags"), "sentence": found.get("caption")}
        return {what: checked_text(what, text) for what, text in texts.items() if text}
    except Refused as error:
        return {"refused": str(error)}
    except (ValueError, RecursionError) as error:
        return {"refused": f"its .json cannot be read: {error}"}
