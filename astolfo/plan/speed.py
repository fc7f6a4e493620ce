"""How fast a run trains on a machine: what was measured there, or an estimate from floating-point operations.

A machine's file in config/hardware/ lists what was measured on it. The measurement that is nearest to the run is taken and
scaled by the work per image when its part of the UNet differs. Where nothing was measured, the cards' peak times the share
of it that trainings were seen to reach elsewhere gives a range.
"""

from dataclasses import dataclass

from astolfo.ledger import schema
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.unet import parameters, trained

TERAFLOP = {100: 20.231, 71: 18.282, 68: 18.161, 63: 17.588}
"""Percent of SDXL's UNet that trains -> 10^12 operations per image, forward and backward.

At 1024 x 1024 and 77 text positions; counted by torch's FlopCounterMode on the meta device, a multiply-add being two."""

_WEIGHTS = 5.977
"""Of these, what the gradients of all weights take: as much as the forward pass without its attention products."""

UTILISATION = (0.16, 0.38)
"""The share of a card's peak that trainings of SDXL reached: from four V100 (16 %) to one RTX 3090 at 71 % (38 %)."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images per second of a whole machine, as a range (equal ends when it was measured), and where the figure is from."""

    slow: float
    fast: float
    source: str

    def __str__(self) -> str:
        if self.slow == self.fast:
            return f"{self.slow:.3g} images/s"
        return f"{self.slow:.3g} to {self.fast:.3g} images/s"


def speed(recipe: Recipe, machine: schema.Hardware, devices: int) -> Speed | None:
    """The speed of a recipe on `devices` of a machine's devices; None where nothing known tells it."""
    measured = [row for row in machine.measured if (row.devices or machine.devices) == devices]
    if machine.device == "cpu":
        return _as_measured(measured[0]) if measured else None
    if recipe.family != "sdxl":
        return None
    if not measured:
        return _from_peak(recipe, machine, devices)
    best = max(measured, key=lambda row: _nearness(row, recipe))  # the first of equals
    return _scaled(best, recipe)


def teraflop(recipe: Recipe) -> float:
    """10^12 operations per image; of a set of blocks that nobody counted an estimate, by the share of weights that trains."""
    if isinstance(recipe.unet, int) and not recipe.learning_rate.blocks:
        return TERAFLOP[recipe.unet]
    config = recipe.architecture["unet"]
    share = sum(trained(recipe.unet, recipe.learning_rate, config).values()) / sum(parameters(config).values())
    return TERAFLOP[100] - _WEIGHTS * (1 - share)


def _nearness(row: schema.Measurement, recipe: Recipe) -> tuple[bool, ...]:
    """How near a measurement is to a recipe: by optimizer, then the trained part, batch and accumulation."""
    return (
        row.optimizer == recipe.optimizer.kind,
        row.unet == recipe.unet,
        row.batch_size == recipe.batch_size,
        row.accumulation == recipe.accumulation,
    )


def _as_measured(row: schema.Measurement) -> Speed:
    return Speed(slow=row.images_per_second, fast=row.images_per_second, source=f"measured: {_conditions(row)}")


def _scaled(row: schema.Measurement, recipe: Recipe) -> Speed:
    if row.unet is None or row.unet == recipe.unet:
        return _as_measured(row)
    factor = TERAFLOP[row.unet] / teraflop(recipe)
    value = row.images_per_second * factor
    source = f"{row.images_per_second:g} measured ({_conditions(row)}), times {factor:.2f} for the work per image"
    return Speed(slow=value, fast=value, source=source)


def _conditions(row: schema.Measurement) -> str:
    unet = f"{row.unet}% UNet" if row.unet else ""
    batch = f"batch {row.batch_size}" if row.batch_size else ""
    accumulation = f"accumulation {row.accumulation}" if row.accumulation else ""
    return ", ".join(filter(None, (row.note, row.optimizer, unet, batch, accumulation)))


def _from_peak(recipe: Recipe, machine: schema.Hardware, devices: int) -> Speed | None:
    if machine.peak_tflops is None:
        return None
    slow, fast = (devices * machine.peak_tflops * share / teraflop(recipe) for share in UTILISATION)
    source = (
        f"not measured: {teraflop(recipe):.4g} TFLOP per image, {devices} x {machine.peak_tflops:g} TFLOP/s (vendor's), "
        f"of which {UTILISATION[0]:.0%} to {UTILISATION[1]:.0%} were reached on other cards"
    )
    return Speed(slow=slow, fast=fast, source=source)
