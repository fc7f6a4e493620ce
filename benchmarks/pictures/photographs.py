"""Procedural pictures with what a caption leaves open: how strong, how sharp, how lit and how grained a picture is.

    picture = photograph(scene, veil(seed, index))          # uint8 (height, width, 3)
    seen = agreement(picture, scene)                         # told attributes, whatever the picture's strength

What captions tell is the scene of `astolfo.data.procedural`, painted where it always was. What they leave open is a `Veil`:
things in the background, textures of both grounds, a gradient of light, the focus, and last the strength of it all over a
grey ground, as in mist. Numbers are counter-based and only +, -, *, / of float64 take part, as in `procedural`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from astolfo import randomness
from astolfo.data.procedural import COLOURS, POSITIONS, SHAPES, Scene, coverage, plain

GREY = 127.5
STRENGTHS = (0.05, 1.0)
PASSES = 32  # of the 3 x 3 binomial filter at most; each adds half a square pixel of variance, so 4 pixels of deviation
TEXTURE = 0.25  # deviation of a ground's texture over the range of a channel, at most
OCTAVES = (2, 4, 8, 16)  # cells across; amplitudes fall as 1 / cells, a photograph's power as 1 / frequency^2
THINGS = 3
LIGHT = 0.25  # of the range of a channel, from the middle to an edge, at most


@dataclass(frozen=True, kw_only=True)
class Veil:
    """What no caption tells. `strength`: of everything, over grey; `passes`: of the blur; `texture`, `light`: over the range;
    `seed`, `index`: whose texture, direction of light and things."""

    strength: float
    passes: int
    texture: float
    light: float
    seed: int
    index: int


CLEAR = Veil(strength=1.0, passes=0, texture=0.0, light=0.0, seed=0, index=0)


def veil(seed: int, index: int, strengths: tuple[float, float] = STRENGTHS, passes: int = PASSES, texture: float = TEXTURE,
         light: float = LIGHT) -> Veil:  # fmt: skip
    """The veil over picture `index` of the dataset `seed`; every number is uniform from nothing (or `strengths`) to its most."""
    u = randomness.uniform(seed, "veil", index, 4)
    return Veil(
        strength=strengths[0] + float(u[0]) * (strengths[1] - strengths[0]), passes=int(u[1] * (passes + 1)),
        texture=float(u[2]) * texture, light=float(u[3]) * light, seed=seed, index=index,
    )  # fmt: skip


def photograph(scene: Scene, veil: Veil) -> np.ndarray:
    """The picture of `scene` under `veil`: uint8 (height, width, 3)."""
    covered = coverage(scene.shape, scene.width, scene.height, scene.dx, scene.dy, scene.radius)[..., None] / 16.0
    size = covered.shape[:2]
    ground, shape = (np.broadcast_to(np.array(COLOURS[name], float), (*size, 3)) for name in (scene.background, scene.colour))
    if veil.texture:
        ground = _things(ground, veil) + 255.0 * veil.texture * _texture(veil, 0, *size)[..., None]
        shape = shape + 255.0 * veil.texture * _texture(veil, 1, *size)[..., None]
    picture = ground + covered * (shape - ground)
    if veil.light:
        picture = picture + 255.0 * veil.light * _slope(veil, *size)[..., None]
    for _ in range(veil.passes):
        picture = _softened(picture)
    return np.floor(np.clip(GREY + veil.strength * (np.clip(picture, 0, 255) - GREY), 0, 255) + 0.5).astype(np.uint8)


def _texture(veil: Veil, which: int, height: int, width: int) -> np.ndarray:
    """Value noise of all octaves, deviation about 1: float64 (height, width)."""
    found, power = np.zeros((height, width)), 0.0
    for octave in OCTAVES:
        side = octave + 2
        u = randomness.uniform(veil.seed, f"texture {which} {octave}", veil.index, side * side + 2)
        cells = (2.0 * u[2:] - 1.0).reshape(side, side)
        y, x = (u[k] + np.arange(n) * (octave / max(height, width)) for k, n in ((0, height), (1, width)))
        top, left = y.astype(int), x.astype(int)
        v, h = (y - top)[:, None], (x - left)[None, :]
        a, b = cells[top][:, left], cells[top][:, left + 1]
        c, d = cells[top + 1][:, left], cells[top + 1][:, left + 1]
        found += ((a + h * (b - a)) * (1 - v) + (c + h * (d - c)) * v) * (2.0 / octave)
        power += (2.0 / octave) ** 2 * 0.15
    return found / np.sqrt(power)


def _things(ground: np.ndarray, veil: Veil) -> np.ndarray:
    """Ellipses in tints of the ground, anywhere, behind the shape."""
    height, width = ground.shape[:2]
    u = randomness.uniform(veil.seed, "things", veil.index, THINGS * 5).reshape(THINGS, 5)
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    for cx, cy, rx, ry, tint in u:
        inside = ((x - cx) / (0.06 + 0.16 * rx)) ** 2 + ((y - cy) / (0.06 + 0.16 * ry)) ** 2 < 1.0
        ground = ground + inside[..., None] * (2.0 * tint - 1.0) * 255.0 * 2.0 * veil.texture
    return ground


def _slope(veil: Veil, height: int, width: int) -> np.ndarray:
    """A plane of light, from -1 to 1 along its steepest axis."""
    a, b = 2.0 * randomness.uniform(veil.seed, "light", veil.index, 2) - 1.0
    down, right = ((2 * np.arange(length) + 1) / length - 1.0 for length in (height, width))
    return (a * down[:, None] + b * right) / max(abs(a) + abs(b), 0.25)


def _softened(picture: np.ndarray) -> np.ndarray:
    """The picture under the binomial filter of 3 x 3, edges repeated."""
    p = np.pad(picture, ((1, 1), (0, 0), (0, 0)), mode="edge")
    p = (p[:-2] + 2.0 * p[1:-1] + p[2:]) / 4.0
    p = np.pad(p, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (p[:, :-2] + 2.0 * p[:, 1:-1] + p[:, 2:]) / 4.0


# Recognition: the drawn scene whose departure from grey points the same way as the picture's, whatever its length.

_LEAST = 0.6  # cosine from which a picture shows what its best scene shows: a random pair of scenes has 0 on average
_FAINT = 0.04  # strength under which nothing is seen


def recognise(picture: np.ndarray) -> tuple[Scene | None, float, float]:
    """What uint8 (height, width, 3) shows, the strength at which it does, and the cosine with that scene.

    Scenes are flat: `r = ground + covered * (colour - ground)`, so that all products of the picture with every scene follow
    from its sum, and its sum over each outline, by channel.
    """
    height, width = picture.shape[:2]
    z = (picture.astype(float) - GREY).reshape(-1, 3)
    outlines, placed = _outlines(width, height)  # (m, pixels)
    names = list(COLOURS)
    colours = np.array([COLOURS[name] for name in names], float) - GREY  # (c, 3)
    total, under = z.sum(0), outlines @ z  # (3,), (m, 3)
    area, square = outlines.sum(1), (outlines**2).sum(1)
    step = colours[:, None] - colours[None]  # (colour, ground, 3)
    along = colours @ total + np.einsum("mi,cgi->mcg", under, step)  # <z, r>
    length = (
        len(z) * (colours**2).sum(1) + 2 * area[:, None, None] * (colours[None] * step).sum(-1)
        + square[:, None, None] * (step**2).sum(-1)
    )  # fmt: skip
    cosine = along / np.sqrt(length * max((z**2).sum(), 1e-9))
    cosine[:, np.arange(len(names)), np.arange(len(names))] = -1.0
    m, c, g = np.unravel_index(cosine.argmax(), cosine.shape)
    shape, position = placed[m]
    best, strength = float(cosine[m, c, g]), float(along[m, c, g] / length[m, c, g])
    seen = plain(shape, names[c], names[g], position, width=width, height=height)
    return (seen if best >= _LEAST and strength >= _FAINT else None), strength, best


def agreement(picture: np.ndarray, scene: Scene) -> dict[str, float]:
    """1.0 or 0.0 for each told attribute that `picture` shows, `all` of them, and `strength` and `cosine` of what it shows."""
    seen, strength, cosine = recognise(picture)
    attributes = ("shape", "colour", "background", "position")
    found = {name: float(seen is not None and getattr(seen, name) == getattr(scene, name)) for name in attributes}
    return {**found, "all": min(found.values()), "strength": strength, "cosine": cosine}


@lru_cache
def _outlines(width: int, height: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Coverage of every shape at every place and some jitters, (outlines, pixels) in [0, 1], and what each is."""
    found, placed = [], []
    for shape in SHAPES:
        for position, middle in POSITIONS.items():
            for dx in (-0.025, 0.0, 0.025):
                for dy in (-0.025, 0.0, 0.025):
                    for radius in (0.28, 0.31, 0.34):
                        found.append(coverage(shape, width, height, middle + dx, dy, radius).ravel() / 16.0)
                        placed.append((shape, position))
    return np.stack(found), placed
