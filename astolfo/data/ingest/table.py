"""Parquet tables of pictures: columns id, image (bytes, or a struct with bytes, or a path beside the table), tags, sentence."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from astolfo.data.ingest.images import Found, Pictures
from astolfo.data.ingest.source import LeftOut, Refused, checked_id, clean, is_absolute, relocated
from astolfo.errors import InputError


class Table(Pictures):
    """Parquet tables. A row group is read at a time, once in the listing and once for every bucket in it.

    `prefixes`: how paths of another machine begin, and what that is here; what is left must lie beside the table.
    """

    kind = "table"

    def __init__(self, *args: Any, prefixes: Sequence[tuple[str, str]] = (), **options: Any):
        super().__init__(*args, **options)
        self.prefixes = tuple(prefixes)
        if self.prefixes:
            self.identity["prefixes"] = self.prefixes
        self._absolute = ""
        self._files = []
        self._reading = threading.Lock()  # pictures are asked for by threads, and a ParquetFile serves one at a time
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
                try:
                    with self._reading:
                        rows = file.read_row_group(group, ["id", *texts]).to_pylist()
                except (pa.ArrowException, OSError) as error:
                    yield LeftOut(f"{self.places[number].name}, group {group}", f"the rows cannot be read: {error}")
                    continue
                for at, row in enumerate(rows):
                    if row["id"] is None:
                        yield LeftOut(f"{self.places[number].name}, group {group}, row {at}", "it has no ID")
                        continue
                    found = {"tags": row.get("tags") or "", "sentence": row.get("sentence") or row.get("caption") or ""}
                    yield str(row["id"]), found, f"{number}:{group}:{at}"

    def data(self, where: str) -> Any:
        """The picture's bytes, or its path."""
        number, group, at = map(int, where.split(":"))
        image = self._images(number, group)[at]
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str):
            return self._beside(image, self.places[number].parent)
        if not isinstance(image, bytes):
            raise Refused(f"expected bytes or a path as image, found {type(image).__name__}")
        return image

    def _images(self, number: int, group: int) -> list[Any]:
        with self._reading:
            key, images = self._group
            if key != (number, group):
                try:
                    images = self._files[number].read_row_group(group, ["image"]).column(0).to_pylist()
                except (pa.ArrowException, OSError) as error:
                    raise Refused(f"the pictures of its row group cannot be read: {error}") from None
                self._group = ((number, group), images)
            return images

    def hint(self) -> str:
        """That paths of another machine can be said to be here."""
        if not self._absolute:
            return ""
        folder = self._absolute.rpartition("/")[0] or "/"
        return f"Paths such as {self._absolute} are another machine's? Say where they are beside the table: --prefix '{folder}='."

    def _beside(self, image: str, folder: Path) -> Path:
        """A path below the table's folder. Raises Refused for one that leads elsewhere."""
        path = clean(relocated(image, self.prefixes))
        root = f"{folder.resolve()}/"
        path = path.removeprefix(root) if path.startswith(root) else path
        if is_absolute(path):
            self._absolute = self._absolute or path
        return folder / checked_id(path)
