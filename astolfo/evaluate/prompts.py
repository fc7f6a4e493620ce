"""The prompts of an evaluation: fixed by its seed, diverse, and at the miniature with known truth."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from astolfo import randomness
from astolfo.data.captions import caption
from astolfo.data.procedural import COLOURS, POSITIONS, SHAPES, Scene, plain, sentence, tags
from astolfo.data.vocabulary import spoken
from astolfo.ledger.evaluations import PromptOrigin
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


def prompts_of(origin: PromptOrigin, seed: int, *, width: int, height: int) -> list[Prompt]:
    """The prompts of a set at one scale: procedural scenes of this size in pixels, or its texts."""
    if origin.procedural is not None:
        return procedural_prompts(seed, origin.procedural, width=width, height=height)
    return [Prompt(text) for text in origin.texts or ()]


def procedural_prompts(seed: int, count: int, *, width: int, height: int) -> list[Prompt]:
    """`count` scenes of this size in pixels, and their texts: tags and sentence, as captions of kind "concat" have them.

    Shapes, colours, grounds and positions each go round in an order of the seed's. Every shape comes once before any comes
    again, then in another colour on another ground.
    """
    shapes, colours, positions = (_shuffled(seed, names) for names in (SHAPES, COLOURS, POSITIONS))
    start = int(randomness.integers(seed, "evaluation grounds", 0, len(colours))[0])
    scenes = []
    for i in range(count):
        turn, place = divmod(i, len(shapes))
        apart = 1 + (start + turn) % (len(colours) - 1)
        colour, ground = (colours[(place + turn + offset) % len(colours)] for offset in (0, apart))
        scenes.append(
            plain(shapes[place], colour, ground, positions[(place + turn) % len(positions)], width=width, height=height)
        )
    return [Prompt(prompt_of(scene), scene) for scene in scenes]


def prompt_of(scene: Scene) -> str:
    """The text that asks for `scene`: its tags, then its sentence."""
    spelt = ", ".join(spoken(tag) for tag in tags(scene))
    return caption(Captions(kind="concat"), spelt, sentence(scene), seed=0, position=0)


def _shuffled(seed: int, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    order = randomness.permuted(seed, f"evaluation {' '.join(names)}", np.arange(len(names)), len(names))
    return [names[i] for i in order]
