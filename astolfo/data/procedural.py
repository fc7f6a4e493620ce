"""The miniature scale's pictures: coloured shapes on coloured grounds, computed from (seed, index), with known truth.

`scene(seed, index)` decides what is in a picture, `tags` and `sentence` describe it, `draw` paints just that, and
`astolfo.data.photograph` paints it with what no caption tells. The bytes are the same on every machine: randomness is
counter-based and painting uses +, -, *, / and comparisons of float64 only.

Lengths are in units of the picture's shorter side; x points right, y points down, and (0.5, 0.5) is the middle of the
picture in units of its own width and height.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from astolfo import randomness

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 46),
    "yellow": (250, 208, 40),
    "green": (38, 158, 72),
    "blue": (36, 84, 214),
    "white": (246, 246, 242),
    "black": (24, 24, 30),
}
POSITIONS: dict[str, float] = {"left": -0.15, "center": 0.0, "right": 0.15}
RADII = (0.29, 0.33)
SIZES: tuple[tuple[int, int], ...] = ((48, 48), (64, 48), (48, 64))
JITTER = 0.02
_PHRASES = {"left": "on the left", "center": "in the center", "right": "on the right"}
_OVERSAMPLING = 4


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What one picture shows.

    `dx`, `dy`: the shape's centre, from the picture's middle; `radius`: half its extent (both in shorter sides);
    `width`, `height`: pixels.
    """

    shape: str
    colour: str
    background: str
    position: str
    dx: float
    dy: float
    radius: float
    width: int
    height: int


def scene(seed: int, index: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> Scene:
    """The scene number `index` of the dataset `seed`; every attribute is uniform and independent of the others.

    `sizes`: the (width, height) in pixels that occur.
    """
    u = iter(randomness.uniform(seed, "scene", index, 8))

    def pick(choices: list[Any]) -> Any:
        return choices[int(next(u) * len(choices))]

    colour = pick(list(COLOURS))
    background = pick([name for name in COLOURS if name != colour])
    shape, position = pick(list(SHAPES)), pick(list(POSITIONS))
    width, height = pick([tuple(pair) for pair in sizes])
    return Scene(
        shape=shape,
        colour=colour,
        background=background,
        position=position,
        dx=POSITIONS[position] + float(2 * next(u) - 1) * JITTER,
        dy=float(2 * next(u) - 1) * JITTER,
        radius=RADII[0] + float(next(u)) * (RADII[1] - RADII[0]),
        width=int(width),
        height=int(height),
    )


def plain(shape: str, colour: str, background: str, position: str = "center", *, width: int = 48, height: int = 48) -> Scene:
    """The scene of these attributes without jitter: what a prompt of an evaluation asks for."""
    return Scene(
        shape=shape, colour=colour, background=background, position=position, dx=POSITIONS[position], dy=0.0,
        radius=sum(RADII) / 2, width=width, height=height,
    )  # fmt: skip


def draw(scene: Scene) -> np.ndarray:
    """The picture of `scene`: uint8 (height, width, 3), anti-aliased by 4 x 4 samples a pixel."""
    ground = np.broadcast_to(np.array(COLOURS[scene.background], np.int64), (scene.height, scene.width, 3))
    covered = coverage(scene.shape, scene.width, scene.height, scene.dx, scene.dy, scene.radius)
    return _blend(ground, COLOURS[scene.colour], covered).astype(np.uint8)


def coverage(shape: str, width: int, height: int, dx: float, dy: float, radius: float) -> np.ndarray:
    """How many of each pixel's samples lie inside the shape: int64 (height, width), 0 to 16."""
    n, side = _OVERSAMPLING, min(width, height)
    x = ((np.arange(width * n) + 0.5) / n - width / 2) / side
    y = ((np.arange(height * n) + 0.5) / n - height / 2) / side
    u, v = np.meshgrid((x - dx) / radius, (y - dy) / radius)
    return SHAPES[shape](u, v).reshape(height, n, width, n).sum(axis=(1, 3), dtype=np.int64)


def tags(scene: Scene) -> list[str]:
    """Booru-like tags: ["1star", "solo", "red_star", "blue_background", "left"]."""
    return [f"1{scene.shape}", "solo", f"{scene.colour}_{scene.shape}", f"{scene.background}_background", scene.position]


def sentence(scene: Scene) -> str:
    """One sentence: "a red star on the left, on a blue background"."""
    return f"a {scene.colour} {scene.shape} {_PHRASES[scene.position]}, on a {scene.background} background"


def vocabulary() -> list[str]:
    """Every word that tags and sentences are made of, sorted; digits and punctuation are not words."""
    phrases = " ".join(_PHRASES.values()).split()
    return sorted({*SHAPES, *COLOURS, *POSITIONS, *phrases, "a", "on", "solo", "background"})


def _blend(picture: np.ndarray, colour: tuple[int, int, int], samples: np.ndarray) -> np.ndarray:
    """Puts `colour` over the picture where `samples` of each pixel say so, rounding half up, in integers."""
    whole = _OVERSAMPLING**2
    samples = samples[..., None]
    return (picture * (whole - samples) + np.array(colour, np.int64) * samples + whole // 2) // whole


def _circle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u * u + v * v < 0.9


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) < 0.86


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (v < 0.8) & (v + 0.95 > 1.8 * np.abs(u))


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    x, y = 1.2 * u, 0.12 - 1.2 * v
    a = x * x + y * y - 1.0
    return a * a * a < x * x * y * y * y


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = np.abs(u), np.abs(v)
    return (np.minimum(u, v) < 0.3) & (np.maximum(u, v) < 0.95)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Inside at least four of the five edges' half-planes: the pentagon and its five points."""
    inside = sum((x * u + y * v < 0.345).astype(np.int64) for x, y in _STAR_NORMALS)
    return np.asarray(inside >= 4)


# Unit vectors 72 degrees apart; the first edge is the horizontal one, above the middle.
_STAR_NORMALS = (
    (0.0, -1.0),
    (0.9510565162951535, -0.3090169943749475),
    (0.5877852522924731, 0.8090169943749475),
    (-0.5877852522924731, 0.8090169943749475),
    (-0.9510565162951535, -0.3090169943749475),
)

SHAPES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
}
