"""Rates at a smaller scale: a multiplier, and less what bf16 rounds away at full scale."""

import pytest

from astolfo.ledger import load, recipe_of
from astolfo.ledger.rates import AT, at_scale, harder, kept
from astolfo.ledger.schema import Precision
from tests.conftest import SMALL
from tests.ledger.conftest import RUN

MEASURED = {4e-7: 0.005, 1.5e-6: 0.022, 1e-5: 0.171}  # benchmarks/drift.py, AdamW, weights of deviation 0.02


@pytest.mark.parametrize(("rate", "share"), MEASURED.items())
def test_what_is_kept_is_what_was_measured(rate, share):
    """The closed form of one step is within a tenth of what fifty steps of AdamW in bf16 leave of a straight drift."""
    assert kept(rate) == pytest.approx(share, rel=0.12)


def test_no_rounding_loses_nothing_of_a_large_step():
    """A step of the weights' own size is kept whole; ever smaller ones are lost ever more, in what they move."""
    assert kept(1e-2) == pytest.approx(1.0, abs=0.02)
    moved = [rate * kept(rate) for rate in (1e-7, 4e-7, 1e-6, 1.5e-6, 3e-6, 5e-6, 1e-5)]
    assert moved == sorted(moved)


@pytest.mark.parametrize(
    ("run", "unet", "text"),
    [
        ("velocity", 1e-3, 0.0),
        ("plain", 100 * 1.5e-6 * kept(1.5e-6) / kept(AT), 100 * 1.2e-5 * kept(1.2e-5) / kept(AT)),
        ("engine", 2e-4, 2e-3),
    ],
)
def test_rates_at_the_miniature(run, unet, text):
    """At 1e-5 the multiplier stands; at 1.5e-6 an eighth of it; DeepSpeed keeps a master copy, and loses nothing."""
    ledger = load(SMALL, "miniature")
    found = recipe_of(ledger, ledger.run(run)).learning_rate
    assert (found.unet, found.text_encoder) == (pytest.approx(unet, rel=1e-4), pytest.approx(text, rel=1e-4))


@pytest.mark.parametrize(
    "precision", [{"weights": "fp32"}, {"weights": "bf16", "update": "stochastic"}, {"weights": "bf16", "update": "master"}]
)
def test_who_loses_nothing_has_the_multiplier(precision):
    """Weights in fp32, stochastic rounding and a master copy keep every update: 100 times the rate, whatever it is."""
    ledger = load(SMALL, "miniature")
    changed = ledger.run("plain").fields.model_copy(update={"precision": Precision(**precision)})
    assert at_scale(ledger.scale, changed)(1.5e-6) == pytest.approx(1.5e-4)


@pytest.mark.parametrize(
    ("datasets", "keys", "times"),
    [
        ({"pictures": {"parts": {"own": 10}}, "own": {"images": 24}}, {"epochs": 6, "precision": {"update": "stochastic"}}, 100),
        ({"pictures": {"images": 24}}, {"learning_rate": {"unet": 1.5e-6}, "precision": {"weights": "bf16"}}, 12),
        ({"pictures": {"images": 24}}, {"optimizer": "Prodigy", "learning_rate": {"unet": 1}}, None),
        ({"pictures": {"images": 200_000}}, {}, None),
    ],
)
def test_a_run_that_is_not_shortened_is_trained_harder(mine, datasets, keys, times):
    """Where the scale raises a rate by more than it shortens the run, the factor is said; of a long run there is nothing to say."""
    ledger = mine(datasets=datasets, **keys)
    said = harder(ledger, ledger.run(RUN))
    assert f"is trained about {times} times as hard as at full size" in said if times else not said
    full = mine("full", datasets=datasets, **keys)
    assert harder(full, full.run(RUN)) == ""
