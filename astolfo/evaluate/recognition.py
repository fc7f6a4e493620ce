"""What a picture shows, whatever its strength, focus, light and texture: the scene that it departs from grey as.

    scene, strength, cosine = recognise(picture)
    agreement(picture, asked)      # {"shape": 1.0, "colour": 0.0, ..., "all": 0.0, "explained": 0.81, "strength": 0.5}

Every plain scene (`astolfo.data.procedural`) is a template. The picture shows the one whose departure from grey points most
nearly the same way as its own; how far it departs is its strength, which captions leave open and which decides nothing here.
"""

from functools import lru_cache

import numpy as np

from astolfo.data.photograph import GREY
from astolfo.data.procedural import COLOURS, POSITIONS, SHAPES, Scene, coverage, plain

ATTRIBUTES = ("shape", "colour", "background", "position")
LEAST = 0.6  # cosine from which a picture shows what its best scene shows: that of two random scenes is 0 on average
FAINT = 0.04  # strength under which nothing is seen
_JITTERS, _RADII = (-0.025, 0.0, 0.025), (0.28, 0.31, 0.34)


def recognise(picture: np.ndarray) -> tuple[Scene | None, float, float]:
    """What uint8 (height, width, 3) shows, at which strength, and the cosine with that scene; None where nothing is seen.

    A template is flat, ground + covered * (colour - ground), so its product with the picture follows from the picture's sum and
    its sum over the outline, by channel; and the template's length from the outline's area.
    """
    height, width = picture.shape[:2]
    z = (picture.astype(float) - GREY).reshape(-1, 3)
    outlines, placed = _outlines(width, height)  # (m, pixels)
    names = list(COLOURS)
    colours = np.array([COLOURS[name] for name in names], float) - GREY  # (c, 3)
    total, under = z.sum(0), outlines @ z  # (3,), (m, 3)
    area, square = outlines.sum(1), (outlines**2).sum(1)
    step = colours[:, None] - colours[None]  # (colour, ground, 3)
    along = colours @ total + np.einsum("mi,cgi->mcg", under, step)
    length = (
        len(z) * (colours**2).sum(1) + 2 * area[:, None, None] * (colours[None] * step).sum(-1)
        + square[:, None, None] * (step**2).sum(-1)
    )  # fmt: skip
    cosine = along / np.sqrt(length * max((z**2).sum(), 1e-9))
    cosine[:, np.arange(len(names)), np.arange(len(names))] = -1.0  # no shape in its ground's colour
    m, c, g = np.unravel_index(cosine.argmax(), cosine.shape)
    shape, position = placed[m]
    best, strength = float(cosine[m, c, g]), float(along[m, c, g] / length[m, c, g])
    seen = plain(shape, names[c], names[g], position, width=width, height=height)
    return (seen if best >= LEAST and strength >= FAINT else None), strength, best


def agreement(picture: np.ndarray, scene: Scene) -> dict[str, float]:
    """1.0 or 0.0 for each told attribute that `picture` shows or does not, and for `all` of them; then two numbers.

    `explained`: the share of the picture's squared departure from grey that the scene it shows best explains, 0 to 1;
    `strength`: of that scene in the picture, 1.0 as drawn without a veil.
    """
    seen, strength, cosine = recognise(picture)
    found = {name: float(seen is not None and getattr(seen, name) == getattr(scene, name)) for name in ATTRIBUTES}
    return {**found, "all": min(found.values()), "explained": max(0.0, cosine) ** 2, "strength": strength}


@lru_cache
def _outlines(width: int, height: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Coverage of every shape at every place, with some jitter: (outlines, pixels) in [0, 1]; and what each is."""
    found, placed = [], []
    for shape in SHAPES:
        for position, middle in POSITIONS.items():
            for dx in _JITTERS:
                for dy in _JITTERS:
                    for radius in _RADII:
                        found.append(coverage(shape, width, height, middle + dx, dy, radius).ravel() / 16.0)
                        placed.append((shape, position))
    return np.stack(found), placed
