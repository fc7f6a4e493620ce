"""How fast a run trains on a machine: what was measured there, or an estimate from floating-point operations.

A machine's file in hardware/ lists what was measured on it. Only what was measured doing just what the run does is called
measured. Otherwise the nearest measurement, scaled by the work per image, gives a range; and where nothing was measured, the
cards' peak times the share of it that trainings were seen to reach elsewhere does.
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


SPREAD = 0.2
"""How far a speed may lie from one that was measured with another optimizer or accumulation: so far they lay in the record."""

_NAMES = {
    "optimizer": ("{}", "{}"),
    "unet": ("", "{}% UNet"),
    "text_encoders": ("text encoders frozen", "text encoders trained"),
    "batch_size": ("", "batch {}"),
    "accumulation": ("", "accumulation {}"),
}
"""A condition of a measurement -> how it is said when it is nothing, and else."""

CALL, CHUNK, UPDATE = 0.06, 0.021, 0.1
"""Seconds of one core that the miniature takes: a micro-batch, each 75 tokens of each of its images, a step's update.

A least-squares fit of eleven trainings on an AMD EPYC of 2024, in processor time: micro-batches of 1 to 8, 75 and 225 tokens,
SDXL and SD 2.1. None took less than 0.83 or more than 1.23 times what it gives; docs/log.md has them."""

CORE_SPREAD = 0.3
"""How far the speed of another recipe, on such a core with nothing else to do, may lie from that fit."""


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
    if machine.device == "cpu":
        return _on_cores(recipe, machine, devices)
    if recipe.family != "sdxl":
        return None
    measured = [row for row in machine.measured if (row.devices or machine.devices) == devices]
    if not measured:
        return _from_peak(recipe, machine, devices)
    best = min(measured, key=lambda row: _differences(row, recipe))  # the first of equals
    return _from_measured(best, recipe)


def teraflop(recipe: Recipe) -> float:
    """10^12 operations per image; of a set of blocks that nobody counted an estimate, by the share of weights that trains."""
    if isinstance(recipe.unet, int) and not recipe.learning_rate.blocks:
        return TERAFLOP[recipe.unet]
    config = recipe.architecture["unet"]
    share = sum(trained(recipe.unet, recipe.learning_rate, config).values()) / sum(parameters(config).values())
    return TERAFLOP[100] - _WEIGHTS * (1 - share)


def _conditions(recipe: Recipe) -> dict[str, object]:
    """What of a recipe a measurement can name, the weightiest first."""
    return {
        "optimizer": recipe.optimizer.kind,
        "unet": recipe.unet,
        "text_encoders": any(rate for part, rate in recipe.learning_rate.largest.items() if part != "unet"),
        "batch_size": recipe.batch_size,
        "accumulation": recipe.accumulation,
    }


def _differences(row: schema.Measurement, recipe: Recipe) -> tuple[bool, ...]:
    """Where a measurement is not known to be of just such a recipe: in each of its conditions, the weightiest first."""
    return tuple(getattr(row, key) != value for key, value in _conditions(recipe).items())


def _from_measured(row: schema.Measurement, recipe: Recipe) -> Speed:
    """As it was measured, for just such a recipe; else a range around it, scaled by the work per image where that is known."""
    pairs = zip(_conditions(recipe).items(), _differences(row, recipe), strict=True)
    other = [f"{_condition(key, value)} here" for (key, value), differs in pairs if differs]
    if not other:
        return Speed(slow=row.images_per_second, fast=row.images_per_second, source=f"measured: {_described(row)}")
    factor = TERAFLOP[row.unet] / teraflop(recipe) if row.unet else 1.0
    slow, fast = (row.images_per_second * factor * (1 + sign * SPREAD) for sign in (-1, 1))
    work = f", times {factor:.2f} for the work per image" if factor != 1 else ""
    source = (
        f"not measured: from {row.images_per_second:g} ({_described(row)}; {', '.join(other)}){work}, give or take {SPREAD:.0%}"
    )
    return Speed(slow=slow, fast=fast, source=source)


def _described(row: schema.Measurement) -> str:
    conditions = [_condition(key, value) for key in _NAMES if (value := getattr(row, key)) is not None]
    return ", ".join((row.note, *conditions))


def _condition(key: str, value: object) -> str:
    return _NAMES[key][bool(value)].format(value)


def _on_cores(recipe: Recipe, machine: schema.Hardware, processes: int) -> Speed:
    """The miniature's speed: by the fit, in proportion to what was measured on so many cores of this machine, if anything was."""
    middle = _fitted(recipe, processes)
    what = "an AMD EPYC's cores with nothing else to do; beside other work, or on slower ones, it takes longer"
    if row := next((row for row in machine.measured if (row.devices or machine.devices) == processes), None):
        like = {"batch_size": row.batch_size, "accumulation": row.accumulation}
        alike = recipe.model_copy(update={key: value for key, value in like.items() if value})
        middle *= row.images_per_second / _fitted(alike, processes)
        what = f"{row.images_per_second:g} measured there: {row.note}"
    slow, fast = (middle * (1 + sign * CORE_SPREAD) for sign in (-1, 1))
    given = f"not measured: {middle:.3g} for micro-batches of {recipe.batch_size} ({what}), give or take {CORE_SPREAD:.0%}"
    return Speed(slow=slow, fast=fast, source=given)


def _fitted(recipe: Recipe, processes: int) -> float:
    """Images a second of so many processes, each on a core of its own."""
    calls = recipe.ranks * recipe.accumulation / processes
    images = calls * recipe.batch_size
    return processes * images / (calls * CALL + images * recipe.captions.tokens / 75 * CHUNK + UPDATE)


def _from_peak(recipe: Recipe, machine: schema.Hardware, devices: int) -> Speed | None:
    if machine.peak_tflops is None:
        return None
    slow, fast = (devices * machine.peak_tflops * share / teraflop(recipe) for share in UTILISATION)
    peak = machine.peak_source or "vendor's"
    source = (
        f"not measured: {teraflop(recipe):.4g} TFLOP per image, {devices} x {machine.peak_tflops:g} TFLOP/s ({peak}), "
        f"of which {UTILISATION[0]:.0%} to {UTILISATION[1]:.0%} were reached on other cards"
    )
    return Speed(slow=slow, fast=fast, source=source)
