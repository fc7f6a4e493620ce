"""What every source of samples has: rows, which are cheap to list, and what a row stands for, which is read when it is due.

A row that cannot be used is `LeftOut`, with its reason, and never ends an import by itself.
"""

import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from astolfo.errors import InputError

LONGEST_ID = 1024
LONGEST_CAPTION = 1 << 16  # bytes; a trainer reads some 225 tokens
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = re.compile(r"[\w-][\w .-]*(?:/[\w-][\w .-]*)*", re.ASCII)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Refused(InputError):
    """A sample cannot be used. The message is the reason, as the report of an import says it."""


@dataclass(frozen=True)
class LeftOut:
    """What is not in the store, and why: a sample, or (`stray`) a file among them that is none."""

    id: str
    reason: str
    stray: bool = False


class Row(NamedTuple):
    """A sample to come. `where` tells its source where it lies; `bucket`: height and width in pixels."""

    id: str
    tags: str
    sentence: str
    where: str
    bucket: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a row stands for: `latents` (channels, h, w), or the `pixels` to encode, uint8 (height, width, 3); sizes in pixels.

    `notes` say what of the file was changed or not looked at; a report counts them.
    """

    original_size: tuple[int, int]
    crop: tuple[int, int]
    latents: np.ndarray | None = None
    pixels: np.ndarray | None = None
    notes: tuple[str, ...] = ()


class Source(ABC):
    """Where samples come from.

    `about` goes into the manifest and says how the samples were made; `identity` is what an interrupted import must find
    unchanged to go on. `workers` is a pool of threads to look at files with.
    """

    about: dict[str, Any]
    identity: dict[str, Any]

    @abstractmethod
    def rows(self, workers: Executor) -> Iterator[Row | LeftOut]:
        """Every row, in the source's own order, which is also the store's inside a bucket. Bounded memory."""

    @abstractmethod
    def load(self, row: Row) -> Loaded:
        """What the row stands for. Called by several threads. Raises Refused."""

    @abstractmethod
    def shape(self, bucket: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of a bucket's latents."""

    def hint(self) -> str:
        """What would make more of the source usable, once its rows were listed; empty where nothing is known."""
        return ""


def clean(name: str) -> str:
    """A path without `.`, `//` and `..` where they lead nowhere else: `./a//b/../c` is `a/c`. Not checked."""
    return name if not name or _PLAIN.fullmatch(name) else posixpath.normpath(name)


def relocated(path: str, prefixes: Iterable[tuple[str, str]]) -> str:
    """A path with slashes, and with the first of the (old, new) prefixes that it begins with replaced, whole folders only."""
    path = path.replace("\\", "/")
    for old, new in prefixes:
        old = old.replace("\\", "/").rstrip("/")
        if path == old or path.startswith(f"{old}/"):
            return f"{new.rstrip('/')}{path[len(old) :]}" if new else path[len(old) :].lstrip("/")
    return path


def is_absolute(path: str) -> bool:
    """Whether a path with slashes is absolute, on this machine or on Windows."""
    return path.startswith("/") or bool(re.match("[A-Za-z]:/", path))


def checked_id(name: str) -> str:
    """The ID if it can be one: a relative path with no way out of its folder. Raises Refused."""
    if len(name) < LONGEST_ID // 4 and _PLAIN.fullmatch(name):
        return name
    if _SURROGATE.search(name) or _CONTROL.search(name):
        raise Refused("the ID holds control characters or is not valid Unicode")
    if not name or len(name.encode()) > LONGEST_ID:
        raise Refused(f"expected an ID of 1 to {LONGEST_ID} bytes, found {len(name.encode()):,}")
    if "\\" in name or PurePosixPath(name).is_absolute() or {"..", "."} & set(name.split("/")) or "//" in name or name[-1] == "/":
        raise Refused("the ID leads out of the data's folder, or is no plain relative path")
    return name


def decoded_text(what: str, data: bytes) -> str:
    """A caption from a file's bytes: UTF-8, a BOM dropped, ends of lines made \\n, as that trainer reads it. Raises Refused."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Refused(f"the {what} are UTF-16, not UTF-8: save them as UTF-8")
    if len(data) > 4 * LONGEST_CAPTION:
        raise Refused(f"{what} of more than {LONGEST_CAPTION:,} characters")
    try:
        return checked_text(what, data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"))
    except UnicodeDecodeError:
        raise Refused(f"the {what} are not UTF-8") from None


def checked_text(what: str, text: Any) -> str:
    """A caption, stripped, if it can be one. Raises Refused for another type, control characters and absurd lengths."""
    if not isinstance(text, str):
        raise Refused(f"expected text as {what}, found {type(text).__name__}")
    if len(text) > LONGEST_CAPTION:
        raise Refused(f"{what} of more than {LONGEST_CAPTION:,} characters")
    if text.isprintable():
        return text.strip()
    if found := _CONTROL.search(text):
        raise Refused(f"control character U+{ord(found[0]):04X} in the {what}")
    if _SURROGATE.search(text):
        raise Refused(f"the {what} is not valid Unicode")
    return text.strip()


def shown(name: str) -> str:
    """An ID, or what should have been one, fit for a report."""
    return name[:LONGEST_ID].encode("unicode_escape").decode() if not name.isprintable() else name[:LONGEST_ID]


def ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each item with its future result, in order, `depth` of them under way: a parallel map in bounded memory."""
    iterator = iter(items)
    waiting = [(item, pool.submit(function, item)) for item in islice(iterator, depth)]
    while waiting:
        yield waiting.pop(0)
        waiting.extend((item, pool.submit(function, item)) for item in islice(iterator, 1))
