"""A JSON object of any size, or JSON by lines, as a stream of keys and entries, in bounded memory.

The standard library's decoder reads one member after the other from a window of the file; nothing else is kept. A member that
is nested too deeply, too large or has a key twice inside is passed over and said; what is no JSON ends the stream.
"""

import codecs
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from astolfo.data.ingest.source import LeftOut, shown

_WINDOW = 1 << 22  # bytes that are read at once
_LARGEST = 1 << 21  # characters of a member
_SPACE = re.compile(r"[ \t\n\r]*")
_INSIDE = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)  # possessive: a long string must cost no memory
_TOKEN = re.compile(r'"|[\[\]{}]+')
_KEY = re.compile(r'[ \t\n\r]*"([^"\\]*)"[ \t\n\r]*:[ \t\n\r]*(?={)')
_COMMA = re.compile(r"[ \t\n\r]*,")


def by_lines(path: Path) -> bool:
    """Whether an index is JSON by lines: its suffix says so, or its first line, whatever it is called."""
    with open(path, "rb") as file:
        first = next((line for line in iter(lambda: file.readline(_WINDOW), b"") if line.strip()), b"")
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(first.decode("utf-8-sig"))
        if isinstance(found, dict) and isinstance(found.get("image_path"), str):
            return True
    return path.suffix.lower() in (".jsonl", ".ndjson")


def lines(path: Path) -> Iterator[tuple[str, Any] | LeftOut]:
    """`image_path` and the whole object of each line of a .jsonl; `LeftOut` for what cannot be read."""
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(_WINDOW):
            number += 1
            if not line.endswith(b"\n") and len(line) == _WINDOW:
                while (more := file.readline(_WINDOW)) and not more.endswith(b"\n"):
                    pass
                yield LeftOut(f"{path.name}:{number}", f"its entry in the index is larger than {_WINDOW:,} bytes")
            elif line.strip():
                yield _line(line, f"{path.name}:{number}")


def _line(line: bytes, name: str) -> tuple[str, Any] | LeftOut:
    try:
        found = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        return LeftOut(name, f"its entry in the index cannot be read: {error}")
    if not isinstance(found, dict) or not isinstance(found.get("image_path"), str):
        return LeftOut(name, "expected an object with image_path on each line")
    if type(found) is _Repeated:
        return LeftOut(shown(found["image_path"]), "its entry in the index has a key twice")
    return found["image_path"], found


class _Broken(Exception):
    """What follows cannot be told apart any more."""


def members(path: Path) -> Iterator[tuple[str, Any] | LeftOut]:
    """Key and value of each member of the object in `path`, in order; `LeftOut` for what cannot be read.

    The last thing said of a file that breaks off, or is no JSON object, is where it does.
    """
    with open(path, "rb") as file:
        window = _Window(file)
        try:
            yield from _members(window)
        except (_Broken, _TooLarge, _Twice, RecursionError, UnicodeDecodeError) as error:
            reason = {_Broken: str(error), UnicodeDecodeError: "it is not UTF-8"}.get(type(error), "no key is like that")
            yield LeftOut(path.name, f"the index cannot be read on, some {window.before + window.at:,} characters in: {reason}")


def _members(window: "_Window") -> Iterator[tuple[str, Any] | LeftOut]:
    if window.next() != "{":
        raise _Broken("expected a JSON object, that is {")
    window.at += 1
    if window.next() == "}":
        return window.end()
    while True:
        yield from window.plain()
        key = window.value()
        if not isinstance(key, str):
            raise _Broken(f"expected a key, found {str(key)[:40]!r}")
        window.take(":")
        begin = window.before + window.at
        try:
            yield key, window.value()
        except (RecursionError, _TooLarge, _Twice) as error:
            if not isinstance(error, _Twice):
                window.skip()
            reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            yield LeftOut(shown(key), f"its entry in the index {reason} (character {begin:,})")
        if window.take(",}") == "}":
            return window.end()


class _TooLarge(Exception):
    pass


class _Twice(Exception):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(found)


class _Repeated(dict):
    """An object that had a key twice."""


class _Window:
    """A piece of the file as text; `at` is where the reader is, `before` how many characters were let go."""

    def __init__(self, file: BinaryIO):
        self.file, self.text, self.at, self.before, self.over = file, "", 0, 0, False
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._parse = json.JSONDecoder(object_pairs_hook=_pairs).raw_decode

    def more(self) -> bool:
        """Reads on; lets go of what is behind. False at the end of the file."""
        data = b"" if self.over else self.file.read(_WINDOW)
        self.over = not data
        self.text, self.before, self.at = self.text[self.at :] + self._decode(data, final=self.over), self.before + self.at, 0
        return not self.over

    def next(self) -> str:
        """The next character that is no space, without taking it; raises _Broken at the end of the file."""
        while (at := _SPACE.match(self.text, self.at).end()) == len(self.text):  # type: ignore[union-attr]
            self.at = at
            if not self.more():
                raise _Broken("it breaks off")
        self.at = at
        return self.text[at]

    def take(self, allowed: str) -> str:
        """Takes the next character that is no space, which must be one of `allowed`."""
        if (found := self.next()) not in allowed:
            raise _Broken(f"expected {' or '.join(allowed)}, found {found!r}")
        self.at += 1
        return found

    def end(self) -> None:
        """Nothing but space may follow."""
        while self.more() or self.text.strip():
            if self.text.strip():
                raise _Broken("something follows the object")
            self.at = len(self.text)

    def plain(self) -> Iterator[tuple[str, Any]]:
        """The members that lie whole in the window and have another behind them: nearly all, and this is the quick way."""
        text, parse = self.text, self._parse
        while key := _KEY.match(text, self.at):
            try:
                value, end = parse(text, key.end())
            except (json.JSONDecodeError, RecursionError):
                return
            comma = _COMMA.match(text, end)
            if comma is None or type(value) is _Repeated or end - key.end() > _LARGEST:
                return
            self.at = comma.end()
            yield key[1], value

    def value(self) -> Any:
        """The next value. A number or word at the window's edge may go on behind it, so what follows must be in sight."""
        self.next()
        while True:
            try:
                value, end = self._parse(self.text, self.at)
                if end < len(self.text) or self.over:
                    break
                error: Exception | None = None
            except json.JSONDecodeError as problem:
                error = problem
            if len(self.text) - self.at > _LARGEST:
                raise _TooLarge(f"is larger than {_LARGEST:,} characters") if self.text[self.at] in '{["' else _Broken("no JSON")
            if not self.more():
                if error:
                    raise _Broken("it breaks off or is no JSON here")
                break
        self.at = end
        if type(value) is _Repeated:
            raise _Twice("has a key twice")
        return value

    def skip(self) -> None:
        """Passes over the next value, which is a string, an object or an array, of whatever size and depth."""
        depth = 0
        while True:
            token = _TOKEN.search(self.text, self.at)
            if token is None:
                self.at = len(self.text)
                if not self.more():
                    raise _Broken("it breaks off")
                continue
            found = token[0]
            self.at = token.end()
            if found == '"':
                self._string()
            elif depth + len(found) > 2 * (closing := found.count("}") + found.count("]")):
                depth += len(found) - 2 * closing
            else:
                self.at, depth = token.start() + _closes(found, depth), 0
            if not depth:
                return

    def _string(self) -> None:
        """Passes over the rest of a string."""
        while True:
            self.at = _INSIDE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) and self.text[self.at] == '"':
                self.at += 1
                return
            if not self.more():
                raise _Broken("it breaks off in a string")


def _closes(brackets: str, depth: int) -> int:
    """After how many of the brackets the depth is zero."""
    for number, bracket in enumerate(brackets, start=1):
        depth += 1 if bracket in "[{" else -1
        if not depth:
            return number
    raise _Broken("brackets do not match")
