"""`astolfo ledger diff` says what differs between two runs; `show` and `plan` say what stands in for a base."""

import pytest
import yaml

from astolfo.ledger import load
from astolfo.ledger.references import Reference
from astolfo.ledger.show import as_text, difference, tree
from astolfo.plan import plan as planner
from astolfo.plan.show import as_text as plan_as_text
from astolfo.plan.show import summary
from tests.conftest import SMALL
from tests.ledger.conftest import RUN


@pytest.fixture(scope="module")
def diff():
    ledger = load(SMALL)
    return lambda a, b: [row.split() for row in difference(ledger, ledger.run(a), ledger.run(b)).splitlines()]


def test_what_differs_is_named_with_both_values(diff):
    """One row per value that differs, nested keys with a dot; different recipes have different digests."""
    rows = diff("near", "near-2")
    assert rows[0] == ["near", "near-2"]
    assert rows[1:-1] == [
        ["learning_rate.unet", "2e-06", "1.5e-06"],
        ["learning_rate.text_encoder", "8e-06", "1.2e-05"],
        ["learning_rate.text_encoder_2", "8e-06", "1.2e-05"],
        ["seed", "1", "2"],
        ["placement.ramdisk", "-", "True"],
    ]
    assert rows[-1][0] == "recipe"
    assert rows[-1][1] != rows[-1][2]


def test_another_placement_is_the_same_recipe(diff):
    """The NUMA node decides no bit: the two runs differ in it alone, and their recipes are equal."""
    rows = diff("near-0", "near-1")
    assert rows[1:-1] == [["placement.numa", "0", "1"]]
    assert rows[-1][:4] == ["the", "recipes", "are", "equal:"]


def test_a_run_is_itself(diff):
    """Nothing differs between a run and itself."""
    assert [len(row) for row in diff("plain", "plain")] == [2, 5]


BASES = {"eps": {}, "rf": {"objective": "rf"}, "sd2": {"family": "sd2", "objective": "eps"}, "v": {"objective": "v"}}
MADE = {"rf": "stand-in-sdxl-rf", "sd2": "stand-in-sd2-eps"}


@pytest.fixture
def standing(tmp_path):
    """A ledger of four bases without a word of the miniature, with a run of each, and one that goes on from another."""
    runs = {f"of_{name}": {"base": name, **({"dataset": "e"} if name == "sd2" else {})} for name in BASES}
    ledger = {
        "bases": BASES, "datasets": {"d": {"images": 50}, "e": {"images": 50, "autoencoder": "sd2-vae"}},
        "defaults": {"dataset": "d", "epochs": 1, "learning_rate": {"unet": 1e-5}},
        "runs": runs | {"later": {"base": "of_rf", "objective": "v"}},
    }  # fmt: skip
    (tmp_path / "ledger.yaml").write_text(yaml.safe_dump(ledger))
    return lambda scale="miniature": load(tmp_path, scale)


def test_what_stands_in_for_a_base_is_said(standing):
    """`show` names the model in a base's place, and the run that makes it where it is not shipped; at full scale nothing stands in."""
    ledger = standing()
    for run, base in [(f"of_{name}", name) for name in BASES] + [("later", "rf")]:
        text = as_text(ledger, ledger.run(run))
        assert f"in the place of {base}, changed by its name" in text
        assert [name for name, maker in MADE.items() if f"It is not shipped: {maker} makes it first" in text] == [base] * (
            base in MADE
        )
    full = standing("full")
    assert "in the place of" not in "".join(as_text(full, run) for run in full.runs.values())


def test_a_plan_counts_what_makes_a_stand_in(standing):
    """A plan of one run names its stand-in; the run that makes one is among those before it, and once among all."""
    ledger = standing()
    machine = planner.machine_of(ledger, "cpu")
    assert "sdxl-v in the place of v" in plan_as_text(ledger, planner.plan(ledger, ledger.run("of_v"), machine), machine)
    assert [run.id for run in planner.lineage(ledger, ledger.run("later"))] == [MADE["rf"], "of_rf", "later"]
    every = [(run.id, planner.plan(ledger, run, machine)) for run in planner.every(ledger)]
    assert [name for name, _ in every if name in MADE.values()] == [*MADE.values()]
    assert [summary("all", every).count(f"  {maker} ") for maker in MADE.values()] == [1, 1]


@pytest.mark.parametrize(("scale", "remark"), [("miniature", "stand-in sdxl-eps"), ("full", "pinned base")])
def test_a_tree_ends_at_what_the_base_is(mine, tmp_path, scale, remark):
    """Nothing is pinned at the miniature: the stand-in is named there, and at full scale the file is a pinned one."""
    assert tree(mine(scale), Reference(run=RUN), tmp_path).endswith(f"own ({remark})  [not built]")
