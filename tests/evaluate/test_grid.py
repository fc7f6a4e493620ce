"""The grid and its files: the same bytes, every picture in its place."""

from io import BytesIO

import numpy as np
from PIL import Image

from astolfo.evaluate.grid import Column, draw_grid, png_bytes, save_png


def flat(level, side=48):
    return np.full((side, side, 3), level, np.uint8)


def make(side=48):
    levels = {"eps": (10, 20), "v": (30,)}
    columns = [
        Column(
            group=group, heading="alpha 0.50", word="works", count="2/2", pictures=[flat(level, side), flat(level + 100, side)]
        )
        for group, values in levels.items()
        for level in values
    ]
    return draw_grid(
        ["a red star", "a sentence that is much too long for its place " * 9],
        columns,
        [flat(5, side)] * 2,
        title="Run",
        note="Steps: 2",
    )


def test_two_grids_are_the_same_bytes():
    """Drawn and compressed twice, a grid is the same file."""
    assert png_bytes(make(), {"parameters": "x"}) == png_bytes(make(), {"parameters": "x"})


def test_every_picture_is_there():
    """Each picture, those that were asked for included, covers its enlarged area and nothing else."""
    pixels = np.asarray(make())
    for level in (5, 10, 20, 30, 110, 120, 130):
        area = (pixels == level).all(axis=-1).sum()
        rows = 2 if level == 5 else 1
        assert rows * 144**2 <= area <= rows * 144**2 + 60


def test_large_pictures_are_reduced():
    """Pictures of 1024 pixels do not make a grid of 5000."""
    assert make(1024).width < 1600


def test_a_png_keeps_its_text_and_pixels(tmp_path):
    """Text chunks, also beyond Latin, and pixels come back."""
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    save_png(tmp_path / "a.png", picture, {"parameters": "a star ★\nSteps: 2"})
    with Image.open(BytesIO((tmp_path / "a.png").read_bytes())) as found:
        assert found.text == {"parameters": "a star ★\nSteps: 2"}
        assert np.array_equal(np.asarray(found), picture)


def test_verdicts_stay_in_their_columns():
    """Of many columns with the longest verdict none reaches over its cell: the strip between two columns has no ink."""
    columns = [
        Column(group="v", heading=f"alpha 0.{i}0", word="kinda works", count="12/24", pictures=[flat(9)]) for i in range(11)
    ]
    pixels = np.asarray(draw_grid(["a"], columns, None, title="", note=""))
    strip = pixels[84:128]  # headings and verdicts, below the line of the group
    paper = (strip == np.array((252, 252, 250), np.uint8)).all(axis=(0, 2))
    left = 18 + 188
    assert all(paper[left + 102 * i + 96 : left + 102 * (i + 1)].all() for i in range(10))
    assert not paper.all()
