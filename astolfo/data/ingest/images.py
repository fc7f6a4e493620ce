"""What all sources of pictures share: buckets, how files are read, captions that are checked.

folder     a/1.jpg with a/1.txt (tags) and a/1.caption (a sentence), either of which may be missing; the ID is a/1 (`folder`)
tars       members of the same names, and a .json with "tags" and "caption" (`tars`)
table      columns id, image (bytes, or a struct with bytes, or a path beside the table), tags, caption or sentence (`table`)
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from astolfo.data.ingest.bucketing import Bucketing
from astolfo.data.ingest.colours import Reading
from astolfo.data.ingest.pictures import PLAIN, probe, read
from astolfo.data.ingest.source import LeftOut, Loaded, Refused, Row, Source, ahead, checked_id, checked_text, clean, shown
from astolfo.errors import InputError

_UNDER_WAY = 64
Found = tuple[str, dict[str, str], str] | LeftOut  # ID, texts by "tags" and "sentence", where


class Pictures(Source):
    """What the sources of pictures share. `factor` and `channels` are the autoencoder's; `crop` names how crops are recorded."""

    kind: str
    folders = False  # whether a place is a folder, or a file

    def __init__(
        self, places: Sequence[Path], bucketing: Bucketing, *, crop: str, draw: str, factor: int = 8, channels: int = 4,
        reading: Reading = PLAIN,
    ):  # fmt: skip
        for place in places:
            if not (place.is_dir() if self.folders else place.is_file()):
                what = "a folder" if self.folders else "a file"
                raise InputError(f"Expected {what} of pictures at {place}, found {_what_is(place)}. Check the path.")
        self.places, self.bucketing, self.crop, self.factor, self.channels = list(places), bucketing, crop, factor, channels
        self.reading = reading
        if bucketing.step % factor or (bucketing.upscale and bucketing.smallest % factor):
            raise InputError(f"Buckets of {bucketing.smallest} pixels in steps of {bucketing.step} are no multiples of {factor}.")
        self.about = {
            "made by": f"astolfo dataset import {self.kind}", "bucketing": bucketing.about(), "crop": crop, "latents": draw,
            **reading.about(),
        }  # fmt: skip
        self.identity = {"kind": self.kind, "places": [str(place.resolve()) for place in places]}

    def shape(self, bucket: tuple[int, int]) -> tuple[int, int, int]:
        """The autoencoder's channels, one latent for `factor` pixels."""
        return self.channels, bucket[0] // self.factor, bucket[1] // self.factor

    def load(self, row: Row) -> Loaded:
        """The pixels of a row."""
        return read(self.data(row.where), row.bucket, self.crop, self.reading, self.bucketing)

    def rows(self, workers: Executor) -> Iterator[Row | LeftOut]:
        """Every picture with its bucket."""
        for found, future in ahead(workers, self._row, self.found(), _UNDER_WAY):
            name = found.id if isinstance(found, LeftOut) else found[0]
            try:
                yield future.result()
            except Refused as error:
                yield LeftOut(shown(name), str(error))
            except OSError as error:
                yield LeftOut(shown(name), f"the picture cannot be read: {error.strerror or error}")

    def _row(self, found: Found) -> Row | LeftOut:
        if isinstance(found, LeftOut):
            return found
        name, texts, where = found
        checked = {what: checked_text(what, texts.get(what, "")) for what in ("tags", "sentence")}
        bucket = probe(self.data(where), self.bucketing, self.reading)
        return Row(id=checked_id(clean(name)), **checked, where=where, bucket=bucket)

    @abstractmethod
    def found(self) -> Iterator[Found]:
        """Every picture that there is, in the source's order."""

    @abstractmethod
    def data(self, where: str) -> Any:
        """The picture's bytes, or its path."""


def _what_is(place: Path) -> str:
    if place.is_dir():
        return "a folder"
    return "a file" if place.is_file() else "something that is neither file nor folder" if place.exists() else "nothing there"
