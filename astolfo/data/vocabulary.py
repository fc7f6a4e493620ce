"""The miniature scale's CLIP vocabulary, and both tokenizers of SDXL for any CLIP vocabulary.

`write(folder)` makes `vocab.json` and `merges.txt`, laid out as OpenAI's: 256 bytes, the same 256 at the end of a word,
one entry a merge, `<|startoftext|>` and `<|endoftext|>` last. Each word of the procedural captions is one token
(`star</w>`); any other text falls back to its bytes and nothing is unknown. Nothing is looked up on a network.

`write_clip(folder)` makes CLIP's own, of 49,408 entries: from OpenAI's merges, which come with the program
(astolfo/library/clip/, MIT licence beside them; its `merges.txt` is the published one to the byte), by the same rule.

CLIP splits text into runs of letters, single digits and runs of punctuation, so "red_star" would be three tokens; write
tags with spaces (`spoken`), which is what is trained.
"""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from astolfo.data import procedural
from astolfo.errors import InputError
from astolfo.files import canonical_json, write_text

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
CLIP = Path(__file__).parent.parent / "library" / "clip" / "merges.txt"  # of openai/clip-vit-large-patch14


def spoken(tag: str) -> str:
    """A tag as it stands in a caption: "red_star" -> "red star"; emoticons such as "^_^" stay."""
    return tag.replace("_", " ") if len(tag) > 3 else tag


def write(folder: Path | str, words: Iterable[str] | None = None) -> None:
    """Writes `vocab.json` and `merges.txt` for `words` (lower case; default: the procedural captions')."""
    _write(Path(folder), merges(procedural.vocabulary() if words is None else words))


def write_clip(folder: Path | str) -> None:
    """Writes the `vocab.json` and `merges.txt` of OpenAI's CLIP."""
    _write(Path(folder), [tuple(line.split()) for line in CLIP.read_text(encoding="utf-8").splitlines()[1:]])


def _write(folder: Path, pairs: Iterable[tuple[str, ...]]) -> None:
    pairs = list(pairs)
    letters = byte_letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in pairs), START, END]
    assert len(set(tokens)) == len(tokens)
    numbers = {token: number for number, token in enumerate(tokens)}
    write_text(folder / "vocab.json", canonical_json(numbers) + "\n")
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *(f"{a} {b}" for a, b in pairs)]) + "\n")


def tokenizer(folder: Path | str, pad_token: str = END) -> CLIPTokenizer:
    """The CLIP tokenizer of `folder`; SDXL's first pads with END, its second with "!" (token 0).

    Raises InputError when `vocab.json` or `merges.txt` is not in `folder`, or END is not the vocabulary's last token.
    """
    folder = Path(folder)
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no CLIP vocabulary: it lacks {name}. Make it with `astolfo vocabulary`.")
    result = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=LENGTH)
    # Not given to the constructor: that would make a special token of "!", and 0 of it in captions too.
    result.pad_token_id = result.convert_tokens_to_ids(pad_token)
    if result.eos_token_id != len(result) - 1:
        raise InputError(f"{folder}: expected {END} as the last of {len(result)} tokens, found {result.eos_token_id}.")
    return result


def tokenizers(folder: Path | str) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """SDXL's two tokenizers over the vocabulary of `folder`."""
    return tokenizer(folder, END), tokenizer(folder, "!")


def merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges, in order of rank, under which byte-pair encoding makes one token of each of `words`.

    Merges added for a later word rank below those of the earlier ones and so leave them whole.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in sorted(set(words)):
        pieces = encode([*word[:-1], word[-1] + "</w>"], ranks)
        while len(pieces) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            pieces = encode([*word[:-1], word[-1] + "</w>"], ranks)
    return list(ranks)


def encode(pieces: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: joins the adjacent pair of the lowest rank, the leftmost of equals, until none is left."""
    while pairs := [(ranks[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in ranks]:
        _, i = min(pairs)
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
    return pieces


def byte_letters() -> list[str]:
    """GPT-2's printable letter for each byte, in CLIP's order: "!" is 0."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
