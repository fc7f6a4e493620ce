"""Which weights train: the UNet's blocks by the recipe, and the parts of the text encoders that are used.

The record's 63, 68 and 71 percent UNets are fixed sets of SDXL's blocks (`astolfo.ledger.unet.FIXED`): of 2,567,463,684
parameters they leave 1,827,058,244 (71 %), 1,764,781,124 (68 %) and 1,629,562,564 (63 %) to train. Other UNets have none; of
them, as of SDXL's, any set can be named by its blocks.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from astolfo.errors import LedgerError
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.unet import FIXED, trains


def trainable_parameters(recipe: Recipe, parts: dict[str, nn.Module]) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(part, name, parameter) of every parameter that the recipe trains, in the order in which they are kept.

    Raises LedgerError for a partial UNet of a family that has none.
    """
    if recipe.unet in FIXED and recipe.family != "sdxl":
        raise LedgerError(
            f"unet: {recipe.unet} is a set of frozen blocks of SDXL's UNet; {recipe.family} has none. Say unet: 100."
        )
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if part not in parts or recipe.learning_rate.largest[part] == 0:
            continue
        unread = _unused(recipe, part, parts[part])
        for name, parameter in parts[part].named_parameters():
            if trains(recipe.unet, recipe.learning_rate, name) if part == "unet" else not name.startswith(unread):
                yield part, name, parameter


def _unused(recipe: Recipe, part: str, encoder: nn.Module) -> tuple[str, ...]:
    """SDXL reads its first text encoder before the last layer, so that layer and the final norm get no gradient."""
    if part != "text_encoder" or recipe.family != "sdxl":
        return ()
    config: Any = encoder.config
    last = config.num_hidden_layers - 1
    return tuple(f"{prefix}{name}" for prefix in ("", "text_model.") for name in (f"encoder.layers.{last}.", "final_layer_norm."))
