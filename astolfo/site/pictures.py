"""The evaluations of a run as its page shows them, from their `metrics.json`: verdicts, and the pictures a slider walks through.

A cell is one way of sampling. Whatever of it can be chosen becomes a row of buttons; alpha becomes the slider.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from astolfo.errors import InputError
from astolfo.site.views import TONES

AXES = ("runtime", "uncond", "sampler", "cfg", "steps", "checkpoint")  # of a cell, besides alpha
SMALL = 256  # pixels: below, pictures are shown with hard pixels


def evaluation_view(folder: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the page of a run says of one evaluation. Raises InputError when the report lacks what every evaluation has."""
    try:
        return {
            "folder": folder, "set": report["set"], "summary": [_verdict(one) for one in report["summary"]],
            "pictures": _pictures(report), "grids": report["grids"], "plots": report["plots"], "skipped": report["skipped"],
        }  # fmt: skip
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"evaluations/{folder}/metrics.json lacks {error}. Move its folder away, and evaluate again.") from None


def files(report: Mapping[str, Any]) -> list[str]:
    """The files that the site shows of an evaluation, relative to its folder."""
    pictures = [file for cell in report["cells"] for file in cell["files"]]
    return ["index.html", "metrics.json", *(one["file"] for key in ("grids", "plots") for one in report[key]), *pictures]


def _pictures(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Axes, alphas, prompts and cells; None when there are no pictures. What is shown first is the run as trained."""
    cells = [_cell(cell) for cell in report["cells"] if cell["files"]]
    if not cells:
        return None
    settings = report["settings"]
    alphas = sorted({cell["alpha"] for cell in cells})
    return {
        "axes": [_axis(name, cells, settings) for name in _free(cells)], "cells": cells,
        "alphas": alphas, "shown": len(alphas) - 1,
        "prompts": [{"text": prompt["text"], "label": prompt["label"] or prompt["text"]} for prompt in report["prompts"]],
        "best": [{key: one[key] for key in ("runtime", "uncond", "best")} for one in report["summary"]],
        "width": settings["width"], "height": settings["height"], "small": settings["width"] < SMALL,
    }  # fmt: skip


def _verdict(one: Mapping[str, Any]) -> dict[str, Any]:
    where = f"{one['runtime']} runtime, {one['uncond']} uncond{'' if one['own'] else ' (not what it was trained for)'}"
    return {"where": where, "sentence": one["sentence"], "best": one["best"], "tone": TONES.get(one["verdict"], "")}


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: cell[key] for key in (*AXES, "alpha", "verdict", "reason", "files", "shows")}
    return shown | {"tone": TONES.get(cell["verdict"], "")}


def _free(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The axes that can be chosen: those that the ones before them do not decide already, as rf decides its sampler."""
    free: list[str] = []
    for name in AXES:
        seen: dict[tuple, set] = {}
        for cell in cells:
            seen.setdefault(tuple(cell[axis] for axis in free), set()).add(cell[name])
        if any(len(values) > 1 for values in seen.values()):
            free.append(name)
    return free


def _axis(name: str, cells: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one axis in their order of appearance; shown first is the set's own, else the first."""
    values = list(dict.fromkeys(cell[name] for cell in cells))
    return {"name": name, "values": values, "shown": settings[name] if settings.get(name) in values else values[0]}
