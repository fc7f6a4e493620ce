"""Loss curves as PNGs, one per era: every run's loss over the steps of its data order, faint as it was and smoothed on top.

The smoothed lines set the height; single steps may stand out above it.
The same states give the same bytes: no date, no version and no font of the system goes into a file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.files import written
from astolfo.ledger.ledger import Ledger
from astolfo.ledger.table import eras
from astolfo.site.losses import Curve, read, smooth, thin

_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.edgecolor": "#8a8a90", "axes.labelcolor": "#3c3c42",
    "xtick.color": "#5c5c64", "ytick.color": "#5c5c64", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e4de", "grid.linewidth": 0.8, "axes.axisbelow": True, "svg.hashsalt": "astolfo",
}  # fmt: skip
_SIZE, _DOTS = (11.0, 5.2), 120  # inches, dots per inch


def era_plot(ledger: Ledger, directory: Path, era: str, out: Path) -> None:
    """Draws the loss curves of an era's runs to `out`. Raises InputError when no state of any of them is in `directory`."""
    title, runs = next(((found.title, runs) for found, runs in eras(ledger) if found.era == era), (None, []))
    if title is None:
        raise InputError(f"Unknown era {era!r}: {_known(ledger)}")
    curves = {run.id: curve for run in runs if (curve := read(directory, run.id)) is not None}
    if not curves:
        raise InputError(f"No run of era {era} has a state in {directory}: expected states/<run>/*.safetensors. Build one first.")
    draw(curves, f"{era}: {title}", out)


def _known(ledger: Ledger) -> str:
    known = [found.era for found, _ in eras(ledger)]
    return f"expected one of {', '.join(known)}." if known else "the ledger has no runs yet, and so no era."


def draw(curves: Mapping[str, Curve], title: str, out: Path) -> None:
    """Draws the named curves into one PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_STYLE}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=_SIZE, dpi=_DOTS, layout="constrained")
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=0.15, h_pad=0.15)
        axes = figure.subplots()
        palette: Any = matplotlib.colormaps["tab20"]
        colours = palette.colors
        order = [*colours[0::2], *colours[1::2]]  # the strong ones first
        for number, (run, curve) in enumerate(curves.items()):
            _line(axes, run, thin(curve), order[number % len(order)])
        axes.set_title(title, loc="left", fontsize=12, pad=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("optimizer step of the data order")
        axes.set_ylabel("loss")
        axes.margins(x=0.01)
        axes.set_ylim(0.0, 1.15 * max(max(smooth(thin(curve).values)) for curve in curves.values()))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
        with written(out) as beside, open(beside, "wb") as file:
            FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


def _line(axes, run: str, curve: Curve, colour: tuple) -> None:
    steps = [curve.first + (i + 1) * curve.every for i in range(len(curve.values))]
    axes.plot(steps, curve.values, color=colour, alpha=0.22, linewidth=0.8)
    axes.plot(steps, smooth(curve.values), color=colour, linewidth=1.6, label=run, marker="." if len(steps) < 2 else "")
