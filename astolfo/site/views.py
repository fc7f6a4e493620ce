"""Facts as the pages show them: every value a template needs, in words, and nothing that a template must compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astolfo.files import canonical_json
from astolfo.ledger import schema
from astolfo.ledger.evaluations import own_verdicts
from astolfo.ledger.ledger import Run
from astolfo.ledger.recipe import recipe_of
from astolfo.ledger.show import plain
from astolfo.ledger.steps import full_steps, plan_of
from astolfo.ledger.table import apart, base_line, defaults, eras
from astolfo.provenance.digests import DIFFERS, IDENTICAL, NOT_BUILT
from astolfo.site.facts import Facts, Model
from astolfo.site.lineage import Row
from astolfo.site.losses import smooth, thin

TONES = {
    "success": "good", "partial": "fair", "stopped": "fair", "failure": "bad", "nan": "bad",
    "works": "good", "works after merge": "fair", "kinda works": "fair", "blur": "fair",
    "broken": "bad", IDENTICAL: "good", DIFFERS: "bad",
}  # fmt: skip
"""A word of an outcome or a verdict -> how it is coloured; the word itself is always written out."""

_SPARK = (96, 24)  # pixels


@dataclass(frozen=True, kw_only=True)
class Pill:
    """A short word in a coloured frame."""

    word: str
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run as a row of the ledger's page, and the head of its own."""

    id: str
    counts: bool
    objective: str
    parent: str
    apart: str
    outcome: Pill | None
    outcome_text: str
    pictures: list[Pill]
    status: Pill
    stopped: str | None
    spark: str | None
    last_loss: str
    filters: dict[str, str]

    @property
    def words(self) -> str:
        """What the search field looks through."""
        more = [pill.word for pill in self.pictures] + [self.outcome.word if self.outcome else ""]
        words = [self.id, self.parent, self.apart, self.outcome_text, self.status.word, *self.filters.values(), *more]
        return " ".join(words).lower()


def pill(word: str) -> Pill:
    """A word with its colour."""
    return Pill(word=word, tone=TONES.get(word, ""))


def run_view(facts: Facts, run: Run) -> RunView:
    """What the ledger's page says of a run."""
    ledger, kind = facts.ledger, run.entry.outcome.kind.replace("-", " ")
    model, curve = facts.models.get(run.id), facts.curves.get(run.id)
    status = facts.verdict(run.id)
    return RunView(
        id=run.id, counts=run.counts, objective=run.objective.kind, parent=run.fields.base or "nothing",
        apart=apart(ledger, run),
        outcome=None if kind == "unstated" else pill(kind), outcome_text=run.entry.outcome.text,
        pictures=verdicts(facts.evaluation(run.id)), status=pill(status), stopped=model.stopped if model else None,
        spark=spark(facts, run.id), last_loss=f"{curve.last:.4f}" if curve else "",
        filters={
            "era": run.era.era, "objective": run.objective.kind,
            "optimizer": str(run.fields.optimizer and run.fields.optimizer.kind),
            "dataset": str(run.fields.dataset), "outcome": kind, "rebuilt": status,
        },
    )  # fmt: skip


def verdicts(evaluation: Mapping[str, Any] | None) -> list[Pill]:
    """What an evaluation says under the run's own runtime: one pill, or one per uncond where they differ."""
    own = own_verdicts(evaluation)
    words = [one["verdict"] + (f" {one['alpha']:.2f}" if one["verdict"] == "works after merge" else "") for one in own]
    named = words if len(set(words)) == 1 else [f"{one['uncond']}: {word}" for one, word in zip(own, words, strict=True)]
    return [Pill(word=name, tone=TONES.get(one["verdict"], "")) for name, one in dict(zip(named, own, strict=True)).items()]


def spark(facts: Facts, run: str) -> str | None:
    """A small loss curve as the path of an SVG of 96 by 24 pixels; None without one."""
    curve = facts.curves.get(run)
    if curve is None or len(curve.values) < 2:
        return None
    values = smooth(thin(curve, 48).values)
    low, high = min(values), max(values)
    width, height = _SPARK
    across, down = width / (len(values) - 1), (height - 2) / ((high - low) or 1.0)
    return "M" + "L".join(f"{i * across:.1f} {1 + (high - value) * down:.1f}" for i, value in enumerate(values))


def era_views(facts: Facts) -> list[dict[str, Any]]:
    """The eras with their runs, in the ledger's order; those without a run that counts last."""
    found = [
        {
            "era": era.era,
            "title": era.title,
            "defaults": defaults(facts.ledger, runs[0]),
            "note": era.note,
            "runs": [run_view(facts, run) for run in runs],
        }
        for era, runs in eras(facts.ledger)
    ]
    return sorted(found, key=lambda era: not any(run.counts for run in era["runs"]))


def choices(views: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What each filter of the ledger's page offers, in the order of appearance."""
    runs = [run for era in views for run in era["runs"]]
    return {name: list(dict.fromkeys(run.filters[name] for run in runs)) for name in (runs[0].filters if runs else ())}


def counts(facts: Facts, views: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The figures at the head of the ledger's page, each with its caption."""
    runs = [run for era in views for run in era["runs"] if run.counts]
    built = [run for run in runs if run.status.word != NOT_BUILT]
    same = [run for run in runs if run.status.word == IDENTICAL]
    judged = [run for run in runs if run.pictures]
    recorded = {era["era"] for era in views for run in era["runs"] if run.counts}
    return [
        (str(len(runs)), f"{facts.ledger.about.runs_are}, in {len(recorded)} era{'s' * (len(recorded) != 1)}"),
        (str(len(built)), "of them rebuilt here"),
        (str(len(same)), "identical to a recorded digest"),
        (str(len(judged)), "evaluated"),
    ]


def settings(run: Run) -> list[dict[str, Any]]:
    """The effective entry of a run, one row per key, and whether the run says it or its era."""
    rows = []
    for name in schema.RunFields.model_fields:
        value = getattr(run.fields, name)
        if value is not None:
            rows.append({"key": name, "value": plain(value), "own": name in run.entry.model_fields_set})
    return rows


def lengths(facts: Facts, run: Run) -> list[tuple[str, str]]:
    """How long a run is, at full scale and here, and its recipe's digest."""
    plan = plan_of(facts.ledger, run)
    segments = len(plan.boundaries) - 1
    here = f"steps {plan.start:,} to {plan.end:,} in {segments} segment{'s' if segments > 1 else ''}"
    return [
        ("full scale", f"{full_steps(facts.ledger, run):,} steps"),
        (facts.ledger.scale_name, here),
        ("recipe's digest", recipe_of(facts.ledger, run).digest),
    ]


def model_view(facts: Facts, model: Model) -> dict[str, Any]:
    """A model file with its digests; a parent's digest comes with the name of the model here that has it."""
    names = {other.sha256: other.name for other in facts.models.values() if other.sha256}
    parents = [{"role": role, "sha256": digest, "name": names.get(digest, "")} for role, digest in sorted(model.parents.items())]
    keys = ("modelspec.title", "astolfo.objective", "astolfo.semantics", "astolfo.scale", "astolfo.recipe")
    return {
        "name": model.name, "path": model.path, "size": size(model.bytes), "sha256": model.sha256, "status": pill(model.verdict),
        "stopped": model.stopped, "parents": parents,
        "says": [(key.partition(".")[2], model.metadata[key]) for key in keys if key in model.metadata],
        "attestation": attestation(model.attestation) if model.attestation else None, "adopted": model.adopted,
    }  # fmt: skip


def attestation(statement: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An in-toto statement with a provenance predicate as rows, without the spec, which is most of its length."""
    definition = statement.get("predicate", {}).get("buildDefinition", {})
    run = statement.get("predicate", {}).get("runDetails", {})
    rows = [("attests", _resource(subject)) for subject in statement.get("subject", [])]
    rows += [("predicate", str(statement.get("predicateType"))), ("made by", str(definition.get("buildType")))]
    rows += [(f"parent: {_noted(parent, 'role')}", _resource(parent)) for parent in definition.get("resolvedDependencies", [])]
    for name in ("externalParameters", "internalParameters"):
        rows += [(key.replace("_", " "), _in_line(value)) for key, value in definition.get(name, {}).items() if key != "spec"]
    rows += [("builder", _in_line(run.get("builder", {})))]
    return rows + [(f"{one['name']} up to step {_noted(one, 'step')}", _resource(one)) for one in run.get("byproducts", [])]


def _noted(resource: Mapping[str, Any], key: str) -> str:
    return str(resource.get("annotations", {}).get(key, "not stated"))


def _resource(resource: Mapping[str, Any]) -> str:
    digests = ", ".join(f"{kind} {digest}" for kind, digest in resource.get("digest", {}).items())
    return f"{resource.get('name', '')} {digests}".strip()


def _in_line(value: Any) -> str:
    """A value in a line: a mapping as "key value, ..."."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_line(item)}" for key, item in value.items())
    return value if isinstance(value, str) else canonical_json(value)


def size(count: int) -> str:
    """Bytes in a reader's unit."""
    for unit, least in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} bytes"


def base_view(facts: Facts, row: Row) -> dict[str, Any]:
    """A base as the lineage and the digests show it."""
    base = facts.ledger.base(str(row.name))
    return {"name": row.name, "objective": base.objective, "title": base.title, "line": base_line(facts.ledger, str(row.name)),
            "note": base.note}  # fmt: skip
