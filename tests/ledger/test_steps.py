"""Lengths in steps, and warm-ups, are counted at full scale: the miniature makes as many epochs, or as much of one, as that is."""

import pytest

from astolfo.errors import LedgerError
from astolfo.ledger import load
from astolfo.ledger.recipe import recipe_of
from astolfo.ledger.steps import full_steps, plan_of, scale_steps, span_of
from tests.conftest import CONFIG
from tests.ledger.conftest import RUN

LARGE = {"pictures": {"images": 6400, "miniature": {"images": 32}}}


@pytest.mark.parametrize(("steps", "expected"), [(3200, 16), (32_000, 160), (1600, 8), (1, 1), (250, 1), (500, 3)])
def test_steps_scale_as_epochs_do(mine, steps, expected):
    """3,200 steps of 2 images are one epoch of 6,400 pictures, and 16 steps are one of 32; at least one step is made."""
    full, small = mine("full", LARGE, epochs=None, steps=steps), mine("miniature", LARGE, epochs=None, steps=steps)
    assert full_steps(full, full.run(RUN)) == scale_steps(full, full.run(RUN)) == steps
    assert scale_steps(small, small.run(RUN)) == plan_of(small, small.run(RUN)).end == expected


def test_an_epoch_is_one_however_it_is_counted(mine):
    """A length in epochs and the same one in steps are the same number of steps at both scales."""
    for scale in ("full", "miniature"):
        lengths = [
            scale_steps(one, one.run(RUN)) for one in (mine(scale, LARGE, epochs=3), mine(scale, LARGE, epochs=None, steps=9600))
        ]
        assert lengths[0] == lengths[1]


def test_a_dataset_that_stays_as_it_is_keeps_the_steps(mine):
    """Twenty pictures are twenty at either scale, so a run of 1,600 steps over them has 1,600."""
    small = mine("miniature", {"pictures": {"images": 20}}, epochs=None, steps=1600)
    assert scale_steps(small, small.run(RUN)) == 1600


def test_the_miniature_can_have_a_length_of_its_own(mine):
    """`miniature_steps` is the miniature's alone; beside epochs it would say nothing and is refused."""
    keys = {"epochs": None, "steps": 9600, "miniature_steps": 7}
    small, full = mine("miniature", LARGE, **keys), mine("full", LARGE, **keys)
    assert (scale_steps(small, small.run(RUN)), scale_steps(full, full.run(RUN))) == (7, 9600)
    with pytest.raises(LedgerError, match="leave miniature_steps out"):
        mine("miniature", LARGE, miniature_steps=7)


@pytest.mark.parametrize(("every", "expected"), [(100, 1), (1600, 8), (3200, 16)])
def test_sample_pictures_come_as_often_in_a_run(mine, every, expected):
    """Sample pictures every half epoch are every half epoch at the miniature."""
    small, full = mine("miniature", LARGE), mine("full", LARGE)
    assert span_of(small, small.run(RUN), every) == expected
    assert span_of(full, full.run(RUN), every) == every


@pytest.mark.parametrize(("warmup", "expected"), [(0, 0), (100, 1), (1600, 8), (3200, 16)])
def test_a_warm_up_is_the_same_share_of_a_run(mine, warmup, expected):
    """A warm-up of half an epoch is half an epoch at the miniature; one that is less than a step there is one step."""
    schedule = {"kind": "warmup", "warmup_steps": warmup}
    small, full = mine("miniature", LARGE, schedule=schedule), mine("full", LARGE, schedule=schedule)
    assert recipe_of(full, full.run(RUN)).schedule.warmup_steps == warmup
    assert recipe_of(small, small.run(RUN)).schedule.warmup_steps == expected


def test_the_records_foundations_keep_their_steps():
    """What the miniature's models are made by is counted at the miniature, its warm-up too."""
    ledger = load(CONFIG)
    assert scale_steps(ledger, ledger.run("foundation-eps")) == 3000
    assert recipe_of(ledger, ledger.run("foundation-eps")).schedule.warmup_steps == 100
