"""Loss curves, read from the states that the segments of a run left behind.

Only the `loss` tensor of a state is read: a few kilobytes of a file of gigabytes.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astolfo.checkpoint.safefile import open_file
from astolfo.errors import CheckpointError, StateError

STATES = "states/{run}/[0-9]*.safetensors"
POINTS = 1200  # more than a screen has pixels across


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean losses of equal stretches of steps: `values[i]` is that of steps `first + i * every + 1` and following."""

    first: int
    every: int
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The mean over the last tenth of the curve, at least one value."""
        return float(np.mean(self.values[-max(1, len(self.values) // 10) :]))


def read(directory: Path, run: str) -> Curve | None:
    """The whole loss curve of a run, one value per step; None when no state of it is there.

    A state holds the losses since its run began, or began anew from its own checkpoint: earlier stretches are taken from the
    states where they end. Raises StateError for a state that cannot be read.
    """
    found: dict[int, tuple[int, np.ndarray]] = {}
    for path in sorted(directory.glob(STATES.format(run=run))):
        position, losses = _losses(path)
        found[position] = (position - len(losses), losses)
    if not found:
        return None
    first, losses = found[max(found)]
    stretches = [losses]
    while first in found and found[first][0] < first:
        first, losses = found[first]
        stretches.insert(0, losses)
    values = np.concatenate(stretches)
    return Curve(first=first, every=1, values=tuple(map(float, values))) if len(values) else None


def thin(curve: Curve, points: int = POINTS) -> Curve:
    """The curve with at most `points` values, each the mean of as many steps as the others (the last one of what is left)."""
    together = math.ceil(len(curve.values) / points)
    values = np.array(curve.values)
    means = [float(values[i : i + together].mean()) for i in range(0, len(values), together)]
    return Curve(first=curve.first, every=curve.every * together, values=tuple(means))


def smooth(values: tuple[float, ...], share: float = 0.1) -> list[float]:
    """An exponential average over about `share` of the curve's length, without the start's bias (Kingma and Ba, 2014)."""
    keep = 1.0 - 1.0 / max(1.0, share * len(values))
    average, weight, found = 0.0, 0.0, []
    for value in values:
        average, weight = keep * average + (1.0 - keep) * value, keep * weight + (1.0 - keep)
        found.append(average / weight)
    return found


def _losses(path: Path) -> tuple[int, np.ndarray]:
    try:
        with open_file(path) as file:
            position, losses = int(file.metadata["astolfo.position"]), np.array(file.array("loss"), np.float64)
    except (CheckpointError, KeyError, ValueError) as error:
        raise StateError(
            f"{path} holds no losses: expected a state with a tensor `loss` ({error}). Move it away and build the run again."
        ) from None
    if not np.isfinite(losses).all():
        raise StateError(f"{path} has a loss that is not finite, which no run saves. Move it away and build the run again.")
    return position, losses
