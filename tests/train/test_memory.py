"""What a training will need of a card is computed from shapes; what is computed is what the libraries really allocate."""

import pytest
import torch
from torch import nn

from astolfo.ledger import load, recipe_of
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import Optimizer
from astolfo.train import memory
from astolfo.train import optimizer as optimizers
from astolfo.train.memory import flops, predict
from tests.conftest import SMALL
from tests.train.test_optimizer_segment import KINDS

CARD = 23.5e9  # bytes of a 24 GB card that a training can have


@pytest.fixture
def recipe(spec_of):
    return Recipe.model_validate(spec_of()["recipe"])


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=(pytest.mark.alone, pytest.mark.slow) if k == "AdamW4bit" else ()) for k in KINDS]
)
def test_optimizer_state_has_the_predicted_size(recipe, kind):
    """Matrices, convolutions and vectors, of few and of many elements: the bytes of the state after a step, but for counters."""
    recipe = recipe.model_copy(update={"optimizer": Optimizer(kind=kind)})
    parameters = [nn.Parameter(torch.ones(shape)) for shape in ((64, 64), (128, 96), (32, 16, 3, 3), (64,), (4096,))]
    optimizer = optimizers.build(recipe, [("unet", str(n), p) for n, p in enumerate(parameters)])
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in parameters:
        found = sum(v.nbytes for v in optimizers.state_of(optimizer, parameter).values() if v.numel() > 1)
        assert found == memory._state(recipe, parameter), parameter.shape


def test_storages_count_while_they_live():
    """A storage counts from the operator that makes it until nothing holds it; views of it do not count again."""
    with memory._Living() as living:
        first = torch.ones(1000, device="meta")
        second = first.view(10, 100) * 2
        assert (living.now, living.peak) == (8192, 8192)
        del first
        assert living.now == 4096
        third = second + 1
        del second, third
    assert (living.now, living.peak) == (0, 8192)


def test_placement_decides_memory(recipe):
    """Four ranks on one device hold two sums of gradients, offloaded one; four devices share the optimizer's state."""
    one, offloaded, four = predict(recipe), predict(recipe, offload=True), predict(recipe, processes=4, checkpointing=True)
    assert one.gradients == 2 * offloaded.gradients == 2 * four.gradients
    assert one.weights == four.weights
    assert 0.25 <= four.optimizer / one.optimizer < 0.35
    assert four.activations < one.activations
    assert one.peak == one.weights + one.gradients + one.optimizer + one.activations


@pytest.mark.slow
def test_the_record_fits_its_cards():
    """Predicted for true shapes: 71 % with text encoders on one 24 GB card, 100 % on four, both within 23.5 GB."""
    ledger = load(SMALL, "full")
    recipe = recipe_of(ledger, ledger.run("plain"))
    assert predict(recipe, checkpointing=True, offload=True).peak < CARD
    assert predict(recipe.model_copy(update={"unet": 100}), processes=4, checkpointing=True).peak < CARD


@pytest.mark.slow
def test_flops_are_those_known():
    """Forward and backward of the UNet at 1024² and 77 tokens: 20.23 TFLOP for all of it, 18.28 for 71 %, to 1 %."""
    ledger = load(SMALL, "full")
    recipe = recipe_of(ledger, ledger.run("plain"))
    captions = recipe.captions.model_copy(update={"tokens": 75})
    alone = recipe.learning_rate.model_copy(update={"text_encoder": 0.0, "text_encoder_2": 0.0})
    for percent, known in ((100, 20.231e12), (71, 18.282e12)):
        changed = recipe.model_copy(update={"unet": percent, "captions": captions, "learning_rate": alone})
        encoders = 2 * 77 * (85e6 + 632e6)  # forward only: their layers' weights, once per token
        assert flops(changed) - encoders == pytest.approx(known, rel=0.01)
