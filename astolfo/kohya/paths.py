r"""Paths as command lines have them: of this machine or of another one, of POSIX or of Windows.

whole_path("output/x.safetensors", Folder(script=Path("train.sh"), moved="/data"))      "/data/output/x.safetensors"
same_file("C:\\sd\\x.safetensors") == same_file("c:/sd/X.safetensors")                    True
"""

import ntpath
import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

_MODELS = (".safetensors", ".ckpt", ".pt")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where a command's relative paths begin: the script's folder, or where its `cd` led (`moved`, as the script says it)."""

    script: Path
    moved: str = ""

    @property
    def here(self) -> Path:
        """The folder on this machine, as far as it can be known."""
        return self.script.parent / os.path.expanduser(self.moved)


def plain_path(name: str) -> PurePosixPath | PureWindowsPath:
    """A path as the machine that it was written on understands it."""
    windows = "\\" in name and not name.startswith("/")
    return PureWindowsPath(name) if windows or re.match("[A-Za-z]:", name) else PurePosixPath(name.replace("\\", "/"))


def last(name: str) -> str:
    """The last part of a path."""
    return plain_path(name.rstrip("/\\")).name


def is_whole(name: str) -> bool:
    """Whether a path does not depend on where a command runs, or depends on a variable."""
    return name.startswith(("/", "~", "$", "%", "\\\\")) or bool(re.match("[A-Za-z]:", name))


def joined(folder: str, name: str) -> str:
    """A path below a folder; alone where it is whole."""
    if not folder or is_whole(name):
        return name
    if isinstance(plain_path(folder), PureWindowsPath):
        return ntpath.normpath(ntpath.join(folder, name))
    return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))


def whole_path(name: str, folder: Folder) -> str:
    """A relative path made whole: below the folder where the command runs, or from here where it is here alone.

    A home folder (~, $HOME) is this user's. Links are left as they are.
    """
    name, moved = _home(name), _home(folder.moved)
    if is_whole(name):
        return posixpath.normpath(name.replace("\\", "/")) if name.startswith("/") else name
    if moved and is_whole(moved) and not moved.startswith("/"):
        return joined(moved, name)
    name = name.replace("\\", "/")
    place = folder.script.parent / moved
    if not os.path.exists(place / name) and os.path.exists(name):
        place = Path()
    return os.path.abspath(place / name)


def same_file(path: str) -> str:
    """What two spellings of one path have in common: Windows knows no case, and links lead where they lead."""
    if isinstance(plain_path(path), PureWindowsPath):
        return PureWindowsPath(ntpath.normpath(path)).as_posix().lower()
    return os.path.realpath(path) if path.startswith("/") and "\0" not in path else path


def can_be_pinned(path: str) -> bool:
    """Whether a path is that of a .safetensors file."""
    return plain_path(path).suffix.lower() == ".safetensors"


def is_file(path: str) -> bool:
    """Whether a path is that of a model in a single file, and not of a Diffusers folder or a name on the Hub."""
    return plain_path(path).suffix.lower() in _MODELS


def _home(name: str) -> str:
    return os.path.expanduser(re.sub(r"^\$(HOME|\{HOME\})(?=/|$)", "~", name))
