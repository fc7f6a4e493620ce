"""Captions as sd-scripts makes them: sets of all results, made by running it.

`captions.json` has, for each tags and sentence, what kohya-ss/sd-scripts at 48d368f makes of them, and where it is another what
6DammK9/sd-scripts (train-native) at 42b8d79 makes. They were written by a program that puts one entry into an index, builds
`train_util.FineTuningDataset` over it, and calls its `process_caption` under `random.seed(s)` for s from 0 to 399.
"""

import json
from pathlib import Path

import pytest

from astolfo.data.captions import caption
from astolfo.ledger.schema import Captions

ROWS = json.loads((Path(__file__).parent / "captions.json").read_text())
NAMES = {
    "enable_wildcard": "wildcards", "caption_prefix": "prefix", "caption_suffix": "suffix", "shuffle_caption": "shuffle",
    "keep_tokens": "keep_tokens", "caption_separator": "separator", "secondary_separator": "secondary_separator",
}  # fmt: skip


def texts(row, way, kind="concat"):
    """All texts that 400 positions make of a row."""
    options = {NAMES[name]: value for name, value in row.get("options", {}).items()}
    recipe = Captions(kind=kind, **options)
    return {caption(recipe, row["tags"], row["sentence"], seed=1, position=at, way=way) for at in range(400)}


@pytest.mark.parametrize("way", ["kohya", "kohya-native"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: ascii((row["tags"], row["sentence"])))
def test_every_result_is_one_of_theirs(row, way):
    """A row gives exactly the texts that the trainer of that name gives."""
    assert texts(row, way) == set(row.get(way, row["kohya"]))


@pytest.mark.parametrize("way", ["kohya", "kohya-native"])
def test_a_text_alone_is_read_as_a_caption_file_is(way):
    """`train_util.py:1964-1968`: under wildcards one of the lines that are not blank, stripped; else the first line."""
    row = {"tags": " a \n\n b", "sentence": "s"}
    assert texts(row, way, "tags") == {"a"}
    assert texts(row | {"options": {"enable_wildcard": True}}, way, "tags") == {"a", "b"}
    assert texts(row | {"options": {"enable_wildcard": True}}, way, "pick") == {"a", "b", "s"}
