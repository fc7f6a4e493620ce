"""Which code and which lock made an artifact, and whether they still are the ones in use.

The record of an artifact's job (`astolfo.provenance.jobs`) holds the spec's verb and identity, the digests of the code and of the
lock file in use, and those that the plan had named. Where there is no record the artifact's attestation tells the same, and
Snakemake's own metadata what the plan had named. An artifact whose code or lock has changed since is stale. At the miniature
scale Snakemake makes it again; at full scale, where it may have taken 45 days, nothing is restarted:

    astolfo stale                              what is stale, and why
    astolfo accept my-first --reason "..."     keep it, on record: X.accepted.json, which attestations repeat
    snakemake ... --config rebuild=my-first    make it again

A training goes on from a stale state only when that was accepted. Imports nothing heavy.
"""

import ast
import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astolfo import program
from astolfo.errors import InputError, PlacementError, StateError
from astolfo.files import write_json
from astolfo.ledger.code import VERBS, code_digest
from astolfo.ledger.references import parse
from astolfo.ledger.specs import identity
from astolfo.provenance import attestation, jobs
from astolfo.provenance.attestation import ACCEPTED

log = logging.getLogger(__name__)
Params = Callable[[str], Iterable[str] | None]
_PLACES = ("vocabulary/*", "rebuilt/*", "datasets/*/*", "bases/*", "states/*/*", "results/*", "evaluations/*/*")
_KINDS = {
    "bases": "base", "datasets": "dataset", "evaluations": "evaluation", "rebuilt": "autoencoder", "states": "state",
    "vocabulary": "vocabulary",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stale:
    """An artifact that other code or another lock made than those in use, which is not accepted."""

    path: Path  # relative to the working directory
    made: dict[str, Any]
    now: dict[str, str]

    @property
    def owner(self) -> str:
        """The run, base or dataset that the artifact belongs to."""
        return owner_of(self.path)

    @property
    def changed(self) -> tuple[str, ...]:
        """What has changed since: code, lock, or both."""
        return _changed(self.made, self.now)


def makers(verb: str, lock: str) -> dict[str, str]:
    """The digests of the code of `verb` and of the lock file: who makes what is made now."""
    return {"code": code_digest(verb), "lock": lock}


def record(artifact: Path, spec: dict[str, Any], named: dict[str, str], cost: dict[str, Any]) -> None:
    """Writes the record of a job: who made `artifact`, which is the code and lock of `spec`, those that the plan had `named`, and
    what it `cost`. Nothing is `named` of what was only put in its place. What was accepted of a former artifact is void.

    Where it cannot be written the job does not fail, since Snakemake would delete what it has made: that is logged.
    """
    made = {"identity": identity(spec), "code": spec["code"], "lock": spec["lock"], "named": named} if named else {}
    try:
        jobs.write(artifact, {"verb": spec["verb"], **made, "cost": cost})
    except (OSError, PlacementError) as error:
        log.warning("%s is made, but the record of its job cannot be written: %s", artifact, error)
    _acceptance(artifact).unlink(missing_ok=True)


def check(before: Path, spec: dict[str, Any]) -> None:
    """Raises StateError when the state `before` is stale and not accepted for the code and the lock of `spec`.

    A state of which nothing says who made it is taken as it is: only its bytes and its recipe are checked, elsewhere.
    """
    made = _made(before)
    now = makers(made["verb"], spec["lock"]) if made else {}
    changed = _changed(made, now)
    if changed and not _accepted(before, made, now):
        owner = owner_of(before)
        keep = program.command("accept", owner, "--reason", "...")
        raise StateError(
            f"{before} was made by {_others(changed)}: expected {_pair(now)}, found {_pair(made)}. Going on from it would mix "
            f"the two in one run. Keep it, on record, with `{keep}`, or make it again with "
            f"`--config rebuild={owner}`."
        )


def named(artifact: Path, params: Params = lambda path: None) -> dict[str, str]:
    """The code and lock that the plan had named when `artifact` was made; empty when that is not known.

    Snakemake makes an artifact again unless its spec names just these. Code that was edited while a build ran is not what the
    plan had named, so where the job's record is gone Snakemake's own goes before the attestation: `params` gives that of a path.
    """
    made = _made(artifact)
    if not made or "named" in made:
        return made.get("named", {})
    return _planned(params(str(artifact))) or {key: made[key] for key in ("code", "lock")}


def find(directory: Path, lock: str) -> list[Stale]:
    """Every stale artifact of a working directory, in the order of their paths. `lock` is the sha256 of the lock file in use."""
    return list(_stale(directory, lock))


def accept(directory: Path, owner: str, lock: str, reason: str) -> list[Stale]:
    """Keeps what is stale of a run, base or dataset, with the reason, beside each artifact; returns what was accepted.

    Raises InputError without a reason, or when nothing of that ID is stale.
    """
    if not reason.strip():
        raise InputError("Say why the changed code or lock may be accepted: --reason 'only the log changed'.")
    every = find(directory, lock)
    found = [stale for stale in every if stale.owner == owner]
    if not found:
        others = sorted({stale.owner for stale in every})
        raise InputError(f"Nothing of {owner} is stale in {directory}; what is: {', '.join(others) or 'nothing'}.")
    for stale in found:
        made = {key: stale.made[key] for key in ("identity", "code", "lock")}
        accepted = {"identity": stale.made["identity"], **stale.now}
        write_json(_acceptance(directory / stale.path), {"made": made, "accepted": accepted, "reason": reason.strip()})
    return found


def lines(found: list[Stale]) -> list[str]:
    """One line per owner: how many artifacts of which kind, and what changed since they were made."""
    owners: dict[str, list[Stale]] = {}
    for stale in found:
        owners.setdefault(stale.owner, []).append(stale)
    result = []
    for owner, members in owners.items():
        kinds = [_kind(stale.path) for stale in members]
        counts = ", ".join(f"{kinds.count(kind)} {kind}{'s' * (kinds.count(kind) > 1)}" for kind in dict.fromkeys(kinds))
        changed = [what for what in ("code", "lock") if any(what in stale.changed for stale in members)]
        result.append(f"{owner}: {counts} made by {_others(changed)}")
    return result


def _stale(directory: Path, lock: str) -> Iterator[Stale]:
    for place in _PLACES:
        for artifact in sorted({*jobs.recorded(directory, place), *attestation.attested(directory, place)}):
            if not artifact.exists() or (made := _made(artifact)).get("verb") not in VERBS:
                continue
            now = makers(made["verb"], lock)
            if _changed(made, now) and not _accepted(artifact, made, now):
                yield Stale(path=artifact.relative_to(directory), made=made, now=now)


def _made(artifact: Path) -> dict[str, Any]:
    """Who made an artifact, as its job's record tells or else its attestation; empty where neither does. Raises InputError for a
    damaged one."""
    if not (found := jobs.read(artifact)) and attestation.attestation_path(artifact).exists():
        definition = attestation.read(artifact).definition
        found = {**definition["internalParameters"], "verb": definition["externalParameters"]["spec"]["verb"]}
    return found if "code" in found else {}


def _planned(params: Iterable[str] | None) -> dict[str, str]:
    """The code and lock in a job's params as Snakemake keeps them: rules have one, the spec, whose JSON Python has quoted."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError, KeyError):
        (text,) = params or ()
        spec = json.loads(ast.literal_eval(text))
        return {key: spec[key] for key in ("code", "lock")}
    return {}


def _acceptance(artifact: Path) -> Path:
    return artifact.with_name(artifact.name + ACCEPTED)


def _accepted(artifact: Path, made: dict[str, Any], now: dict[str, str]) -> bool:
    """Whether `X.accepted.json` is about this very artifact and about the code and lock in use."""
    acceptance = jobs.read_json(_acceptance(artifact))
    return bool(acceptance) and not _changed(acceptance["made"], made) and not _changed(acceptance["accepted"], now)


def _changed(made: dict[str, Any], now: dict[str, Any]) -> tuple[str, ...]:
    return tuple(key for key in ("code", "lock") if made and made[key] != now[key])


def owner_of(path: Path) -> str:
    """The run, base or dataset of an artifact: of states/ID/..., results/ID-0.50..., evaluations/ID-course/..., bases/NAME..."""
    folder = path.parent.name
    name = path.name.removesuffix(".safetensors") if folder in ("results", "bases", "rebuilt") else folder
    if path.parent.parent.name == "evaluations":  # of a run under a set: its page's numbers say which
        numbers = path.with_name("metrics.json")
        return json.loads(numbers.read_text(encoding="utf-8"))["run"] if numbers.exists() else name
    return str(parse(name).run) if folder == "results" else name


def _kind(path: Path) -> str:
    if path.parts[0] == "results":
        return "result" if parse(path.stem).run == path.stem else "checkpoint or merge"
    return _KINDS[path.parts[0]]


def _others(changed: tuple[str, ...] | list[str]) -> str:
    return " and ".join({"code": "other code", "lock": "another lock"}[what] for what in changed)


def _pair(values: dict[str, Any]) -> str:
    return f"code {values['code'][:12]} and lock {values['lock'][:12]}"
