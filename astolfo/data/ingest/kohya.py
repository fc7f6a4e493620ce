"""sd-scripts' native layout as it is on disk: an index, and a `.npz` of latents per sample.

    meta_lat.json    {"danbooru/123": {"tags": "1girl, solo", "caption": "a girl ...", "train_resolution": [832, 1216]}, ...}
    meta.jsonl       {"image_path": "/set/123.png", "tags": "1girl, solo", "caption": "...", "image_size": [1000, 1500]}

A key is a path below the data's folder, with or without a picture's suffix, or an absolute one that leads there (`prefixes`
say where another machine's lie here). Its latents are where one of that trainer's versions looks for them, see `caches`.
Where two members of the object have one key the last counts, as in that trainer.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import Any

from astolfo.data.ingest.caches import Caches
from astolfo.data.ingest.json_stream import by_lines, lines, members
from astolfo.data.ingest.npz import latent_size, read_npz
from astolfo.data.ingest.source import (
    LeftOut,
    Loaded,
    Refused,
    Row,
    Source,
    checked_id,
    checked_text,
    clean,
    is_absolute,
    relocated,
    shown,
)
from astolfo.errors import InputError
from astolfo.ledger.file_kinds import without_picture_suffix

CHANNELS = 4
FACTOR = 8  # pixels per latent of SDXL's and SD 2.1's autoencoders
_EXAMPLES = 64  # first samples that are asked for theirs, and first strange paths that are looked for
_LARGEST = 1 << 14  # pixels of a bucket's side


class Kohya(Source):
    """The samples of an `index` (.json, or .jsonl by lines) whose `.npz` files lie below `folder`.

    `factor`: pixels per latent; None: as the first samples have it, else 8. `prefixes`: pairs of how keys of another machine
    begin and what is put there instead, a folder's path or nothing. Raises InputError when index or folder is not there, or
    when the first samples have another factor.
    """

    def __init__(self, index: Path, folder: Path, factor: int | None = None, prefixes: Sequence[tuple[str, str]] = ()):
        if not index.is_file() or not folder.is_dir():
            raise InputError(f"Expected an index and the folder of its .npz files, found {index} and {folder}: one is missing.")
        self.index, self.folder, self.prefixes = index, folder, tuple(prefixes)
        self._roots = tuple(dict.fromkeys(f"{place}{os.sep}" for place in (os.path.abspath(folder), os.path.realpath(folder))))
        self._caches = Caches(folder)
        self._strangers: Counter[str] = Counter()  # how keys begin that would be found without it
        self._strange = ""
        self.factor = self._factor(factor)
        self.about = {"made by": "astolfo dataset import kohya"}
        status = index.stat()
        self.identity = {
            "kind": "kohya", "index": str(index.resolve()), "size": status.st_size, "changed": status.st_mtime_ns,
            "folder": str(folder.resolve()), "factor": self.factor, **({"prefixes": self.prefixes} if self.prefixes else {}),
        }  # fmt: skip

    def entries(self) -> Iterator[tuple[str, Any] | LeftOut]:
        """Key and entry of every sample of the index."""
        return lines(self.index) if by_lines(self.index) else members(self.index)

    def _factor(self, given: int | None) -> int:
        """The factor that most of the first samples have, if two have it. Raises InputError when another one is `given`."""
        examples: dict[int, list[str]] = {}
        for one in islice(self.entries(), _EXAMPLES):
            with contextlib.suppress(Refused, OSError):  # such a sample is left out later, with its reason
                if not isinstance(one, LeftOut) and (found := self._own_factor(*one)):
                    examples.setdefault(found[0], []).append(found[1])
        usual = max((factor for factor in examples if len(examples[factor]) > 1), key=lambda f: len(examples[f]), default=None)
        if given and usual and given != usual:
            raise InputError(
                f"{self.index}: expected {given} pixels per latent, as --factor says, found {usual}: {examples[usual][0]}. "
                f"Leave --factor out, or say --factor {usual}."
            )
        return given or usual or FACTOR

    def _own_factor(self, key: str, entry: Any) -> tuple[int, str] | None:
        """Pixels per latent of a sample whose entry and `.npz` both have a size, and these sizes in words. Raises Refused."""
        if not isinstance(entry, dict):
            return None
        name, where = self._place(key, entry)
        width, height = _pair(entry.get("train_resolution"), "train_resolution")
        high, wide = self._caches.read(where, latent_size)
        factor = width // max(1, wide)
        if factor == 0 or (width, height) != (factor * wide, factor * high):
            return None
        return factor, f"{shown(name)} has {width}x{height} pixels and {wide}x{high} latents"

    def shape(self, bucket: tuple[int, int]) -> tuple[int, int, int]:
        """Four channels, one latent for `factor` pixels."""
        return CHANNELS, bucket[0] // self.factor, bucket[1] // self.factor

    def load(self, row: Row) -> Loaded:
        """The `.npz` of a row."""
        shape = self.shape(row.bucket)
        return self._caches.read(row.where, lambda path: read_npz(path, shape))

    def rows(self, workers: Executor) -> Iterator[Row | LeftOut]:
        """The members of the index; where they have no `train_resolution` their `.npz` is asked."""
        found = self.entries()
        while window := list(islice(found, 1024)):
            rows = [one if isinstance(one, LeftOut) else self._row(*one) for one in window]
            if any(isinstance(row, Row) and row.bucket is None for row in rows):
                rows = list(workers.map(self._probed, rows))
            yield from rows

    def hint(self) -> str:
        """That keys of another machine can be said to be here, with the prefix that would have most of them found."""
        if self._strangers:
            old, count = self._strangers.most_common(1)[0]
            found = f"{count} of the first that were tried"
            return f"Keys that begin with {shown(old)} are found here without that ({found}): add --prefix '{shown(old)}='."
        if self._strange:
            return f"Keys such as {self._strange} are another machine's? Then say what is here: --prefix OLD=NEW."
        return ""

    def _row(self, key: str, entry: Any) -> Row | LeftOut:
        """A row; its bucket is None where the index does not say."""
        try:
            if not isinstance(entry, dict):
                checked_id(self._relative_path(key))
                raise Refused(f"expected an object as its entry in the index, found {type(entry).__name__}")
            name, where = self._place(key, entry)
            tags, sentence = checked_text("tags", entry.get("tags") or ""), checked_text("caption", entry.get("caption") or "")
            size = entry.get("train_resolution")
            bucket = None if size is None else self._bucket(size)  # `_probed` finds it then
            return Row(name, tags, sentence, where, bucket)  # type: ignore[arg-type]
        except Refused as error:
            return LeftOut(shown(self._reported_name(key)), str(error))

    def _probed(self, row: Row | LeftOut) -> Row | LeftOut:
        if isinstance(row, LeftOut) or row.bucket is not None:
            return row
        try:
            height, width = self._caches.read(row.where, latent_size)
            return row._replace(bucket=self._bucket([width * self.factor, height * self.factor]))
        except Refused as error:
            return LeftOut(row.id, str(error))
        except OSError as error:
            return LeftOut(row.id, f"cannot be read: {error.strerror or error}")

    def _place(self, key: str, entry: dict[str, Any]) -> tuple[str, str]:
        """A sample's ID, and where its latents are. Raises Refused for a key that leads elsewhere."""
        name, size = checked_id(self._relative_path(key)), entry.get("image_size")
        found = self._caches.find(name, None if size is None else _pair(size, "image_size"))
        return checked_id(found.id), found.where

    def _relative_path(self, key: str) -> str:
        """The key as a path below the folder, as far as it is one."""
        path = clean(relocated(key, self.prefixes))
        for root in self._roots:
            if path.startswith(root):
                return path[len(root) :]
        if is_absolute(path):
            self._look_for(path)
        return path

    def _look_for(self, path: str) -> None:
        """Notes how a path of another machine begins when what comes behind is here; the first ones are looked at."""
        self._strange = self._strange or shown(path)
        if self._strangers.total() < _EXAMPLES and (begin := self._caches.beginning(path)):
            self._strangers[begin] += 1

    def _reported_name(self, key: str) -> str:
        """A key as a report names it: without a picture's suffix, unless it is another machine's."""
        path = clean(relocated(key, self.prefixes))
        return key if is_absolute(path) else without_picture_suffix(path)

    def _bucket(self, size: Any) -> tuple[int, int]:
        width, height = _pair(size, "train_resolution")
        if width % self.factor or height % self.factor:
            raise Refused(f"train_resolution {width}x{height} is no multiple of {self.factor}")
        return height, width


def _pair(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(one) is int and 0 < one <= _LARGEST for one in value):
        raise Refused(f"expected two numbers as {name}, found {str(value)[:40]}")
    return value[0], value[1]
