"""Numbers of a picture: they move the way their names say."""

import numpy as np

from astolfo.data.procedural import draw
from astolfo.evaluate import metrics
from astolfo.evaluate.prompts import procedural_prompts


def test_blur_takes_sharpness_and_leaves_contrast(pictures, blurred):
    """The stronger the blur the smaller the sharpness, while the contrast stays within a sixth."""
    reference = metrics.looks(pictures)
    numbers = [metrics.relative(metrics.looks([blurred(p, size) for p in pictures]), reference) for size in (3, 5, 7)]
    assert 0.5 > numbers[0]["sharpness"] > numbers[1]["sharpness"] > numbers[2]["sharpness"]
    assert numbers[2]["contrast"] > 0.84


def test_noise_adds_sharpness(pictures):
    """Noise of 10% of the range more than doubles it."""
    noise = np.random.default_rng(0).normal(0, 25, pictures[0].shape)
    noisy = [np.clip(p + noise, 0, 255).astype(np.uint8) for p in pictures]
    assert metrics.relative(metrics.looks(noisy), metrics.looks(pictures))["sharpness"] > 2


def test_a_flat_grey_picture_is_nothing():
    """Grey has no sharpness, contrast or colour; a flat red picture has colour only."""
    grey, red = np.full((8, 8, 3), 99, np.uint8), np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert list(metrics.looks([grey]).values()) == [0, 0, 0]
    assert metrics.looks([red])["colour"] > 0.3
    assert metrics.contrast(red) == 0


def test_known_values():
    """Half black, half white: contrast 0.5; one white pixel in black: the Laplacian's 20 / 36 inside."""
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4] = 255
    point = np.zeros((8, 8, 3), np.uint8)
    point[4, 4] = 255
    assert metrics.contrast(half) == 0.5
    assert np.isclose(metrics.sharpness(point), np.sqrt(20 / 36))


def test_what_was_asked_is_recognised():
    """The evaluation's own scenes, drawn at the miniature's size, show everything that their prompts ask."""
    prompts = procedural_prompts(25112201, 8, width=48, height=48)
    found = metrics.agreements([draw(prompt.scene) for prompt in prompts], [prompt.scene for prompt in prompts])
    assert [one["all"] for one in found] == [1.0] * 8


def test_another_picture_is_not_what_was_asked(pictures):
    """A picture of another prompt shows less than all that was asked."""
    prompts = procedural_prompts(1, 7, width=48, height=48)
    assert not any(one["all"] for one in metrics.agreements(pictures[1:] + pictures[:1], [p.scene for p in prompts]))
