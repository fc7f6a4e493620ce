"""sd-scripts' native layout as it is on disk: an index, `meta_lat.json`, and a `.npz` of latents per sample.

    {"danbooru/123": {"tags": "1girl, solo", "caption": "a girl ...", "train_resolution": [832, 1216]}, ...}

A key is a path below the data's folder, with or without a picture's suffix, or an absolute one that leads there. Its latents
are in `<key>.npz`, or, as newer versions name them, in `<key>_<width>x<height>_sdxl.npz` (`_sd.npz`) of its `image_size`.
Where two members of the object have one key the last counts, as in that trainer.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import Any

from astolfo.data.ingest.npz import latent_size, read_npz
from astolfo.data.ingest.scan import members
from astolfo.data.ingest.source import LeftOut, Loaded, Refused, Row, Source, checked_id, checked_text, shown
from astolfo.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl")
CHANNELS = 4
FACTOR = 8  # pixels per latent of SDXL's and SD 2.1's autoencoders
_ASKED = 64  # first samples that are asked for theirs
_LARGEST = 1 << 14  # pixels of a bucket's side


class Kohya(Source):
    """The samples of an `index` (meta_lat.json) whose `.npz` files lie below `folder`.

    `factor`: pixels per latent; None: as the first samples have it, else 8. Raises InputError when index or folder is not there,
    or when the first samples have another factor.
    """

    def __init__(self, index: Path, folder: Path, factor: int | None = None):
        if not index.is_file() or not folder.is_dir():
            raise InputError(f"Expected an index and the folder of its .npz files, found {index} and {folder}: one is missing.")
        self.index, self.folder = index, folder
        self._root = os.path.abspath(folder) + os.sep
        self.factor = self._factor(factor)
        self.about = {"made by": "astolfo dataset import kohya"}
        status = index.stat()
        self.identity = {
            "kind": "kohya", "index": str(index.resolve()), "size": status.st_size, "changed": status.st_mtime_ns,
            "folder": str(folder.resolve()), "factor": self.factor,
        }  # fmt: skip

    def _factor(self, given: int | None) -> int:
        """The factor that most of the first samples have, if two have it. Raises InputError when another one is `given`."""
        examples: dict[int, list[str]] = {}
        for one in islice(members(self.index), _ASKED):
            with contextlib.suppress(Refused, OSError):  # such a sample is left out later, with its reason
                if not isinstance(one, LeftOut) and (found := self._own_factor(*one)):
                    examples.setdefault(found[0], []).append(found[1])
        told = max((factor for factor in examples if len(examples[factor]) > 1), key=lambda f: len(examples[f]), default=None)
        if given and told and given != told:
            raise InputError(
                f"{self.index}: expected {given} pixels per latent, as --factor says, found {told}: {examples[told][0]}. "
                f"Leave --factor out, or say --factor {told}."
            )
        return given or told or FACTOR

    def _own_factor(self, key: str, entry: Any) -> tuple[int, str] | None:
        """Pixels per latent of a sample whose entry and `.npz` both have a size, and these sizes in words. Raises Refused."""
        if not isinstance(entry, dict):
            return None
        name = self._id(key)
        width, height = _pair(entry.get("train_resolution"), "train_resolution")
        high, wide = latent_size(self.folder / self._where(name, entry.get("image_size")))
        factor = width // max(1, wide)
        if factor == 0 or (width, height) != (factor * wide, factor * high):
            return None
        return factor, f"{shown(name)} has {width}x{height} pixels and {wide}x{high} latents"

    def shape(self, bucket: tuple[int, int]) -> tuple[int, int, int]:
        """Four channels, one latent for `factor` pixels."""
        return CHANNELS, bucket[0] // self.factor, bucket[1] // self.factor

    def load(self, row: Row) -> Loaded:
        """The `.npz` of a row."""
        return read_npz(self.folder / row.where, self.shape(row.bucket))

    def rows(self, workers: Executor) -> Iterator[Row | LeftOut]:
        """The members of the index; where they have no `train_resolution` their `.npz` is asked."""
        found = members(self.index)
        while window := list(islice(found, 1024)):
            rows = [one if isinstance(one, LeftOut) else self._row(*one) for one in window]
            if any(isinstance(row, Row) and row.bucket is None for row in rows):
                rows = list(workers.map(self._probed, rows))
            yield from rows

    def _row(self, key: str, entry: Any) -> Row | LeftOut:
        """A row; its bucket is None where the index does not say."""
        try:
            name = self._id(key)
            if not isinstance(entry, dict):
                raise Refused(f"expected an object as its entry in the index, found {type(entry).__name__}")
            tags, sentence = checked_text("tags", entry.get("tags") or ""), checked_text("caption", entry.get("caption") or "")
            where, size = self._where(name, entry.get("image_size")), entry.get("train_resolution")
            return Row(name, tags, sentence, where, None if size is None else self._bucket(size))
        except Refused as error:
            return LeftOut(shown(key), str(error))

    def _probed(self, row: Row | LeftOut) -> Row | LeftOut:
        if isinstance(row, LeftOut) or row.bucket is not None:
            return row
        try:
            height, width = latent_size(self.folder / row.where)
            return row._replace(bucket=self._bucket([width * self.factor, height * self.factor]))
        except Refused as error:
            return LeftOut(row.id, str(error))

    def _id(self, key: str) -> str:
        if key.startswith(self._root):
            key = key[len(self._root) :]
        if key.endswith(SUFFIXES):
            key = key[: key.rindex(".")]
        return checked_id(key)

    def _where(self, name: str, image_size: Any) -> str:
        if image_size is None:
            return f"{name}.npz"
        width, height = _pair(image_size, "image_size")
        for suffix in ("sdxl", "sd"):
            if os.path.exists(f"{self._root}{name}_{width:04d}x{height:04d}_{suffix}.npz"):
                return f"{name}_{width:04d}x{height:04d}_{suffix}.npz"
        return f"{name}.npz"

    def _bucket(self, size: Any) -> tuple[int, int]:
        width, height = _pair(size, "train_resolution")
        if width % self.factor or height % self.factor:
            raise Refused(f"train_resolution {width}x{height} is no multiple of {self.factor}")
        return height, width


def _pair(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) is int and 0 < one <= _LARGEST for one in value):
        raise Refused(f"expected two numbers as {name}, found {str(value)[:40]}")
    return value[0], value[1]
