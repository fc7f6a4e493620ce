"""What becomes of each option of sd-scripts' trainers and of `accelerate launch`: the tables options.yaml and accelerate.yaml.

options().find("noise_offset")          Option(becomes="key", key="objective.noise_offset", ...)
accelerate().find("fsdp_version")       a name that ends in * stands for all that begin so
page()                                  the tables as docs/sd-scripts.md has them
"""

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

_FOLDER = Path(__file__).parent
TRAINERS = {
    "sdxl": "sdxl_train.py", "fine_tune": "fine_tune.py", "train-native": "train-native", "bluvoll": "bluvoll", "gui": "the GUI",
}  # fmt: skip
Becomes = Literal["key", "placement", "none", "refused"]
_SECRET = re.compile(r"(?i)(^|_)(api|access|private|auth)_?key(_id)?$|(^|_)(token|password|passwd|secret)$")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option: what it takes, the trainer's default, and what becomes of it. See options.yaml."""

    name: str
    takes: str | tuple[str, ...]
    becomes: Becomes
    of: tuple[str, ...] = ("sdxl", "fine_tune")
    default: Any = None
    key: str = ""
    why: str = ""
    nearest: str = ""

    @property
    def flag(self) -> bool:
        return self.takes == "flag"

    @property
    def secret(self) -> bool:
        """Whether its value must not be written down."""
        return self.why.startswith("A secret") or bool(_SECRET.search(self.name.replace("-", "_")))


class Table:
    """Options by name, in groups; names that end in * stand for all that begin so."""

    def __init__(self, file: str):
        groups = yaml.safe_load((_FOLDER / file).read_text(encoding="utf-8"))
        self.groups = {group["title"]: [_option(*one) for one in group["options"].items()] for group in groups}
        self.all = {option.name: option for members in self.groups.values() for option in members}

    def find(self, name: str) -> Option | None:
        """The option of that name, with or without dashes; None for an unknown one."""
        plain = name.lstrip("-").replace("-", "_")
        if plain in self.all:
            return self.all[plain]
        for option in self.all.values():
            if option.name.endswith("*") and plain.startswith(option.name[:-1]):
                return option
        return None

    def abbreviated(self, name: str, trainer: str) -> list[Option]:
        """The options of a trainer that begin so: argparse takes a prefix for the whole where only one begins with it."""
        plain = name.lstrip("-")
        return [one for one in self.all.values() if one.name.startswith(plain) and trainer in one.of]

    def close_matches(self, name: str) -> list[str]:
        """Names that are spelt almost so."""
        return difflib.get_close_matches(name.lstrip("-"), self.all, n=2)


def _option(name: str, given: dict[str, Any]) -> Option:
    takes, of = given.get("takes", "flag"), given.get("of", ("sdxl", "fine_tune"))
    rest = {key: value for key, value in given.items() if key not in ("takes", "of")}
    return Option(
        name=name,
        takes=tuple(takes) if isinstance(takes, list) else takes,
        of=(of,) if isinstance(of, str) else tuple(of),
        **rest,
    )


@cache
def options() -> Table:
    """The trainers' own options."""
    return Table("options.yaml")


@cache
def accelerate() -> Table:
    """The options of `accelerate launch`, and the keys of its configuration file."""
    return Table("accelerate.yaml")


def names_secret(name: str) -> bool:
    """Whether the value of an option must not be written down: by its name, or by an option's whose name begins so."""
    plain = name.lstrip("-").replace("-", "_")
    begins = [one for one in options().all.values() if one.name.startswith(plain)]
    known = [one for one in (options().find(plain), accelerate().find(plain)) if one] or begins
    return any(one.secret for one in known) or bool(_SECRET.search(plain))
