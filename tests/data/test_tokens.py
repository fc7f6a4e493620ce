"""How a caption becomes the 77-token chunks of the text encoders: sd-scripts' scheme (library/strategy_base.py:221-275)."""

import numpy as np
import pytest

from astolfo.data.tokens import chunks
from astolfo.data.vocabulary import tokenizers, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("vocabulary")
    write(found)
    return found


@pytest.fixture(scope="module")
def both(folder):
    return tokenizers(folder)


@pytest.fixture(scope="module")
def librarys(folder):
    """The same tokenizers, to be called: a call leaves a tokenizer cutting and padding."""
    return tokenizers(folder)


def read(tokenizer, texts, tokens):
    """The chunks of one tokenizer."""
    return chunks([tokenizer], texts, tokens)[0]


def test_both_tokenizers_read_a_text_once(both):
    """What two tokenizers give together is what each gives alone."""
    texts = ["a star", "", " ".join(["star"] * 74) + " !! red disc", " ".join(["red"] * 400)]
    for tokens in (75, 150, 225):
        together = chunks(both, texts, tokens)
        for tokenizer, found in zip(both, together, strict=True):
            assert np.array_equal(found, read(tokenizer, texts, tokens))
            assert np.array_equal(found, np.concatenate([read(tokenizer, [text], tokens) for text in texts]))


def test_one_chunk(both):
    """75 tokens: begin, words, end, then padding: the end token for the first tokenizer, 0 for the second."""
    for tokenizer, pad in zip(both, (both[0].eos_token_id, 0), strict=True):
        ids = read(tokenizer, ["a red star"], 75)
        assert ids.shape == (1, 1, 77)
        words = tokenizer.convert_tokens_to_ids(["a</w>", "red</w>", "star</w>"])
        assert ids[0, 0].tolist() == [tokenizer.bos_token_id, *words, tokenizer.eos_token_id, *[pad] * 72]


def test_three_chunks_of_a_short_caption(both):
    """225 tokens of a short caption: empty chunks are begin, end, padding in the way of each tokenizer."""
    first, second = both
    begin, end = first.bos_token_id, first.eos_token_id
    one = read(first, ["a star"], 225)[0]
    assert one.shape == (3, 77)
    assert one[1].tolist() == [begin, *[end] * 76]
    two = read(second, ["a star"], 225)[0]
    assert two[1].tolist() == [begin, end, *[0] * 75]


def test_three_chunks_of_a_long_caption(both):
    """A caption of 200 tokens fills two chunks and half of the third, each with its own begin and end."""
    for tokenizer in both:
        ids = read(tokenizer, [" ".join(["star"] * 200)], 225)[0]
        star = tokenizer.convert_tokens_to_ids("star</w>")
        assert (ids == star).sum(axis=1).tolist() == [75, 75, 50]
        assert ids[:, 0].tolist() == [tokenizer.bos_token_id] * 3
        assert ids[:2, -1].tolist() == [tokenizer.eos_token_id] * 2
        assert ids[2, 51] == tokenizer.eos_token_id


def test_a_caption_beyond_the_last_chunk_is_cut(both):
    """What does not fit 225 tokens is cut; the last chunk still ends with the end token."""
    ids = read(both[1], [" ".join(["star"] * 400)], 225)[0]
    assert ids[2, -1] == both[1].eos_token_id
    assert np.all(ids[:, 1:-1] == ids[0, 1])


@pytest.mark.parametrize(("tokens", "count"), [(75, 1), (150, 2), (225, 3)])
def test_every_caption_has_the_same_number_of_chunks(both, tokens, count):
    """75, 150 and 225 tokens make 1, 2 and 3 chunks, for an empty caption as for one that overflows."""
    for tokenizer in both:
        ids = read(tokenizer, ["", "a star", " ".join(["star"] * 400)], tokens)
        assert ids.shape == (3, count, 77)
        assert (ids[:, :, 0] == tokenizer.bos_token_id).all()


def test_chunks_are_cut_every_75_tokens(both):
    """The cut is at 75 tokens even just after a comma and just before a word: no look back for a comma, as A1111 does."""
    words = ["red"] * 73 + [","] + ["star"] * 3
    for tokenizer in both:
        comma, star = tokenizer.convert_tokens_to_ids([",</w>", "star</w>"])
        ids = read(tokenizer, [" ".join(words)], 150)[0]
        assert ids[0, 74:76].tolist() == [comma, star]
        assert ids[1, 1:3].tolist() == [star, star]


def test_exactly_full_chunks(both):
    """75 tokens fill the first chunk, which gets an end token of its own; the end token of the text begins the second."""
    first, second = both
    begin, end = first.bos_token_id, first.eos_token_id
    for tokenizer, pad in ((first, end), (second, 0)):
        ids = read(tokenizer, [" ".join(["star"] * 75)], 150)[0]
        assert ids[0, -1] == end
        assert ids[1].tolist() == [begin, end, *[pad] * 75]


def test_a_bang_is_taken_for_padding(both, librarys):
    """The second tokenizer's padding is the token "!" of "!!": at the begin of a later chunk it becomes the end token, at
    the end of a chunk it leaves that chunk without one."""
    second = both[1]
    end, star = second.eos_token_id, second.convert_tokens_to_ids("star</w>")
    bang = librarys[1]("!!")["input_ids"][1:-1]
    assert bang[0] == 0
    begins = read(second, [" ".join(["star"] * 75) + " !! star"], 150)[0]
    assert begins[1, :4].tolist() == [second.bos_token_id, end, bang[1], star]
    ends = read(second, [" ".join(["star"] * 74) + " !! star"], 150)[0]
    assert ends[0, 74:].tolist() == [star, 0, 0]
    assert end not in ends[0]


def test_a_bang_in_one_chunk_stays(both, librarys):
    """75 tokens are read as the tokenizer gives them, "!!" included."""
    second = both[1]
    assert (
        read(second, ["!! star"], 75)[0, 0].tolist() == librarys[1]("!! star", padding="max_length", max_length=77)["input_ids"]
    )
    assert read(second, ["!! star"], 75)[0, 0, 1] == 0


@pytest.mark.parametrize(
    "text", ["", "a red star", "UPPER  Ünïcode 日本語", "<|endoftext|> star <|startoftext|>", "! " * 80, "star " * 75]
)
def test_one_chunk_is_the_librarys_own(both, librarys, text):
    """What the library's call would give, in 77 tokens."""
    for tokenizer, library in zip(both, librarys, strict=True):
        own = library(text, padding="max_length", truncation=True, max_length=77)["input_ids"]
        assert read(tokenizer, [text], 75)[0, 0].tolist() == own
