"""Captions as sd-scripts makes them of an index's tags and sentence: the choices `captions: kohya` and `captions: kohya-native`.

Where it reads an index (`FineTuningDataset` in `library/train_util.py`), the sentence comes first, and the separator follows
without a space: "A star.,1star, solo". With `--enable_wildcard` every line of the sentence that is not blank gets the tags, whose
own lines are joined by separators; a sentence that stands alone keeps its blank lines. Of several lines one is drawn, without
wildcards the first is read. Braces then pair by `\\{([^}]+)\\}`, across what was joined, and are never nested.

The two differ in a row with tags alone, under wildcards. To `kohya-native` (and to sd-scripts until January 2026) its tags are
the caption, one line of them; to `kohya`, at 48d368f, its caption is empty.

`kind: tags` and `pick` have one text a sample, and read it as that trainer reads a picture's caption file: lines without what is
blank around them, and no blank ones to draw.
"""

import re

from astolfo import randomness
from astolfo.ledger.schema import Captions

_GROUP = re.compile(r"\{([^}]+)\}")


def text(recipe: Captions, tags: str, sentence: str, *, way: str, seed: int, position: int) -> str:
    """A sample's text with prefix and suffix, its line and its alternatives drawn; `way`: kohya or kohya-native."""
    if recipe.kind == "concat":
        found = _joined(recipe, tags, sentence, way)
    else:
        found = _alone(recipe, [one for one in (tags, sentence) if one], seed, position)
    found = " ".join(part for part in (recipe.prefix, found, recipe.suffix) if part is not None)
    lines = found.split("\n")
    if not recipe.wildcards:
        return lines[0]
    if len(lines) > 1:
        found = lines[int(randomness.uniform(seed, "caption line", position)[0] * len(lines))]
    return _drawn(found, seed, position)


def _alone(recipe: Captions, given: list[str], seed: int, position: int) -> str:
    number = 0
    if recipe.kind == "pick" and len(given) > 1:
        number = int(randomness.integers(seed, "caption pick", position, 2)[0])
    lines = [line.strip() for one in given[number : number + 1] for line in one.split("\n")]
    return "\n".join(line for line in lines if line) if recipe.wildcards else lines[0] if lines else ""


def _joined(recipe: Captions, tags: str, sentence: str, way: str) -> str:
    separator = recipe.separator or ","
    if way == "kohya-native" and not sentence:
        return tags
    if not recipe.wildcards:
        return separator.join(part for part in (sentence, tags) if part)
    if not tags:
        return sentence
    tags = tags.replace("\n", separator)
    return "\n".join(f"{line}{separator}{tags}" for line in sentence.split("\n") if line.strip())


def _drawn(found: str, seed: int, position: int) -> str:
    """`found` with one alternative of each group; `{{` and `}}` are literal braces, from the left."""
    if "{" not in found and "}" not in found:
        return found
    opened, closed = "⦅", "⦆"
    while opened in found or closed in found:
        opened, closed = opened + "⦅", closed + "⦆"
    found = found.replace("{{", opened).replace("}}", closed)
    draws = iter(randomness.uniform(seed, "caption wildcard", position, max(1, found.count("{"))))

    def one(group: re.Match[str]) -> str:
        options = group[1].split("|")
        return options[int(next(draws) * len(options))]

    return _GROUP.sub(one, found).replace(opened, "{").replace(closed, "}")
