"""Captions: which text a sample is trained with.

A row has booru tags ("1star, red star, blue background"), a sentence, or both. `tags` uses the tags, `pick` one of the
two at random, `concat` the tags followed by the sentence ("dual tag"). A row that lacks one of the two gives the other.

With `wildcards`, as under sd-scripts' `--enable_wildcard`, one line of a text of several is taken, and `{a|b|c}` stands
for one of its alternatives (`expanded`).
"""

import re

from astolfo import randomness
from astolfo.ledger.schema import Captions

_PIECES = re.compile(r"\{\{|\}\}|[{}|]|[^{}|]+")


def caption(recipe: Captions, tags: str, sentence: str, *, seed: int, position: int) -> str:
    """The text of the sample at absolute `position`; its picks are keyed by (seed, position)."""
    if recipe.dropout and randomness.uniform(seed, "caption dropout", position)[0] < recipe.dropout:
        return ""
    texts = [tags, sentence]
    if recipe.wildcards:
        texts = [_line(text, number, seed, position) for number, text in enumerate(texts)]
    chosen = _chosen(recipe.kind, [text for text in texts if text], seed, position)
    return expanded(chosen, seed=seed, position=position) if recipe.wildcards else chosen


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
