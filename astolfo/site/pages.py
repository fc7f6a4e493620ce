"""The pages of the site as text: facts in, HTML out. Templates stand in templates/, and are filled by Jinja with escaping on."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from astolfo.ledger.ledger import Run
from astolfo.ledger.rates import harder
from astolfo.ledger.references import Reference
from astolfo.ledger.show import tree
from astolfo.ledger.table import eras
from astolfo.provenance.digests import NOT_BUILT
from astolfo.site import views
from astolfo.site.facts import Facts
from astolfo.site.lineage import Row, rows
from astolfo.site.losses import Curve, thin
from astolfo.site.pictures import evaluation_view

_ROW, _LANE, _LEFT = 34, 12, 12  # pixels: as in assets/style.css


class Pages:
    """Renders the pages of one gathering of facts; everything that several pages need is computed once."""

    def __init__(self, facts: Facts):
        self.facts, self.ledger = facts, facts.ledger
        self.eras = views.era_views(facts)
        self.runs = {run.id: run for era in self.eras for run in era["runs"]}
        self.rows = rows(facts.ledger)

    def all(self) -> dict[str, str]:
        """Every page and data file by its path in the site."""
        fixed = {
            "index.html": self.index(),
            "lineage.html": self.lineage(),
            "losses.html": self.losses(),
            "digests.html": self.digests(),
        }
        runs = {f"runs/{run}.html": self.run(self.ledger.runs[run]) for run in self.runs}
        data = {f"data/{run}.js": loss_script(run, curve) for run, curve in self.facts.curves.items()}
        return fixed | runs | data

    def index(self) -> str:
        """The ledger as a table that filters."""
        return self._page(
            "index.html", eras=self.eras, counts=views.counts(self.facts, self.eras), choices=views.choices(self.eras)
        )

    def lineage(self) -> str:
        """The graph of all models."""
        y = {row.name: number * _ROW + _ROW // 2 for number, row in enumerate(self.rows)}
        x = {row.name: row.lane * _LANE + _LEFT for row in self.rows}
        lanes = max((row.lane for row in self.rows), default=0) + 1
        nodes = [{**self._node(row), "x": x[row.name], "y": y[row.name]} for row in self.rows if row.name]
        edges = [
            {"parent": edge.parent, "child": row.name, "remakes": edge.remakes,
             "path": _path((x[edge.parent], y[edge.parent]), (x[row.name], y[row.name]))}
            for row in self.rows for edge in row.parents
        ]  # fmt: skip
        titles = {era["era"]: era["title"] for era in self.eras}
        listed = [
            self._node(row) if row.name else {"heading": True, "era": row.era, "title": titles[row.era]} for row in self.rows
        ]
        size: dict[str, Any] = {"width": lanes * _LANE + _LEFT, "height": len(self.rows) * _ROW}
        return self._page("lineage.html", rows=listed, nodes=nodes, edges=edges, lanes=lanes, **size)

    def losses(self) -> str:
        """Loss curves, one or two at a time, and those of each era."""
        found = [
            {"era": era.era, "title": era.title, "runs": runs}
            for era, members in eras(self.ledger)
            if (runs := [run.id for run in members if run.id in self.facts.curves])
        ]
        return self._page("losses.html", eras=found, curves=bool(self.facts.curves))

    def digests(self) -> str:
        """Every model file with its digest."""
        listed = []
        for model in self.facts.models.values():
            run = self.ledger.reference(model.name).run
            listed.append(views.model_view(self.facts, model) | {"href": f"runs/{run}.html" if run else None})
        records = [
            {"title": title, "numerics": record["numerics"], "models": len(record["sha256"])} for title, record in self._records()
        ]
        return self._page("digests.html", models=listed, records=records)

    def run(self, run: Run) -> str:
        """The page of one run."""
        ids, era = list(self.runs), next(era for era in self.eras if era["era"] == run.era.era)
        at = ids.index(run.id)
        recorded = [(title, record["sha256"][run.id]) for title, record in self._records() if run.id in record["sha256"]]
        evaluations = self.facts.evaluations.get(run.id, {})
        return self._page(
            "run.html", root="../", run=self.runs[run.id], era=era, note=run.entry.note,
            before=ids[at - 1] if at else None, after=ids[at + 1] if at + 1 < len(ids) else None,
            evaluations=[evaluation_view(folder, report) for folder, report in evaluations.items()],
            parents=self._parents(run.id), children=self._children(run.id), harder=harder(self.ledger, run),
            tree=tree(self.ledger, Reference(run=run.id), self.facts.directory),
            models=[views.model_view(self.facts, model) for model in self.facts.of(run)], recorded=recorded,
            lengths=views.lengths(self.facts, run), settings=views.settings(run),
        )  # fmt: skip

    def _records(self) -> list[tuple[str, dict[str, Any]]]:
        """The recorded digests, titled as `docs/ledger.md` titles them."""
        name = self.ledger.scale_name
        return [(f"{name}, {one['numerics']['device']} {i}", one) for i, one in enumerate(self.facts.records, start=1)]

    def _parents(self, name: str) -> list[dict[str, Any]]:
        row = next(row for row in self.rows if row.name == name)
        return [{"parent": edge.parent, "label": edge.label, "is_run": edge.parent in self.runs} for edge in row.parents]

    def _children(self, name: str) -> list[dict[str, Any]]:
        return [
            {"child": row.name, "label": edge.label, "is_run": row.is_run}
            for row in self.rows for edge in row.parents if edge.parent == name
        ]  # fmt: skip

    def _node(self, row: Row) -> dict[str, Any]:
        """One row of the lineage."""
        shared = {"heading": False, "name": row.name, "is_run": row.is_run, "parents": row.parents}
        if row.is_run:
            run = self.runs[str(row.name)]
            more = {"line": run.apart, "note": run.outcome_text, "pill": run.outcome, "status": run.status,
                    "objective": run.objective, "href": f"runs/{run.id}.html"}  # fmt: skip
        else:
            base = views.base_view(self.facts, row)
            status = views.pill(self.facts.verdict(str(row.name)))
            more = {"line": base["line"], "note": base["note"], "pill": None, "status": status, "objective": base["objective"],
                    "href": f"#{row.name}"}  # fmt: skip
        return shared | more | {"built": more["status"].word != NOT_BUILT}

    def _page(self, template: str, root: str = "", **values: Any) -> str:
        about, scale = self.ledger.about, self.ledger.scale_name
        return templates().get_template(template).render(root=root, here=template, scale=scale, about=about, **values)


def loss_script(run: str, curve: Curve) -> str:
    """A run's losses as a script, since a page opened from a disk may load scripts and no other data."""
    thinned = thin(curve)
    values = [float(f"{value:.5g}") for value in thinned.values]
    data: Mapping[str, Any] = {"first": thinned.first, "every": thinned.every, "steps": len(curve.values), "values": values}
    return f'window.astolfoLoss["{run}"] = {json.dumps(data, separators=(",", ":"), allow_nan=False)};\n'


def _path(start: tuple[int, int], end: tuple[int, int]) -> str:
    """From a parent's dot down its lane, then over to the child's in the height of one row."""
    (x, y), (to_x, to_y) = start, end
    if x == to_x:
        return f"M{x} {y}V{to_y}"
    return f"M{x} {y}V{to_y - _ROW}C{x} {to_y - _ROW // 3} {to_x} {to_y - _ROW * 2 // 3} {to_x} {to_y}"


@cache
def templates() -> jinja2.Environment:
    """The templates, HTML with escaping; a name that a page does not get is an error."""
    folder = Path(__file__).parent / "templates"
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=lambda name: str(name).endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
