"""The prompts of an evaluation: fixed by its seed, diverse, and at the miniature with known truth."""

from dataclasses import dataclass

import numpy as np

from astolfo import randomness
from astolfo.data.captions import caption
from astolfo.data.procedural import COLOURS, POSITIONS, RADII, SHAPES, Scene, plain, sentence, tags
from astolfo.data.vocabulary import spoken
from astolfo.ledger.schema import Captions


@dataclass(frozen=True)
class Prompt:
    """A text, and the scene that it asks for where that is known."""

    text: str
    scene: Scene | None = None

    @property
    def label(self) -> str:
        """What stands beside its pictures: the sentence alone, where there is one."""
        return sentence(self.scene) if self.scene else self.text


def procedural_prompts(seed: int, count: int, *, width: int = 64, height: int = 64, outlined: bool = False) -> list[Prompt]:
    """`count` scenes and their texts: tags and sentence, as captions of kind "concat" have them.

    Shapes, colours, grounds, positions and sizes each go round in an order of the seed's, so the first seven prompts have
    seven shapes in seven colours on seven grounds.
    """
    shapes, colours = _shuffled(seed, "shapes", list(SHAPES)), _shuffled(seed, "colours", list(COLOURS))
    positions, sizes = _shuffled(seed, "positions", list(POSITIONS)), _shuffled(seed, "sizes", list(RADII))
    turn = 1 + int(randomness.integers(seed, "evaluation grounds", 0, len(colours) - 1)[0])
    scenes = []
    for i in range(count):
        # Each time round the shapes, the colours move on by one, so that pairs do not repeat.
        number = i + i // len(shapes)
        colour, ground = (colours[(number + offset) % len(colours)] for offset in (0, turn))
        where, size = positions[i % len(positions)], sizes[i % len(sizes)]
        scenes.append(plain(shapes[i % len(shapes)], colour, ground, where, size, width=width, height=height, outlined=outlined))
    return [Prompt(prompt_of(scene), scene) for scene in scenes]


def prompt_of(scene: Scene) -> str:
    """The text that asks for `scene`: its tags, then its sentence."""
    spelt = ", ".join(spoken(tag) for tag in tags(scene))
    return caption(Captions(kind="concat"), spelt, sentence(scene), seed=0, position=0)


def _shuffled(seed: int, what: str, names: list[str]) -> list[str]:
    return [names[i] for i in randomness.permuted(seed, f"evaluation {what}", np.arange(len(names)), len(names))]
