"""The static site of a working directory: `astolfo site`, `make site`.

    build(ledger, Path("."), Path("site"))

A folder of plain files that opens from a disk: no server, no outside host, nothing to install. It copies what it shows, so
that it can be given away whole. The old site stays until the new one is complete; the same outputs give the same bytes.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from astolfo.errors import InputError
from astolfo.ledger.ledger import Ledger
from astolfo.ledger.table import eras
from astolfo.site.facts import Facts, attestation_path, gather
from astolfo.site.pages import Pages
from astolfo.site.pictures import files
from astolfo.site.plots import draw

log = logging.getLogger(__name__)
MARK = "assets/theme.js"  # what every site has: a folder without it is not ours to replace
_ASSETS = Path(__file__).parent / "assets"


def build(ledger: Ledger, directory: Path, out: Path) -> dict[str, int]:
    """Makes the site of `directory` at `out`, over an older one; returns how much it shows.

    Raises InputError when `out` holds something that is no site, or when an output that the site shows cannot be read.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise InputError(f"{out} is not empty and holds no site: nothing was changed. Choose another folder with --output.")
    begun, facts = time.monotonic(), gather(ledger, directory)
    beside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        _write(facts, beside)
        _swap(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    counts = {
        "run": len(ledger.runs),
        "model": len(facts.models),
        "loss curve": len(facts.curves),
        "evaluation": len(facts.evaluations),
    }
    log.info(
        "%s: %s, in %.1f s",
        out / "index.html",
        ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in counts.items()),
        time.monotonic() - begun,
    )
    return counts


def _write(facts: Facts, folder: Path) -> None:
    shutil.copytree(_ASSETS, folder / "assets")
    for name, text in Pages(facts).all().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")  # not flushed one by one: the folder appears as a whole
    for era, runs in eras(facts.ledger):
        if curves := {run.id: facts.curves[run.id] for run in runs if run.id in facts.curves}:
            draw(curves, f"{era.era}: {era.title}", folder / "losses" / f"{era.era}.png")
    for model in facts.models.values():
        if model.attestation:
            name = attestation_path(model.path)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(facts.directory / name, folder / name)
    for reports in facts.evaluations.values():
        for name, report in reports.items():
            _copy(facts.directory / "evaluations" / name, folder / "evaluations" / name, report)


def _copy(source: Path, target: Path, report: Mapping) -> None:
    """Copies what the site shows of an evaluation. Raises InputError for a file that its report names and that is not there."""
    for name in files(report):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / name, target / name)
        except FileNotFoundError:
            raise InputError(
                f"{source / name} is missing, though {source / 'metrics.json'} names it. Move {source} away, and evaluate again."
            ) from None


def _swap(new: Path, out: Path) -> None:
    """Puts a finished folder in the place of the old one."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        os.replace(out, old)
    os.replace(new, out)
    shutil.rmtree(old, ignore_errors=True)
