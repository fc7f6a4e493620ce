"""Files that are whole or absent, their digests, and locks.

A file is written beside its place, flushed to the disk, and renamed: a killed process or a full disk leaves the old file
or none. Each artifact `X` has a side-car `X.sha256` in the format of the sha256sum program, small enough for a workflow
engine to compare by content, and checkable by hand: `sha256sum -c X.sha256`.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from astolfo.errors import AstolfoError, InputError, PlacementError, StateError

_PATIENCE = 5.0  # seconds
_PIECE, _READERS = 1 << 22, 3  # bytes that are read at once, and by how many threads


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: keys sorted, no spaces, shortest floats, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


@contextlib.contextmanager
def written(path: Path | str) -> Iterator[Path]:
    """Yields a path beside `path` to write to; flushes and renames it when the block ends, removes it when it fails.

    Raises PlacementError when the disk is full, with what is free and what to do; the old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            free = shutil.disk_usage(path.parent).free / 2**30
            raise PlacementError(
                f"The disk is full: {path} could not be written ({free:.2f} GiB free in {path.parent}). "
                "Nothing was lost; free some space and run the same command again."
            ) from error
        raise
    finally:
        beside.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Removes what processes that were killed while writing `path` have left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        process = left.name.rsplit(".", 2)[1]
        if process.isdigit() and not Path("/proc", process).exists():
            left.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Writes `text` (UTF-8) to `path`, whole or not at all."""
    with written(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path | str, kind: type[AstolfoError] = InputError) -> str:
    """A text that a user wrote. Raises `kind` for another encoding than UTF-8, with the line of the first byte that is none."""
    raw = Path(path).read_bytes()
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise kind(
            f"{path}: expected text in UTF-8, found byte 0x{raw[error.start]:02x} at line {line}. Save it as UTF-8."
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path | str) -> Any:
    """A JSON file of a ledger. Raises InputError where it is none, such as after a merge with conflicts."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: this is not valid JSON: {error.msg}. Take the file as it was.") from None


def sha256_of(path: Path | str) -> str:
    """sha256 (hex) of a file's bytes. Of a large file some threads read the next pieces while one is digested."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _PIECE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest, free = hashlib.sha256(), [bytearray(_PIECE) for _ in range(2 * _READERS)]
        read: deque[tuple[bytearray, Future[int]]] = deque()
        with ThreadPoolExecutor(_READERS) as readers:
            for start in range(0, size, _PIECE):
                if not free:
                    free.append(_hash_piece(digest, *read.popleft()))
                buffer = free.pop()
                piece = memoryview(buffer)[: size - start]
                read.append((buffer, readers.submit(_read_into, piece, file.fileno(), start)))
            for buffer, count in read:
                _hash_piece(digest, buffer, count)
        return digest.hexdigest()


def _hash_piece(digest: Any, buffer: bytearray, count: "Future[int]") -> bytearray:
    digest.update(memoryview(buffer)[: count.result()])
    return buffer


def _read_into(piece: memoryview, file: int, start: int) -> int:
    """Fills `piece` from the file's byte `start` on, as far as the file goes; returns how many bytes that are."""
    done = 0
    while count := os.preadv(file, [piece[done:]], start + done):
        done += count
    return done


def sidecar(path: Path | str) -> Path:
    """Where the digest of `path` is kept."""
    path = Path(path)
    return path.with_name(path.name + ".sha256")


def write_sidecar(path: Path | str, digest: str | None = None) -> str:
    """Records the digest of `path` beside it and returns it; hashes the file unless `digest` is given."""
    digest = digest or sha256_of(path)
    write_text(sidecar(path), f"{digest}  {Path(path).name}\n")
    return digest


def read_sidecar(path: Path | str) -> str:
    """The recorded digest of `path`. Raises InputError when there is none or it is not in sha256sum's format."""
    record = sidecar(path)
    try:
        digest = record.read_text(errors="replace").split()[0]
    except (FileNotFoundError, IndexError):
        raise InputError(f"{path} has no digest beside it: expected {record}, as the sha256sum program writes.") from None
    except OSError as error:
        raise InputError(
            f"{record} cannot be read: {error.strerror}. Expected a digest, as the sha256sum program writes."
        ) from None
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise InputError(f"{record} does not hold a sha256: found {digest[:80]!r}.")
    return digest


def verified(path: Path | str) -> str:
    """The digest of `path` after comparing its bytes with its side-car. Raises InputError, with both, when they differ."""
    expected, found = read_sidecar(path), sha256_of(path)
    if found != expected:
        raise InputError(
            f"{path} is damaged: expected sha256 {expected}, found {found}. Or another file was put in its place. Move it to "
            "another folder and run the same command again: it is made anew."
        )
    return found


@contextlib.contextmanager
def exclusive(path: Path | str, what: str) -> Iterator[None]:
    """Holds an exclusive lock on `path` for the block; the system releases it when the process dies, however it dies.

    Raises StateError when another process holds it for more than a few seconds (those of a job whose parent was killed
    need that long to notice).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StateError(f"{what} is in use by another process (lock: {path}). Wait for it, or stop it.") from None
                time.sleep(0.1)
        yield


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
