"""The parameters of a UNet, from its configuration alone: their names (diffusers') and sizes. No torch.

    parameters(config)["down_blocks.1.attentions.0.proj_in.weight"]      409600
    trained(recipe.unet, recipe.learning_rate, config)                  names -> sizes of what trains

The ledger checks blocks' names by it, and plans memory; a test holds it to diffusers' own models.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from astolfo.files import canonical_json
from astolfo.ledger.schema import LearningRate, UNet, UNetBlocks
from astolfo.ledger.schema.blocks import within

_71 = (
    "down_blocks.0.resnets", "down_blocks.0.downsamplers", "down_blocks.1.downsamplers", "down_blocks.2.attentions.1",
    "up_blocks.0.attentions.0", "up_blocks.0.upsamplers", "up_blocks.1.upsamplers", "up_blocks.2.resnets",
)  # fmt: skip
_68 = (*_71, "mid_block.resnets")
_63 = (*_68, "down_blocks.1.resnets", "down_blocks.2.resnets.1", "up_blocks.0.resnets.0", "up_blocks.1.resnets")
FIXED: dict[int, UNetBlocks] = {71: UNetBlocks(freeze=_71), 68: UNetBlocks(freeze=_68), 63: UNetBlocks(freeze=_63)}
"""The record's partial UNets: percent of SDXL's that trains -> the blocks that stay; each set contains the one before."""


def trains(unet: UNet, rates: LearningRate, name: str) -> bool:
    """Whether the UNet's parameter of that name trains: its block is not frozen, and it has a rate."""
    blocks = unet if isinstance(unet, UNetBlocks) else FIXED.get(unet)
    return (blocks is None or blocks.trains(name)) and rates.of("unet", name) > 0


def trained(unet: UNet, rates: LearningRate, config: Mapping[str, Any]) -> dict[str, int]:
    """Names and sizes of the parameters that train, of the UNet of that configuration."""
    return {name: size for name, size in parameters(config).items() if trains(unet, rates, name)}


def unknown_blocks(config: Mapping[str, Any], unet: UNet | None = None, learning_rate: LearningRate | None = None) -> list[str]:
    """The blocks that a run names and the UNet of that configuration does not have."""
    named = [*(unet.names if isinstance(unet, UNetBlocks) else ()), *((learning_rate.blocks if learning_rate else None) or ())]
    return [block for block in named if not any(within(name, block) for name in parameters(config))]


def known_blocks(config: Mapping[str, Any]) -> list[str]:
    """Names to choose from: every module that holds parameters, and each kind of module that occurs in several."""
    paths = [name.split(".")[:-1] for name in parameters(config)]
    names = {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    return sorted(names | {part for path in paths for part in path if not part.isdecimal()})


def parameters(config: Mapping[str, Any]) -> dict[str, int]:
    """Name -> number of elements of every parameter of a UNet2DConditionModel with that configuration."""
    return _parameters(canonical_json(dict(config)))


@cache
def _parameters(config: str) -> dict[str, int]:
    return dict(_unet(json.loads(config)))


def _unet(c: dict[str, Any]) -> Iterator[tuple[str, int]]:
    widths, layers = c["block_out_channels"], c["layers_per_block"]
    depths = c["transformer_layers_per_block"]
    depths = depths if isinstance(depths, list) else [depths] * len(widths)
    time, context = 4 * widths[0], c["cross_attention_dim"]
    yield from _layer("conv_in", c["in_channels"] * c["conv_in_kernel"] ** 2, widths[0])
    yield from _layer("time_embedding.linear_1", widths[0], time)
    yield from _layer("time_embedding.linear_2", time, time)
    if c.get("addition_embed_type"):
        yield from _layer("add_embedding.linear_1", c["projection_class_embeddings_input_dim"], time)
        yield from _layer("add_embedding.linear_2", time, time)
    skips, width = [widths[0]], widths[0]
    for number, kind in enumerate(c["down_block_types"]):
        place, last = f"down_blocks.{number}", number + 1 == len(widths)
        for layer in range(layers):
            yield from _resnet(f"{place}.resnets.{layer}", width, widths[number], time)
            width = widths[number]
            if "CrossAttn" in kind:
                yield from _transformer(f"{place}.attentions.{layer}", width, context, depths[number])
            skips.append(width)
        if not last:
            yield from _layer(f"{place}.downsamplers.0.conv", width * 9, width)
            skips.append(width)
    for number in range(2):
        yield from _resnet(f"mid_block.resnets.{number}", width, width, time)
    yield from _transformer("mid_block.attentions.0", width, context, depths[-1])
    for number, kind in enumerate(c["up_block_types"]):
        place, out = f"up_blocks.{number}", widths[-1 - number]
        for layer in range(layers + 1):
            yield from _resnet(f"{place}.resnets.{layer}", width + skips.pop(), out, time)
            width = out
            if "CrossAttn" in kind:
                yield from _transformer(f"{place}.attentions.{layer}", width, context, depths[-1 - number])
        if number + 1 < len(widths):
            yield from _layer(f"{place}.upsamplers.0.conv", width * 9, width)
    yield from _norm("conv_norm_out", width)
    yield from _layer("conv_out", width * c["conv_out_kernel"] ** 2, c["out_channels"])


def _layer(name: str, inputs: int, outputs: int, bias: bool = True) -> Iterator[tuple[str, int]]:
    """A linear layer or a convolution; `inputs` are those of one output."""
    yield f"{name}.weight", inputs * outputs
    if bias:
        yield f"{name}.bias", outputs


def _norm(name: str, width: int) -> Iterator[tuple[str, int]]:
    yield f"{name}.weight", width
    yield f"{name}.bias", width


def _resnet(name: str, inputs: int, outputs: int, time: int) -> Iterator[tuple[str, int]]:
    yield from _norm(f"{name}.norm1", inputs)
    yield from _layer(f"{name}.conv1", inputs * 9, outputs)
    yield from _layer(f"{name}.time_emb_proj", time, outputs)
    yield from _norm(f"{name}.norm2", outputs)
    yield from _layer(f"{name}.conv2", outputs * 9, outputs)
    if inputs != outputs:
        yield from _layer(f"{name}.conv_shortcut", inputs, outputs)


def _transformer(name: str, width: int, context: int, depth: int) -> Iterator[tuple[str, int]]:
    yield from _norm(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width)
    for number in range(depth):
        block = f"{name}.transformer_blocks.{number}"
        for norm in ("norm1", "norm2", "norm3"):
            yield from _norm(f"{block}.{norm}", width)
        for attention, source in (("attn1", width), ("attn2", context)):
            yield from _layer(f"{block}.{attention}.to_q", width, width, bias=False)
            for key in ("to_k", "to_v"):
                yield from _layer(f"{block}.{attention}.{key}", source, width, bias=False)
            yield from _layer(f"{block}.{attention}.to_out.0", width, width)
        yield from _layer(f"{block}.ff.net.0.proj", width, 8 * width)
        yield from _layer(f"{block}.ff.net.2", 4 * width, width)
    yield from _layer(f"{name}.proj_out", width, width)
