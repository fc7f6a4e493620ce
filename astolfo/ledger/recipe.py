"""The recipe: what of a run decides the bits, and nothing else.

A recipe knows no run ID, no note, no outcome, no device and no folder. Its canonical JSON (keys sorted, defaults spelt
out, rates as the scale makes them) has one digest; two runs with the same recipe and the same parents are the same file.
"""

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

from astolfo.files import json_digest
from astolfo.ledger import schema
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.rates import at_scale
from astolfo.ledger.references import Reference
from astolfo.ledger.steps import plan_of, span_of, step_of


class Recipe(schema.Entry):
    """Everything that the trainer computes from, except its parents (base weights, dataset, vocabulary)."""

    family: schema.Family
    architecture: dict[str, Any]  # configurations of the model's parts, as diffusers and transformers name them
    objective: schema.Objective
    captions: schema.Captions
    unet: schema.UNet  # which of its blocks train: percent (63, 68, 71, 100: fixed sets), or by their names
    learning_rate: schema.LearningRate
    optimizer: schema.Optimizer
    schedule: schema.Schedule
    ranks: int  # logical ranks
    batch_size: int  # samples per micro-batch
    accumulation: int  # micro-batches per rank and step
    max_grad_norm: float  # 0: no clipping
    precision: schema.Precision
    choices: schema.Choices
    seed: int
    first_step: int  # where in the data order this run begins
    last_step: int | None = None  # where the schedule ends, for schedules that decay
    steps_per_epoch: int | None = None  # None: as many as the store's batches make
    engine: schema.Engine | None = None  # None: ours
    loss_spike: float | None = None  # a loss over so many times the usual one is a wrong number; None: none is
    on_failure: str | None = None  # "keep": a wrong number ends the run with its last good state
    ftfy: str | None = None  # under the choice `text: ftfy`: its version, whose tables decide tokens

    def canonical(self) -> dict[str, Any]:
        """The recipe as plain data; `astolfo.files.canonical_json` of it is what is digested.

        What is None is left out, so a recipe keeps its digest when later versions know more options.
        """
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        """sha256 (hex) of the canonical JSON."""
        return json_digest(self.canonical())


def choices_of(run: Run) -> schema.Choices:
    """The named choices of a run: those of its semantics, with its own laid over."""
    return schema.SEMANTICS[run.fields.semantics or "reference"].model_copy(update=run.fields.choices or {})


_AS_THEY_STAND = (
    "captions", "unet", "optimizer", "ranks", "batch_size", "accumulation", "max_grad_norm", "seed", "engine", "loss_spike",
    "on_failure",
)  # fmt: skip


@cache
def recipe_of(ledger: Ledger, run: Run, restart: Reference | None = None) -> Recipe:
    """The recipe of a run at the ledger's scale; after a `restart`, of what it trained from that checkpoint on."""
    fields, scale = run.fields, ledger.scale
    family = ledger.family(run)
    if family not in scale.architectures:
        raise run.error(f"scale {ledger.scale_name} has no architecture {family!r}. Add it to config/scales/.")
    assert fields.learning_rate
    assert fields.schedule
    precision = scale.precision or fields.precision
    assert precision
    if fields.engine and precision.update:
        raise run.error(f"the engine {fields.engine.kind} keeps a master of its own: leave precision's update out.")
    plan = plan_of(ledger, run)
    first = step_of(ledger, restart) if restart else plan.start
    assert fields.optimizer
    rate = at_scale(scale, fields)
    choices = choices_of(run)
    return Recipe(
        family=family,
        architecture=scale.architectures[family],
        objective=run.objective,
        precision=precision,
        learning_rate=fields.learning_rate.changed(rate),
        schedule=_schedule(ledger, run, choices, plan.end - first, rate),
        choices=choices,
        first_step=first,
        last_step=plan.end if fields.schedule.falls else None,
        steps_per_epoch=plan.steps_per_epoch if fields.batch_size == 1 else None,  # else it depends on the buckets
        ftfy=version("ftfy") if choices.text == "ftfy" else None,
        **{name: getattr(fields, name) for name in _AS_THEY_STAND},
    )


def named(ledger: Ledger, run: str) -> Recipe:
    """The recipe of a run, by its ID, at the ledger's scale. Raises LedgerError with near names for a run that there is not."""
    return recipe_of(ledger, ledger.run(run))


def _schedule(ledger: Ledger, run: Run, choices: schema.Choices, steps: int, rate: Callable[[float], float]) -> schema.Schedule:
    """The run's schedule over so many steps: a warm-up in steps of the scale, and its end at the scale's rates."""
    found = run.fields.schedule
    assert found
    changes: dict[str, Any] = {}
    if found.warmup_ratio:
        each = (run.fields.ranks or 1) if choices.warmup == "kohya" else 1  # that trainer counts a step of every rank
        changes = {"warmup_steps": int(found.warmup_ratio * steps * each), "warmup_ratio": None}
    elif found.warmup_steps:
        changes = {"warmup_steps": span_of(ledger, run, found.warmup_steps)}
    if found.end:
        changes["end"] = rate(found.end)
    return found.model_copy(update=changes) if changes else found
