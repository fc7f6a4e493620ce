"""Recorded digests: what every model of the ledger is, to the last byte, in one numerics class.

config/digests/<scale>/*.json each hold one class (as `astolfo.numerics` names it) and the sha256 of each result and base by
its reference. Where another class was measured to give every one of these digests, it stands in the same record, below
"equal": the two are one class from then on. `compare` tells, model by model, whether a working directory holds the same files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from astolfo import program
from astolfo.digest_cache import digest_of
from astolfo.errors import InputError
from astolfo.files import json_digest, read_json, verified, write_json
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.references import Reference
from astolfo.numerics import class_here

FOLDER = "digests"  # in the ledger's folder
STOPPED = "astolfo.stopped"  # what the metadata of a run's result say when it ended early
IDENTICAL, DIFFERS, NOT_BUILT, UNRECORDED, DAMAGED = "identical", "differs", "not built", "not recorded", "damaged"
BUILT = "built"  # of a ledger that records no digest at all


@dataclass(frozen=True)
class Finding:
    """What was found of one model: the recorded digest, the file's, and the verdict."""

    name: str
    verdict: str
    recorded: str | None = None
    found: str | None = None
    problem: str = ""


def models(ledger: Ledger) -> list[Reference]:
    """Every model of the record: results, the merges that outcomes name, and the bases that the graph makes."""
    found = []
    for run in ledger.runs.values():
        if not run.era.support:
            found.append(Reference(run=run.id))
            if run.entry.outcome.alpha is not None:
                found.append(Reference(run=run.id, alpha=f"{run.entry.outcome.alpha:.2f}"))
    origins = {name: ledger.origin(name) for name in ledger.bases}
    made = [name for name, origin in origins.items() if origin.parents and not (origin.file or origin.stand_in)]
    return found + [Reference(base=name) for name in made]


def records(ledger: Ledger) -> list[dict[str, Any]]:
    """Every record of the ledger's scale: {"numerics": ..., "sha256": {reference: digest}, "stopped": {reference: why}}."""
    files = sorted((ledger.folder / FOLDER / ledger.scale_name).glob("*.json"))
    return [read_json(path) for path in files]


def recorded(ledger: Ledger, numerics: dict[str, str]) -> dict[str, str]:
    """Reference -> sha256 as recorded for this numerics class; empty when there is no record for it."""
    return of_class(records(ledger), numerics)


def of_class(known: list[dict[str, Any]], numerics: dict[str, str]) -> dict[str, str]:
    """The same, of records that were read already."""
    return next((record["sha256"] for record in known if numerics in classes(record)), {})


def verdict_of(name: str, digest: str, known: list[dict[str, Any]]) -> str:
    """How the file of a model stands against records, whichever class made them: identical to one's digest of it, or it differs.

    A model of which none has a digest is not recorded; where no record has any digest at all, it is merely built.
    """
    every = {one["sha256"][name] for one in known if name in one["sha256"]}
    if not any(one["sha256"] for one in known):
        return BUILT
    return IDENTICAL if digest in every else DIFFERS if every else UNRECORDED


def expected(name: str, known: list[dict[str, Any]], numerics: dict[str, str]) -> str | None:
    """The digest of a model to name as the recorded one: this numerics class's, or else that of the first record that has one."""
    found = (record["sha256"].get(name) for record in known)
    return of_class(known, numerics).get(name) or next(filter(None, found), None)


def classes(record: dict[str, Any]) -> list[dict[str, str]]:
    """The numerics classes that a record holds for: the one that made it, and those measured to give all the same digests."""
    return [record["numerics"], *record.get("equal", [])]


def same_class(ledger: Ledger, one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether two classes are the same, or were measured to give the same digests for the whole record."""
    return one == other or any(one in classes(record) and other in classes(record) for record in records(ledger))


def compare(ledger: Ledger, directory: Path, numerics: dict[str, str]) -> list[Finding]:
    """Looks at every model of the ledger in `directory`; each file is hashed and compared with its side-car on the way.

    The digest that a finding names as recorded is `expected`'s.
    """
    known, findings = records(ledger), []
    for reference in models(ledger):
        name, path = str(reference), directory / reference.path
        own = expected(name, known, numerics)
        if not path.exists():
            findings.append(Finding(name, NOT_BUILT, own))
            continue
        try:
            digest = verified(path)
        except InputError as error:
            findings.append(Finding(name, DAMAGED, own, problem=str(error)))
            continue
        findings.append(Finding(name, verdict_of(name, digest, known), own, digest))
    return findings


def record(ledger: Ledger, directory: Path, numerics: dict[str, str]) -> Path:
    """Writes what `directory` holds as the record of this numerics class, over what was recorded before; returns the file.

    When the directory holds exactly what another class's record says, the two classes are merged: that measurement is the
    only way to merge them. Raises InputError when a model of the ledger is missing or damaged: a record is whole.
    """
    findings = compare(ledger, directory, numerics)
    if bad := [finding for finding in findings if finding.found is None]:
        names = ", ".join(finding.name for finding in bad[:5])
        first = program.build_command("ledger", directory=directory)
        raise InputError(f"{len(bad)} of {len(findings)} models are not built or damaged ({names} ...): run `{first}` first.")
    sha256 = {finding.name: finding.found for finding in findings}
    for other in records(ledger):
        if other["sha256"] == sha256:
            return _write(ledger, other | {"equal": [one for one in other.get("equal", []) if one != numerics]}, numerics)
        if numerics in other.get("equal", []):  # merged once, and no more
            _write(ledger, other | {"equal": [one for one in other["equal"] if one != numerics]})
    return _write(ledger, {"numerics": numerics, "sha256": sha256, "stopped": _stopped(ledger, directory)})


def _write(ledger: Ledger, one: dict[str, Any], joining: dict[str, str] | None = None) -> Path:
    """Writes a record, with a class that joins it unless it is the one that made it."""
    equal = [*one.get("equal", []), *([joining] if joining and joining != one["numerics"] else [])]
    path = ledger.folder / FOLDER / ledger.scale_name / f"{json_digest(one['numerics'])[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {key: value for key, value in one.items() if key != "equal"} | ({"equal": equal} if equal else {}))
    return path


def _stopped(ledger: Ledger, directory: Path) -> dict[str, str]:
    """Reference -> why, for the results that say that their run ended early."""
    from astolfo.checkpoint.safefile import open_file

    reasons = {str(one): open_file(directory / one.path).metadata.get(STOPPED) for one in models(ledger) if not one.alpha}
    return {name: why for name, why in reasons.items() if why is not None}


def columns(ledger: Ledger) -> dict[str, Callable[[Ledger, Run], str]]:
    """Columns for `ledger.table.markdown`: what became of each run where it was rebuilt, and its digest per record."""
    found: dict[str, Callable[[Ledger, Run], str]] = {}
    for number, one in enumerate(records(ledger), start=1):
        name = f"{ledger.scale_name}, {one['numerics']['device']} {number}"
        found[f"rebuilt ({name})"] = partial(_rebuilt, one)
        found[f"sha256 ({name})"] = partial(_digest_of, one)
    return found


def _digest_of(one: dict[str, Any], _: Ledger, run: Run) -> str:
    return _short(one["sha256"].get(run.id))


def _short(digest: str | None) -> str:
    return f"`{digest[:16]}`" if digest else ""


def _rebuilt(one: dict[str, Any], _: Ledger, run: Run) -> str:
    """What became of a rebuilt run, and whether the record says otherwise; how pictures look is the evaluations' to say."""
    if run.id not in one["sha256"]:
        return "made on the way" if run.era.support else "not built"
    if run.id in one["stopped"]:
        return f"stopped {one['stopped'][run.id]}"
    return "trained to its end, every number finite: **differs**" if run.entry.outcome.kind == "nan" else "trained to its end"


def report(ledger: Ledger, findings: list[Finding], numerics: dict[str, str]) -> str:
    """The findings as lines: one per model that is there, the count of each verdict, and what to do about what differs."""
    built = [finding for finding in findings if finding.verdict != NOT_BUILT]
    width = max((len(finding.name) for finding in built), default=0)
    lines = []
    for finding in built:
        line = f"{finding.name:{width}}  {finding.verdict:12}  {finding.found or ''}"
        if finding.verdict == DIFFERS:
            line += f"  (recorded: {finding.recorded})"
        lines.append((line + (f"  {finding.problem}" if finding.problem else "")).rstrip())
    counts = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in (IDENTICAL, DIFFERS, DAMAGED)}
    others = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in (NOT_BUILT, UNRECORDED, BUILT)}
    shown = {verdict: count for verdict, count in (counts | others).items() if count or verdict == IDENTICAL}
    lines.append(f"{len(findings)} models: " + ", ".join(f"{count} {verdict}" for verdict, count in shown.items()))
    if counts[DIFFERS]:
        lines.append(advice(ledger, numerics))
    return "\n".join(lines)


def advice(ledger: Ledger, numerics: dict[str, str]) -> str:
    """What it means, and what to do, when a file is not the recorded one on a machine of this numerics class."""
    if recorded(ledger, numerics):
        return (
            "This machine's numerics class is on record, so the recorded bytes are promised here: other code or another ledger "
            f"made what differs, or a fault did. `{program.command('reproduce', 'ID')}` builds it anew and compares."
        )
    return (
        f"This machine's numerics class is not on record (`{program.command('numerics')}` prints it): other bytes are no fault. "
        f"`{program.command('compare', 'RECORDED_FILE', 'FILE')}` says how close they are to a recorded file that you have."
    )


def line_on(ledger: Ledger, path: Path) -> str:
    """One line on a model's file: its sha256, and whether it is the recorded one."""
    known, name, digest = records(ledger), path.name.removesuffix(".safetensors"), digest_of(path)
    verdict = verdict_of(name, digest, known)
    if verdict == IDENTICAL:
        return f"{path}: sha256 {digest}, the recorded one"
    if verdict != DIFFERS:
        return f"{path}: sha256 {digest}; none is on record"
    here = class_here(ledger.scale.device)
    return f"{path}: sha256 {digest}, not the recorded one, {expected(name, known, here)}. {advice(ledger, here)}"
