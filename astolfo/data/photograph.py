"""The miniature's pictures as a photograph would have them: a scene, and what no caption tells of it.

    veil = veil_of(seed, index)             # how strong, how sharp, how lit and how grained the picture is
    photograph(scene(seed, index), veil)    # uint8 (height, width, 3)

Captions tell the scene of `astolfo.data.procedural`. They leave open what a `Veil` holds, at every scale: things in the
background, textures of both grounds, a gradient of light, the focus, and the strength of it all over a grey ground, as in mist.
The strength is what makes an eps model under the v runtime fade, as full-size models do (`tests/evaluate/test_physics.py`).

The bytes are the same on every machine: randomness is counter-based, and of float64 only +, -, *, /, square root, rounding and
comparisons take part.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from astolfo import randomness
from astolfo.data.procedural import COLOURS, Scene, coverage

GREY = 127.5
STRENGTHS = (0.05, 1.0)
PASSES = 24  # of the 3 x 3 binomial filter at most; each adds half a square pixel of variance, so 3.5 pixels of deviation
TEXTURE = 0.2  # deviation of a ground's texture over the range of a channel, at most
LIGHT = 0.2  # of the range of a channel, from the middle to an edge, at most
OCTAVES = (2, 4, 8, 16)  # cells across; amplitudes fall as 1 / cells, so power as 1 / frequency^2, like a photograph's
THINGS = 3


@dataclass(frozen=True, kw_only=True)
class Veil:
    """What no caption tells.

    `strength`: of everything, over grey, 0 to 1; `passes`: of the blur; `texture`, `light`: over the range of a channel;
    `seed`, `index`: whose texture, direction of light and things.
    """

    strength: float
    passes: int
    texture: float
    light: float
    seed: int
    index: int


CLEAR = Veil(strength=1.0, passes=0, texture=0.0, light=0.0, seed=0, index=0)
"""The veil under which a photograph of a scene is just what its caption tells."""


def veil_of(seed: int, index: int) -> Veil:
    """The veil over picture `index` of the dataset `seed`: numbers are uniform from nothing (or the least) to their most."""
    u = randomness.uniform(seed, "veil", index, 4)
    least, most = STRENGTHS
    return Veil(
        strength=least + float(u[0]) * (most - least), passes=int(u[1] * (PASSES + 1)), texture=float(u[2]) * TEXTURE,
        light=float(u[3]) * LIGHT, seed=seed, index=index,
    )  # fmt: skip


def photograph(scene: Scene, veil: Veil) -> np.ndarray:
    """The picture of `scene` under `veil`: uint8 (height, width, 3)."""
    covered = coverage(scene.shape, scene.width, scene.height, scene.dx, scene.dy, scene.radius)[..., None] / 16.0
    size = (scene.height, scene.width)
    ground, shape = (np.broadcast_to(np.array(COLOURS[name], float), (*size, 3)) for name in (scene.background, scene.colour))
    if veil.texture:
        ground = _with_things(ground, veil) + 255.0 * veil.texture * _texture(veil, "ground", *size)[..., None]
        shape = shape + 255.0 * veil.texture * _texture(veil, "shape", *size)[..., None]
    picture = ground + covered * (shape - ground)
    if veil.light:
        picture = picture + 255.0 * veil.light * _slope(veil, *size)[..., None]
    for _ in range(veil.passes):
        picture = _softened(picture)
    return np.floor(np.clip(GREY + veil.strength * (np.clip(picture, 0, 255) - GREY), 0, 255) + 0.5).astype(np.uint8)


def photographs(seed: int, scenes: Iterable[Scene]) -> list[np.ndarray]:
    """The pictures of the dataset `seed`: of each of its scenes, in their order, under its own veil."""
    return [photograph(one, veil_of(seed, index)) for index, one in enumerate(scenes)]


def _texture(veil: Veil, which: str, height: int, width: int) -> np.ndarray:
    """Value noise of all octaves, deviation about 1: float64 (height, width)."""
    found, power = np.zeros((height, width)), 0.0
    for octave in OCTAVES:
        side, amplitude = octave + 2, 2.0 / octave
        u = randomness.uniform(veil.seed, f"texture {which} {octave}", veil.index, side * side + 2)
        cells = (2.0 * u[2:] - 1.0).reshape(side, side)
        y, x = (u[k] + np.arange(n) * (octave / max(height, width)) for k, n in ((0, height), (1, width)))
        top, left = y.astype(int), x.astype(int)
        v, h = (y - top)[:, None], (x - left)[None, :]
        a, b = cells[top][:, left], cells[top][:, left + 1]
        c, d = cells[top + 1][:, left], cells[top + 1][:, left + 1]
        found += ((a + h * (b - a)) * (1 - v) + (c + h * (d - c)) * v) * amplitude
        power += amplitude * amplitude * 0.15  # of a uniform number's third, the mean of what interpolation leaves
    return found / np.sqrt(power)


def _with_things(ground: np.ndarray, veil: Veil) -> np.ndarray:
    """The ground with ellipses in tints of it, anywhere, behind the shape."""
    height, width = ground.shape[:2]
    u = randomness.uniform(veil.seed, "things", veil.index, THINGS * 5).reshape(THINGS, 5)
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    for cx, cy, rx, ry, tint in u:
        across, down = (x - cx) / (0.06 + 0.16 * rx), (y - cy) / (0.06 + 0.16 * ry)
        inside = across * across + down * down < 1.0
        ground = ground + inside[..., None] * (2.0 * tint - 1.0) * 255.0 * 2.0 * veil.texture
    return ground


def _slope(veil: Veil, height: int, width: int) -> np.ndarray:
    """A plane of light, from -1 to 1 along its steepest axis: float64 (height, width)."""
    a, b = 2.0 * randomness.uniform(veil.seed, "light", veil.index, 2) - 1.0
    down, right = ((2 * np.arange(length) + 1) / length - 1.0 for length in (height, width))
    return (a * down[:, None] + b * right) / max(abs(a) + abs(b), 0.25)


def _softened(picture: np.ndarray) -> np.ndarray:
    """The picture under the binomial filter of 3 x 3, edges repeated."""
    p = np.pad(picture, ((1, 1), (0, 0), (0, 0)), mode="edge")
    p = (p[:-2] + 2.0 * p[1:-1] + p[2:]) / 4.0
    p = np.pad(p, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (p[:, :-2] + 2.0 * p[:, 1:-1] + p[:, 2:]) / 4.0
