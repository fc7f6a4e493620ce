"""Recognition: a scene is read back at any strength, focus and light; nothing is seen where nothing is."""

from dataclasses import replace

import numpy as np
import pytest

from astolfo import randomness
from astolfo.data.photograph import CLEAR, photograph, veil_of
from astolfo.data.procedural import COLOURS, draw, plain, scene
from astolfo.evaluate.recognition import ATTRIBUTES, agreement, recognise

SQUARE = ((48, 48),)
STAR = plain("star", "red", "blue", "left")


def noisy(picture):
    noise = randomness.normal(5, "test", 0, picture.shape)
    return np.clip(picture + 12 * noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("damage", [lambda p: p, noisy], ids=["clean", "noisy"])
def test_drawn_scenes_are_recognised(damage):
    """A drawn scene of any size of the miniature is read back, also through noise."""
    scenes = [scene(3, index) for index in range(40)]
    found = [agreement(damage(draw(s)), s)["all"] for s in scenes]
    assert np.mean(found) >= 0.97, [s for s, right in zip(scenes, found, strict=True) if not right]


def test_photographs_are_recognised():
    """Of pictures under the dataset's own veils 95 in 100 are read back in everything that is told, and nearly all in each part."""
    pairs = [(scene(77, i, SQUARE), photograph(scene(77, i, SQUARE), veil_of(77, i))) for i in range(192)]
    found = [agreement(picture, told) for told, picture in pairs]
    right = {name: np.mean([one[name] for one in found]) for name in (*ATTRIBUTES, "all")}
    assert right["all"] >= 0.95, right
    assert min(right.values()) >= 0.95, right


@pytest.mark.parametrize("strength", [0.05, 0.2, 1.0])
def test_strength_is_measured_and_decides_nothing(strength):
    """The same scene is seen at any strength, and which strength it was."""
    found = agreement(photograph(STAR, replace(CLEAR, strength=strength)), STAR)
    assert found["all"] == 1.0
    assert found["strength"] == pytest.approx(strength, rel=0.15)
    assert found["explained"] > 0.9


def test_agreement_names_what_is_wrong():
    """A picture of another scene agrees in exactly the attributes that the two share."""
    found = agreement(draw(STAR), plain("heart", "red", "black", "left"))
    assert {name for name in (*ATTRIBUTES, "all") if found[name] == 0.0} == {"shape", "background", "all"}


def test_nothing_is_seen_in_noise_or_flat_colour():
    """Pure noise and flat grey hold no scene; a bare ground shows no more than a weak one of its own colour."""
    noise = np.clip(128 + 60 * randomness.normal(6, "test", 0, (64, 64, 3)), 0, 255).astype(np.uint8)
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert [recognise(picture)[0] for picture in (noise, flat)] == [None, None]
    bare = np.full((64, 64, 3), COLOURS["red"], np.uint8)
    assert agreement(bare, plain("star", "blue", "red"))["all"] == 0.0
