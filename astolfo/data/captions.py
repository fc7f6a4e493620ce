"""Captions: which text a sample is trained with.

A row has booru tags ("1star, red star, blue background"), a sentence, or both. `tags` uses the tags, `pick` one of the
two at random, `concat` the tags followed by the sentence ("dual tag"). A row that lacks one of the two gives the other.
"""

from astolfo import randomness
from astolfo.ledger.schema import Captions


def caption(recipe: Captions, tags: str, sentence: str, *, seed: int, position: int) -> str:
    """The text of the sample at absolute `position`; its picks are keyed by (seed, position)."""
    if recipe.dropout and randomness.uniform(seed, "caption dropout", position)[0] < recipe.dropout:
        return ""
    given = [text for text in (tags, sentence) if text]
    if not given:
        return ""
    if recipe.kind == "tags":
        return given[0]
    if recipe.kind == "pick":
        return given[int(randomness.integers(seed, "caption pick", position, len(given))[0])]
    return ", ".join(given)
