"""The lineage of a whole ledger as rows and lanes, in the manner of `git log --graph`: a model per row, a line per parent.

Rows follow the ledger's order; what a model is made from stands above it. A model's line runs down its lane to the last
model made from it. Everything follows from the ledger: two builds draw the same picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from astolfo.ledger.ledger import Ledger
from astolfo.ledger.references import Reference


@dataclass(frozen=True, kw_only=True)
class Edge:
    """From a parent to the model made from it; `label` says which of its checkpoints, or its weight in a merge."""

    parent: str
    label: str = ""
    remakes: bool = False  # the parent can remake this base, whose file is used


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the picture: a model in its lane, or (name None) the heading of an era."""

    era: str | None
    name: str | None = None
    is_run: bool = False
    lane: int = 0
    parents: tuple[Edge, ...] = ()


def parents(ledger: Ledger, name: str) -> tuple[Edge, ...]:
    """What a run or base is made from, directly."""
    if name in ledger.runs:
        parent = ledger.parent(ledger.runs[name])
        return _edges(ledger, parent) if parent else ()
    origin = ledger.origin(name)
    if origin.file:
        return (Edge(parent=_nearest(ledger, origin.made_by), label="remakes it", remakes=True),) if origin.made_by else ()
    if origin.merge:
        weight = float(origin.merge.alpha)
        return (*_part(ledger, origin.merge.trained, weight), *_part(ledger, origin.merge.base, 1.0 - weight))
    if origin.mecha:
        return _unique(Edge(parent=_nearest(ledger, model), label=f"recipe {origin.mecha.recipe}") for model in origin.parents)
    return _edges(ledger, ledger.reference(origin.made_by)) if origin.made_by else ()


def rows(ledger: Ledger) -> list[Row]:
    """Every run and every model base of the ledger, ancestors first, with the eras' headings and their lanes."""
    ordered = list(_ordered(ledger))
    children = {name: sum(edge.parent == name for row in ordered for edge in row.parents) for name in _names(ordered)}
    lanes: list[str | None] = []  # whose line runs there
    found = []
    for row in ordered:
        if row.name is None:
            found.append(row)
            continue
        for edge in row.parents:
            children[edge.parent] -= 1
            if not children[edge.parent]:
                lanes[lanes.index(edge.parent)] = None
        lane = lanes.index(None) if None in lanes else len(lanes)
        lanes[lane : lane + 1] = [row.name if children[row.name] else None]
        found.append(Row(era=row.era, name=row.name, is_run=row.is_run, lane=lane, parents=row.parents))
    return found


def _names(ordered: Sequence[Row]) -> list[str]:
    return [row.name for row in ordered if row.name]


def _ordered(ledger: Ledger) -> Iterator[Row]:
    """Rows without lanes. Eras that support others come first."""
    eras = {run.era.era: [other for other in ledger.runs.values() if other.era is run.era] for run in ledger.runs.values()}
    done: set[str] = set()

    def visit(name: str, era: str | None) -> Iterator[Row]:
        if name in done:
            return
        done.add(name)
        edges = parents(ledger, name)
        for edge in edges:
            yield from visit(edge.parent, era)
        yield Row(era=era, name=name, is_run=name in ledger.runs, parents=edges)

    for era, runs in sorted(eras.items(), key=lambda item: not item[1][0].era.support):
        yield Row(era=era)
        for run in runs:
            yield from visit(run.id, era)
    rest = [name for name, base in ledger.bases.items() if base.kind == "model" and name not in done]
    for name in rest:
        yield from visit(name, None)


def _edges(ledger: Ledger, reference: Reference) -> tuple[Edge, ...]:
    """The edges from a reference: its base or run, and for a merge both of its sides."""
    if reference.base:
        return (Edge(parent=reference.base),)
    run = str(reference.run)
    where = f"step {reference.step:,}" if reference.step else f"epoch {reference.epoch}" if reference.epoch else ""
    if not reference.alpha:
        return (Edge(parent=run, label=where),)
    weight = float(reference.alpha)
    other = ledger.merge_base(ledger.run(run))
    own = Edge(parent=run, label=f"{where} × {weight:.2f}".strip())
    return (own, *_part(ledger, str(other), 1.0 - weight))


def _part(ledger: Ledger, model: str, weight: float) -> tuple[Edge, ...]:
    first, *others = _edges(ledger, ledger.reference(model))
    return (Edge(parent=first.parent, label=f"{first.label} × {weight:.2f}".strip()), *others)


def _nearest(ledger: Ledger, model: str | None) -> str:
    return _edges(ledger, ledger.reference(str(model)))[0].parent


def _unique(edges: Iterator[Edge]) -> tuple[Edge, ...]:
    return tuple({edge.parent: edge for edge in edges}.values())
