"""What a folder of pictures holds, as one digest: by it the graph knows whether a dataset is to be imported again.

    content(Path("pictures"))        Content(pictures=20, digest="...")

It is over the names and bytes of every picture and caption, however deep; other files and times do not count. What was hashed is
remembered in the working directory, so that only what is new or changed is read again.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astolfo.digest_cache import SETTLED, identity
from astolfo.errors import PlacementError
from astolfo.files import json_digest, sha256_of, write_json
from astolfo.ledger.file_kinds import CAPTIONS, PICTURE, normalized, role, split

MEMORY = Path(".astolfo") / "content.json"


@dataclass(frozen=True, kw_only=True)
class Content:
    """How many pictures a folder holds, and the sha256 (hex) over what they and their captions are."""

    pictures: int
    digest: str


def content(folder: Path) -> Content | None:
    """What the folder holds; None where there is none."""
    if not folder.is_dir():
        return None
    memory = _remembered()
    place = str(folder.resolve()).encode("utf-8", "backslashreplace").decode()
    before: dict[str, list[Any]] = memory.get(place, {})
    now: dict[str, list[Any]] = {}
    found: dict[str, str] = {}
    for name in _files(folder):
        status = list(identity(folder / name))
        known = before.get(name)
        try:
            digest = known[1] if known and known[0] == status else sha256_of(folder / name)
        except OSError as error:  # an import leaves it out, with this reason
            found[name] = f"cannot be read: {error.strerror}"
            continue
        found[name] = digest
        if time.time() - max(status[3:]) / 1e9 > SETTLED:
            now[name] = [status, digest]
    if now != before:
        with contextlib.suppress(OSError, PlacementError):  # what cannot be remembered is read again
            write_json(MEMORY, memory | {place: now})
    plain = {name.encode("utf-8", "backslashreplace").decode(): digest for name, digest in found.items()}
    return Content(pictures=sum(role(name) == PICTURE for name in found), digest=json_digest(plain))


def count(place: Path) -> int | None:
    """How many samples a folder of pictures gives, by their names, or a store has; None where there is neither."""
    if (place / "store.json").is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((place / "store.json").read_text(encoding="utf-8"))["images"])
        return None
    if not place.is_dir():
        return None
    names = (Path(name) for name in _files(place) if role(name) == PICTURE)
    return len({(name.parent, normalized(split(name.name)[0])) for name in names}) or None  # of a.jpg and a.png one is taken


def holds_pictures(place: Path) -> bool:
    """Whether pictures lie in a folder itself, whatever is in those below it."""
    with contextlib.suppress(OSError):
        return any(role(one.name) == PICTURE for one in place.iterdir())
    return False


def captioned(place: Path, extension: str = "") -> bool:
    """Whether a folder is here and each of its pictures has a caption (of that extension) beside it: 1.txt, or 1.jpg.txt."""
    names = list(_files(place)) if place.is_dir() else []
    captions = {normalized(split(name)[0]) for name in names if role(name) != PICTURE and extension in ("", split(name)[1])}
    pictures = [normalized(name) for name in names if role(name) == PICTURE]
    return bool(pictures) and all(captions & {name, split(name)[0]} for name in pictures)


def extensions(place: Path) -> set[str] | None:
    """Suffixes that the captions of the pictures in a folder have; None where there is no folder."""
    if not place.is_dir():
        return None
    names = list(_files(place))
    pictures = {normalized(one) for name in names if role(name) == PICTURE for one in (name, split(name)[0])}
    return {split(name)[1] for name in names if role(name) != PICTURE and normalized(split(name)[0]) in pictures}


def digest_of_store(folder: Path) -> str:
    """The digest that a store's manifest says; "unknown" where there is no store. The store's own reader checks it."""
    try:
        found = json.loads((folder / "store.json").read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
    return found if isinstance(found, str) else "unknown"


def _remembered() -> dict[str, Any]:
    try:
        found = json.loads(MEMORY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _files(folder: Path) -> Iterator[str]:
    """Pictures and captions by their paths below the folder. Links to folders are followed, unless they lead back."""
    seen = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if os.path.realpath(os.path.join(place, name)) not in seen]
        seen |= {os.path.realpath(os.path.join(place, name)) for name in folders}
        inside = Path(place).relative_to(folder)
        for name in sorted(files):
            if (role(name) == PICTURE or role(name) in CAPTIONS.values()) and os.path.isfile(folder / inside / name):
                yield (inside / name).as_posix()
