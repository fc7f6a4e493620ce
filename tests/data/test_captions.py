"""Which text a sample is trained with, and how it becomes tokens."""

import numpy as np
import pytest

from astolfo.data.captions import caption
from astolfo.data.tokens import chunks
from astolfo.data.vocabulary import tokenizers, write
from astolfo.ledger.schema import Captions


def texts(kind, tags="1star, solo", sentence="a star", **options):
    recipe = Captions(kind=kind, **options)
    return [caption(recipe, tags, sentence, seed=1, position=position) for position in range(400)]


def test_tags_uses_the_tags():
    """`tags` never shows the sentence."""
    assert set(texts("tags")) == {"1star, solo"}


def test_pick_takes_either():
    """`pick` shows each of the two about half of the time."""
    found = texts("pick")
    assert set(found) == {"1star, solo", "a star"}
    assert 150 < found.count("a star") < 250


def test_concat_joins_both():
    """`concat` is the tags followed by the sentence."""
    assert set(texts("concat")) == {"1star, solo, a star"}


@pytest.mark.parametrize("kind", ["tags", "pick", "concat"])
def test_a_row_may_lack_one(kind):
    """A row with tags only, or a sentence only, is trained with what it has, never with an empty caption."""
    assert set(texts(kind, sentence="")) == {"1star, solo"}
    assert set(texts(kind, tags="")) == {"a star"}


def test_dropout_drops_its_share():
    """A dropout of 0.1 empties about a tenth of the captions."""
    assert 20 < texts("tags", dropout=0.1).count("") < 60


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    write(folder)
    return tokenizers(folder)


def test_one_chunk(both):
    """75 tokens: begin, words, end, then padding: the end token for the first tokenizer, 0 for the second."""
    for tokenizer, pad in zip(both, (both[0].eos_token_id, 0), strict=True):
        ids = chunks(tokenizer, ["a red star"], 75)
        assert ids.shape == (1, 1, 77)
        words = tokenizer.convert_tokens_to_ids(["a</w>", "red</w>", "star</w>"])
        assert ids[0, 0].tolist() == [tokenizer.bos_token_id, *words, tokenizer.eos_token_id, *[pad] * 72]


def test_three_chunks_of_a_short_caption(both):
    """225 tokens of a short caption: empty chunks are begin, end, padding in the way of each tokenizer."""
    first, second = both
    begin, end = first.bos_token_id, first.eos_token_id
    one = chunks(first, ["a star"], 225)[0]
    assert one.shape == (3, 77)
    assert one[1].tolist() == [begin, *[end] * 76]
    two = chunks(second, ["a star"], 225)[0]
    assert two[1].tolist() == [begin, end, *[0] * 75]


def test_three_chunks_of_a_long_caption(both):
    """A caption of 200 tokens fills two chunks and half of the third, each with its own begin and end."""
    for tokenizer in both:
        ids = chunks(tokenizer, [" ".join(["star"] * 200)], 225)[0]
        star = tokenizer.convert_tokens_to_ids("star</w>")
        assert (ids == star).sum(axis=1).tolist() == [75, 75, 50]
        assert ids[:, 0].tolist() == [tokenizer.bos_token_id] * 3
        assert ids[:2, -1].tolist() == [tokenizer.eos_token_id] * 2
        assert ids[2, 51] == tokenizer.eos_token_id


def test_a_caption_beyond_the_last_chunk_is_cut(both):
    """What does not fit 225 tokens is cut; the last chunk still ends with the end token."""
    ids = chunks(both[1], [" ".join(["star"] * 400)], 225)[0]
    assert ids[2, -1] == both[1].eos_token_id
    assert np.all(ids[:, 1:-1] == ids[0, 1])
