"""WebDataset tars, one after the other, in whatever order their members come.

A tar's members are listed first, some 600 bytes of memory a sample, and read where they lie: it must be an uncompressed file.
As WebDataset has it, a member's key is its path up to the first dot of its name, and what follows says what it is. A member of
which that is nothing known (`photo.v2.png`) is looked at once more with everything up to its last dot as key.
"""

import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from astolfo.data.ingest.images import Found, Pictures
from astolfo.data.ingest.pictures import MOST_BYTES
from astolfo.data.ingest.source import LONGEST_CAPTION, LeftOut, Refused, checked_text, clean, decoded_text, shown
from astolfo.ledger.file_kinds import OTHER, PICTURE, SYSTEMS, UNREADABLE, role, why_left

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"PK": "zip", b"7z\xbc\xaf": "7-Zip"}
_JSON = "json"
_BLOCK = 1 << 20
_Extent = tuple[int, int]  # offset and size in the tar


@dataclass(slots=True)
class _Sample:
    """The members of one key: the picture, and texts in their order."""

    picture: _Extent | None = None
    name: str = ""
    texts: list[tuple[str, _Extent]] = field(default_factory=list)


class Tars(Pictures):
    """WebDataset tars."""

    kind = "tars"

    def found(self) -> Iterator[Found]:
        """Samples in the order of the tars and of the first member of each."""
        for number, place in enumerate(self.places):
            with open(place, "rb") as file:
                if packed := next((name for magic, name in _PACKED.items() if _begins(file, magic)), None):
                    yield LeftOut(
                        place.name, f"the tar cannot be read on: it is packed by {packed}. Unpack a compressed one first."
                    )
                    continue
                index = _Index()
                yield from index.read(file, place)
                for key, sample in index.samples.items():
                    yield self._sample(file, number, key, sample)

    def data(self, where: str) -> bytes:
        """The member's bytes."""
        number, start, size = map(int, where.split(":"))
        if size > MOST_BYTES:
            raise Refused(f"the picture has {size:,} bytes")
        with open(self.places[number], "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, start)

    @staticmethod
    def _sample(file: BinaryIO, number: int, key: str, sample: _Sample) -> Found:
        if sample.picture is None:
            return LeftOut(shown(key), "no picture among its members")
        texts: dict[str, str] = {}
        try:
            for what, (start, size) in sorted(sample.texts, key=lambda text: text[0] != _JSON):  # a caption's own file counts
                texts |= _texts(what, os.pread(file.fileno(), min(size, 4 * LONGEST_CAPTION + 1), start))
        except Refused as error:
            return LeftOut(shown(key), str(error))
        return key, texts, f"{number}:{sample.picture[0]}:{sample.picture[1]}"


class _Index:
    """The members of one tar by their keys, in the order in which keys first come."""

    def __init__(self) -> None:
        self.samples: dict[str, _Sample] = {}
        self._doubtful: list[tuple[str, _Extent]] = []  # members whose key depends on what else there is
        self._links: list[tuple[str, str]] = []  # names and targets

    def read(self, file: BinaryIO, place: Path) -> Iterator[LeftOut]:
        """Fills the index; yields what belongs to no sample, and where the tar cannot be read on."""
        try:
            yield from self._members(file)
        except (tarfile.TarError, EOFError, OSError) as error:
            yield LeftOut(place.name, f"the tar cannot be read on: {error}. Captions that came later are missing, too.")
        if self._links:
            yield from self._linked(file)
        for name, extent in self._doubtful:
            if _key(name)[0] in self.samples:
                yield LeftOut(shown(name), f"not the picture or caption of {shown(_key(name)[0])}, but named like it", stray=True)
            else:
                yield from self._add(name, *_by_last_dot(name), extent)

    def _members(self, file: BinaryIO) -> Iterator[LeftOut]:
        size = os.fstat(file.fileno()).st_size
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep every one
                name = clean(member.name)
                if member.isdir():
                    continue
                if member.islnk() or member.issym():
                    self._links.append((name, _target(name, member)))
                elif not member.isreg() or member.issparse():
                    what = "stored with holes, which is not read" if member.isreg() else "no plain file: a pipe or a device"
                    yield LeftOut(shown(name), what, stray=role(name) != PICTURE)
                elif member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"it breaks off in {shown(name)}")
                else:
                    yield from self._member(name, (member.offset_data, member.size))
            _check_end(file, tar.offset, size)

    def _member(self, name: str, extent: _Extent) -> Iterator[LeftOut]:
        key, what = _key(name)
        if what == OTHER and (role(name) == PICTURE or role(name) in ("tags", "sentence")):
            self._doubtful.append((name, extent))
        else:
            yield from self._add(name, key, what, extent)

    def _add(self, name: str, key: str, what: str, extent: _Extent) -> Iterator[LeftOut]:
        if what in (OTHER, SYSTEMS, UNREADABLE):
            yield LeftOut(shown(name), why_left(name), stray=what != UNREADABLE)
            return
        sample = self.samples.setdefault(key, _Sample())
        if what != PICTURE:
            sample.texts.append((what, extent))
        elif sample.picture is None or sample.name == name:
            if sample.picture is not None:
                yield LeftOut(shown(name), "the same member comes again later; the last one counts")
            sample.picture, sample.name = extent, name
        else:
            yield LeftOut(shown(name), f"a second picture of {shown(key)}; the first one counts")

    def _linked(self, file: BinaryIO) -> Iterator[LeftOut]:
        """Adds members that are links to others of the same tar, which is read once more to find those."""
        wanted, found = {target for _, target in self._links}, {}
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]
                if member.isreg() and clean(member.name) in wanted:
                    found[clean(member.name)] = (member.offset_data, member.size)
        for name, target in self._links:
            if target in found:
                yield from self._member(name, found[target])
            else:
                yield LeftOut(shown(name), "a link to what is not in the tar", stray=role(name) != PICTURE)


def _key(name: str) -> tuple[str, str]:
    """WebDataset's key of a member, and what the rest of its name says that it is."""
    folder, file = posixpath.split(name)
    if role(name) == SYSTEMS:
        return name, SYSTEMS
    stem, _, suffix = file.partition(".")
    what = _JSON if suffix.lower() == _JSON else role(f"x.{suffix}") if "." not in suffix else OTHER
    return posixpath.join(folder, stem), what


def _by_last_dot(name: str) -> tuple[str, str]:
    return name.rpartition(".")[0], role(name)


def _target(name: str, member: tarfile.TarInfo) -> str:
    """What a link in a tar leads to: a hard link's target is named from the tar's root, a symbolic one's from where it is."""
    return clean(member.linkname) if member.islnk() else clean(posixpath.join(posixpath.dirname(name), member.linkname))


def _begins(file: BinaryIO, magic: bytes) -> bool:
    return os.pread(file.fileno(), len(magic), 0) == magic


def _check_end(file: BinaryIO, end: int, size: int) -> None:
    """Raises ReadError unless only zeros follow `end`: the library takes a damaged header for the end of the tar."""
    for start in range(end, size, _BLOCK):
        if any(os.pread(file.fileno(), _BLOCK, start)):
            raise tarfile.ReadError(
                f"something that is no member follows byte {end:,}: a damaged header, or a second tar behind it"
            )


def _texts(what: str, data: bytes) -> dict[str, str]:
    """The texts of a tar's member. Raises Refused."""
    if what != _JSON:
        return {what: decoded_text(what, data)}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(f"its .json cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Refused("its .json holds no object")
    texts = {"tags": found.get("tags"), "sentence": found.get("caption")}
    return {name: checked_text(name, text) for name, text in texts.items() if text}
