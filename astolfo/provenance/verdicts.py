"""Recorded verdicts: what became of each run's pictures where it was rebuilt, beside what the record says.

config/verdicts/<scale>/*.json each hold one numerics class and, by run, the summary of its evaluation and the digest of the
result that was judged. `record` writes them from a working directory's evaluations/, `columns` shows them in docs/ledger.md.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.files import json_digest, read_json, write_json
from astolfo.ledger.evaluations import own_verdicts
from astolfo.ledger.ledger import Ledger, Run

FOLDER = "verdicts"  # in the ledger's folder
_KEPT = ("runtime", "uncond", "own", "verdict", "alpha", "best", "works_at", "sentence")
WORDS = {
    "success": ("works",),
    "works-after-merge": ("works after merge",),
    "partial": ("kinda works",),
    "failure": ("blur", "broken"),
    "stopped": ("blur", "broken"),  # people stop what fails
    "nan": ("broken",),
}  # by outcome: what is as recorded


def records(ledger: Ledger) -> list[dict[str, Any]]:
    """Every record of the ledger's scale: {"numerics": ..., "verdicts": {run: {"sha256", "objective", "summary"}}}."""
    files = sorted((ledger.folder / FOLDER / ledger.scale_name).glob("*.json"))
    return [read_json(path) for path in files]


def found_in(ledger: Ledger, directory: Path) -> dict[str, dict[str, Any]]:
    """The verdicts of the evaluations in `directory` under the set `default`, by run, in the ledger's order.

    Raises InputError for one that is damaged.
    """
    found = {}
    for run in ledger.runs:
        path = directory / "evaluations" / run / "metrics.json"
        if not path.exists():
            continue
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            summary = [{key: one[key] for key in _KEPT} for one in report["summary"]]
            sha256, objective = report["models"]["trained"]["sha256"], report["objective"]["kind"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no evaluation of this version ({error!r}). Move it away and make it again.") from None
        found[run] = {"sha256": sha256, "objective": objective, "summary": summary}
    return found


def record(ledger: Ledger, directory: Path, numerics: Mapping[str, str]) -> tuple[Path, int]:
    """Adds the verdicts that `directory` holds to the record of this numerics class; returns the file and how many were added.

    Runs that are not evaluated there keep what was recorded before. Raises InputError when none is evaluated.
    """
    found = found_in(ledger, directory)
    if not found:
        raise InputError(f"{directory}/evaluations holds no evaluation: make one first, such as {_example(ledger)}.")
    path = ledger.folder / FOLDER / ledger.scale_name / f"{json_digest(numerics)[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before: dict[str, Any] = next((one["verdicts"] for one in records(ledger) if one["numerics"] == numerics), {})
    write_json(path, {"numerics": dict(numerics), "verdicts": {**before, **found}})
    return path, len(found)


def _example(ledger: Ledger) -> str:
    run = ledger.newest()
    return f"evaluations/{run.id}/index.html" if run else "that of a run, of which the ledger has none"


def columns(ledger: Ledger) -> dict[str, Callable[[Ledger, Run], str]]:
    """A column for `ledger.table.markdown` per record: each judged run's verdicts under its own objective."""
    found: dict[str, Callable[[Ledger, Run], str]] = {}
    for number, one in enumerate(records(ledger), start=1):
        name = f"pictures ({ledger.scale_name}, {one['numerics']['device']} {number})"
        found[name] = partial(_column_of, one)
    return found


def _column_of(one: dict[str, Any], _: Ledger, run: Run) -> str:
    return in_words(run, one["verdicts"].get(run.id))


def in_words(run: Run, judged: Mapping[str, Any] | None) -> str:
    """The verdicts of a run in a few words, and whether the record's outcome agrees; "" for a run that was not judged."""
    if judged is None:
        return ""
    own = own_verdicts(judged)
    words = "; ".join(f"{one['uncond']} uncond {_one(one)}" for one in own)
    return words + _agreement(run, own)


def _one(summary: Mapping[str, Any]) -> str:
    if summary["best"] is None:
        return summary["verdict"]
    return summary["verdict"] + (f" (best at {summary['best']:.2f})" if summary["best"] != 1.0 else "")


def _agreement(run: Run, own: Sequence[Mapping[str, Any]]) -> str:
    """What follows a verdict: nothing where the record says nothing that a verdict can contradict."""
    return {None: "", True: ": as recorded", False: ": **differs**"}[agrees(run, own)]


def agrees(run: Run, own: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether one of its own verdicts is what a run's outcome says; None for an outcome that no verdict can contradict."""
    expected = WORDS.get(run.entry.outcome.kind)
    return None if expected is None else any(one["verdict"] in expected for one in own)


def report(ledger: Ledger, directory: Path) -> str:
    """What the evaluations in `directory` say, one line per run and way of sampling, beside the record's outcome."""
    lines = []
    for run_id, judged in found_in(ledger, directory).items():
        run = ledger.run(run_id)
        lines.append(f"{run_id}  record: {run.entry.outcome.text or 'nothing'}")
        for one in judged["summary"]:
            foreign = "" if one["own"] else " (foreign)"
            lines.append(f"          {one['runtime']} runtime, {one['uncond']} uncond{foreign}: {one['sentence']}")
    return "\n".join(lines) or f"{directory}/evaluations holds no evaluation."
