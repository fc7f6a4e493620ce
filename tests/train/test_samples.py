"""What a micro-batch is made of: what is random is a function of its position, or, under `kohya`, of its rank's micro-step."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from astolfo import randomness
from astolfo.data.order import Order
from astolfo.data.store import Sample
from astolfo.ledger import recipe_of
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import SEMANTICS, Captions, Objective
from astolfo.train import samples
from astolfo.train.loop import Trainer
from astolfo.train.ranks import Processes
from astolfo.train.samples import Preparation

SHAPE = (4, 3, 2)
MOVES = {
    ("to card", "samples.Prepared.on"): ("before",),  # latents and noise
    ("to card", "conditioning._moved"): ("before",),  # what frozen text encoders made of captions
    ("to host", "conditioning._moved"): ("before",),  # the same, of the step before, when nothing is computed
    ("to card", "conditioning.Text.encode"): ("before", "within"),  # token numbers
    ("to card", "objective.Objective.task"): ("before", "within"),  # timesteps
    ("to card", "objective.Objective._flow"): ("before", "within"),  # the same of rf, and its sigmas
    ("to card", "loop.Trainer._predict"): ("before", "within"),  # six numbers of size and crop
    ("to host", "ranks.GradientTree._on_host"): ("within",),  # sums that wait in the host's memory, where that is asked for ...
    ("to card", "ranks.GradientTree._add_gradient"): ("within",),  # ... and come back
    ("number", "loop.Trainer._mean"): ("after",),  # losses
    ("number", "guards._finite"): ("after",),  # gradients and weights
    ("to host", "loop.Trainer._clip"): ("after",),  # the squares of the gradient's norm
    ("to host", "loop.Trainer._clip_in_their_dtype"): ("after",),  # the norms, as the record's first trainer clips ...
    ("to card", "loop.Trainer._clip_in_their_dtype"): ("after",),  # ... and the factor
    ("number", "update.DirectUpdate.step"): ("after",),  # bitsandbytes waits after each weight, AdaFactor for each one's size
    ("to card", "update.DirectUpdate.step"): ("after",),  # first step: code books of 8-bit moments, AdaFactor's counters
    ("number", "update.Fp32Update.step"): ("after",),
    ("to card", "update.Fp32Update.step"): ("after",),
}
"""All that a step moves between host and card or waits for, by kind and function, and when: before the first UNet's forward
pass, within the passes (where nothing may wait), or after the last backward pass, when losses are read. tests/train/test_card.py holds every
recipe of the record to it."""


@pytest.fixture
def preparation_of(ledger):
    """A function that gives the preparation, and the data order, of a recipe under a semantics, with changes."""

    def make(semantics, **changes):
        recipe = recipe_of(ledger, ledger.run("plain")).model_copy(
            update={"choices": SEMANTICS[semantics], "first_step": 0, "seed": 7, **changes}
        )
        order = Order(
            counts=[20, 5], seed=recipe.seed, ranks=recipe.ranks, batch_size=recipe.batch_size,
            accumulation=recipe.accumulation, wraps=semantics == "kohya",
        )  # fmt: skip
        return Preparation(recipe, None), order

    return make


def drawn(preparation, batch):
    """Noise and uniforms of one micro-batch."""
    return preparation.draws([batch], [SHAPE])[0]


def batches(order, steps):
    return [batch for step in range(steps) for row in order.step(step) for batch in row if batch is not None]


def test_reference_draws_for_each_sample(preparation_of):
    """Every sample of two epochs has a noise and a timestep of its own: those of its absolute position."""
    preparation, order = preparation_of("reference", ranks=4, batch_size=2, accumulation=2)
    found = [drawn(preparation, batch) for batch in batches(order, 2 * order.steps_per_epoch)]
    timesteps = np.concatenate([timestep for _, timestep in found])
    noise = np.concatenate([noise.reshape(len(noise), -1) for noise, _ in found])
    assert len(timesteps) == len(set(timesteps.tolist())) == 50
    assert len({row.tobytes() for row in noise}) == 50


def test_reference_draws_do_not_depend_on_the_grouping(preparation_of):
    """Sample 1 of batch 3 of batch size 2 is sample 7 of the run: its numbers are those of position 7."""
    preparation, order = preparation_of("reference", ranks=1, batch_size=2, accumulation=1)
    noise, timestep = drawn(preparation, order.step(3)[0][0])
    assert np.array_equal(noise[1], randomness.normal(7, "noise", 7, SHAPE))
    assert timestep[1] == randomness.uniform(7, "timestep", 7)[0]


def test_kohya_shares_draws_among_ranks(preparation_of):
    """4 ranks x 4 micro-batches see 16 pictures but 4 draws of noise and timestep; inside a micro-batch they differ."""
    preparation, order = preparation_of("kohya", ranks=4, batch_size=1, accumulation=4)
    found = [[drawn(preparation, batch) for batch in row] for row in order.step(0)]
    assert len({timestep.tobytes() for row in found for _, timestep in row}) == 4
    assert len({noise.tobytes() for row in found for noise, _ in row}) == 4
    assert all(len({timestep.tobytes() for _, timestep in row}) == 1 for row in found)
    preparation, order = preparation_of("kohya", ranks=4, batch_size=2, accumulation=4)
    noise, timestep = next(drawn(preparation, batch) for batch in batches(order, 1) if len(batch.rows) == 2)
    assert timestep[0] != timestep[1]
    assert not np.array_equal(noise[0], noise[1])


@pytest.mark.parametrize("semantics", ["reference", "kohya"])
@pytest.mark.parametrize("at_once", [1, 60, 1 << 16])
def test_what_is_drawn_together_is_what_is_drawn_alone(preparation_of, monkeypatch, semantics, at_once):
    """A step's draws in as few calls as there is room for, of several shapes and sizes of micro-batches, are the same numbers."""
    monkeypatch.setattr(samples, "_AT_ONCE", at_once)
    preparation, order = preparation_of(semantics, ranks=4, batch_size=2, accumulation=4)
    some = batches(order, 2)
    assert {len(batch.rows) for batch in some} == {1, 2}
    shapes = [SHAPE if batch.bucket else (4, 2, 5) for batch in some]
    together = preparation.draws(some, shapes)
    for batch, shape, (noise, uniform) in zip(some, shapes, together, strict=True):
        alone = preparation.draws([batch], [shape])[0]
        assert noise.shape == (len(batch.rows), *shape)
        assert noise.dtype == np.float32
        assert np.array_equal(noise, alone[0])
        assert np.array_equal(uniform, alone[1])


def test_captions_are_drawn_for_each_sample(preparation_of):
    """Picks and wildcards are keyed by the sample's position under both semantics."""
    sample = Sample(
        id="a", latents=None, original_size=(1, 1), crop=(0, 0), target_size=(1, 1), tags="{a|b|c|d}", sentence="a star"
    )
    captions = Captions(kind="pick", wildcards=True)
    both = []
    for semantics in ("kohya", "reference"):
        preparation, order = preparation_of(semantics, ranks=4, batch_size=1, accumulation=4, captions=captions)
        both.append([text for batch in batches(order, 1) for text in preparation.captions(batch, [sample] * len(batch.rows))])
    assert both[0] == both[1]
    assert len(set(both[0])) == 5


SHAPED = {
    "kind": "eps", "noise_offset": 0.1, "noise_offset_random": True, "adaptive_noise_scale": 0.1, "ip_noise_gamma": 0.1,
    "ip_noise_gamma_random": True, "multires_noise": {"iterations": 4},
}  # fmt: skip


@pytest.mark.parametrize("semantics", ["kohya", "reference"])
@pytest.mark.parametrize("options", [{"kind": "eps"}, SHAPED], ids=["plain", "shaped"])
def test_a_step_prepared_together_is_its_micro_batches_alone(inputs, spec_of, semantics, options):
    """What the reader's thread makes ready for a whole step, of two buckets, is what each micro-batch gives by itself."""
    changes = {"objective": Objective(**options), "choices": SEMANTICS[semantics], "batch_size": 2, "steps_per_epoch": None}
    trainer = Trainer(Recipe.model_validate(spec_of(**changes)["recipe"]), inputs, Processes())
    prepare, some = trainer.reader.prepare, batches(trainer.order, 2)
    own = [[trainer.store.sample(row) for row in batch.rows.tolist()] for batch in some]
    assert len({batch.bucket for batch in some}) > 1
    for batch, given, together in zip(some, own, prepare(some, own), strict=True):
        (alone,) = prepare([batch], [given])
        for one, other in ((together.latents, alone.latents), (together.noise, alone.noise), (together.time_ids, alone.time_ids)):
            assert one.shape[0] == len(batch.rows)
            assert torch.equal(one, other)
        assert np.array_equal(together.uniform, alone.uniform)
        assert (together.added is None) == (options is not SHAPED)
        assert together.added is None or torch.equal(together.added, alone.added)
        assert [ids.tolist() for ids in together.tokens] == [ids.tolist() for ids in alone.tokens]
        assert [len(ids) for ids in together.tokens] == [len(batch.rows)] * 2


class Operators(TorchDispatchMode):
    """The names of the operators that run, in their order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.alone
@pytest.mark.parametrize("run", ["plain", "flow"])
def test_a_step_asks_for_no_number_before_its_last_backward_pass(inputs, spec_of, run):
    """A GPU is never waited for between micro-batches: numbers are read when all of them are on their way."""
    spec = spec_of(run=run, accumulation=4, ranks=2, steps_per_epoch=None, max_grad_norm=1.0)
    trainer = Trainer(Recipe.model_validate(spec["recipe"]), inputs, Processes())
    with Operators() as operators:
        trainer.step(0)
    names = operators.names
    waits = [index for index, name in enumerate(names) if name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero")]
    last = max(index for index, name in enumerate(names) if name == "convolution_backward")
    assert names.count("convolution_backward") > 8 * 10
    assert min(waits) > last
    assert len(waits) < len(trainer.parameters) // 10


class Store:
    """What a training takes samples from: each is its place, and whether it is mirrored."""

    mirrored = True

    def sample(self, row, mirrored=False):
        return row, mirrored


@pytest.mark.parametrize("semantics", ["kohya", "reference"])
def test_half_of_the_samples_are_mirrored(preparation_of, semantics):
    """A sample is mirrored by a draw of its position, half of the time; another epoch draws anew; without mirrors none is."""
    preparation, order = preparation_of(semantics, ranks=2, batch_size=2, accumulation=1)
    some = batches(order, 20 * order.steps_per_epoch)
    taken = [preparation.take(Store(), batch) for batch in some]
    ways = [mirrored for found in taken for _, mirrored in found]
    assert 0.4 < np.mean(ways) < 0.6
    assert [row for found in taken for row, _ in found] == [row for batch in some for row in batch.rows.tolist()]
    first = some[3].position * 2
    assert [way for _, way in taken[3]] == [randomness.uniform(7, "mirror", first + i)[0] < 0.5 for i in range(len(taken[3]))]
    Plain = type("Plain", (Store,), {"mirrored": False})
    assert not any(mirrored for batch in some[:20] for _, mirrored in preparation.take(Plain(), batch))
