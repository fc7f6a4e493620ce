"""What of a run would have to change so that it fits a machine: the nearest changes, and what each changes of the bits.

    nearest(recipe, devices=1, usable=23.5e9)        [Proposal(keys={"optimizer": "PagedAdamW8bit"}, ...), ...]

Changes are tried one by one, then up to four together, in the order of KINDS: those that keep the bits or the images of a step
first, those that train another model last. Memory is that of `astolfo.plan.memory`, placed in the best way.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import yaml

from astolfo.ledger import schema
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.unet import FIXED
from astolfo.plan.cards import cards
from astolfo.plan.memory import GIB, USABLE, Memory, fitting

MOST, TOGETHER = 3, 4  # proposals that are made, and changes that one of them makes at most
UNDRAWN = ("Prodigy",)  # optimizers whose updates cannot be rounded by a draw (astolfo.ledger.check)
SAME_IMAGES = "as many images a step, but other bits"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Keys of a run's entry that would change, what that changes of the bits, and what a device then needs."""

    recipe: Recipe
    keys: dict[str, Any] = field(default_factory=dict)
    bits: tuple[str, ...] = ()
    memory: Memory | None = None

    def __str__(self) -> str:
        entry = yaml.safe_dump(self.keys, default_flow_style=True, width=1000, sort_keys=False).strip()[1:-1]
        needs = f"{self.memory.total / 1e9:.1f} GB" if self.memory else ""
        return f"{entry}  ({needs}): {'; '.join(self.bits)}"

    def after(self, bits: str, keys: dict[str, Any], **fields: Any) -> "Proposal":
        """This proposal with one more change: `keys` of the entry, which are these `fields` of the recipe."""
        changed = self.bits if bits in self.bits else (*self.bits, bits)
        return Proposal(recipe=self.recipe.model_copy(update=fields), keys=self.keys | keys, bits=changed)


def processes(recipe: Recipe, devices: int) -> int:
    """How many processes run the logical ranks on so many devices: the most that share them evenly. 0: an engine lacks some."""
    if recipe.engine and devices < recipe.ranks:
        return 0
    return max(count for count in (1, 2, 4, 8) if recipe.ranks % count == 0 and count <= devices)


def nearest(recipe: Recipe, devices: int, usable: float) -> list[Proposal]:
    """The nearest proposals with which a recipe fits `devices` of `usable` bytes each; empty where none of them does."""
    for together in range(1, TOGETHER + 1):
        tried = (_first(recipe, kinds, devices, usable) for kinds in combinations(KINDS, together))
        if found := [one for one in tried if one]:
            return found[:MOST]
    return []


def _first(recipe: Recipe, kinds: tuple["Kind", ...], devices: int, usable: float) -> Proposal | None:
    """The mildest proposal that fits among those that change something of every one of the kinds."""
    found = [Proposal(recipe=recipe)]
    for kind in kinds:
        found = [after for before in found for after in kind(before)]
    return next((fit for one in found if (fit := _fit(one, devices, usable))), None)


def _fit(one: Proposal, devices: int, usable: float) -> Proposal | None:
    count = processes(one.recipe, devices)
    needed = fitting(one.recipe, count, usable)[1] if count else None
    return dataclasses.replace(one, memory=needed) if needed and needed.total <= usable else None


def holding(recipe: Recipe) -> list[str]:
    """The least machines of one kind of card that a recipe fits as it stands, by name: with one card, with two, and so on.

    A GeForce card goes before one of a server.
    """
    by_memory = sorted(cards().items(), key=lambda item: (not item[1].title.startswith("GeForce"), item[1].memory_gib))
    found: dict[str, float] = {}
    for many in (1, 2, 4, 8):
        for name, card in by_memory:
            count = processes(recipe, many) if many <= recipe.ranks else 0
            if count and fitting(recipe, count, card.memory_gib * GIB * USABLE)[1].total <= card.memory_gib * GIB * USABLE:
                if card.memory_gib < min(found.values(), default=math.inf):
                    found[f"{many}x{name}"] = card.memory_gib
                break
    return [f"{name} ({gib:g} GiB each)" for name, gib in found.items()]


# ---- kinds of changes: each gives the proposals that follow from one, the mildest first


def _paged(one: Proposal) -> list[Proposal]:
    if one.recipe.optimizer.kind != "AdamW8bit" or one.recipe.engine:
        return []
    return [
        _optimized(one, "PagedAdamW8bit", "the same weights; the moments lie in the host's memory, and moving them costs time")
    ]


def _smaller_batch(one: Proposal) -> list[Proposal]:
    size, steps = one.recipe.batch_size, one.recipe.accumulation
    smaller = [size // by for by in range(2, size + 1) if size % by == 0]
    values = [{"batch_size": each, "accumulation": steps * (size // each)} for each in smaller]
    return [one.after(SAME_IMAGES, each, **each) for each in values]


def _fewer_ranks(one: Proposal) -> list[Proposal]:
    fewer = [count for count in (4, 2, 1) if count < one.recipe.ranks]
    values = [{"ranks": each, "accumulation": one.recipe.accumulation * (one.recipe.ranks // each)} for each in fewer]
    return [one.after(SAME_IMAGES, each, **each) for each in values]


def _no_engine(one: Proposal) -> list[Proposal]:
    if one.recipe.engine is None:
        return []
    return [one.after("other bits: the engine's ranks and kernels were part of the recipe", {"engine": None}, engine=None)]


def _narrower(one: Proposal) -> list[Proposal]:
    precision = one.recipe.precision
    drawn = None if one.recipe.optimizer.kind in UNDRAWN else "stochastic"
    if precision.update == "master":
        narrow, bits = {"update": drawn}, "other bits: no fp32 weights are kept beside the model's"
    elif precision.weights == "fp32":
        narrow, bits = {"weights": "bf16", "compute": "bf16", "update": drawn}, "other bits: bf16 instead of fp32"
    else:
        return []
    precision = precision.model_copy(update=narrow)
    return [one.after(bits, {"precision": precision.model_dump(exclude_none=True)}, precision=precision)]


def _eight_bits(one: Proposal) -> list[Proposal]:
    kinds = {"AdamW": "AdamW8bit", "Lion": "Lion8bit", "CautiousLion": "Lion8bit", "C-Lion": "Lion8bit"}
    if one.recipe.optimizer.kind not in kinds:
        return []
    return [_optimized(one, kinds[one.recipe.optimizer.kind], "other bits: moments in 8 bits")]


def _fewer_blocks(one: Proposal) -> list[Proposal]:
    if one.recipe.family != "sdxl" or not isinstance(one.recipe.unet, int):
        return []
    smaller = sorted((percent for percent in FIXED if percent < one.recipe.unet), reverse=True)
    return [one.after("another model: fewer blocks train", {"unet": percent}, unet=percent) for percent in smaller]


def _frozen_encoders(one: Proposal) -> list[Proposal]:
    rates = one.recipe.learning_rate
    if not any(rate for part, rate in rates.largest.items() if part != "unet"):
        return []
    frozen = schema.LearningRate(unet=rates.unet, blocks=rates.blocks)
    keys = {"learning_rate": {"unet": rates.unet, **({"blocks": rates.blocks} if rates.blocks else {})}}
    return [one.after("another model: the text encoders stay", keys, learning_rate=frozen)]


def _no_moments(one: Proposal) -> list[Proposal]:
    if one.recipe.optimizer.kind == "AdaFactor":
        return []
    return [one.after("another model: another optimizer, which wants other rates", {"optimizer": "AdaFactor"},
                      optimizer=schema.Optimizer(kind="AdaFactor"))]  # fmt: skip


def _optimized(one: Proposal, kind: Any, bits: str) -> Proposal:
    """With an optimizer of another kind; what it has besides stays in the entry, where it is not what the kind has anyway."""
    known = schema.Optimizer(kind=kind).model_dump()
    kept = {key: value for key, value in one.recipe.optimizer.model_dump().items() if key != "kind" and value != known[key]}
    kept = {key: value for key, value in kept.items() if known[key] is not None}
    optimizer = schema.Optimizer(kind=kind, **kept)
    return one.after(bits, {"optimizer": {"kind": kind, **kept} if kept else kind}, optimizer=optimizer)


Kind = Callable[[Proposal], list[Proposal]]
KINDS: tuple[Kind, ...] = (
    _paged, _smaller_batch, _fewer_ranks, _no_engine, _narrower, _eight_bits, _fewer_blocks, _frozen_encoders, _no_moments,
)  # fmt: skip
