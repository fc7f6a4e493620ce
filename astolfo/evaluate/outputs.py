"""What an evaluation leaves in its folder: `pictures/*.png`, `grid.png`, `index.html`, and last `metrics.json`.

Where `metrics.json` lies, the rest is complete and belongs to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from astolfo.data.procedural import draw
from astolfo.evaluate.grid import Column, draw_grid, save_png
from astolfo.evaluate.page import page
from astolfo.evaluate.prompts import Prompt
from astolfo.evaluate.sample import SAMPLERS, Settings
from astolfo.files import write_json, write_text


@dataclass(frozen=True)
class Cell:
    """One way of sampling: these settings at this alpha."""

    alpha: float
    settings: Settings

    @property
    def title(self) -> str:
        """Its name for a reader."""
        return f"{self.settings.runtime} runtime, {self.settings.uncond} uncond, alpha {self.alpha:.2f}"

    def file(self, number: int) -> str:
        """Where its picture `number` (from 0) lies: "pictures/eps-null-0.50-01.png"."""
        return f"pictures/{self.settings.runtime}-{self.settings.uncond}-{self.alpha:.2f}-{number + 1:02d}.png"


def write(
    folder: Path, report: Mapping[str, Any], cells: Sequence[Cell], pictures: Mapping[Cell, np.ndarray], prompts: Sequence[Prompt]
) -> None:
    """Writes the evaluation into `folder` and removes the pictures of an older one. Columns stand in the order of `cells`."""
    (folder / "metrics.json").unlink(missing_ok=True)
    for old in sorted((folder / "pictures").glob("*.png")):
        old.unlink()
    for cell in cells:
        for i, (prompt, picture) in enumerate(zip(prompts, pictures[cell], strict=True)):
            save_png(folder / cell.file(i), picture, {"parameters": parameters(prompt.text, cell, report, i)})
    save_png(folder / "grid.png", grid(report, cells, pictures, prompts), {"parameters": note(report)})
    write_text(folder / "index.html", page(report))
    write_json(folder / "metrics.json", report)


def grid(
    report: Mapping[str, Any], cells: Sequence[Cell], pictures: Mapping[Cell, np.ndarray], prompts: Sequence[Prompt]
) -> Image.Image:
    """The labelled grid of all cells."""
    columns = [_column(cell, column, pictures[cell]) for cell, column in zip(cells, report["columns"], strict=True)]
    asked = [draw(prompt.scene) for prompt in prompts if prompt.scene]
    known = asked if len(asked) == len(prompts) else None
    return draw_grid([prompt.label for prompt in prompts], columns, known, title=f"Run {report['run']}", note=note(report))


def note(report: Mapping[str, Any]) -> str:
    """The settings that all pictures share, in A1111's words."""
    settings = report["settings"]
    size = f"{settings['width']}x{settings['height']}"
    return f"Steps: {settings['steps']}, CFG scale: {settings['cfg']:g}, Seed: {settings['seed']}, Size: {size}"


def parameters(prompt: str, cell: Cell, report: Mapping[str, Any], number: int) -> str:
    """A picture's parameters as A1111 writes them into its PNGs: prompt, negative prompt, one line of "key: value"."""
    settings = cell.settings
    more = {
        "Sampler": SAMPLERS[settings.runtime], "Model": report["run"], "Model hash": report["models"]["trained"]["sha256"][:10],
        "Alpha": f"{cell.alpha:.2f}", "Runtime": settings.runtime, "Uncond": settings.uncond,
        "Zero terminal SNR": settings.zero_terminal_snr, "Noise": f"astolfo {number}",
    }  # fmt: skip
    return f"{prompt}\nNegative prompt: \n{note(report)}, " + ", ".join(f"{key}: {value}" for key, value in more.items())


def _column(cell: Cell, column: Mapping[str, Any], pictures: np.ndarray) -> Column:
    return Column(
        group=f"{cell.settings.runtime} runtime, {cell.settings.uncond} uncond",
        heading=f"alpha {cell.alpha:.2f}", word=column["verdict"],
        count="" if column["shown"] is None else f"{column['shown']}/{column['pictures']}", pictures=pictures,
    )  # fmt: skip
