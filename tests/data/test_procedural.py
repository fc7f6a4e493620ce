"""The procedural pictures: what is drawn is what is described."""

import hashlib

import numpy as np

from astolfo.data import procedural
from astolfo.data.procedural import COLOURS, draw, plain, scene, sentence, tags


def test_a_scene_is_a_function_of_seed_and_index():
    """The same seed and index give the same scene; another seed or index gives another."""
    assert scene(1, 7) == scene(1, 7)
    assert len({scene(seed, index) for seed in range(3) for index in range(50)}) == 150


def test_golden_bytes():
    """The first hundred pictures have the bytes they have always had."""
    pixels = b"".join(draw(scene(1, index)).tobytes() for index in range(100))
    assert hashlib.sha256(pixels).hexdigest() == "8e948136c9ffcc1088abc6e7c8470fa3dddb1a95c9702aa12d5f3b7e893dd972"


def test_every_attribute_occurs():
    """Five hundred scenes show each shape, colour, background, position and format, about equally often."""
    scenes = [scene(1, index) for index in range(500)]
    for name, choices in (("shape", 6), ("colour", 6), ("background", 6), ("position", 3)):
        counts = np.unique([str(getattr(s, name)) for s in scenes], return_counts=True)[1]
        assert len(counts) == choices, name
        assert counts.min() > 0.6 * 500 / choices, (name, counts)
    assert {(s.width, s.height) for s in scenes} == set(procedural.SIZES)
    assert all(s.colour != s.background for s in scenes)


def test_a_picture_has_its_scenes_size_and_colours():
    """Pictures are uint8 (height, width, 3); the corner is the background and the middle of a circle its colour."""
    picture = draw(plain("circle", "red", "blue", width=80, height=48))
    assert picture.shape == (48, 80, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == COLOURS["blue"]
    assert tuple(picture[24, 40]) == COLOURS["red"]


def test_descriptions():
    """Tags are booru-like, the sentence is English, and both are made of the vocabulary."""
    it = plain("star", "red", "blue", "left")
    assert tags(it) == ["1star", "solo", "red_star", "blue_background", "left"]
    assert sentence(it) == "a red star on the left, on a blue background"
    for index in range(100):
        it = scene(1, index)
        text = " ".join([*tags(it), sentence(it)]).replace("_", " ").replace(",", " ").replace("1", " ")
        assert set(text.split()) <= set(procedural.vocabulary())
