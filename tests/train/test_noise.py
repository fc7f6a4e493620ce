"""Shaped noise is what its authors and the original trainer compute, and a function of the seed and the position."""

import numpy as np
import pytest
import torch

from astolfo import randomness
from astolfo.ledger.schema import Objective
from astolfo.train import noise

SHAPE = (2, 4, 16, 24)
PLAIN = randomness.normal(7, "noise", 3, SHAPE)
MEANS = np.array([[0.5, -1.0, 0.0, 0.25], [0.1, 0.2, -0.3, 0.0]])


def shaped(values=PLAIN, means=MEANS, seed=7, position=3, **options):
    return noise.shaped(Objective(kind="eps", **options), values, means, seed=seed, position=position)


def test_nothing_asked_for_changes_nothing():
    """Without an option the noise is the drawn one, and it is what is added."""
    own, added = shaped()
    assert own is PLAIN
    assert added is None
    assert not noise.changes(Objective(kind="eps"))


def test_an_offset_moves_whole_channels():
    """noise_offset adds its strength times one normal number a channel and sample; what is predicted is that noise."""
    own, added = shaped(noise_offset=0.1)
    drawn = randomness.normal(7, "noise offset", 3, (2, 4, 1, 1))
    assert np.array_equal(own, PLAIN + np.float32(0.1) * drawn)
    assert added is None
    assert own.dtype == np.float32


def test_the_offset_adapts_to_the_latents():
    """adaptive_noise_scale adds itself times each channel's absolute mean to the strength, which is never below 0."""
    drawn = randomness.normal(7, "noise offset", 3, (2, 4, 1, 1))
    for scale in (0.2, -0.2):
        strength = np.maximum(0.1 + scale * np.abs(MEANS), 0).astype(np.float32)[..., None, None]
        assert np.array_equal(shaped(noise_offset=0.1, adaptive_noise_scale=scale)[0], PLAIN + strength * drawn)


def test_strengths_may_be_drawn():
    """With a random strength a block has one of its own between 0 and the given one, by its position."""
    share = randomness.uniform(7, "noise offset strength", 3)[0]
    drawn = randomness.normal(7, "noise offset", 3, (2, 4, 1, 1))
    assert np.array_equal(shaped(noise_offset=0.1, noise_offset_random=True)[0], PLAIN + np.float32(0.1 * share) * drawn)
    gamma = np.float32(0.2 * randomness.uniform(7, "input perturbation strength", 3)[0])
    _, added = shaped(ip_noise_gamma=0.2, ip_noise_gamma_random=True)
    assert np.array_equal(added, PLAIN + gamma * randomness.normal(7, "input perturbation", 3, SHAPE))


def test_input_perturbation_is_not_predicted():
    """ip_noise_gamma adds other noise to the input alone, on top of an offset where there is one."""
    own, added = shaped(noise_offset=0.1, ip_noise_gamma=0.15)
    assert np.array_equal(own, shaped(noise_offset=0.1)[0])
    assert np.array_equal(added, own + np.float32(0.15) * randomness.normal(7, "input perturbation", 3, SHAPE))


@pytest.mark.parametrize(("iterations", "discount"), [(1, 0.3), (3, 0.4), (10, 0.8)])
def test_noise_of_several_resolutions(iterations, discount):
    """The pyramid of the original trainer with torch's own enlargement: a coarser noise each time, until a side is 1."""
    own, _ = shaped(multires_noise={"iterations": iterations, "discount": discount})
    wanted, up = torch.from_numpy(PLAIN.copy()), torch.nn.Upsample(size=SHAPE[2:], mode="bilinear")
    for number, factor in enumerate(randomness.uniform(7, "multires noise factor", 3, iterations) * 2 + 2):
        size = tuple(max(1, int(side / factor**number)) for side in SHAPE[2:])
        coarse = torch.from_numpy(randomness.normal(7, f"multires noise {number}", 3, (*SHAPE[:2], *size)))
        wanted = wanted + up(coarse) * discount**number
        if 1 in size:
            break
    torch.testing.assert_close(torch.from_numpy(own), wanted / wanted.std(), rtol=1e-5, atol=1e-6)
    assert own.std(ddof=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (7, 9), (16, 24)])
def test_enlarging_is_torchs(size):
    """Bilinear enlargement from basic operations is torch's, for every shape that a pyramid has."""
    values = randomness.normal(1, "noise", 0, (2, 4, *size))
    wanted = torch.nn.functional.interpolate(torch.from_numpy(values), SHAPE[2:], mode="bilinear")
    torch.testing.assert_close(torch.from_numpy(noise.enlarged(values, SHAPE[2:])), wanted, rtol=1e-6, atol=1e-6)


def test_the_input_alone_is_perturbed():
    """The task's noisy latents have the added noise; its target has the noise that is predicted."""
    from tests.train.test_objective import objective

    x, e, added = (torch.from_numpy(randomness.normal(1, name, 0, (2, 4, 3, 3))) for name in "xea")
    for kind in ("eps", "v", "rf"):
        plain, other = objective(kind=kind), np.array([0.3, 0.6])
        task = plain.task(x, e, other, added)
        assert torch.equal(task.noisy, plain.task(x, added, other).noisy)
        assert torch.equal(task.target, plain.task(x, e, other).target)
