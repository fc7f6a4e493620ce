"""The CLIP vocabulary: one token a word, bytes for the rest, and SDXL's two ways to pad."""

import json
from hashlib import sha256

import pytest

from astolfo.data import procedural, vocabulary
from astolfo.errors import InputError
from astolfo.files import sha256_of
from astolfo.ledger import load
from astolfo.pins import vocabulary_digest
from tests.conftest import SMALL


@pytest.fixture
def folder(tmp_path):
    vocabulary.write(tmp_path)
    return tmp_path


def test_golden_bytes(folder):
    """The vocabulary's files have the bytes they have always had."""
    assert sha256_of(folder / "vocab.json") == "4f8ede70e12863453300601fc143e63e4f821aba2aa21614469ca2d504cdfead"
    assert sha256_of(folder / "merges.txt") == "daa9d33975b5d1ce5d7bce1baf397c835266742687710c8b85b55248feb15e4b"


def test_each_word_is_one_token(folder):
    """Every word of the captions is the token `word</w>`, whatever the order in which the words were given."""
    tokenizer = vocabulary.tokenizer(folder)
    words = procedural.vocabulary()
    assert [tokenizer.tokenize(word) for word in words] == [[word + "</w>"] for word in words]
    assert vocabulary.merges(words) == vocabulary.merges(reversed(words))


def test_special_tokens_are_last(folder):
    """As in CLIP's own vocabulary, numbers are dense, "!" is 0, and start and end are the last two."""
    tokens = json.loads((folder / "vocab.json").read_text())
    assert sorted(tokens.values()) == list(range(len(tokens)))
    assert (tokens["!"], tokens[vocabulary.START], tokens[vocabulary.END]) == (0, len(tokens) - 2, len(tokens) - 1)


def test_captions(folder):
    """Tags and sentences become words and punctuation between start and end."""
    tokenizer = vocabulary.tokenizer(folder)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("1star, red star (a:1.2) on_the").input_ids)
    assert [piece.removesuffix("</w>") for piece in pieces] == [
        vocabulary.START, "1", "star", ",", "red", "star", "(", "a", ":", "1", ".", "2", ")", "on", "_", "the", vocabulary.END,
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["zebra", "ünïçødé", "猫", "\U0001f980!?", "a#~b"])
def test_any_text_falls_back_to_bytes(folder, text):
    """Unknown words are spelt in bytes; nothing becomes the unknown token, and decoding gives the letters back."""
    tokenizer = vocabulary.tokenizer(folder)
    numbers = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.eos_token_id not in numbers
    assert tokenizer.decode(numbers).replace(" ", "") == text


def test_padding(folder):
    """The first tokenizer pads with the end token, the second with 0, and both read "!" in a text as a word."""
    first, second = vocabulary.tokenizers(folder)
    one, two = (t("a!", padding="max_length", max_length=77, truncation=True).input_ids for t in (first, second))
    assert one[:4] == two[:4]
    assert one[2] == first.convert_tokens_to_ids("!</w>") != 0
    assert set(one[4:]) == {first.eos_token_id}
    assert set(two[4:]) == {0}
    assert len(one) == len(two) == 77


def test_spoken():
    """Tags lose their underscores, emoticons keep them."""
    assert [vocabulary.spoken(tag) for tag in ("red_star", "1star", "^_^")] == ["red star", "1star", "^_^"]


def test_a_folder_without_a_vocabulary(tmp_path):
    """A missing file is named."""
    with pytest.raises(InputError, match=r"vocab\.json"):
        vocabulary.tokenizer(tmp_path)


def test_clip_s_own_vocabulary_comes_with_the_program(tmp_path):
    """49,408 entries; `merges.txt` is the published file to the byte, and known words have their published numbers."""
    vocabulary.write_clip(tmp_path)
    published = "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"
    assert sha256((tmp_path / "merges.txt").read_bytes()).hexdigest() == published
    both = vocabulary.tokenizers(tmp_path)
    assert [len(tokenizer) for tokenizer in both] == [49408, 49408]
    assert both[0]("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert load(SMALL, "full").scale.vocabulary.sha256 == vocabulary_digest(tmp_path)
