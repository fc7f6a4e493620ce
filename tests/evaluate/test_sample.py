"""Sampling: the right mathematics for each runtime, and pictures that depend on nothing but what they should."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from astolfo.errors import InputError
from astolfo.evaluate.candidate import Candidate
from astolfo.evaluate.sample import TOGETHER, Settings, sample, scheduler_of
from astolfo.train.objective import alphas_cumprod

PROMPTS = ["1star, red star", "1ring, blue ring, a large blue ring", "", "1heart"]


@pytest.fixture(scope="module")
def candidate(architecture, models, words):
    return Candidate(architecture, None, models[1], words)


def settings(**changes):
    return Settings(**{"runtime": "eps", "steps": 3, "height": 32, "width": 32} | changes)


class Oracle(nn.Module):
    """A UNet that knows the picture: its prediction is exact for its objective."""

    def __init__(self, kind, zero_terminal_snr, answer):
        super().__init__()
        self.kind, self.answer, self.alphas = kind, answer, alphas_cumprod(zero_terminal_snr)
        self.config = SimpleNamespace(block_out_channels=[1], in_channels=3)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, x, timestep, context, **further):
        if self.kind == "rf":
            return SimpleNamespace(sample=(x - self.answer) / (timestep / 1000))
        alpha = self.alphas[int(timestep)]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        noise = (x - signal * self.answer) / spread
        return SimpleNamespace(sample=noise if self.kind == "eps" else signal * noise - spread * self.answer)


class Glass(nn.Module):
    """An autoencoder that changes nothing."""

    config, dtype = SimpleNamespace(block_out_channels=[1], scaling_factor=1.0), torch.float32

    def decode(self, latents):
        return SimpleNamespace(sample=latents)


def no_text(prompts, device):
    return torch.zeros(len(prompts), 1, 1), None


@pytest.mark.parametrize("sampler", ["DDIM", "Euler"])
@pytest.mark.parametrize(("kind", "zero"), [("eps", False), ("v", False), ("v", True), ("rf", False)])
def test_an_exact_model_gives_its_picture(kind, zero, sampler):
    """Under its own runtime, a model that predicts exactly what its objective asks ends at the picture it knows."""
    answer = torch.linspace(-0.9, 0.9, 3 * 16 * 16).reshape(1, 3, 16, 16)
    parts = {"unet": Oracle(kind, zero, answer), "vae": Glass()}
    for shift in (1.0, 3.0) if kind == "rf" else (1.0,):
        chosen = Settings(runtime=kind, sampler=sampler, zero_terminal_snr=zero, steps=20, height=16, width=16, shift=shift)
        pictures, finite = sample(parts, no_text, ["a", "b"], chosen, seed=1)
        wanted = (answer[0].permute(1, 2, 0) * 127.5 + 127.5).numpy()
        # Stable Diffusion's schedule ends at alpha-bar 0.99915: 3% of the noise stays, about 3 of 255 levels.
        assert finite.all()
        assert np.abs(pictures - wanted).mean() < (1 if kind == "rf" else 4)


def test_two_samplings_are_the_same_bytes(candidate):
    """The same model, prompts, seed and settings give the same bytes, whatever torch's generator holds."""
    first, _ = sample(candidate.parts, candidate.text, PROMPTS, settings(), seed=1)
    torch.manual_seed(9)
    again, _ = sample(candidate.parts, candidate.text, PROMPTS, settings(), seed=1)
    assert first.shape == (4, 32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)


def test_a_picture_does_not_depend_on_the_others(candidate):
    """Picture number 2 is the same alone, among four, and among more than fit into a batch."""
    among, _ = sample(candidate.parts, candidate.text, PROMPTS, settings(), seed=1)
    alone, _ = sample(candidate.parts, candidate.text, PROMPTS[2:3], settings(), seed=1, first=2)
    many, _ = sample(candidate.parts, candidate.text, [*PROMPTS, *["1cross"] * TOGETHER], settings(), seed=1)
    assert np.array_equal(among[2], alone[0])
    assert np.array_equal(among, many[:4])
    late, _ = sample(candidate.parts, candidate.text, ["1cross"], settings(), seed=1, first=TOGETHER + 3)
    assert np.array_equal(many[TOGETHER + 3], late[0])


def test_what_a_picture_depends_on(candidate):
    """Another seed, number, prompt, runtime, uncond, CFG, number of steps or sampler gives another picture."""

    def one(prompt="1star", seed=1, first=0, **changes):
        return sample(candidate.parts, candidate.text, [prompt], settings(**changes), seed=seed, first=first)[0].tobytes()

    pictures = [
        one(), one(seed=2), one(first=1), one("1ring"), one(runtime="v"), one(runtime="v", zero_terminal_snr=True),
        one(runtime="rf"), one(runtime="rf", shift=3.0), one(uncond="zero"), one(cfg=1.0), one(steps=4), one(sampler="Euler"),
    ]  # fmt: skip
    assert len(set(pictures)) == len(pictures)


def test_zero_terminal_snr_visits_the_last_timestep():
    """The v runtime with zero terminal SNR begins at timestep 999, where the signal is nothing; without it, as SDXL does."""
    zero = scheduler_of(Settings(runtime="v", zero_terminal_snr=True, steps=20))
    assert zero.timesteps[0] == 999
    assert zero.alphas_cumprod[999] < 1e-7
    assert scheduler_of(Settings(runtime="eps", steps=20)).timesteps[[0, -1]].tolist() == [951, 1]


def test_rf_goes_from_noise_to_nothing():
    """Flow matching begins at sigma 1, ends at 0, and a shift moves the steps towards the noise."""
    plain, shifted = (scheduler_of(Settings(runtime="rf", steps=4, shift=shift)).sigmas for shift in (1.0, 3.0))
    assert torch.allclose(plain, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    assert torch.allclose(shifted, 3 * plain / (1 + 2 * plain))


def test_a_picture_that_is_not_finite_is_black_and_told(candidate):
    """A NaN in the UNet gives black pictures, marked as not finite, instead of an accident of rounding."""
    bias = candidate.parts["unet"].conv_out.bias
    before = bias.data.clone()
    bias.data[0] = float("nan")
    pictures, finite = sample(candidate.parts, candidate.text, ["1star"], settings(), seed=1)
    bias.data.copy_(before)
    assert not finite.any()
    assert not pictures.any()


@pytest.mark.parametrize(
    "wrong",
    [{"runtime": "x"}, {"sampler": "LMS"}, {"runtime": "eps", "uncond": "none"}, {"runtime": "eps", "zero_terminal_snr": True}],
)
def test_impossible_settings_are_refused(wrong):
    """Unknown names, and zero terminal SNR outside the v runtime, are errors before anything is computed."""
    with pytest.raises(InputError):
        Settings(**{"runtime": "eps"} | wrong)


def test_a_size_that_does_not_divide_is_refused(candidate):
    """The error names the multiple that height and width must be of."""
    with pytest.raises(InputError, match="multiples of 4"):
        sample(candidate.parts, candidate.text, ["1star"], settings(width=42), seed=1)
