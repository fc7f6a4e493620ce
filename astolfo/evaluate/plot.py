"""The plots of an evaluation, by matplotlib: what alpha does, and where in the noise a model loses what.

The same numbers give the same bytes: one backend, the font that matplotlib embeds, no date and no program name.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from astolfo.evaluate.verdict import KEPT
from astolfo.files import written
from astolfo.ledger.evaluations import own_verdicts

os.environ.setdefault("MPLCONFIGDIR", str(Path(".astolfo/matplotlib").absolute()))  # its caches, not in the user's home
logging.getLogger("matplotlib").setLevel(logging.WARNING)  # that it looked for fonts concerns nobody
SIZE, DPI = (9.0, 4.2), 100
_MARKERS: dict[str, dict[str, Any]] = {
    "null": {"markersize": 9, "markerfacecolor": "none"},
    "zero": {"markersize": 4},
}  # seen where curves coincide
_COLOURS = {"eps": "#b35806", "v": "#1f6f5c", "rf": "#5b4ea5", "null": "#1f6f5c", "zero": "#b35806"}


def plots(report: Mapping[str, Any]) -> dict[str, tuple[bytes, str]]:
    """The plots that a report gives rise to: name -> (PNG bytes, a sentence that says what is to be seen)."""
    found = {}
    if any(len(one["cells"]) > 2 for one in own_verdicts(report)):
        alt = "What the pictures show, the loss at high noise, sharpness and contrast over alpha, under the run's own objective."
        found["sweep"] = (_sweep(report), alt)
    if report["validation"] is not None:
        alt = "Loss on held-out samples over that of a guess that knows the noise level only, by timestep, under each objective."
        found["validation"] = (_validation(report), alt)
    return found


def save(path: Path, data: bytes) -> None:
    """Writes the bytes of a plot, whole or not at all."""
    with written(path) as beside:
        beside.write_bytes(data)


def _sweep(report: Mapping[str, Any]) -> bytes:
    """Left: the fraction of pictures that show what was asked (or the scorer's mean), and the reading. Right: looks."""
    figure = _figure()
    left, right = figure.subplots(1, 2)
    for one in own_verdicts(report):
        cells = [report["cells"][number] for number in one["cells"]]
        alphas, label = [cell["alpha"] for cell in cells], f"{one['uncond']} uncond"
        colour = _COLOURS[one["uncond"]]
        style: dict[str, Any] = {"color": colour, **_MARKERS[one["uncond"]]}
        shown = [_shown(cell) for cell in cells]
        if None not in shown:
            left.plot(alphas, shown, "o-", **style, label=f"shown, {label}")
        if one["best"] is not None:
            left.axvline(
                one["best"], color=colour, linestyle=":", linewidth=style["markersize"] / 3, label=f"best alpha, {label}"
            )
        if all(cell["looks"] for cell in cells):
            right.plot(alphas, [cell["looks"]["sharpness"] for cell in cells], "o-", **style, label=f"sharpness, {label}")
            right.plot(alphas, [cell["looks"]["contrast"] for cell in cells], "s--", **style, label=f"contrast, {label}")
    readings = {cell["alpha"]: cell["reading"] for cell in cells}
    if None not in readings.values():
        left.plot(readings.keys(), readings.values(), "x--", color="#5b4ea5", label="loss over a guess's at high noise")
    known = report["cells"][0]["shown"] is not None
    _labelled(left, "alpha (0: the base, 1: as trained)", "fraction of the pictures" if known else "score")
    left.set_ylim(bottom=0)
    _labelled(right, "alpha", "of the dataset's own")
    right.axhline(KEPT, color="#808080", linewidth=0.8)
    return _bytes(figure)


def _shown(cell: Mapping[str, Any]) -> float | None:
    if cell["shown"] is not None:
        return cell["shown"] / cell["pictures"]
    return cell["score"]["mean"] if cell["score"] else None


def _validation(report: Mapping[str, Any]) -> bytes:
    figure = _figure()
    axes = figure.subplots(1, 1)
    middles = [(first + last + 1) / 2 for first, last in report["validation"]["bands"]]
    for role, line in (("base", "--"), ("trained", "-")):
        for kind, losses in report["validation"]["models"].get(role, {}).items():
            axes.plot(middles, _drawn(losses["relative"]), line, marker=".", color=_COLOURS[kind], label=f"{role} as {kind}")
    axes.axhline(1.0, color="#808080", linewidth=0.8)
    axes.set_yscale("log")
    _labelled(axes, "timestep (0: picture, 999: noise)", "loss / loss of a guess")
    return _bytes(figure)


def _drawn(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _figure() -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _labelled(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e0e0e0")
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _bytes(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
