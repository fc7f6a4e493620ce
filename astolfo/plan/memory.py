"""Device memory of one process of a training, in bytes, by arithmetic: no torch, no device, no file.

    memory(recipe, processes=4, gradient_checkpointing=True).total

What is counted is what the trainer allocates (`astolfo/train/ranks.py`, `optimizer.py`): every part's weights; one buffer
of gradients, and one more per doubling of the logical ranks that a process runs beyond two, unless they wait in the host's
memory; the optimizer's state of the weights that the process owns; and the activations of a micro-batch, or what the
reduction needs where that is more. `astolfo/train/memory.py` counts the same on torch's meta device, and a test holds the
two to each other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import yaml

from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import Block
from astolfo.ledger.unet import trained

PARAMETERS: dict[str, dict[str, int]] = {
    "sdxl": {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
    "sd2": {"unet": 865_910_724, "text_encoder": 340_387_840},
}
"""Parameters of the parts, counted on torch's meta device from the full scale's architectures."""

AUTOENCODER = 83_653_863  # parameters of SDXL's and SD 2.1's; in the result file, not in training
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}

MOMENTS: dict[str, float] = {
    "AdamW": 2, "AdamW8bit": 2, "PagedAdamW8bit": 2, "AdamW4bit": 1,
    "Lion": 1, "CautiousLion": 1, "C-Lion": 1, "Lion8bit": 1, "AdaFactor": 0, "CAME": 1,
    "AdamWScheduleFree": 2, "Prodigy": 4,
}  # fmt: skip
"""Moments per trained parameter; factored ones (AdaFactor, CAME's second) are rows and columns, and count as none."""

_MOMENT_BYTES = {"AdamW8bit": 1 + 4 / 256, "PagedAdamW8bit": 1 + 4 / 256, "Lion8bit": 1 + 4 / 256, "AdamW4bit": 0.5 + 4 / 128}
SAVING = ("gradient_checkpointing", "offload_gradients")
"""Keys of a placement that save a device's memory."""

BLOCKS = get_args(Block)
ACTIVATIONS = {
    "sdxl": (7.80e9, 7.41e9, 6.63e9, 5.06e9, 2.68e9, 2.02e9, 0.99e9, 0.88e9, 0.76e9),
    "sd2": (2.30e9, 0.56e9),
}
"""Without gradient checkpointing, with it in the first of BLOCKS, the first two ..., everywhere (SD 2: without, everywhere) ->
bytes per sample in a 16-bit dtype, at the model's own size, everything trained, SDXL with 225 tokens.

Counted by `astolfo.train.memory.predict` (`python benchmarks/memory.py`); not measured on a device yet."""

OPERATIONS = {"sdxl": (1.0, 1.010, 1.037, 1.092, 1.181, 1.202, 1.240, 1.243, 1.257), "sd2": (1.0, 1.260)}
"""The same -> times the operations of forward and backward pass that it takes; counted too."""

FLOP = {"sdxl": 21.8e12, "sd2": 6.6e12}  # of a sample's forward and backward pass, nothing computed twice
RATE, BUS = 30e12, 20e9  # FLOP a second of an RTX 3090 in training, bytes a second to and from its host: estimates

EXCHANGE = 2 << 25  # elements for each process, while pieces of gradients are exchanged (twice ranks.PIECE)

OVERHEAD = 0.7e9
"""Bytes of CUDA's context, its libraries' workspaces and the allocator's gaps: an estimate."""

USABLE = 0.91  # of a device's memory: 23.5 GB of a 24 GiB card. A screen, and gaps beyond OVERHEAD, have the rest

GIB = 1 << 30

_COUNTED: dict[tuple[int, str, str], tuple[dict, int]] = {}

DEEPSPEED_BUCKET = 1 << 26  # elements; `train/deepspeed.py` sets it for reducing gradients


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    overhead: float = OVERHEAD

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.overhead

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimizer", "activations", "overhead")
        return ", ".join(f"{part} {getattr(self, part) / 1e9:.1f}" for part in parts)


def trained_parameters(recipe: Recipe) -> int:
    """How many parameters a recipe trains at full scale. Of a text encoder all count, its few unused ones too."""
    rates = recipe.learning_rate.largest
    encoders = sum(count for part, count in PARAMETERS[recipe.family].items() if part != "unet" and rates[part])
    return encoders + _of_unet(recipe)


def _of_unet(recipe: Recipe) -> int:
    """How many parameters of the UNet train. Remembered: a plan asks for the same ones hundreds of times."""
    key = (id(recipe.architecture), repr(recipe.unet), repr(recipe.learning_rate))
    if key not in _COUNTED:
        count = sum(trained(recipe.unet, recipe.learning_rate, recipe.architecture["unet"]).values())
        _COUNTED[key] = (recipe.architecture, count)  # which is kept, so that its id stays its own
    return _COUNTED[key][1]


def optimizer_bytes(recipe: Recipe) -> float:
    """Bytes of the optimizer's whole state, wherever it lies."""
    kind, precision = recipe.optimizer.kind, recipe.precision
    whole = BYTES["fp32"] if precision.update else BYTES[precision.weights]
    return trained_parameters(recipe) * MOMENTS[kind] * _MOMENT_BYTES.get(kind, whole)


def master_bytes(recipe: Recipe) -> float:
    """Bytes of the fp32 weights that are kept beside the model's, where they are."""
    return trained_parameters(recipe) * BYTES["fp32"] if recipe.precision.update == "master" else 0.0


def state_bytes(recipe: Recipe) -> float:
    """Bytes of a saved state: the trained weights (the masters, where there are any) and the optimizer's state."""
    weights = master_bytes(recipe) or trained_parameters(recipe) * BYTES[recipe.precision.weights]
    return weights + optimizer_bytes(recipe)


def result_bytes(recipe: Recipe) -> float:
    """Bytes of a single-file checkpoint: every part, and the autoencoder, in the dtype that is saved."""
    return (sum(PARAMETERS[recipe.family].values()) + AUTOENCODER) * BYTES[recipe.precision.save]


def placements(recipe: Recipe, processes: int) -> list[dict[str, Any]]:
    """Keys of a run's placement that save memory and cost time, the quickest first (estimated). None of them decides a bit.

    In a model that DeepSpeed compiles checkpointing would, so it is not offered; nor is offloading where no sum waits for
    another: with an engine, or for less than four ranks of a process.
    """
    leaves = recipe.ranks // processes
    every = (False, *(BLOCKS[:count] for count in range(1, len(BLOCKS))), True) if recipe.family == "sdxl" else (False, True)
    chosen = every[:1] if recipe.engine and recipe.engine.compile else every
    offload = (False, True) if leaves > 2 and not recipe.engine else (False,)
    found = [{"gradient_checkpointing": one, "offload_gradients": there} for there in offload for one in chosen]
    return sorted(found, key=lambda placement: _seconds(recipe, leaves, **placement))


def fitting(recipe: Recipe, processes: int, usable: float) -> tuple[dict[str, Any], Memory]:
    """The first of `placements` that needs at most `usable` bytes of a device, and what it needs; else what needs least."""
    found = [(placement, memory(recipe, processes, **placement)) for placement in placements(recipe, processes)]
    return next((one for one in found if one[1].total <= usable), min(found, key=lambda one: one[1].total))


def saving(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a placement says of saving memory, both keys, one that it leaves out as off; empty where it leaves out both."""
    values = {key: given.get(key) for key in SAVING}
    return {} if set(values.values()) == {None} else {key: value or False for key, value in values.items()}


def blocks(text: str) -> bool | tuple[str, ...]:
    """The blocks that "all", "none" or names with commas between them stand for. Raises ValueError for an unknown name."""
    if text in ("all", "none"):
        return text == "all"
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in BLOCKS]:
        raise ValueError(f"Expected all, none, or some of {','.join(BLOCKS)}, found {', '.join(map(repr, unknown))}.")
    return names


def named(placement: dict[str, Any]) -> str:
    """A placement as a run's entry would have it, "" where it asks for nothing: "gradient_checkpointing: [mid_block]"."""
    values = {key: value if isinstance(value, bool) else list(value) for key, value in placement.items() if value}
    return yaml.safe_dump(values, default_flow_style=True, width=math.inf, sort_keys=False).strip()[1:-1]


def memory(
    recipe: Recipe,
    processes: int,
    *,
    gradient_checkpointing: bool | tuple[str, ...] = True,
    offload_gradients: bool = False,
) -> Memory:
    """Memory of one of `processes` processes that run the recipe's logical ranks, each on a device of its own.

    Blocks of `gradient_checkpointing` count as far as they are the first ones of BLOCKS; others would save something more.
    """
    each = BYTES[recipe.precision.weights]
    trained, whole = trained_parameters(recipe), sum(PARAMETERS[recipe.family].values())
    sample = ACTIVATIONS[recipe.family][_level(recipe, gradient_checkpointing)] * BYTES[recipe.precision.compute] / 2
    activations = sample * recipe.batch_size
    if recipe.engine:  # DeepSpeed's ZeRO-2: gradients and optimizer in shares, with fp32 weights of its own
        share = trained / recipe.ranks
        gradients = share * each + DEEPSPEED_BUCKET * each
        optimizer = optimizer_bytes(recipe) / recipe.ranks + 4 * share
        return Memory(weights=whole * each, gradients=gradients, optimizer=optimizer, activations=activations)
    buffers = 1 if offload_gradients else max(1, (recipe.ranks // processes).bit_length() - 1)  # one for each level of the tree
    moment = EXCHANGE * processes * each if processes > 1 else 0
    owned = 0.0 if recipe.optimizer.kind == "PagedAdamW8bit" else optimizer_bytes(recipe) / processes
    owned += master_bytes(recipe) / processes
    gradients = buffers * trained * each
    return Memory(weights=whole * each, gradients=gradients, optimizer=owned, activations=max(activations, moment))


def _level(recipe: Recipe, checkpointing: bool | tuple[str, ...]) -> int:
    """Which entry of the family's tables tells of a placement's `gradient_checkpointing`."""
    if isinstance(checkpointing, bool):
        return (len(ACTIVATIONS[recipe.family]) - 1) * checkpointing
    first = next((count for count, block in enumerate(BLOCKS) if block not in checkpointing), len(BLOCKS))
    return first if recipe.family == "sdxl" else 0


def _seconds(recipe: Recipe, leaves: int, *, gradient_checkpointing: bool | tuple[str, ...], offload_gradients: bool) -> float:
    """What a placement costs a step of a process that runs `leaves` logical ranks: an estimate, to choose between placements."""
    samples = leaves * recipe.batch_size * recipe.accumulation
    again = (OPERATIONS[recipe.family][_level(recipe, gradient_checkpointing)] - 1) * samples * FLOP[recipe.family]
    moved = 2 * (leaves - 2) * trained_parameters(recipe) * BYTES[recipe.precision.weights] if offload_gradients else 0
    return again / RATE + moved / BUS
