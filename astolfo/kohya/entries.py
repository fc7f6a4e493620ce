"""What an import finds: runs, bases and datasets as the ledger would have them, and what it has no counterpart for."""

from dataclasses import dataclass, field
from typing import Any

from astolfo.kohya.dataset import DatasetEntry
from astolfo.kohya.launch import Launch
from astolfo.kohya.paths import whole_path
from astolfo.kohya.values import Refusal, Values


@dataclass(kw_only=True)
class ImportedRun:
    """A run as the ledger would have it, with the launch that it was read from and the account of its options."""

    name: str
    fields: dict[str, Any]
    values: Values
    notes: list[str] = field(default_factory=list)
    folder: str = ""  # where the launch saves
    stem: str = "last"  # as what

    @property
    def launch(self) -> Launch:
        return self.values.launch

    @property
    def saved(self) -> str:
        """The whole path of the model that the launch saves last; "" where only the shell knows it."""
        if "output_dir" in self.launch.given and self.launch.given["output_dir"].trouble:
            return ""
        slash = "\\" if "\\" in self.folder else "/"
        return whole_path(f"{self.folder.rstrip('/') or '.'}{slash}{self.stem or 'last'}.safetensors", self.launch.folder)


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
