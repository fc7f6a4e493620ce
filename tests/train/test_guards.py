"""A wrong number stops the run, says where, and leaves the last good state."""

import pytest
import torch

from astolfo.errors import NumericsError, StateError, StoreError
from astolfo.ledger.recipe import Recipe
from astolfo.train import state
from astolfo.train.loop import Trainer
from astolfo.train.ranks import Processes


@pytest.fixture
def trainer(inputs, spec_of):
    return Trainer(Recipe.model_validate(spec_of()["recipe"]), inputs, Processes())


def test_a_nan_loss_names_step_and_sample(trainer):
    """A NaN in the loss stops before the update, with step, position and sample IDs."""
    with torch.no_grad():
        trainer.parts["unet"].conv_out.bias.fill_(float("nan"))
    before = trainer.flat.weights.clone()
    with pytest.raises(NumericsError, match=r"loss is nan at step 0, position 0, samples 5-000000\d\d"):
        trainer.step(0)
    assert torch.equal(before.nan_to_num(), trainer.flat.weights.nan_to_num())


def test_an_infinite_gradient_names_the_parameter(trainer):
    """An infinite gradient stops before the update and names the parameter."""
    trainer.parts["unet"].conv_out.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NumericsError, match=r"gradient at step 0, first in unet\.conv_out\.weight"):
        trainer.step(0)


def test_a_state_with_nan_is_not_written(trainer, tmp_path):
    """A weight that is not finite is never saved; nothing appears on the disk."""
    found = trainer.state(1)
    found.weights["unet.conv_out.bias"][0] = float("inf")
    with pytest.raises(StateError, match=r"unet\.conv_out\.bias has NaN or infinity at step 1"):
        state.save(tmp_path / "s.safetensors", found, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_of_another_size_is_refused(inputs, spec_of):
    """A store that makes another number of steps an epoch than the recipe expects is refused before training."""
    recipe = Recipe.model_validate(spec_of()["recipe"] | {"steps_per_epoch": 78})
    with pytest.raises(StoreError, match="24 images, which make 3 steps an epoch; the recipe expects 78"):
        Trainer(recipe, inputs, Processes())
