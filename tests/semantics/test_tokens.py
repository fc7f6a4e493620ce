"""Tokens as sd-scripts reads them, with ftfy before the tokenizer: 110 captions with odd characters, and their tokens.

`tokens.json` was made in the environment of kohya-ss/sd-scripts at 48d368f (transformers 4.54.1, ftfy 6.3.1; its fork's 4.44.0
and 6.1.1 give the same) by `SdxlTokenizeStrategy(225).tokenize(text)` over OpenAI's vocabulary, without begin, end and padding.
"""

import json
from pathlib import Path

import ftfy
import numpy as np
import pytest

from astolfo.data.tokens import FtfyTokenizer, chunks
from astolfo.data.vocabulary import tokenizers, write_clip
from astolfo.errors import InputError

ROWS = json.loads((Path(__file__).parent / "tokens.json").read_text())


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder)
    return tokenizers(folder)


def test_tokens_are_those_of_the_original(both):
    """Every one of 110 captions has the original's tokens; without ftfy 35 of them have others."""
    read = FtfyTokenizer(both[0], ftfy.__version__)
    assert {text: read(text) for text, _ in ROWS} == dict(ROWS)
    plain = both[0].backend_tokenizer
    assert sum(plain.encode(text, add_special_tokens=False).ids != ids for text, ids in ROWS) == 35


def test_chunks_are_made_of_them(both):
    """What reads a text decides the tokens; begin, end, padding and cuts are as ever."""
    read = FtfyTokenizer(both[0], ftfy.__version__)
    first, second = chunks(both, ["“girl’s hat”", "a"], 75, read)
    ids = dict(ROWS)
    assert ids["a girl’s hat"][1:3] == first[0, 0, 2:4].tolist()
    assert first[0, 0, 0] == both[0].bos_token_id
    assert (second[0, 0, -1], first[0, 0, -1]) == (0, both[0].eos_token_id)
    assert np.array_equal(first[1], chunks(both, ["a"], 75)[0][0])


def test_another_ftfy_is_refused(both):
    """A recipe names the version whose tables decided its tokens; another is an error that says both."""
    with pytest.raises(InputError, match="expected ftfy 5.0, .* found 6"):
        FtfyTokenizer(both[0], "5.0")
