"""What an evaluation leaves in its folder: pictures, grids, plots, `index.html`, and last `metrics.json`.

docs/evaluations.md says what each is named and holds. Where `metrics.json` lies, the rest is complete and belongs to it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from astolfo.data.procedural import draw
from astolfo.evaluate import plot
from astolfo.evaluate.grid import Column, draw_grid, save_png
from astolfo.evaluate.page import page
from astolfo.evaluate.plan import Cell, Plan, PlannedGrid
from astolfo.evaluate.prompts import Prompt
from astolfo.files import write_json, write_text

Pictures = Mapping[Cell, np.ndarray]


def write(
    folder: Path, report: Mapping[str, Any], plan: Plan, pictures: Pictures, prompts: Sequence[Prompt]
) -> dict[str, Any]:  # fmt: skip
    """Writes the evaluation into `folder`, removes what an older one left, and returns the report with its files."""
    (folder / "metrics.json").unlink(missing_ok=True)
    for old in sorted([*folder.glob("pictures/*.png"), *folder.glob("grid*.png"), *folder.glob("plot-*.png")]):
        old.unlink()
    for cell in plan.cells:
        for i, (prompt, picture) in enumerate(zip(prompts, pictures[cell], strict=True)):
            save_png(folder / plan.file(cell, i), picture, {"parameters": parameters(prompt.text, cell, report, i)})
    whole = {**report, "grids": _grids(folder, report, plan, pictures, prompts), "plots": _plots(folder, report)}
    write_text(folder / "index.html", page(whole))
    write_json(folder / "metrics.json", whole)
    return whole


def _grids(
    folder: Path, report: Mapping[str, Any], plan: Plan, pictures: Pictures, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:  # fmt: skip
    """Draws every grid, the first as grid.png; and says of each where it lies, its axes, and its cells by number."""
    numbers, found = {cell: i for i, cell in enumerate(plan.cells)}, []
    for i, planned in enumerate(plan.grids):
        image = grid(planned, report, numbers, pictures, prompts)
        file = f"grid-{planned.name}.png" if i else "grid.png"
        save_png(folder / file, image, {"parameters": note(report)})
        found.append({
            "name": planned.name, "file": file, "width": image.width, "height": image.height, "x": _axis(*planned.x),
            "y": _axis("prompt", range(len(prompts))), "z": _axis(*planned.z) if planned.z else None,
            "cells": [[numbers[cell] for cell in row] for row in planned.cells],
        })  # fmt: skip
    return found


def _axis(name: str, values: Sequence[Any]) -> dict[str, Any]:
    return {"axis": name, "values": list(values)}


def _plots(folder: Path, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, (data, alt) in plot.plots(report).items():
        plot.save(folder / f"plot-{name}.png", data)
        width, height = (round(side * plot.DPI) for side in plot.SIZE)
        found.append({"name": name, "file": f"plot-{name}.png", "alt": alt, "width": width, "height": height})
    return found


def grid(
    planned: PlannedGrid, report: Mapping[str, Any], numbers: Mapping[Cell, int], pictures: Pictures, prompts: Sequence[Prompt]
) -> Image.Image:
    """One labelled grid: groups along z, columns along x, a row per prompt, and first what was asked where that is known."""
    groups = [axis_label(planned.z[0], value) for value in planned.z[1]] if planned.z else [_constant(planned, report)]
    columns = [
        _column(group, axis_label(planned.x[0], value), report["cells"][numbers[cell]], pictures[cell])
        for group, row in zip(groups, planned.cells, strict=True)
        for value, cell in zip(planned.x[1], row, strict=True)
    ]
    drawn = [draw(prompt.scene) for prompt in prompts if prompt.scene]
    targets = drawn if len(drawn) == len(prompts) else None
    title = f"Run {report['run']}, {planned.name}" + (f": {_constant(planned, report)}" if planned.z else "")
    return draw_grid([prompt.label for prompt in prompts], columns, targets, title=title, note=note(report))


def axis_label(axis: str, value: Any) -> str:
    """A value of an axis in words: "alpha 0.50", "v runtime", "CFG 4"."""
    if axis == "alpha":
        return f"alpha {value:.2f}"
    if axis == "checkpoint":
        return str(value) if not value.startswith("step") else f"step {int(value[4:]):,}"
    return {"cfg": f"CFG {value}", "steps": f"{value} steps", "sampler": str(value)}.get(axis, f"{value} {axis}")


def note(report: Mapping[str, Any]) -> str:
    """The settings that all pictures share unless an axis varies them, in A1111's words."""
    settings = report["settings"]
    size = f"{settings['width']}x{settings['height']}"
    return f"Steps: {settings['steps']}, CFG scale: {settings['cfg']:g}, Seed: {settings['seed']}, Size: {size}"


def parameters(prompt: str, cell: Cell, report: Mapping[str, Any], number: int) -> str:
    """A picture's parameters as A1111 writes them into its PNGs: prompt, negative prompt, one line of "key: value"."""
    settings = cell.settings
    own = {**report["settings"], "steps": settings.steps, "cfg": settings.cfg}
    foreign = {} if settings.runtime == report["objective"]["kind"] else {"Trained for": report["objective"]["kind"]}
    more = {
        "Sampler": settings.sampler, "Model": report["run"], "Model hash": report["models"]["trained"]["sha256"][:10],
        "Checkpoint": cell.checkpoint, "Alpha": f"{cell.alpha:.2f}", "Runtime": settings.runtime, **foreign,
        "Uncond": settings.uncond, "Zero terminal SNR": settings.zero_terminal_snr, "Noise": f"astolfo {number}",
    }  # fmt: skip
    line = ", ".join(f"{key}: {value}" for key, value in more.items())
    return f"{prompt}\nNegative prompt: \n{note({**report, 'settings': own})}, {line}"


def _constant(planned: PlannedGrid, report: Mapping[str, Any]) -> str:
    """What of runtime and uncond a grid does not vary."""
    varied = {planned.x[0], *(planned.z[:1] if planned.z else ())}
    return ", ".join(axis_label(axis, report["settings"][axis]) for axis in ("runtime", "uncond") if axis not in varied)


def _column(group: str, heading: str, cell: Mapping[str, Any], pictures: np.ndarray) -> Column:
    count = "" if cell["shown"] is None else f"{cell['shown']}/{cell['pictures']}"
    return Column(group=group, heading=heading, word=cell["verdict"], count=count, pictures=[*pictures])
