"""What earlier imports into a ledger read: `imported.yaml`, beside the ledger's own files.

    known = Known.read(Path("config"))          # before an import: empty where there was none
    known.add(found); known.write(Path("config"))

A ledger says what its bases, datasets and runs are called, and not which files that trainer read and saved. An import has to
know, so that a script's file is the entry that an earlier import made of it, and another file of the same name is not.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from astolfo.errors import InputError
from astolfo.files import write_text
from astolfo.kohya.entries import Imported
from astolfo.ledger.files import IMPORTED

_HEAD = """\
# Which files the entries of this ledger were imported from (`astolfo ledger import`), so that the next import knows them again.
# An entry that is not named here was written by hand. Nothing else reads this file.
"""


@dataclass(kw_only=True)
class Known:
    """Files by name of the ledger's entry: of `bases`, what `datasets` are made from, and what each of `runs` saved last."""

    bases: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Known":
        """What is known of the ledger in `folder`. Raises InputError for a file that is no such table."""
        path = folder / IMPORTED
        if not path.exists():
            return cls()
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            known = cls(**{section: dict(found.pop(section, {})) for section in ("bases", "datasets", "runs")}, **found)
            for name, file in (known.bases | known.runs).items():
                if not isinstance(file, str):
                    raise ValueError(f"{name} has {file!r} for a file")
            return known
        except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: expected names and files below bases, datasets and runs ({error}). Restore it, or delete it: the next "
                "import then takes an entry of the same name for the one that its line means."
            ) from None

    def add(self, found: Imported) -> None:
        """What an import made. Datasets of parts are known by their parts, and are not kept here."""
        self.bases |= {name: base.whole for name, base in found.bases.items()}
        self.datasets |= {name: entry.made_from for name, entry in found.datasets.items() if not entry.parts}
        self.runs |= {run.name: run.launch.saves for run in found.runs if run.launch.saves}

    def write(self, folder: Path) -> Path:
        """Writes imported.yaml; returns its path."""
        text = yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True, width=10**6)
        write_text(folder / IMPORTED, _HEAD + text)
        return folder / IMPORTED
