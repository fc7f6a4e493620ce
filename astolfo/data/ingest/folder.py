"""A folder of pictures and those below it, with captions beside them. Every file is a picture, a caption of one, or left out.

Captions are `1.txt` (tags) and `1.caption` (a sentence) of `1.jpg`, or, as some programs name them, `1.jpg.txt`; with an
`extension` those of that suffix alone. Suffixes are compared without case. Links to folders are followed, unless they lead back
to where they are.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from astolfo.data.ingest.bucketing import Bucketing
from astolfo.data.ingest.images import Found, Pictures
from astolfo.data.ingest.source import LONGEST_CAPTION, LeftOut, Refused, decoded_text, shown
from astolfo.ledger.file_kinds import CAPTIONS, PICTURE, UNREADABLE, normalized, role, split, why_left

_Place = tuple[int, int]  # device and inode of a folder


class Folder(Pictures):
    """A folder of pictures and those below it, by name."""

    kind = "folder"
    folders = True

    def __init__(self, places: Sequence[Path], bucketing: Bucketing, *, extension: str | None = None, **options: Any):
        super().__init__(places, bucketing, **options)
        self.extension = extension
        if extension:
            self.about["captions"] = self.identity["captions"] = extension

    def found(self) -> Iterator[Found]:
        """Pictures in the order of their paths, a folder's own before those below it."""
        yield from self._folder("", ())

    def data(self, where: str) -> Path:
        """The picture's path."""
        return self.places[0] / where

    def _folder(self, inside: str, above: tuple[_Place, ...]) -> Iterator[Found]:
        """What is in the folder `inside` ("" or a path with a slash at its end), which lies below the folders `above`."""
        try:
            status = os.stat(self.places[0] / inside)
            with os.scandir(self.places[0] / inside) as entries:
                found = sorted((entry.name, *_file_or_folder(entry)) for entry in entries)
        except OSError as error:
            yield LeftOut(shown(inside.rstrip("/") or "."), f"the folder cannot be read: {error.strerror or error}")
            return
        here = (status.st_dev, status.st_ino)
        if here in above:
            yield LeftOut(shown(inside.rstrip("/")), "a link to a folder that it lies in", stray=True)
            return
        yield from self._files(inside, [name for name, _, file in found if file])
        for name, folder, file in found:
            if folder:
                yield from self._folder(f"{inside}{name}/", (*above, here))
            elif not file:
                reason = "no plain file: a broken link, a pipe, a socket or a device"
                yield LeftOut(shown(inside + name), reason, stray=role(name) != PICTURE)

    def _files(self, inside: str, names: list[str]) -> Iterator[Found]:
        """The pictures among the files of one folder with their captions, and why the others are left out."""
        captions = {name: kind for name in names if (kind := role(name)) in CAPTIONS.values() and self._read(name)}
        stems: dict[str, dict[str, str]] = {}
        for name in sorted(captions, reverse=True):  # of 1.txt and 1.TXT the first in this order stays: lower case
            stems.setdefault(normalized(split(name)[0]), {}).setdefault(captions[name], name)
        for name in names:
            if role(name) != PICTURE:
                continue
            stem = split(name)[0]
            beside = {**stems.get(normalized(name), {}), **stems.get(normalized(stem), {})}
            for caption in beside.values():
                captions.pop(caption, None)
            yield self._one(inside, stem, name, beside)
        yield from (LeftOut(shown(inside + name), "a caption without its picture") for name in names if name in captions)
        for name in names:
            if role(name) != PICTURE and role(name) not in CAPTIONS.values():
                yield LeftOut(shown(inside + name), why_left(name), stray=role(name) != UNREADABLE)
            elif role(name) != PICTURE and not self._read(name):
                yield LeftOut(shown(inside + name), f"a caption, of which those in {self.extension} alone are read", stray=True)

    def _read(self, name: str) -> bool:
        """Whether a caption is one of those that are read."""
        return self.extension in (None, split(name)[1])

    def _one(self, inside: str, stem: str, name: str, beside: dict[str, str]) -> Found:
        texts = {}
        for what, caption in beside.items():
            try:
                with open(self.places[0] / (inside + caption), "rb") as file:
                    texts[what] = decoded_text(what, file.read(4 * LONGEST_CAPTION + 1))
            except Refused as error:
                return LeftOut(shown(inside + stem), str(error))
            except OSError as error:
                return LeftOut(shown(inside + stem), f"its {what} cannot be read: {error.strerror or error}")
        return inside + stem, texts, inside + name


def _file_or_folder(entry: os.DirEntry) -> tuple[bool, bool]:
    """Whether an entry is a folder, and whether it is a file; neither where the system cannot tell (a link to itself)."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:
        return False, False
