"""What a training needs of a device's memory, computed before it runs: no weights, no device, nothing measured on one.

    predict(recipe, processes=4, checkpointing=True).peak

Weights, gradients and optimizer state follow from the model's shapes and from who owns what (`astolfo.train.ranks`).
Activations are counted: one micro-batch goes forward and backward through the model on torch's meta device, where tensors
have sizes but no memory, and every storage that lives is counted while it lives. Attention counts as a fused kernel does: it
keeps its inputs, its output and one float per row. What the driver, cuDNN and the allocator take besides is not in it.
"""

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from astolfo.checkpoint.architecture import Architecture
from astolfo.files import canonical_json
from astolfo.ledger.recipe import Recipe
from astolfo.train import update
from astolfo.train.conditioning import Text
from astolfo.train.loop import checkpoint
from astolfo.train.model import DTYPES, architecture_of
from astolfo.train.ranks import PIECE, GradientTree, Processes
from astolfo.train.trainable import trainable_parameters

_ALIGNED = 512  # bytes; the CUDA allocator's smallest unit
_SMALL = 4096  # elements; smaller tensors have whole moments in every kind of optimizer


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, of the process that needs most. `moment`: what reduction and update need for a moment."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    moment: int

    @property
    def peak(self) -> int:
        """The most that is needed at once: in a backward pass, or in the update."""
        return self.weights + self.gradients + self.optimizer + max(self.activations, self.moment)

    def __str__(self) -> str:
        names = ("weights", "gradients", "optimizer", "activations", "moment")
        return ", ".join(f"{name} {getattr(self, name) / 1e9:.2f}" for name in names) + f": peak {self.peak / 1e9:.2f} GB"


def predict(
    recipe: Recipe,
    *,
    processes: int = 1,
    size: tuple[int, int] | None = None,
    checkpointing: bool | tuple[str, ...] = False,
    offload: bool = False,
) -> Memory:
    """What each device needs when `processes` devices train the recipe on pictures of `size` (height, width; pixels).

    `size` is by default the model's own. `checkpointing` and `offload` are the placement's `gradient_checkpointing` and
    `offload_gradients`.
    """
    parts = _parts(recipe)
    chosen = list(trainable_parameters(recipe, parts))
    every = sum(parameter.numel() for part in parts.values() for parameter in part.parameters())
    trees = [GradientTree([p for *_, p in chosen], Processes(count=processes, index=index)) for index in range(processes)]
    buffers = 1 if offload else max(1, int(math.log2(recipe.ranks // processes)))  # one for each level of the tree
    width = DTYPES[recipe.precision.weights].itemsize
    largest = max(len(tree.owned_weights()) for tree in trees)
    moment = 2 * processes * min(PIECE, largest) * width if processes > 1 else 0
    if recipe.precision.update:
        moment = max(moment, 8 * min(update.STRETCH, largest))
    return Memory(
        weights=every * width,
        gradients=buffers * len(trees[0].weights) * width,
        optimizer=max(sum(_state(recipe, p) for p in tree.owned()) for tree in trees),
        activations=_activations(canonical_json(recipe.canonical()), size, checkpointing),
        moment=moment,
    )


def sampling(architecture: Architecture, pictures: int, size: tuple[int, int]) -> int:
    """The most bytes that making `pictures` pictures of `size` (height, width; pixels) together needs besides fp32 weights.

    Either the UNet's, which sees each picture twice (unconditional and conditional), or the autoencoder's, which decodes them.
    """
    unet, vae = (nn.Module.to(architecture.build(part), torch.float32).eval() for part in ("unet", "vae"))
    config = architecture.config("unet")
    factor = 2 ** (len(architecture.vae["block_out_channels"]) - 1)
    latents = torch.zeros((2 * pictures, config["in_channels"], *(pixels // factor for pixels in size)), device="meta")
    context = torch.zeros((2 * pictures, 77, config["cross_attention_dim"]), device="meta")
    added = None
    if config.get("addition_embed_type"):
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        shapes = {"text_embeds": (2 * pictures, pooled), "time_ids": (2 * pictures, 6)}
        added = {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}
    peaks = []
    with torch.no_grad(), _fused_attention():
        with _Living() as living:
            unet(latents, torch.zeros((), dtype=torch.int64, device="meta"), context, added_cond_kwargs=added)
        peaks.append(living.peak)
        with _Living() as living:
            vae.decode(latents[:pictures])
        peaks.append(living.peak)
    return max(peaks)


def largest(recipe: Recipe) -> int:
    """How many elements the largest weight that trains has."""
    return max(parameter.numel() for *_, parameter in trainable_parameters(recipe, _parts(recipe)))


@cache  # the same for any number of devices
def _activations(recipe_json: str, size: tuple[int, int] | None, checkpointing: bool | tuple[str, ...]) -> int:
    """The most bytes that one micro-batch's forward and backward need besides weights and gradients."""
    recipe = Recipe.model_validate_json(recipe_json)
    parts = _parts(recipe)
    parameters = [parameter for *_, parameter in trainable_parameters(recipe, parts)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    checkpoint(parts, checkpointing)
    tree = GradientTree(parameters, Processes())
    tree.begin(1)
    with _fused_attention(), _Living() as living, tree.leaf():
        _forward(recipe, parts, size).float().square().mean().backward()
    return living.peak


def flops(recipe: Recipe, size: tuple[int, int] | None = None, checkpointing: bool | tuple[str, ...] = False) -> int:
    """Floating-point operations of one micro-batch, forward and backward through what trains, with what is computed twice.

    Matrix products, convolutions and attention, a multiplication and an addition as two, counted on the meta device.
    """
    parts = _parts(recipe)
    for *_, parameter in trainable_parameters(recipe, parts):
        parameter.requires_grad_(True)
    checkpoint(parts, checkpointing)
    with FlopCounterMode(display=False) as counter:
        _forward(recipe, parts, size).float().square().mean().backward()
    return counter.get_total_flops()


def _parts(recipe: Recipe) -> dict[str, nn.Module]:
    architecture = architecture_of(recipe)
    wanted = [part for part in architecture.parts if part != "vae"]
    parts = {part: nn.Module.to(architecture.build(part), DTYPES[recipe.precision.weights]) for part in wanted}
    return {part: module.train().requires_grad_(False) for part, module in parts.items()}


def _forward(recipe: Recipe, parts: dict[str, nn.Module], size: tuple[int, int] | None) -> Tensor:
    """The UNet's prediction for a micro-batch of captions and pictures that have shapes only."""
    batch, dtype = recipe.batch_size, DTYPES[recipe.precision.weights]
    factor = 2 ** (len(recipe.architecture["vae"]["block_out_channels"]) - 1)
    side = recipe.architecture["unet"]["sample_size"]
    height, width = (pixels // factor for pixels in size) if size else (side, side)
    encoders = [parts[part] for part in ("text_encoder", "text_encoder_2") if part in parts]
    text = Text(encoders, [None] * len(encoders), tokens=recipe.captions.tokens, context=recipe.choices.context)
    ids = torch.zeros((batch, recipe.captions.tokens // 75, 77), dtype=torch.int64, device="meta")
    context, pooled = text.encode([ids] * len(encoders), "meta")
    added = None
    if pooled is not None:
        added = {"text_embeds": pooled, "time_ids": torch.zeros((batch, 6), device="meta")}
    latents = torch.zeros((batch, 4, height, width), dtype=dtype, device="meta")
    timestep = torch.zeros(batch, dtype=torch.int64, device="meta")
    return parts["unet"](latents, timestep, context.to(dtype), added_cond_kwargs=added, return_dict=False)[0]


def _state(recipe: Recipe, parameter: nn.Parameter) -> int:
    """Bytes of one parameter's optimizer state, and of its master where one is kept."""
    count, shape = parameter.numel(), tuple(parameter.shape)
    whole = 4 if recipe.precision.update or recipe.precision.weights == "fp32" else 2
    factored = 4 * (count // shape[-1] + count // shape[-2]) if len(shape) > 1 else 4 * count
    rows = 4 * (count // 256 + bool(count % 256))  # one scale for each block of 256
    small = count < _SMALL
    found = {
        "AdamW": 2 * whole * count,
        "AdamW8bit": 8 * count if small else 2 * (count + rows),
        "PagedAdamW8bit": 8 * count if small else 2 * (count + rows),
        "AdamW4bit": 2 * (whole * count if small or count % 128 else count // 2 + 4 * (count // 128)),
        "Lion": whole * count,
        "CautiousLion": whole * count,
        "C-Lion": whole * count,
        "Lion8bit": 4 * count if small else count + rows,
        "AdaFactor": factored,
        "AdamWScheduleFree": 2 * whole * count,
        "Prodigy": 4 * whole * count,
        "CAME": whole * count + (2 * factored // 4 * whole if len(shape) > 1 else whole * count),
    }[recipe.optimizer.kind]
    return found + (4 * count if recipe.precision.update == "master" else 0)


class _Living(TorchDispatchMode):
    """Counts the bytes of the storages that operators make, for as long as each lives; `peak` is the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in before:
                self._begin(leaf.untyped_storage())
        return result

    def _begin(self, storage: Any) -> None:
        if id(storage) in self._known:
            return
        size = -(-storage.nbytes() // _ALIGNED) * _ALIGNED
        self._known.add(id(storage))
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._end, id(storage), size).atexit = False

    def _end(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _Attention(torch.autograd.Function):
    """A fused attention's shapes: it keeps inputs, output and one float per row for its backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Has attention on the meta device keep what a fused kernel keeps; torch's own there is the plain one."""
    functional: Any = torch.nn.functional
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: _Attention.apply(query, key, value)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
