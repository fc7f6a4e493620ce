"""Stand-ins that are not shipped: which runs of the library a ledger has for them, and when."""

import pytest
import yaml

from astolfo import library
from astolfo.errors import LedgerError
from astolfo.graph import Graph
from astolfo.ledger import load, plan_of
from astolfo.ledger.show import era_as_data
from astolfo.provenance.digests import models
from tests.conftest import SMALL

RF, EPS = "stand-in-sdxl-rf", "stand-in-sd2-eps"
RUN = {"base": "mine", "dataset": "d", "epochs": 1, "learning_rate": {"unet": 1e-5}}


@pytest.fixture
def ledger(tmp_path):
    """A ledger of one run from the base `mine`, which says this; other sections are laid over it."""

    def write(scale="miniature", mine=None, **more):
        said = {"bases": {"mine": mine or {}}, "datasets": {"d": {"images": 50}}, "runs": {"first": RUN}}
        for section, entries in more.items():
            said[section] = said.get(section, {}) | entries
        (tmp_path / "ledger.yaml").write_text(yaml.safe_dump(said))
        return load(tmp_path, scale)

    return write


def test_a_run_of_the_library_comes_where_a_base_needs_it(ledger):
    """An rf base brings the run that makes its stand-in, with base and dataset; a shipped stand-in, or a file, brings nothing."""
    found = ledger(mine={"objective": "rf"})
    assert [*found.runs] == ["first", RF]
    assert {"stand-in-sdxl-eps", "stand-in-sdxl"} <= {*found.bases, *found.datasets}
    assert [str(one) for one in found.parents(found.reference("mine"))] == [RF]
    for mine in ({"objective": "v"}, {"objective": "rf", "miniature": {"file": "own.safetensors"}}):
        assert [*ledger(mine=mine).runs] == ["first"]
    assert [run for run in load(SMALL).runs if run.startswith("stand-in")] == []


def test_full_scale_has_none(ledger):
    """At full scale every base is a file, so the same ledger has its own run and its own entries alone."""
    found = ledger("full", mine={"objective": "rf"})
    assert [*found.runs] == ["first"]
    assert [name for name in (*found.bases, *found.datasets) if name.startswith("stand-in")] == []


def test_two_bases_share_one_run(ledger):
    """Two rf bases are two models, changed by their names, of one run's result; each run of the library comes once."""
    found = ledger(mine={"objective": "rf"}, bases={"mine": {"objective": "rf"}, "other": {"objective": "rf"}})
    graph = Graph(found, "lock", SMALL)
    assert [*found.runs] == ["first", RF]
    assert [graph.base_stand_in_inputs(name)["model"] for name in ("mine", "other")] == [f"results/{RF}.safetensors"] * 2
    assert graph.base_stand_in_inputs("stand-in-sdxl-eps")["model"] == []
    mine, other, shipped = (graph.specs.base(name) for name in ("mine", "other", "stand-in-sdxl-eps"))
    assert mine["parents"] == other["parents"] != shipped["parents"] == {}
    assert ("sha256" in mine, "sha256" in shipped) == (False, True)


def test_runs_of_the_library_are_no_results(ledger):
    """They support others: no target, no model to be recorded and no loss curve is theirs, and the newest run is the user's."""
    found = ledger(mine={"objective": "rf"})
    graph = Graph(found, "lock", SMALL)
    assert [str(one) for one in models(found)] == ["first"]
    assert (found.newest().id, graph.losses()) == ("first", ["losses/runs.png"])
    assert era_as_data(found, found.run(RF).era)["runs"] == [RF]
    assert plan_of(found, found.run(RF)).end == found.run(RF).fields.miniature_steps


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"runs": {RF: RUN | {"base": "other"}}}, "runs"),
        ({"bases": {"mine": {"objective": "rf"}, RF: {}}}, "bases"),
        ({"bases": {"mine": {"objective": "rf"}, "stand-in-sdxl-eps": {}}}, "bases"),
        ({"datasets": {"stand-in-sdxl": {"images": 5}}}, "datasets"),
    ],
)
def test_a_name_that_the_library_needs_is_refused(ledger, more, line):
    """What of the ledger has the name of a run, base or dataset that comes with it is refused, at its line; without need it is not."""
    name = next(name for entries in more.values() for name in entries if name.startswith("stand-in"))
    with pytest.raises(
        LedgerError, match=rf"ledger.yaml:\d+: the name '{name}' is taken.*stand-in of mine.*Name yours otherwise"
    ):
        ledger(**{"mine": {"objective": "rf"}, "bases": {"mine": {"objective": "rf"}, "other": {}}} | more)
    more = {section: {key: value for key, value in entries.items() if key != "mine"} for section, entries in more.items()}
    assert RF not in [run for run, found in ledger(**{"bases": {"other": {}}} | more).runs.items() if found.era.support]


NAMED = [  # an entry that names something of the library's, and what is said of that
    ({"mine": {"miniature": {"made_by": RF}}}, {}, f"the run {RF} .* {{stand_in: sdxl-rf}}"),
    ({"mine": {"miniature": {"made_by": f"{RF}-step00000300"}}}, {}, f"the run {RF} .* {{stand_in: sdxl-rf}}"),
    ({"mine": {"full": {"merge": {"base": "other", "trained": RF, "alpha": 0.5}}}}, {}, f"the run {RF} "),
    ({"mine": {"miniature": {"made_by": "stand-in-sd2-v"}}}, {}, "the base stand-in-sd2-v .* {stand_in: sd2-v}"),
    ({}, {"base": RF}, f"the run {RF} .* {{stand_in: sdxl-rf}}"),
    ({}, {"base": "stand-in-sdxl-eps"}, "the base stand-in-sdxl-eps .* {stand_in: sdxl-eps}"),
    ({}, {"merge_base": f"{RF}-0.50"}, f"the run {RF} .* {{stand_in: sdxl-rf}}"),
    ({}, {"dataset": "stand-in-sdxl"}, "the dataset stand-in-sdxl .* Give the ledger a dataset of its own"),
]


@pytest.mark.parametrize("scale", ["miniature", "full"])
@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize(("bases", "run", "message"), NAMED)
def test_no_entry_names_what_the_library_lends(ledger, scale, needed, bases, run, message):
    """A run of the library, its base or its dataset is in a ledger only while a stand-in needs it: what names one is told so and
    what to say instead, at either scale, whether it is there or not."""
    other = {"objective": "rf" if needed else "eps"}
    with pytest.raises(LedgerError, match=rf"ledger.yaml:\d+: {message}"):
        ledger(scale, bases={"mine": {}, "other": other} | bases, runs={"first": RUN | run})


def test_what_is_typed_is_told_the_same(ledger):
    """A library's run that this ledger does not have is explained to who asks for it; one of the ledger's own is just a run."""
    with pytest.raises(LedgerError, match=f"the run {EPS} is the program's"):
        ledger().known(f"{EPS}-0.50")
    with pytest.raises(LedgerError, match=f"the run {EPS} is the program's"):
        ledger().run(EPS)
    assert ledger(runs={EPS: RUN, "first": RUN | {"base": EPS}}).run(EPS).id == EPS


@pytest.mark.parametrize("target", [RF, f"evaluations/{RF}"])
def test_no_target_names_it(ledger, target, tmp_path):
    """Nor is it built as a target of the ledger's, which would be there at one scale alone."""
    ledger(mine={"objective": "rf"})
    said = yaml.safe_load((tmp_path / "ledger.yaml").read_text()) | {"targets": [target]}
    (tmp_path / "ledger.yaml").write_text(yaml.safe_dump(said))
    for scale in ("miniature", "full"):
        with pytest.raises(LedgerError, match=rf"ledger.yaml:\d+: targets: the run {RF} is the program's"):
            load(tmp_path, scale)


def test_an_era_of_that_name_is_refused(ledger, tmp_path):
    """An era of the ledger cannot share the name of the library's: lists and loss curves would mix the two."""
    ledger()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "stand-ins.yaml").write_text(yaml.safe_dump({"runs": {"second": RUN}}))
    with pytest.raises(LedgerError, match=r"stand-ins.yaml:1: the name 'stand-ins' is taken"):
        ledger(mine={"objective": "rf"})


def test_a_stand_in_of_ones_own_can_be_made_by_a_run(ledger):
    """A ledger may say of a stand-in which of its own runs makes it; the library's is then not needed."""
    maker = RUN | {"base": "other", "objective": "rf"}
    found = ledger(
        bases={"mine": {"objective": "rf"}, "other": {}},
        runs={"first": RUN, "maker": maker},
        **{"stand-ins": {"sdxl-rf": {"made_by": "maker"}}},
    )
    assert [*found.runs] == ["first", "maker"]
    assert found.origin("mine").parents == ["maker"]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"made_by": None}, "give one of sha256 .* and made_by"),
        ({"sha256": "0" * 64}, "give one of sha256 .* and made_by"),
        ({"made_by": "mkaer"}, "unknown run or base 'mkaer'"),
    ],
)
def test_a_stand_in_has_one_source(ledger, said, problem):
    """A stand-in without a source, with two, or of a run that there is not, is refused."""
    with pytest.raises(LedgerError, match=problem):
        ledger(mine={"objective": "rf"}, **{"stand-ins": {"sdxl-rf": said}})


def test_a_base_that_nothing_stands_in_for_is_refused(ledger):
    """If a ledger changes the objective of the library's stand-ins, a base without one is named, with those that there are."""
    with pytest.raises(
        LedgerError, match=r"ledger.yaml:\d+: no stand-in of sdxl has the objective rf; there is sdxl-eps \(eps\), "
    ):
        ledger(mine={"objective": "rf"}, **{"stand-ins": {"sdxl-rf": {"objective": "eps"}}})


@pytest.mark.parametrize("scale", ["miniature", "full"])
def test_full_scale_takes_no_stand_in(ledger, scale):
    """A stand-in is a small model: an entry that puts one in a base's place at full scale is refused, at either scale."""
    with pytest.raises(LedgerError, match=r"ledger.yaml:\d+: .*stand_in is the miniature's"):
        ledger(scale, mine={"full": {"stand_in": "sdxl-eps"}})


def test_an_unknown_stand_in_is_refused(ledger):
    """A base that names a stand-in which there is not is refused with near names."""
    with pytest.raises(LedgerError, match="unknown stand-in 'sdxl-fr'. Did you mean sdxl-rf"):
        ledger(mine={"miniature": {"stand_in": "sdxl-fr"}})


def test_the_library_ships_a_file_or_makes_it():
    """Every stand-in with a sha256 has its file, and every other one a run in the library's own ledger, which is one that loads."""
    known, makers = load(SMALL).stand_ins, load(library.MAKERS)
    shipped = {name for name, one in known.items() if one.sha256}
    assert {name for name in known if (library.STAND_INS / f"{name}.safetensors").exists()} == shipped
    assert {one.made_by for name, one in known.items() if name not in shipped} == {*makers.runs}
    for name in {*known} - shipped:
        run = makers.run(known[name].made_by)
        assert (makers.family(run), run.objective.kind) == (known[name].family, known[name].objective)
