"""The plan of an evaluation: which cells are sampled, and where in which grid each stands.

A cell is one way of sampling: weights (checkpoint and alpha) and settings. Grids share cells; each is sampled once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from astolfo.checkpoint.architecture import Architecture
from astolfo.errors import InputError
from astolfo.evaluate.sample import Settings, sampler_of
from astolfo.ledger.evaluations import RESULT, Axis, Sampling
from astolfo.ledger.schema import Objective


@dataclass(frozen=True)
class Cell:
    """One way of sampling: these weights under these settings."""

    alpha: float
    settings: Settings
    checkpoint: str = RESULT

    @property
    def title(self) -> str:
        """Its name for a reader."""
        saved = "" if self.checkpoint == RESULT else f"{self.checkpoint}, "
        return f"{saved}{self.settings.runtime} runtime, {self.settings.uncond} uncond, alpha {self.alpha:.2f}"


@dataclass(frozen=True)
class PlannedGrid:
    """A grid: axes as (name, values), and its cells by group (along z) and column (along x)."""

    name: str
    x: tuple[str, tuple[Any, ...]]
    z: tuple[str, tuple[Any, ...]] | None
    cells: tuple[tuple[Cell, ...], ...]


class Plan:
    """The plan of a spec's settings: its `grids`, and their `cells`, each once, in the order in which grids name them.

    Raises InputError for settings that are empty or impossible.
    """

    def __init__(self, given: Mapping[str, Any], architecture: Architecture, objective: Objective, *, merges: bool):
        try:
            self.sampling = Sampling.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where, found = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            raise InputError(f"settings.{where}: {found}. config/evaluations.yaml holds the evaluation's settings.") from None
        self.merges, self._objective = merges, objective
        self.shared = _shared(self.sampling, architecture, objective)
        self.grids = tuple(self._grid(grid.name, grid.x, grid.z) for grid in self.sampling.grids)
        self.cells = list(dict.fromkeys(cell for grid in self.grids for row in grid.cells for cell in row))

    def file(self, cell: Cell, number: int) -> str:
        """Where picture `number` (from 0) of a cell lies: "pictures/eps-null-0.50-01.png"."""
        settings, shared = cell.settings, self.shared
        parts = [settings.runtime, settings.uncond, f"{cell.alpha:.2f}"]
        parts += [f"steps{settings.steps:02d}"] if settings.steps != shared.steps else []
        parts += [f"cfg{settings.cfg:g}"] if settings.cfg != shared.cfg else []
        parts += [settings.sampler.lower()] if settings.sampler != sampler_of(settings.runtime, shared.sampler) else []
        parts += [cell.checkpoint] if cell.checkpoint != RESULT else []
        return f"pictures/{'-'.join(parts)}-{number + 1:02d}.png"

    def _grid(self, name: str, x: Axis, z: Axis | None) -> PlannedGrid:
        columns, groups = self._values(x), self._values(z) if z else None
        rows = [{z.name: group} for group in groups] if z and groups else [{}]
        cells = tuple(tuple(self._cell({**row, x.name: value}) for value in columns) for row in rows)
        return PlannedGrid(name, (x.name, columns), (z.name, groups) if z and groups else None, cells)

    def _values(self, axis: Axis) -> tuple[Any, ...]:
        """An axis's values; without a base there is alpha 1.0 only."""
        return (1.0,) if axis.name == "alpha" and not self.merges else tuple(axis.values)

    def _cell(self, at: Mapping[str, Any]) -> Cell:
        """The cell at these values of the axes. The v runtime has zero terminal SNR as the run has it; else it has."""
        given = {key: value for key, value in at.items() if key not in ("alpha", "checkpoint")}
        runtime = given.get("runtime", self.shared.runtime)
        sampler = sampler_of(runtime, given.get("sampler", self.shared.sampler))
        terminal = self._objective.zero_terminal_snr if self._objective.kind == "v" else True
        settings = replace(self.shared, **given | {"sampler": sampler, "zero_terminal_snr": terminal and runtime == "v"})
        return Cell(at.get("alpha", 1.0), settings, at.get("checkpoint", RESULT))


def _shared(sampling: Sampling, architecture: Architecture, objective: Objective) -> Settings:
    """What no axis varies; the size is the architecture's own."""
    factor = 2 ** (len(architecture.config("vae")["block_out_channels"]) - 1)
    side = (architecture.config("unet").get("sample_size") or 16) * factor
    return Settings(
        runtime=sampling.runtime, sampler=sampler_of(sampling.runtime, sampling.sampler), steps=sampling.steps, cfg=sampling.cfg,
        height=side, width=side, shift=objective.shift or 1.0,
    )  # fmt: skip
