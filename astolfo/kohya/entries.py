"""What an import finds: runs, bases and datasets as the ledger would have them, and what it has no counterpart for."""

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from astolfo.kohya.launch import Launch
from astolfo.kohya.values import Refusal, Values


@dataclass(kw_only=True)
class ImportedRun:
    """A run as the ledger would have it, with the launch that it was read from and the account of its options."""

    name: str
    fields: dict[str, Any]
    values: Values
    notes: list[str] = field(default_factory=list)

    @property
    def launch(self) -> Launch:
        return self.values.launch


@dataclass(kw_only=True)
class BaseEntry:
    """A base of the ledger that is to be written."""

    name: str
    fields: dict[str, Any]
    path: str  # as the line has it
    whole: str  # the same as a whole path, where it is one
    file: str  # the whole path, where it is a file that can be pinned


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A folder of pictures, or an index with its folder."""

    folder: str
    index: str = ""
    repeats: int = 1
    flip: bool = False  # encoded both ways round
    words: str = ""  # class tokens: the caption of a picture without one


@dataclass(frozen=True, kw_only=True)
class Source:
    """All that one launch trains on, before it has a name."""

    subsets: tuple[Subset, ...]
    family: str
    bucketing: tuple[tuple[str, Any], ...] = ()  # options of `dataset import`
    autoencoder: str = ""  # a file in the place of the family's
    extension: str = ""  # of the captions beside pictures; "" where an index has them
    proposal: str = "dataset"


@dataclass(kw_only=True)
class DatasetEntry:
    """A dataset of the ledger that is to be written."""

    name: str
    source: Source
    images: int | None = None
    autoencoder: str = "sdxl-vae"
    parts: dict[str, int] = field(default_factory=dict)  # names of other datasets, and how often each is taken
    folder: str = ""  # of pictures that the graph imports as they are
    words: list[str] = field(default_factory=list)  # of the `astolfo dataset import` that makes its store
    made_from: dict[str, Any] = field(default_factory=dict)  # what tells it from every other one of a single store
    encoder: str = ""  # the file whose autoencoder that trainer encodes with: its own, or the base's; "" where it is none

    @property
    def store(self) -> str:
        """Where its store is to lie."""
        return f"stores/{self.name}"

    @property
    def pictures(self) -> bool:
        """Whether its store is made of pictures, which are encoded first."""
        return not self.parts and not self.source.subsets[0].index


@dataclass(kw_only=True)
class Imported:
    """All that files say, as a ledger has it."""

    called: frozenset[str] = frozenset()  # what launches call their runs: no base or dataset takes such a name
    runs: list[ImportedRun] = field(default_factory=list)
    bases: dict[str, BaseEntry] = field(default_factory=dict)
    datasets: dict[str, DatasetEntry] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # launches that are no runs
    remarks: list[str] = field(default_factory=list)


def plain_name(text: str) -> str:
    """A text as a name of the ledger; "" where no letter of it is one."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")


def free_name(name: str, taken: Container[str]) -> str:
    """A name, or the first of NAME-2, NAME-3 ... that nothing has yet."""
    found, again = name, 2
    while found in taken:
        found, again = f"{name}-{again}", again + 1
    return found
