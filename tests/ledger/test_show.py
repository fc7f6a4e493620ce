"""`astolfo ledger diff` says what differs between two runs, and nothing else."""

import pytest

from astolfo.ledger import load
from astolfo.ledger.show import difference
from tests.conftest import CONFIG


@pytest.fixture(scope="module")
def diff():
    ledger = load(CONFIG)
    return lambda a, b: [row.split() for row in difference(ledger, ledger.run(a), ledger.run(b)).splitlines()]


def test_what_differs_is_named_with_both_values(diff):
    """One row per value that differs, nested keys with a dot; different recipes have different digests."""
    rows = diff("25022502", "25022601")
    assert rows[0] == ["25022502", "25022601"]
    assert rows[1:-1] == [
        ["learning_rate.unet", "2e-06", "1.5e-06"],
        ["learning_rate.text_encoder", "8e-06", "1.2e-05"],
        ["learning_rate.text_encoder_2", "8e-06", "1.2e-05"],
        ["seed", "25022502", "25022601"],
        ["placement.ramdisk", "-", "True"],
    ]
    assert rows[-1][0] == "recipe"
    assert rows[-1][1] != rows[-1][2]


def test_another_placement_is_the_same_recipe(diff):
    """The NUMA node decides no bit: the two runs differ in it alone, and their recipes are equal."""
    rows = diff("25030401", "25030402")
    assert rows[1:-1] == [["placement.numa", "0", "1"]]
    assert rows[-1][:4] == ["the", "recipes", "are", "equal:"]


def test_a_run_is_itself(diff):
    """Nothing differs between a run and itself."""
    assert [len(row) for row in diff("25112201", "25112201")] == [2, 5]
