"""The ledger as text for people: the list of runs, an era, one run in full, and the tree of what a model is made from."""

from pathlib import Path
from typing import Any

from astolfo.ledger import schema
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.recipe import choices_of, recipe_of
from astolfo.ledger.references import Reference, parse
from astolfo.ledger.steps import full_steps, plan_of


def listing(ledger: Ledger) -> str:
    """Every run, era by era, one line each."""
    if not ledger.runs:
        return f"The ledger {ledger.folder} has no runs yet."
    lines: list[str] = []
    era = None
    for run in ledger.runs.values():
        if run.era.era != era:
            era = run.era.era
            lines += ["", _titled(run.era)] if lines else [_titled(run.era)]
        lines.append(_line(run))
    return "\n".join(lines)


def _titled(era: schema.Era) -> str:
    return f"{era.era}: {era.title}" if era.title else era.era


def _line(run: Run) -> str:
    fields, kind = run.fields, run.entry.outcome.kind
    length = f"{fields.epochs} EP" if fields.epochs else f"{fields.steps} steps"
    return (
        f"  {run.id:16} {fields.base or 'nothing':24} {fields.dataset:11} {length:>11}  {run.objective.kind:3}  "
        f"{_rates(run):18} {'' if kind == 'unstated' else kind}".rstrip()
    )


def era_as_text(ledger: Ledger, era: schema.Era) -> str:
    """An era: what its runs share unless they say otherwise, and a line for each of them."""
    lines = [_titled(era), *([era.note.strip()] if era.note else []), ""]
    given = ((name, getattr(era.defaults, name)) for name in schema.RunFields.model_fields)
    lines += [f"  {name:14} {plain(value)}" for name, value in given if value is not None]
    return "\n".join([*lines, "", *(_line(run) for run in ledger.runs.values() if run.era is era)])


def era_as_data(ledger: Ledger, era: schema.Era) -> dict[str, Any]:
    """An era as plain data, with the IDs of its runs."""
    shared = era.model_dump(mode="json", exclude_none=True, include={"era", "title", "note", "defaults"})
    return shared | {"runs": [run.id for run in ledger.runs.values() if run.era is era]}


def as_text(ledger: Ledger, run: Run) -> str:
    """One run: where each effective value comes from, its steps at this scale, and its recipe's digest."""
    lines = [f"{run.id}  (era {_titled(run.era)})", f"{run.document.path}:{run.document.line(['runs', run.id])}", ""]
    for name in schema.RunFields.model_fields:
        value = getattr(run.fields, name)
        if value is not None:
            lines.append(f"  {name:14} {plain(value)}{_where(run, name)}")
    lines += [f"  {name:14} {text}" for name, text in (("note", run.entry.note), ("outcome", run.entry.outcome.text)) if text]
    plan = plan_of(ledger, run)
    lines += [
        "",
        f"  full scale     {full_steps(ledger, run):,} steps",
        f"  {ledger.scale_name:14} steps {plan.start:,} to {plan.end:,} in {len(plan.boundaries) - 1} segments, "
        f"saved at {', '.join(f'{b:,}' for b in plan.boundaries[1:6])}{' ...' if len(plan.boundaries) > 6 else ''}",
        f"  recipe         {recipe_of(ledger, run).digest}",
    ]
    if replaced := stand_in(ledger, run):
        lines.insert(-1, f"  stand-in       {replaced}")
    return "\n".join(lines)


def stand_in(ledger: Ledger, run: Run) -> str:
    """What stands in, at this scale, for the base that a run goes back to, and what makes it where it is not shipped.

    "" where nothing stands in.
    """
    reference = ledger.parent(run)
    while reference and reference.run:
        reference = ledger.parent(ledger.run(reference.run))
    origin = ledger.origin(str(reference.base)) if reference else None
    if reference is None or origin is None or not origin.stand_in:
        return ""
    replaced = f"{origin.stand_in} in the place of {reference.base}, changed by its name"
    return f"{replaced}. It is not shipped: {origin.made_by} makes it first" if origin.made_by else replaced


def _where(run: Run, name: str) -> str:
    """Where a run's value comes from, if not from its own entry."""
    if name in run.entry.model_fields_set:
        return ""
    return "   (era)" if name in run.era.defaults.model_fields_set else "   (default)"


def as_data(ledger: Ledger, run: Run) -> dict[str, Any]:
    """One run as plain data."""
    recipe, plan = recipe_of(ledger, run), plan_of(ledger, run)
    return {
        "id": run.id,
        "era": run.era.era,
        "scale": ledger.scale_name,
        "entry": run.fields.model_dump(mode="json", exclude_none=True),
        "note": run.entry.note,
        "outcome": run.entry.outcome.model_dump(mode="json"),
        "boundaries": list(plan.boundaries),
        "recipe": recipe.canonical(),
        "recipe_digest": recipe.digest,
    }


def difference(ledger: Ledger, a: Run, b: Run) -> str:
    """What differs between two runs' effective entries, key by key, and whether their recipes at this scale do."""
    first, second = _flat(ledger, a), _flat(ledger, b)
    keys = [key for key in [*first, *(key for key in second if key not in first)] if first.get(key) != second.get(key)]
    rows = [("", a.id, b.id), *((key, first.get(key, "-"), second.get(key, "-")) for key in keys)]
    digests = [recipe_of(ledger, run).digest for run in (a, b)]
    equal = digests[0] == digests[1]
    if not equal:
        rows.append(("recipe", digests[0][:16], digests[1][:16]))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = ["  ".join([key.ljust(widths[0]), left.ljust(widths[1]), right]) for key, left, right in rows]
    return "\n".join(lines + ([f"the recipes are equal: {digests[0]}"] if equal else []))


def _flat(ledger: Ledger, run: Run) -> dict[str, str]:
    """The effective entry with one key per value: learning_rate.unet, placement.numa ..., and all that its semantics choose."""
    found = {}
    entry = run.fields.model_dump(mode="json", exclude_none=True)
    entry["choices"] = choices_of(run).model_dump(mode="json")
    for name, value in entry.items():
        found.update(
            {f"{name}.{key}": str(item) for key, item in value.items()} if isinstance(value, dict) else {name: str(value)}
        )
    return found


def tree(ledger: Ledger, reference: Reference, directory: Path) -> str:
    """What a model is made from, as a tree up to its base; `*` marks what is built in `directory`."""
    lines: list[str] = []

    def visit(node: Reference, prefix: str, last: bool, top: bool) -> None:
        built = (directory / node.path).exists()
        branch = "" if top else prefix + ("└── " if last else "├── ")
        lines.append(f"{branch}{node}{_remark(ledger, node)}  {'[built]' if built else '[not built]'}")
        parents = ledger.parents(node)
        for index, parent in enumerate(parents):
            visit(parent, "" if top else prefix + ("    " if last else "│   "), index == len(parents) - 1, False)

    ledger.parents(reference)  # an unknown name is an error before anything is printed
    if reference.base:
        ledger.base(reference.base)
    visit(reference, "", True, True)
    return "\n".join(lines)


def _remark(ledger: Ledger, node: Reference) -> str:
    if node.base:
        if parents := ledger.parents(node):
            return f" (base, made from {' and '.join(map(str, parents))})"
        origin = ledger.origin(node.base)
        return f" (stand-in {origin.stand_in})" if origin.stand_in else " (pinned base)"
    run = ledger.run(str(node.run))
    if str(node) in ledger.adopted:
        return " (adopted, not rebuilt)"
    if node.alpha:
        return f" (merge of {parse(node.checkpoint)} with {ledger.merge_base(run)} at {node.alpha})"
    return f" (run, {run.objective.kind}, {run.fields.dataset})"


def _rates(run: Run) -> str:
    rates = run.fields.learning_rate
    assert rates is not None
    text = f" + {rates.text_encoder:.1e}" if rates.text_encoder else ""
    return f"{rates.unet:.1e}{text}"


def plain(value: Any) -> str:
    if isinstance(value, schema.Entry):
        given = value.model_dump(mode="json", exclude_none=True)
        return ", ".join(f"{key} {item}" for key, item in given.items())
    return str(value)
