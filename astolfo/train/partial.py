"""Which weights train: the record's 63, 68 and 71 percent UNets, and the parts of the text encoders that are used.

A partial UNet is a fixed set of frozen blocks; each set contains the one above it. On SDXL's UNet of 2,567,463,684
parameters they leave 1,827,058,244 (71 %), 1,764,781,124 (68 %) and 1,629,562,564 (63 %) to train. Other UNets have none.
"""

from collections.abc import Iterator

from torch import nn

from astolfo.errors import LedgerError
from astolfo.ledger.recipe import Recipe

_71 = (
    "down_blocks.0.resnets.", "down_blocks.0.downsamplers.", "down_blocks.1.downsamplers.",
    "down_blocks.2.attentions.1.", "up_blocks.0.attentions.0.", "up_blocks.0.upsamplers.", "up_blocks.1.upsamplers.",
    "up_blocks.2.resnets.",
)  # fmt: skip
_68 = (*_71, "mid_block.resnets.")
_63 = (*_68, "down_blocks.1.resnets.", "down_blocks.2.resnets.1.", "up_blocks.0.resnets.0.", "up_blocks.1.resnets.")
FROZEN: dict[int, tuple[str, ...]] = {100: (), 71: _71, 68: _68, 63: _63}
"""Percent of the UNet that trains -> prefixes of the names (diffusers') that stay as they are."""


def trained(recipe: Recipe, parts: dict[str, nn.Module]) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(part, name, parameter) of every parameter that the recipe trains, in the order in which they are kept.

    Raises LedgerError for a partial UNet of a family that has none.
    """
    if recipe.unet != 100 and recipe.family != "sdxl":
        raise LedgerError(
            f"unet: {recipe.unet} is a set of frozen blocks of SDXL's UNet; {recipe.family} has none. Say unet: 100."
        )
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if part not in parts or getattr(recipe.learning_rate, part) == 0:
            continue
        frozen = FROZEN[recipe.unet] if part == "unet" else _unused(recipe, part, parts[part])
        for name, parameter in parts[part].named_parameters():
            if not name.startswith(frozen):
                yield part, name, parameter


def _unused(recipe: Recipe, part: str, encoder: nn.Module) -> tuple[str, ...]:
    """SDXL reads its first text encoder before the last layer, so that layer and the final norm get no gradient."""
    if part != "text_encoder" or recipe.family != "sdxl":
        return ()
    last = encoder.config.num_hidden_layers - 1
    return tuple(f"{prefix}{name}" for prefix in ("", "text_model.") for name in (f"encoder.layers.{last}.", "final_layer_norm."))
