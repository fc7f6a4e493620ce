"""The model of a recipe: its parts from a base, or from nothing, in the dtype that the recipe begins with."""

from pathlib import Path

import torch
from torch import nn

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.model import load
from astolfo.ledger.recipe import Recipe
from astolfo.train.initialise import initialise

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# A UNet from nothing begins with residual branches that add nothing (Nichol and Dhariwal 2021): it learns faster.
_SILENT = {"unet": ("conv2", "proj_out", "conv_out")}


def architecture_of(recipe: Recipe) -> Architecture:
    """The model configurations of a recipe."""
    return Architecture.from_mapping(recipe.architecture, recipe.family)


def latent_scale(recipe: Recipe) -> float:
    """What latents are multiplied by to have about unit variance: 0.13025 for SDXL, 0.18215 for SD 2.1."""
    return float(recipe.architecture["vae"]["scaling_factor"])


def held_dtype(recipe: Recipe) -> str:
    """The dtype in which a run's weights begin and are handed over: fp32 where it keeps a master of bf16 weights."""
    return "fp32" if recipe.precision.update == "master" else recipe.precision.weights


def noised_dtype(recipe: Recipe) -> torch.dtype:
    """The dtype of latents, noise and target (the choice `latents`); what the UNet is given is cast to that of its weights."""
    return DTYPES[recipe.precision.compute if recipe.choices.latents == "compute" else "fp32"]


def build_parts(recipe: Recipe, base: Path | None, device: torch.device) -> dict[str, nn.Module]:
    """UNet and text encoders on `device`, from `base`, or with first weights of the recipe's seed when it is None.

    Their dtype is `held_dtype(recipe)`.
    """
    architecture = architecture_of(recipe)
    wanted = [part for part in architecture.parts if part != "vae"]
    if base is None:
        parts = {part: initialise(architecture.build(part, "cpu"), recipe.seed, _SILENT.get(part, ())) for part in wanted}
        parts = {part: nn.Module.to(module, DTYPES[held_dtype(recipe)]) for part, module in parts.items()}
    else:
        parts = load(base, architecture, wanted, held_dtype(recipe), recipe.choices.pooled_projection)
    return {part: module.to(device).train() for part, module in parts.items()}
