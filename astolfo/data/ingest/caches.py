"""Where sd-scripts keeps the latents of a picture `a/photo.jpg`, in the order in which they are looked for:

    a/photo.jpg.npz                  the fork that trains from caches alone: the key, whatever its suffix, and `.npz`
    a/photo.npz                      older versions, and newer ones where it is there
    a/photo_1664x2048_sdxl.npz       newer ones: with the picture's width and height, that of the index or any (`_sd.npz`, too)

Suffixes are compared without case. A key that ends in a picture's suffix may be the whole name of another picture's key, less
its own: of `3.jpg.png` the fork has the key `3.jpg`, and its latents in `3.jpg.npz`.
"""

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from astolfo.data.ingest.npz import Missing
from astolfo.data.ingest.source import Refused
from astolfo.ledger.file_kinds import normalized, without_picture_suffix

Read = TypeVar("Read")
_CACHE = re.compile(r"(.+?)(?:_(\d{3,})x(\d{3,})_(sdxl|sd))?\.npz", re.IGNORECASE | re.DOTALL)
_RANKS = {"": 0, "sdxl": 1, "sd": 2}


class Found(NamedTuple):
    """The ID of a sample, and the path of its latents below the folder."""

    id: str
    where: str


class Caches:
    """The `.npz` files below a folder. Threads may share one."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._listed = functools.lru_cache(maxsize=8)(self._list)

    def find(self, key: str, size: tuple[int, int] | None) -> Found:
        """ID and place of the latents of `key`; `size` (width, height) is the index's. Where none is, the place is the usual one.

        The disk is asked only where a key leaves a choice: of 12 million plain keys nearly all need no look.
        """
        stem = without_picture_suffix(key)
        if stem == key and size is None:
            return Found(key, f"{key}.npz")
        if stem != key and self._exists(f"{key}.npz"):
            same = self._exists(f"{stem}.npz") and os.path.samefile(self._folder / f"{key}.npz", self._folder / f"{stem}.npz")
            return Found(stem if same else key, f"{key}.npz")  # photo.jpg and photo.png may both have one
        if not self._exists(f"{stem}.npz") and size is not None:
            for kind in ("sdxl", "sd"):
                if self._exists(sized := f"{stem}_{size[0]:04d}x{size[1]:04d}_{kind}.npz"):
                    return Found(stem, sized)
        return Found(stem, f"{stem}.npz")

    def read(self, where: str, function: Callable[[Path], Read]) -> Read:
        """What `function` makes of the latents at `where`, or of those under another of that trainer's names. Raises Refused."""
        try:
            return function(self._folder / where)
        except Missing:
            others = self._others(where.removesuffix(".npz"))
            if len(others) != 1:
                if others:
                    raise Refused(
                        f"{len(others)} files of latents for it, such as {others[0]}; an image_size would tell which"
                    ) from None
                raise
        return function(self._folder / others[0])

    def beginning(self, path: str) -> str:
        """How an absolute path begins whose rest has latents here; empty where none has."""
        parts = path.split("/")
        for number in range(1, len(parts)):
            rest = "/".join(parts[number:])
            stem = without_picture_suffix(rest)
            if rest and (self._exists(f"{rest}.npz") or self._exists(f"{stem}.npz") or self._others(stem)):
                return "/".join(parts[:number]) or "/"
        return ""

    def _exists(self, where: str) -> bool:
        return os.path.exists(self._folder / where)

    def _others(self, stem: str) -> list[str]:
        """Where else the latents of `stem` may be: under a size of a picture, or a suffix in capital letters."""
        folder, _, name = stem.rpartition("/")
        found = self._listed(folder).get(normalized(name), [])
        best = min((rank for rank, _ in found), default=0)
        return [f"{folder}/{file}" if folder else file for rank, file in found if rank == best]

    def _list(self, folder: str) -> dict[str, list[tuple[int, str]]]:
        """The caches in a folder by the name that they are of; those of one name with a rank, the lowest to be taken."""
        found: dict[str, list[tuple[int, str]]] = {}
        try:
            names = sorted(os.listdir(self._folder / folder))
        except OSError:
            return found
        for name in names:
            if match := _CACHE.fullmatch(name):
                found.setdefault(normalized(match[1]), []).append((_RANKS[(match[4] or "").lower()], name))
        return found
