"""Photographs of scenes: what captions leave open is there at every scale, is known, and is a function of seed and index."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from astolfo.data.photograph import CLEAR, GREY, LIGHT, PASSES, STRENGTHS, TEXTURE, photograph, veil_of
from astolfo.data.procedural import draw, plain, scene
from astolfo.evaluate import metrics

STAR = plain("star", "red", "blue", "left")
VEIL = replace(CLEAR, texture=TEXTURE, light=LIGHT, seed=1, index=1)


def dataset(seed, count, side=48):
    return [photograph(scene(seed, index, ((side, side),)), veil_of(seed, index)) for index in range(count)]


def test_golden_bytes():
    """The first hundred photographs have the bytes they have always had."""
    pixels = b"".join(photograph(scene(1, index), veil_of(1, index)).tobytes() for index in range(100))
    assert hashlib.sha256(pixels).hexdigest() == "4e0c8898dc61110cb48284029d26a2c306169b4a250f3993b39e575275ea62eb"


def test_a_clear_photograph_is_what_is_told():
    """Without a veil it is the scene as `draw` paints it, but for rounding."""
    for index in range(20):
        told = scene(1, index)
        assert np.abs(photograph(told, CLEAR).astype(int) - draw(told)).max() <= 1


def test_a_veil_is_a_function_of_seed_and_index():
    """The same two give the same veil and others another; each number keeps to its range and fills it."""
    assert veil_of(1, 7) == veil_of(1, 7)
    veils = [veil_of(seed, index) for seed in range(4) for index in range(100)]
    for name, least, most in (("strength", *STRENGTHS), ("passes", 0, PASSES), ("texture", 0, TEXTURE), ("light", 0, LIGHT)):
        values = np.array([getattr(veil, name) for veil in veils])
        assert least <= values.min() < least + (most - least) / 20, name
        assert most - (most - least) / 20 < values.max() <= most, name
        assert values.mean() == pytest.approx((least + most) / 2, rel=0.1), name


def test_strength_is_the_distance_from_grey():
    """At strength s everything, ground included, lies s times as far from grey as at strength 1, to half a level."""
    full = photograph(STAR, VEIL).astype(float) - GREY
    for strength in STRENGTHS:
        faint = photograph(STAR, replace(VEIL, strength=strength)).astype(float) - GREY
        assert np.abs(faint - strength * full).max() <= 1.0


def test_the_blur_is_a_normal_distribution_of_known_width():
    """So many passes spread a point by half a square pixel of variance each, in both directions."""
    square = plain("square", "white", "black")
    rows = [photograph(square, replace(CLEAR, passes=passes)).astype(float).mean(axis=2)[24] for passes in (0, 8)]
    edges = [np.abs(np.diff(row))[:24] for row in rows]
    places = np.arange(24)
    variance = [np.average((places - np.average(places, weights=e)) ** 2, weights=e) for e in edges]
    assert variance[1] - variance[0] == pytest.approx(8 * 0.5, rel=0.1)


def test_what_captions_leave_open_is_much_at_every_scale():
    """Among pictures of one caption is a quarter of the dataset's variance and more, and a third of its contrast by scale."""
    pictures = np.stack(dataset(7, 200)).astype(float)
    scenes = [scene(9, number, ((48, 48),)) for number in range(12)]
    alike = [np.stack([photograph(one, veil_of(100 + k, i)) for i in range(24)]).astype(float) for k, one in enumerate(scenes)]
    left_open = np.concatenate([some - some.mean(0) for some in alike])
    every = pictures - pictures.mean(0)
    assert np.square(left_open).mean() > 0.25 * np.square(every).mean()
    shares = np.square(metrics.by_scale([*left_open])) / np.square(metrics.by_scale([*every]))
    assert (shares > 0.3).all(), shares


def test_the_spectrum_falls_off_like_a_photographs():
    """The power of what lies between boxes of 1, 2, 4 and 8 pixels rises with the scale, about as the square of its size."""
    by_scale = np.square(metrics.by_scale(dataset(7, 200)))
    ratios = by_scale[1:4] / by_scale[:3]
    assert (ratios > 1.3).all(), ratios
    assert (ratios < 5.0).all(), ratios


def test_contrast_by_scale_says_blur_without_content():
    """A quarter of the strength is a quarter at every scale; a blur takes the small scales alone."""
    pictures = dataset(7, 64)
    whole = np.array(metrics.by_scale(pictures))
    faint = [np.rint(GREY + (p.astype(float) - GREY) / 4).astype(np.uint8) for p in pictures]
    assert np.allclose(np.array(metrics.by_scale(faint)) / whole, 0.25, atol=0.02)
    soft = [photograph(scene(7, i, ((48, 48),)), replace(veil_of(7, i), passes=2 * PASSES)) for i in range(64)]
    left = np.array(metrics.by_scale(soft)) / whole
    assert left[0] < 0.6
    assert left[3] > 0.7
