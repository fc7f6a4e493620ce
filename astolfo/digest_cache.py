"""Digests of files that this program did not make: computed, and remembered away from the files.

    digest_of("model.safetensors")     # sha256 (hex); hashed once, as long as the file stays what it is

A side-car is a promise about a file of this program's making, and nothing is written beside a user's file. What was hashed is
kept below `$XDG_CACHE_HOME/astolfo/digests` (`~/.cache` where that is not set), one small file each, and is believed only
while all that identifies the file is equal: device, inode, size, and the times of its last change to the nanosecond, both that
of its bytes (which a user can set) and that of its inode (which nobody can). A cache that cannot be written costs the hashing,
and nothing else.
"""

import contextlib
import json
import os
import time
from pathlib import Path

from astolfo.errors import InputError, PlacementError
from astolfo.files import read_sidecar, sha256_of, sidecar, verified, write_json

SETTLED = 2.0  # seconds after which a file system's clock tells a later change apart, FAT's and NFS's included
Identity = tuple[int, int, int, int, int]

_here: dict[Identity, str] = {}


def digest_of(path: Path | str) -> str:
    """sha256 (hex) of a file: what is remembered of exactly this file, else hashed now. Side-cars are not looked at."""
    digest = known(path)
    if digest is None:
        before = identity(path)
        digest = sha256_of(path)
        if identity(path) == before:
            remember(path, digest)
    return digest


def known(path: Path | str) -> str | None:
    """The remembered sha256 of exactly this file, or None."""
    found = identity(path)
    if found in _here:
        return _here[found]
    try:
        record = json.loads(_place(found).read_text(encoding="utf-8"))
        digest = record["sha256"] if record["identity"] == list(found) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def remember(path: Path | str, digest: str) -> None:
    """Remembers the sha256 of a file as it is now: in this process, and beyond it when the file has been left alone a while."""
    found = identity(path)
    _here[found] = digest
    if time.time() - max(found[3:]) / 1e9 > SETTLED:
        with contextlib.suppress(OSError, PlacementError):
            write_json(_place(found), {"identity": list(found), "sha256": digest})


def checked(path: Path | str) -> str:
    """The digest of an artifact after comparing its bytes with its side-car, as `files.verified`; it is remembered."""
    digest = verified(path)
    remember(path, digest)
    return digest


def recorded(path: Path | str) -> str | None:
    """What the side-car of an artifact says, if the file has not changed since it was written, else None.

    The inode's time tells: moving another file there sets it, however old that file's bytes are.
    """
    try:
        since = os.stat(sidecar(path)).st_mtime_ns
        return read_sidecar(path) if os.stat(path).st_ctime_ns <= since else None
    except (OSError, InputError):
        return None


def identity(path: Path | str) -> Identity:
    """Device, inode, size, and times of change of bytes and inode (ns). Raises InputError when there is no such file."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"Expected a file at {path}, found none. Check the path.") from None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _place(found: Identity) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "astolfo" / "digests" / f"{found[0]:x}-{found[1]:x}.json"
