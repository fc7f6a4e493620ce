"""The shape of config/evaluations.yaml and config/prompts.yaml: what is sampled to judge a checkpoint; and its own verdicts.

They stand apart from `astolfo.ledger.schema` because no trained bit depends on them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from astolfo.ledger.schema import Entry, ObjectiveKind

AXES = ("alpha", "runtime", "uncond", "sampler", "cfg", "steps", "checkpoint")  # of grids, besides the prompts
SAVED = "saved"  # on the axis `checkpoint`: every checkpoint that the run saves, and its result
RESULT = "result"


class Axis(Entry):
    """One axis of a grid: the name of what varies, and its values; `checkpoint` has the value `saved`, all that a run saves."""

    alpha: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    runtime: list[ObjectiveKind] | None = None
    uncond: list[Literal["zero", "null"]] | None = None
    sampler: list[Literal["DDIM", "Euler"]] | None = None
    cfg: list[float] | None = None
    steps: list[PositiveInt] | None = None
    checkpoint: list[str] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Axis":
        given = [name for name in AXES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"an axis is one of {', '.join(AXES)}; found {' and '.join(given) or 'none'}.")
        if not getattr(self, given[0]):
            raise ValueError(f"the evaluation is empty: the axis {given[0]} has no values. Give at least one.")
        return self

    @property
    def name(self) -> str:
        return next(name for name in AXES if getattr(self, name) is not None)

    @property
    def values(self) -> list[Any]:
        """What it goes through, each once, in the order given."""
        return list(dict.fromkeys(getattr(self, self.name)))


class Grid(Entry):
    """One labelled grid: a row per prompt, columns along `x`, groups of columns along `z`."""

    x: Axis
    z: Axis | None = None


class Steps(Entry):
    """Sampling steps at each scale."""

    full: PositiveInt
    miniature: PositiveInt


class EvaluationSet(Entry):
    """What is sampled to judge a checkpoint: prompts, seed and settings, and the grids that vary them.

    What no axis of a grid varies is as it stands here; the runtime is then the run's own objective, alpha 1.0.
    """

    prompts: str
    seed: int
    sampler: Literal["DDIM", "Euler"]
    steps: Steps
    cfg: float
    grids: Annotated[dict[Annotated[str, Field(pattern="^[a-z]+$")], Grid], Field(min_length=1)]


class PromptOrigin(Entry):
    """Prompts at one scale: so many procedural scenes, whose truth is known, or texts as they stand."""

    procedural: PositiveInt | None = None
    texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> "PromptOrigin":
        if (self.procedural is None) == (self.texts is None):
            raise ValueError("give procedural or texts, one of the two.")
        return self


class PromptSet(Entry):
    """A set of prompts by its name: what it is at each scale."""

    full: PromptOrigin
    miniature: PromptOrigin
    note: str = ""


class NamedGrid(Grid):
    """A grid with its name, in the order in which grids are drawn."""

    name: str


class Sampling(Entry):
    """An evaluation set as it is for one run at one scale: what the engine samples. Axes hold values only."""

    set: str = "default"
    prompts: PromptOrigin
    seed: int
    sampler: Literal["DDIM", "Euler"]
    steps: PositiveInt
    cfg: float
    runtime: ObjectiveKind
    grids: Annotated[tuple[NamedGrid, ...], Field(min_length=1)]


def sampling(
    name: str,
    wanted: EvaluationSet,
    prompts: PromptSet,
    *,
    scale: str,
    runtime: ObjectiveKind,
    alpha: float | None,
    saved: list[str],
) -> Sampling:
    """The set `name` for a run of objective `runtime`; `alpha` is the merge that the record names, `saved` its checkpoints."""
    named = {} if alpha is None else {"alpha": [alpha]}
    return Sampling(
        set=name, prompts=getattr(prompts, scale), seed=wanted.seed, sampler=wanted.sampler, steps=getattr(wanted.steps, scale),
        cfg=wanted.cfg, runtime=runtime,
        grids=tuple(
            NamedGrid(name=key, x=_filled(grid.x, named, saved), z=grid.z and _filled(grid.z, {}, saved))
            for key, grid in wanted.grids.items()
        ),
    )  # fmt: skip


def _filled(axis: Axis, more: dict[str, list[Any]], saved: list[str]) -> Axis:
    """The axis with `saved` spelt out, and with what else its name stands for in `more`, ascending."""
    values = [one for value in axis.values for one in (saved if value == SAVED else [value])]
    extra = more.get(axis.name, [])
    return Axis.model_validate({axis.name: sorted({*values, *extra}) if extra else values})


def own_verdicts(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Of an evaluation's `summary` the rows under the objective that the run was trained for; none without an evaluation."""
    return [row for row in (evaluation or {}).get("summary", []) if row["own"]]
