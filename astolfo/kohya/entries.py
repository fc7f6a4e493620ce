"""What an import finds: runs, bases and datasets as the ledger would have them, and what it has no counterpart for."""

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from astolfo.kohya.dataset import DatasetEntry
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
