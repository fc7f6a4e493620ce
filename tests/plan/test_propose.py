"""A run that does not fit comes with the nearest changes that make it fit, and with what they change of the bits."""

import pytest

from astolfo.errors import Refusal
from astolfo.ledger import load, schema
from astolfo.ledger.recipe import recipe_of
from astolfo.plan import cards, memory, propose
from astolfo.plan import plan as planner
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def ledger():
    return load(SMALL, "full")


def proposals(recipe, name):
    machine = cards.machine(name)
    usable = machine.device_memory_gib * memory.GIB * memory.USABLE
    found = propose.nearest(recipe, machine.devices, usable)
    for one in found:
        count = propose.processes(one.recipe, machine.devices)
        assert memory.fitting(one.recipe, count, usable)[1].total <= usable
    return found


def entries(found):
    return [one.keys for one in found]


def recipe(ledger, run="plain", **fields):
    return recipe_of(ledger, ledger.run(run)).model_copy(update=fields)


def test_a_paged_optimizer_comes_first(ledger):
    """Moments that lie in the host's memory change no weight, so they are the nearest change; another model is the last."""
    found = proposals(recipe(ledger), "4060Ti-16GB")
    rate = recipe(ledger).learning_rate.unet
    assert entries(found) == [{"optimizer": "PagedAdamW8bit"}, {"learning_rate": {"unet": rate}}, {"optimizer": "AdaFactor"}]
    assert "the same weights" in str(found[0])
    assert "another model" in str(found[2])


def test_a_smaller_batch_keeps_the_images_of_a_step(ledger):
    """Batch 4 with accumulation 4 becomes batch 2 with accumulation 8, the largest batch that fits, and its bits differ."""
    found = proposals(recipe(ledger, batch_size=4, accumulation=4), "3090")
    assert {"batch_size": 2, "accumulation": 8} in entries(found)
    assert all("other bits" in str(one) for one in found if "accumulation" in one.keys)


def test_changes_are_made_together_only_where_one_is_not_enough(ledger):
    """A small card takes two or three changes at once; one that no change fits gets none."""
    assert all(len(one.bits) == 1 for one in proposals(recipe(ledger), "4060Ti-16GB"))
    assert all(len(one.bits) == 3 for one in proposals(recipe(ledger), "4070"))
    assert proposals(recipe(ledger), "3070") == []  # a card of 8 GB


def test_an_engine_that_lacks_devices_can_go(ledger):
    """DeepSpeed's four ranks do not run on two devices: without the engine they do, and other bits is what it costs."""
    found = proposals(recipe(ledger, "engine"), "2x3090")
    assert {"engine": None} in entries(found)


def test_what_an_optimizer_was_given_stays(ledger):
    """A change of an optimizer's kind keeps what its entry says besides, so that the line can be copied."""
    given = schema.Optimizer(kind="AdamW8bit", betas=(0.9, 0.95))
    found = proposals(recipe(ledger, optimizer=given), "4060Ti-16GB")
    assert found[0].keys == {"optimizer": {"kind": "PagedAdamW8bit", "betas": (0.9, 0.95)}}


def test_master_weights_and_whole_moments_can_be_narrowed(ledger):
    """fp32 weights beside the model's give way to drawn rounding, moments in fp32 to moments in 8 bits."""
    wide = recipe(ledger, precision=schema.Precision(update="master"), optimizer=schema.Optimizer(kind="AdamW"))
    keys = {key for one in proposals(wide, "3090") for key in one.keys}
    assert keys & {"precision", "optimizer"}


def test_what_a_recipe_cannot_have_is_not_proposed(ledger):
    """Prodigy's updates are not rounded by a draw, so bf16 weights are proposed for it without one."""
    wide = schema.Precision(weights="fp32", compute="fp32")
    found = proposals(recipe(ledger, precision=wide, optimizer=schema.Optimizer(kind="Prodigy")), "5090")
    assert found
    assert all("update" not in one.keys.get("precision", {}) for one in found)


def test_the_least_machines_that_take_it_are_named(ledger):
    """A run as it stands: one card with much memory, or several with less each, none named that needs more for nothing."""
    found = propose.holding(recipe(ledger))
    names = [name.split(" ")[0] for name in found]
    assert names[0].startswith("1x")
    gib = [float(name.split("(")[1].split(" ")[0]) for name in found]
    assert gib == sorted(gib, reverse=True)
    for name in names:
        one = cards.machine(name)
        assert memory.fitting(recipe(ledger), one.devices, one.device_memory_gib * memory.GIB * memory.USABLE)


def test_the_refusal_has_them(ledger):
    """What `astolfo plan` refuses says what would fit, and in a few words for a table why it does not."""
    with pytest.raises(Refusal, match="(?s)does not fit.*optimizer: PagedAdamW8bit.*As it stands it fits") as refusal:
        planner.plan(ledger, ledger.run("plain"), cards.machine("4060Ti-16GB"))
    assert refusal.value.short.startswith("needs ")
