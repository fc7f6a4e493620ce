"""A rehearsal: a run built and judged at the miniature before days are spent on it, and how much that is worth.

rehearse(ledger, run, Path("."))        # builds evaluations/RUN by the graph
print(report(ledger, run, Path(".")))   # what it saw, what is expected, how far to trust it, what it cannot tell
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astolfo import program
from astolfo.errors import AstolfoError
from astolfo.ledger import load
from astolfo.ledger.evaluations import own_verdicts
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.rates import harder, loses, multiplied
from astolfo.ledger.recipe import recipe_of
from astolfo.ledger.steps import full_steps, plan_of
from astolfo.provenance import verdicts

SCALE = "miniature"
FOLDER = "rehearsal"  # within a working directory of another scale


def place(directory: Path, scale: str) -> Path:
    """Where a run of `directory` is rehearsed: there, or in a folder of its own, since a directory holds one scale."""
    return directory if scale == SCALE else directory / FOLDER


def rehearse(ledger: Ledger, run: Run, directory: Path) -> None:
    """Builds the run and its evaluation in `directory`. Raises AstolfoError when that fails."""
    directory.mkdir(parents=True, exist_ok=True)
    if not program.run_snakemake(directory, program.Use(config=ledger.folder, scale=SCALE), f"evaluations/{run.id}/index.html"):
        raise AstolfoError(
            f"The rehearsal of {run.id} did not come to its end; the messages stand above, and what was built is in {directory}. "
            "A loss that is no number, or that leaps, is itself what a rehearsal is for."
        )


def report(ledger: Ledger, run: Run, directory: Path) -> str:
    """What the evaluation in `directory` saw of the run, what is expected of it, and what such a finding is worth."""
    own = own_verdicts(verdicts.found_in(ledger, directory)[run.id])
    parts = {
        "It saw": " ".join(f"{one['runtime']} runtime, {one['uncond']} uncond: {one['sentence']}" for one in own),
        "Expected": _expected(run, own),
        "Mind": harder(ledger, run),
        "How far to trust it": _trust(past(ledger, without=run.id), sorted({one["verdict"] for one in own})),
        "It cannot tell": _limits(ledger, run),
    }
    head = f"Rehearsal of {run.id} at the {ledger.scale_name} scale; its pictures: {directory}/evaluations/{run.id}/index.html"
    return "\n".join([head, "", *(f"{name}: {text}" for name, text in parts.items() if text)])


Past = list[tuple[Run, list[dict[str, Any]]]]


def past(ledger: Ledger, without: str) -> Past:
    """The runs of this ledger and of the program's whose outcome a verdict could contradict, with the verdicts on record."""
    found: dict[str, tuple[Run, list[dict[str, Any]]]] = {}
    ledgers = [load(program.CONFIG, SCALE)] + ([ledger] if ledger.folder.resolve() != program.CONFIG.resolve() else [])
    for one in ledgers:
        for record in verdicts.records(one):
            for name, judged in record["verdicts"].items():
                own = own_verdicts(judged)
                if name in one.runs and verdicts.agrees(one.runs[name], own) is not None and name != without:
                    found.setdefault(name, (one.runs[name], own))
    return list(found.values())


def _expected(run: Run, own: Sequence[dict[str, Any]]) -> str:
    text, agrees = run.entry.outcome.text, verdicts.agrees(run, own)
    if not text:
        return "the ledger says no outcome of this run."
    if agrees is None:
        return f'the ledger says "{text}", which no verdict confirms or contradicts.'
    return (
        f'the ledger says "{text}", and that is what was seen.' if agrees else f'the ledger says "{text}": what was seen differs.'
    )


def _trust(known: Past, words: Sequence[str]) -> str:
    if not known:
        return "no run is on record with both an outcome and a verdict of the miniature."
    right = [run.id for run, own in known if verdicts.agrees(run, own)]
    kinds = []
    for expected in dict.fromkeys(verdicts.WORDS.values()):
        outcomes = [run.id for run, _ in known if verdicts.WORDS[run.entry.outcome.kind] == expected]
        if outcomes:
            kinds.append(f'{len(set(outcomes) & set(right))} of {len(outcomes)} that were to be "{" or ".join(expected)}"')
    hits = [_hits(known, word) for word in words]
    return (
        f"of {len(known)} other runs whose outcome is known in such words the miniature gave {len(right)} as recorded: "
        f"{', '.join(kinds)}. {' '.join(hits)}"
    )


def _hits(known: Past, word: str) -> str:
    """What had become of the runs of which the miniature said `word`."""
    runs = [run for run, own in known if any(one["verdict"] == word for one in own)]
    so = sum(word in verdicts.WORDS[run.entry.outcome.kind] for run in runs)
    return f'It said "{word}" of {len(runs)} of them, and {so} were.' if runs else f'It never said "{word}" of any.'


def _limits(ledger: Ledger, run: Run) -> str:
    """Where the rehearsal departs from the run, in what a reader has to know."""
    recipe, scale, plan = recipe_of(ledger, run), ledger.scale, plan_of(ledger, run)
    parts = [f"it trained {plan.end - plan.start:,} steps, where the run's data order has {full_steps(ledger, run):,}"]
    if multiplied(scale, run.fields):
        lost = ", less what bf16 rounds away at them" if loses(run.fields) else ""
        parts.append(f"at {scale.learning_rate_multiplier:g} times its rates{lost}")
    if run.fields.precision and run.fields.precision.weights != recipe.precision.weights:
        parts.append(f"with {recipe.precision.weights} weights for {run.fields.precision.weights}")
    pictures = "pictures of coloured shapes" if ledger.is_drawn(str(run.fields.dataset)) else "the dataset's pictures made small"
    parts.append(f"on {pictures}, with a toy model in the place of every base")
    costs = program.command("plan", run.id, scale="full")
    return f"{', '.join(parts)}. How good its pictures would be, and what it costs (`{costs}`), it does not say."
