"""Captions: which text a sample is trained with.

A row has booru tags ("1star, red star, blue background"), a sentence, or both. `tags` uses the tags, `pick` one of the
two at random, `concat` the tags followed by the sentence ("dual tag"). A row that lacks one of the two gives the other.

What is done to that text, and in which order, is sd-scripts' (`library/train_util.py:821-917` at 48d368f):

1. dropout: some captions, and all of every so many epochs, are empty
2. prefix and suffix, a space between
3. with `wildcards`, as under `--enable_wildcard`, one line of a text of several is taken, and `{a|b|c}` stands for one of its
   alternatives (`expanded`)
4. the pieces between separators are shuffled, but for those that are kept in place, and some of them left out
5. the secondary separator becomes the separator
"""

import re

from astolfo import randomness
from astolfo.data import sdscripts
from astolfo.ledger.schema import Captions

COMMA = ","
_PIECES = re.compile(r"\{\{|\}\}|[{}|]|[^{}|]+")


def caption(
    recipe: Captions, tags: str, sentence: str, *, seed: int, position: int, epoch: int = 0, way: str = "reference"
) -> str:
    """The text of the sample at absolute `position`, in `epoch` (from 0); its picks are keyed by (seed, position).

    `way` is a recipe's choice `captions`: with "kohya" or "kohya-native" steps 2 and 3 are those of `astolfo.data.sdscripts`.
    """
    if recipe.dropout and randomness.uniform(seed, "caption dropout", position)[0] < recipe.dropout:
        return ""
    if recipe.dropout_every_epochs and (epoch + 1) % recipe.dropout_every_epochs == 0:
        return ""
    if way == "reference":
        chosen = _text(recipe, tags, sentence, seed, position)
    else:
        chosen = sdscripts.text(recipe, tags, sentence, way=way, seed=seed, position=position)
    if recipe.shuffle or recipe.tag_dropout:
        chosen = ", ".join(_varied(recipe, *_pieces(recipe, chosen), seed=seed, position=position))
    if recipe.secondary_separator:
        chosen = chosen.replace(recipe.secondary_separator, recipe.separator or COMMA)
    return chosen


def _text(recipe: Captions, tags: str, sentence: str, seed: int, position: int) -> str:
    texts = [tags, sentence]
    if recipe.wildcards:
        texts = [_line(text, number, seed, position) for number, text in enumerate(texts)]
    chosen = _chosen(recipe.kind, [text for text in texts if text], seed, position)
    chosen = " ".join(part for part in (recipe.prefix, chosen, recipe.suffix) if part is not None)
    return expanded(chosen, seed=seed, position=position) if recipe.wildcards else chosen


def _pieces(recipe: Captions, text: str) -> tuple[list[str], list[str], list[str]]:
    """The pieces of a caption that stay in front, those that may vary, and those that stay at the end."""
    separator, kept = recipe.separator or COMMA, recipe.keep_tokens_separator
    if kept and kept in text:
        front, middle, *end = text.split(kept, 2)
        parts = [[piece.strip() for piece in part.split(separator) if piece.strip()] for part in (front, middle, *end)]
        return parts[0], parts[1], parts[2] if end else []
    pieces = [piece.strip() for piece in text.strip().split(separator)]
    first = recipe.keep_tokens or 0
    return pieces[:first], pieces[first:], []


def _varied(recipe: Captions, front: list[str], middle: list[str], end: list[str], *, seed: int, position: int) -> list[str]:
    """All pieces in their order, those of the middle shuffled and thinned out by that position's draws."""
    if recipe.shuffle and middle:
        keys = randomness.uniform(seed, "caption shuffle", position, len(middle))
        middle = [middle[index] for index in keys.argsort(kind="stable")]
    if recipe.tag_dropout and middle:
        draws = randomness.uniform(seed, "tag dropout", position, len(middle))
        middle = [piece for piece, draw in zip(middle, draws, strict=True) if draw >= recipe.tag_dropout]
    return [*front, *middle, *end]


def expanded(text: str, *, seed: int, position: int) -> str:
    """`text` with one alternative of each `{a|b|c}`, all equally likely; groups may lie in one another.

    `{{` and `}}` are literal braces (in a nested group `}}` closes two groups). What sd-scripts leaves alone stays as it
    is: `{}`, a group that is never closed, and `|` outside of groups. `{2$$a|b}` draws two only in prompts of sd-scripts'
    sampling scripts, never in captions: here as there its alternatives are `2$$a` and `b`.
    """
    if not set(text) & set("{}"):
        return text
    draws = iter(randomness.uniform(seed, "caption wildcard", position, text.count("{")))
    groups = [[""]]  # the alternatives so far of every open group, the innermost last; the first is the text itself
    for piece in _PIECES.findall(text):
        depth = len(groups) - 1
        if piece == "{":
            groups.append([""])
        elif piece == "|" and depth:
            groups[-1].append("")
        elif set(piece) == {"}"} and depth >= len(piece):
            for _ in piece:
                options = groups.pop()
                groups[-1][-1] += "{}" if options == [""] else options[int(next(draws) * len(options))]
        else:
            groups[-1][-1] += piece[0] if piece in ("{{", "}}") else piece
    while len(groups) > 1:
        unclosed = groups.pop()
        groups[-1][-1] += "{" + "|".join(unclosed)
    return groups[0][0]


def _line(text: str, number: int, seed: int, position: int) -> str:
    """One line of a sample's text number `number`, by that draw of its position; blank lines are none."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return lines[int(randomness.uniform(seed, "caption line", position, number + 1)[number] * len(lines))]


def _chosen(kind: str, given: list[str], seed: int, position: int) -> str:
    if not given:
        return ""
    if kind == "tags":
        return given[0]
    if kind == "pick":
        return given[int(randomness.integers(seed, "caption pick", position, len(given))[0])]
    return ", ".join(given)
