"""Scripts of shells, as far as they can be known without being run: the commands in them, with their variables filled in.

    commands(Path("train.sh"))      .bat and .cmd are Windows' shell, .ps1 is PowerShell, all else a POSIX shell

Nothing is executed. What only the shell can know (the output of another program, a variable that the script does not set, the way
that an `if` goes) makes a word's `trouble`: it is an error where the word is needed, and none where it is not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya.paths import joined

_ACTIVATES = r"((de)?activate(\.bat|\.ps1)?|(conda|mamba|micromamba)(\.bat|\.exe)?\s+(de)?activate)"
_SURE = re.compile(
    r"(?i)(call\s+)?(set|setlocal|cd|chdir|pushd|popd|echo|title|color|cls|chcp|set-location|sl|push-location|write-host"
    r"|write-output)(?=[\s/\"=.]|$)"
    rf"|(?:(?:call|[&.])\s+)?(?:\"[^\"]*[\\/]|[^\s\"]*[\\/])?{_ACTIVATES}(?=[\s\"]|$)"
)
POSIX_SHELLS = ("bash", "sh", "zsh", "dash", "ksh")
LAUNCHES = re.compile(r"(?i)accelerate(\.exe)?[\"']?(-launch|\.commands\.launch|\s+launch)|\w*(train|tune)\w*\.py")
"""What may be a launch of any trainer, so that nothing is lost that stands in an expression."""
TRAINS = re.compile(r"accelerate\s+launch|\b(sdxl_train\w*|fine_tune)\.py\b")
"""What is surely a launch, or one of the trainers that an import reads."""
_CHANGES = ("cd", "chdir", "set-location", "sl")
_PUSHES, _POPS = ("pushd", "push-location"), ("popd", "pop-location")
_COPIES = ("cp", "mv", "copy", "xcopy", "move", "copy-item", "move-item", "install")
_WRITES = ("set-content", "add-content", "out-file", "new-item")


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word of a command, and the line where it stands. `trouble`: what of it only the shell knows; `text` is then raw."""

    text: str
    line: int
    trouble: str = ""

    def doubted(self, why: str) -> "Word":
        """The same with that trouble, unless it has one already."""
        return replace(self, trouble=self.trouble or why)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file that a script writes from its own lines. `trouble`: why nobody knows what it holds, by its line; of all under 0."""

    text: str
    trouble: Mapping[int, str] = field(default_factory=dict)

    def __add__(self, more: "Written") -> "Written":
        lines = self.text.count("\n")
        return Written(
            text=self.text + more.text,
            trouble={**self.trouble, **{line + lines if line else 0: why for line, why in more.trouble.items()}},
        )


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with its words, the variables that its program sees, and the lines of the script that it was read from.

    `folder`: where `cd` has led by then, as the script says it; "" is where the script was started.
    `writes`: the files that the script has written by then, by their paths as `folder` has them.
    """

    words: tuple[Word, ...]
    environment: Mapping[str, Word]
    line: int
    text: str
    folder: str = ""
    writes: Mapping[str, Written] = field(default_factory=dict)
    trouble: str = ""  # why it may not run as it stands


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a file says: its commands, and what was assumed to read them."""

    path: Path
    text: str
    commands: tuple[Command, ...]
    remarks: tuple[str, ...] = ()


@dataclass(kw_only=True)
class State:
    """What is known while a script is read: variables, lists, and files written so far."""

    variables: dict[str, Word] = field(default_factory=dict)
    lists: dict[str, list[Word]] = field(default_factory=dict)
    exported: dict[str, Word] = field(default_factory=dict)
    writes: dict[str, Written] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    folder: str = ""
    folders: list[str] = field(default_factory=list)  # those that `pushd` left
    trouble: str = ""
    here: str = ""  # the script's own folder
    functions: dict[str, Any] = field(default_factory=dict)  # of the script, as its reader has them
    elsewhere: str = ""  # why a variable may have another value than the script gives it: "line 3 runs settings.sh, ..."

    def set(self, name: str, value: Word) -> None:
        """Gives a variable its value; within an `if`, nobody knows it afterwards."""
        self.variables[name] = value.doubted(self.trouble)
        self.lists.pop(name, None)

    def unset(self, name: str) -> None:
        """A variable is there no more."""
        for known in (self.variables, self.lists, self.exported):
            known.pop(name, None)
        if self.trouble:
            self.forget(name, 0, self.trouble)

    def inner(self) -> "State":
        """The same for a shell within this one, whose variables and folder are its own."""
        return replace(
            self, variables=dict(self.variables), lists=dict(self.lists), exported=dict(self.exported),
            folders=list(self.folders),
        )  # fmt: skip

    def forget(self, name: str, line: int, why: str) -> None:
        """A variable has a value from here on that only the shell knows: `why` it does."""
        self.set(name, Word(text=f"${name}", line=line, trouble=why))

    def forget_all(self, why: str) -> None:
        """Every variable may have another value from here on."""
        self.elsewhere = why
        self.variables = {name: word.doubted(why) for name, word in self.variables.items()}
        self.lists = {name: [one.doubted(why) for one in words] for name, words in self.lists.items()}
        self.exported = {name: word.doubted(why) for name, word in self.exported.items()}

    def get(self, name: str, line: int, spelt: str) -> Word:
        """The value of a variable, as a word at `line`."""
        if name in self.variables:
            return replace(self.variables[name], line=line)
        return Word(text=spelt, line=line, trouble=self.elsewhere or f"the script does not set {name}")

    def run(self, words: Iterable[Word], line: int, text: str, own: Mapping[str, Word] | None = None) -> None:
        """A command is run, with what is exported and `own` variables of its line."""
        given = tuple(words)
        self.commands.append(
            Command(
                words=given, environment=self.exported | dict(own or {}), line=line, text=text, folder=self.folder,
                writes=dict(self.writes), trouble=self.trouble,
            )
        )  # fmt: skip
        name = given[0].text.lower() if given else ""
        for word in _written(name, given[1:]):
            self.write(word, Written(text="", trouble={0: f"line {line} writes it by `{name}`"}))
        if name in (*_CHANGES, *_PUSHES, *_POPS):
            self._change(name, [word for word in given[1:] if not re.fullmatch(r"/d|--?\w+", word.text, re.IGNORECASE)], line)

    def write(self, name: str, what: Written, more: bool = False) -> None:
        """A file is written; with `more`, at its end."""
        path = joined(self.folder, name)
        if more and path not in self.writes and what.text:
            what = replace(what, trouble={**what.trouble, 0: "the script writes at its end, and its beginning is not known"})
        self.writes[path] = self.writes[path] + what if more and path in self.writes else what

    def _change(self, name: str, to: Sequence[Word], line: int) -> None:
        """`cd` and its like. Where nobody knows where it leads, the folder is one whose name begins with a $."""
        before = self.folder
        target = to[0].text if to else "~"
        if name in _POPS:
            self.folder = self.folders.pop() if self.folders else f"$FOLDER_OF_LINE_{line}"
        elif target == "-" or self.trouble:
            self.folder = f"$FOLDER_OF_LINE_{line}"
        else:
            self.folder = joined(self.folder, target)
        if name in _PUSHES:
            self.folders.append(before)


def _written(name: str, words: Sequence[Word]) -> list[str]:
    """The files that a command changes, as far as its name tells: what they hold afterwards is known to nobody."""
    files = [word.text for word in words if not word.text.startswith("-")]
    if name in _COPIES:
        return files[-1:]
    edits = name in ("sed", "perl") and any(re.match(r"-(\w*i|-in-place)", word.text) for word in words)
    return files if edits or name in _WRITES else []


def sure(text: str) -> bool:
    """Whether a command is taken to succeed, so that what `&&` puts after it runs: in a script of a run that was trained."""
    return bool(_SURE.match(text) or LAUNCHES.search(text))


def activates(words: Sequence[Word]) -> bool:
    """Whether a command makes a Python environment the current one: it sets none of the variables that a launch is read for."""
    name = re.split(r"[\\/]", words[0].text)[-1]
    return any(re.fullmatch(f"(?i){_ACTIVATES}", one) for one in (name, " ".join([name, *(word.text for word in words[1:2])])))


def read(path: Path) -> Script:
    """The commands of a script. Raises InputError for a file that is missing, no text, or not closed (a quote, an `if`)."""
    return parse(path, read_text(path))


def parse(path: Path, text: str) -> Script:
    """The same of a script whose text is known."""
    from astolfo.kohya import batch, posix, powershell

    suffix = path.suffix.lower()
    if suffix in (".bat", ".cmd") or _continues(text, "^"):
        state = batch.run(path, text)
    elif suffix == ".ps1" or _continues(text, "`"):
        state = powershell.run(path, text)
    else:
        state = posix.run(path, text)
    return Script(path=path, text=text, commands=tuple(state.commands), remarks=tuple(state.remarks))


def _continues(text: str, mark: str) -> bool:
    """Whether lines are continued as another shell does it, whatever the file is called."""
    ends = [line.rstrip()[-2:] for line in text.rstrip().split("\n")[:-1]]
    return ends.count(f" {mark}") > sum(end.endswith("\\") for end in ends)


def read_text(path: Path) -> str:
    """A file's text, with newlines as they are here. Raises InputError for one that is missing or no text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a file to read, found none that can be: {error.strerror}.") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # PowerShell's > writes the former
    try:
        return data.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: expected a script or a TOML file, found bytes that are not {encoding.upper().removesuffix('-SIG')}."
        ) from None
