"""Rebuilds a model from its base in a fresh folder, and compares it with the one that is there or on record.

The fresh folder shares nothing with the first but the ledger and what the user brought (`inputs/`, `pins.yaml`). A model that was
adopted is built here after all; adopted ancestors stay adopted.
"""

from dataclasses import dataclass
from pathlib import Path

import yaml

from astolfo import program
from astolfo.errors import AstolfoError, InputError
from astolfo.files import sha256_of, write_text
from astolfo.ledger import Ledger
from astolfo.ledger.ledger import INPUTS, PINS, read_pins
from astolfo.ledger.references import Reference
from astolfo.numerics import class_here
from astolfo.provenance import digests
from astolfo.provenance.attestation import attestation_path, read, root_of
from astolfo.provenance.compare import DIFFERENT, IDENTICAL, Bounds, Comparison, compare
from astolfo.provenance.published import Published


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What came out: the comparison, the rebuilt file, and whether its whole chain is the same."""

    rebuilt: Path
    comparison: Comparison
    against: str
    same_chain: bool

    def __str__(self) -> str:
        chain = ", and so is its attestation: every ancestor too" if self.same_chain else ""
        if self.comparison.verdict == IDENTICAL:
            return f"{self.rebuilt.name}: reproduced, identical to {self.against}{chain}"
        return f"{self.rebuilt.name} against {self.against}: {self.comparison}\n  the rebuilt file is {self.rebuilt}"


def reproduce(
    ledger: Ledger, reference: Reference, directory: Path, folder: Path, bounds: Bounds, published: Published | None = None
) -> Reproduction:
    """Builds `reference` in the empty `folder` by the program's Snakefile; compares it with `directory`'s, or the record's.

    With `published`, that folder's model is compared with, and its pins count; `directory` gives what its author could not.

    Raises InputError before anything is built when there is nothing to compare with or `folder` is not empty, AstolfoError when
    the build fails.
    """
    existing = published.model if published else directory / reference.path
    known, here = digests.records(ledger), class_here(ledger.scale.device)
    recorded = digests.expected(str(reference), known, here)
    if not existing.exists() and recorded is None:
        raise InputError(
            f"There is nothing to compare with: {existing} is not built, and no digest of {reference} is on record. "
            "Build it first, or name another --directory."
        )
    _prepare(reference, directory, folder, read_pins(published.folder) if published else {})
    _build(ledger, reference, folder)
    rebuilt = folder / reference.path
    if existing.exists():
        return Reproduction(
            rebuilt=rebuilt,
            comparison=compare(existing, rebuilt, bounds, base=_base(rebuilt) if published else None),
            against=str(existing),
            same_chain=_same(existing, rebuilt),
        )
    found = sha256_of(rebuilt)
    same = digests.verdict_of(str(reference), found, known) == digests.IDENTICAL
    differs = (
        f"expected sha256 {recorded}, found {found}; the recorded file is not here to compare. {digests.advice(ledger, here)}"
    )
    comparison = Comparison(verdict=IDENTICAL if same else DIFFERENT, reasons=[] if same else [differs])
    return Reproduction(rebuilt=rebuilt, comparison=comparison, against="the record", same_chain=False)


def _base(rebuilt: Path) -> Path | None:
    """What a rebuilt model was trained or merged from, where its attestation names a base that is there."""
    names = [parent.name for parent in read(rebuilt).parents if parent.role == "base"]
    return next((root_of(rebuilt) / name for name in names if (root_of(rebuilt) / name).exists()), None)


def _prepare(reference: Reference, directory: Path, folder: Path, given: dict[str, str]) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: a model is reproduced in a fresh folder. Name another one with -o.")
    folder.mkdir(parents=True, exist_ok=True)
    pins = {name: digest for name, digest in (read_pins(directory) | given).items() if name != str(reference)}
    if pins:
        write_text(folder / PINS, yaml.safe_dump(pins, sort_keys=True))
    if (directory / INPUTS).exists():
        (folder / INPUTS).symlink_to((directory / INPUTS).resolve())


def _build(ledger: Ledger, reference: Reference, folder: Path) -> None:
    use = program.Use(config=ledger.folder, scale=ledger.scale_name)
    if not program.run_snakemake(folder, use, reference.path):
        raise AstolfoError(f"{reference} could not be rebuilt; the messages stand above, and what was built is in {folder}.")


def _same(a: Path, b: Path) -> bool:
    """Whether two artifacts have the same attestation, which pins those of all their ancestors."""
    files = [attestation_path(path) for path in (a, b)]
    return all(file.exists() for file in files) and files[0].read_bytes() == files[1].read_bytes()
