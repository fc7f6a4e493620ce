"""Validation losses: known for models that are known, and the same for whoever asks."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from astolfo.evaluate import validate


class Known(nn.Module):
    """A UNet that always predicts the same number."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, timestep, context, **further):
        return SimpleNamespace(sample=torch.full_like(x, self.value))


def candidate(value):
    text = lambda captions, device: (torch.zeros(len(captions), 1, 1), None)  # noqa: E731
    return SimpleNamespace(parts={"unet": Known(value)}, text=text, device=torch.device("cpu"))


@pytest.fixture
def held_out():
    """Samples of variance 1."""
    latents = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return validate.HeldOut(latents, ("",) * 8, torch.zeros(8, 6))


def test_predicting_zero_is_a_guess_of_v(held_out):
    """For latents of variance 1 the noisy input tells nothing of v, so the best guess is 0: relative loss 1, in every band."""
    found = validate.losses(candidate(0.0), held_out, "v", range(10), seed=1, terminal=True)
    assert found["relative"] == pytest.approx([1.0] * 10, abs=0.05)
    assert found["guess"] == pytest.approx([1.0] * 10, abs=0.05)


def test_the_guess_of_each_objective(held_out):
    """At high noise a guess of eps is nearly right, since the input is nearly the noise; of rf it misses the latents' variance."""
    eps = validate.losses(candidate(0.0), held_out, "eps", [0, 9], seed=1)
    assert eps["guess"][0] > 0.8
    assert eps["guess"][1] < 0.02
    assert eps["loss"] == pytest.approx([1.0, 1.0], abs=0.05)
    flow = validate.losses(candidate(0.0), held_out, "rf", [0, 5, 9], seed=1)
    assert flow["guess"] == pytest.approx([1.1, 2.0, 1.1], abs=0.1)
    assert flow["loss"] == pytest.approx([2.0] * 3, abs=0.1)


def test_noise_is_fixed(held_out):
    """The same seed gives the same numbers, whichever bands are asked for; another seed gives others."""
    whole = validate.losses(candidate(0.0), held_out, "v", range(10), seed=1)
    part = validate.losses(candidate(0.0), held_out, "v", [7], seed=1)
    other = validate.losses(candidate(0.0), held_out, "v", [7], seed=2)
    assert part["loss"] == whole["loss"][7:8] != other["loss"]


def test_a_loss_that_is_no_number_is_none(held_out):
    """A NaN is not written as a number."""
    assert validate.losses(candidate(float("nan")), held_out, "v", [3], seed=1)["relative"] == [None]
