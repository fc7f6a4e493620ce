"""What is random about a sample is a function of its position, or, under `kohya`, of its rank's micro-step."""

import numpy as np
import pytest

from astolfo import randomness
from astolfo.data.order import Order
from astolfo.data.store import Sample
from astolfo.ledger import recipe_of
from astolfo.ledger.schema import SEMANTICS, Captions
from astolfo.train.samples import Draws

SHAPE = (4, 3, 2)


@pytest.fixture
def draws_of(ledger):
    """A function that makes the draws, and the data order, of a recipe under a semantics, with changes."""

    def make(semantics, **changes):
        recipe = recipe_of(ledger, ledger.run("25112201")).model_copy(
            update={"choices": SEMANTICS[semantics], "first_step": 0, "seed": 7, **changes}
        )
        order = Order(
            counts=[20, 5], seed=recipe.seed, ranks=recipe.ranks, batch_size=recipe.batch_size,
            accumulation=recipe.accumulation, wraps=semantics == "kohya",
        )  # fmt: skip
        return Draws(recipe), order

    return make


def batches(order, steps):
    return [batch for step in range(steps) for row in order.step(step) for batch in row if batch is not None]


def test_reference_draws_for_each_sample(draws_of):
    """Every sample of two epochs has a noise and a timestep of its own: those of its absolute position."""
    draws, order = draws_of("reference", ranks=4, batch_size=2, accumulation=2)
    found = [draws(batch, SHAPE) for batch in batches(order, 2 * order.steps_per_epoch)]
    timesteps = np.concatenate([timestep for _, timestep in found])
    noise = np.concatenate([noise.reshape(len(noise), -1) for noise, _ in found])
    assert len(timesteps) == len(set(timesteps.tolist())) == 50
    assert len({row.tobytes() for row in noise}) == 50


def test_reference_draws_do_not_depend_on_the_grouping(draws_of):
    """Sample 1 of batch 3 of batch size 2 is sample 7 of the run: its numbers are those of position 7."""
    draws, order = draws_of("reference", ranks=1, batch_size=2, accumulation=1)
    noise, timestep = draws(order.step(3)[0][0], SHAPE)
    assert np.array_equal(noise[1], randomness.normal(7, "noise", 7, SHAPE))
    assert timestep[1] == randomness.uniform(7, "timestep", 7)[0]


def test_kohya_shares_draws_among_ranks(draws_of):
    """4 ranks x 4 micro-batches see 16 pictures but 4 draws of noise and timestep; inside a micro-batch they differ."""
    draws, order = draws_of("kohya", ranks=4, batch_size=1, accumulation=4)
    found = [[draws(batch, SHAPE) for batch in row] for row in order.step(0)]
    assert len({timestep.tobytes() for row in found for _, timestep in row}) == 4
    assert len({noise.tobytes() for row in found for noise, _ in row}) == 4
    assert all(len({timestep.tobytes() for _, timestep in row}) == 1 for row in found)
    draws, order = draws_of("kohya", ranks=4, batch_size=2, accumulation=4)
    noise, timestep = next(draws(batch, SHAPE) for batch in batches(order, 1) if len(batch.rows) == 2)
    assert timestep[0] != timestep[1]
    assert not np.array_equal(noise[0], noise[1])


def test_captions_are_drawn_for_each_sample(draws_of):
    """Picks and wildcards are keyed by the sample's position under both semantics."""
    sample = Sample(
        id="a", latents=None, original_size=(1, 1), crop=(0, 0), target_size=(1, 1), tags="{a|b|c|d}", sentence="a star"
    )
    captions = Captions(kind="pick", wildcards=True)
    both = []
    for semantics in ("kohya", "reference"):
        draws, order = draws_of(semantics, ranks=4, batch_size=1, accumulation=4, captions=captions)
        both.append([draws.caption(batch, 0, sample) for batch in batches(order, 1)])
    assert both[0] == both[1]
    assert len(set(both[0])) == 5
