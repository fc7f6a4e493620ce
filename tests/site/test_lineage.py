"""The lineage of the record as rows and lanes: ancestors above, lines that do not run through each other, weights that add up."""

import pytest

from astolfo.ledger import load
from astolfo.site.lineage import Edge, parents, rows
from tests.conftest import CONFIG


@pytest.mark.parametrize("scale", ["miniature", "full"])
def test_every_model_stands_below_what_it_is_made_from(scale):
    """Every run and model base has one row, and its parents' rows are above it."""
    ledger = load(CONFIG, scale)
    found = [row for row in rows(ledger) if row.name]
    place = {row.name: number for number, row in enumerate(found)}
    assert len(place) == len(found)
    assert set(place) == {*ledger.runs, *(name for name, base in ledger.bases.items() if base.kind == "model")}
    for row in found:
        assert all(place[edge.parent] < place[row.name] for edge in row.parents)


def test_no_line_runs_through_another_model(ledger):
    """From a model's row to that of the last one made from it, its lane is its own."""
    found = [row for row in rows(ledger) if row.name]
    last = {edge.parent: number for number, row in enumerate(found) for edge in row.parents}
    for number, row in enumerate(found):
        between = found[number + 1 : last.get(row.name, number)]
        assert row.lane not in [other.lane for other in between]


def test_a_merge_names_both_sides_and_their_weights(ledger):
    """Merges give the weight of each parent, a checkpoint its step or epoch, and a pinned base what could remake it."""
    evo = (Edge(parent="25112201", label="× 0.50"), Edge(parent="AK-NIL-1.2", label="× 0.50"))
    assert parents(ledger, "AK-Evo-2EP") == evo
    assert parents(ledger, "AC-NIL-0.11")[0] == Edge(parent="25111701", label="step 11,274 × 0.75")
    assert parents(ledger, "26011102") == (Edge(parent="26011101", label="epoch 8"),)
    assert parents(ledger, "21b") == (Edge(parent="foundation-sd2", label="remakes it", remakes=True),)
    assert parents(ledger, "foundation-eps") == ()


def test_eras_are_headed_in_the_ledgers_order(ledger):
    """One heading per era; what is not of the record comes first."""
    headings = [row.era for row in rows(ledger) if row.name is None]
    eras = dict.fromkeys(run.era.era for run in ledger.runs.values())
    assert headings == ["foundations", *(era for era in eras if era != "foundations")]
