"""Tokens: a caption as the 77-token chunks that the two CLIP text encoders read.

75 tokens make one chunk. Longer recipes cut the caption's tokens every 75 and give each chunk its own begin and end
token, always the same number of chunks, as sd-scripts does (it does not look for a comma near the cut, as A1111 does
when sampling). SDXL's first tokenizer pads with the end token, the second with id 0.

A caption's tokens are those of transformers' tokenizer as it is now, which diffusers' pipelines use. `FtfyTokenizer` gives
those of transformers before version 5 where ftfy is installed, as sd-scripts' requirements have it (the choice `text: ftfy`).
"""

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import ftfy
import numpy as np
import regex
from tokenizers import Tokenizer, pre_tokenizers

from astolfo.errors import InputError

CHUNK = 75


class FtfyTokenizer:
    """A text's tokens after ftfy: `“a”` is `"a"`, `girl’s` is `girl` and `'s`, `&amp;` is `&`, full-width letters are plain ones.

    ftfy.fix_text, runs of white space as one space, Python's lower case, then CLIP's words as the library `regex` finds them
    (`CLIPTokenizer.bpe` and `_tokenize` in transformers 4). Raises InputError where ftfy is not of the `wanted` version.
    """

    _WORDS = regex.compile(
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
    )

    def __init__(self, tokenizer: Any, wanted: str | None = None):
        if wanted not in (None, found := version("ftfy")):
            raise InputError(
                f"expected ftfy {wanted}, whose tables decide the recipe's tokens, found {found}. Use the environment of that "
                "recipe, or plan the run again with this one."
            )
        self._pairs = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._pairs.normalizer = None
        self._pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def __call__(self, text: str) -> list[int]:
        """The token ids of a text, without begin and end."""
        words = self._WORDS.findall(re.sub(r"\s+", " ", ftfy.fix_text(text)).strip().lower())
        return self._pairs.encode(words, is_pretokenized=True, add_special_tokens=False).ids


def chunks(
    tokenizers: Sequence[Any], texts: Sequence[str], tokens: int, read: Callable[[str], Sequence[int]] | None = None
) -> list[np.ndarray]:
    """Token ids of `texts` for each of `tokenizers`: int64 (texts, tokens // 75, 77). `tokens` is 75, 150 or 225.

    `read` gives a text's own tokens; left out, the tokenizers do.

    The tokenizers are `vocabulary.tokenizers`: they share a vocabulary and differ in how they pad, so a text is read once.
    Threads may read at the same time, as long as nobody calls a tokenizer itself, which has it cut and pad from then on.
    """
    first, rust = tokenizers[0], tokenizers[0].backend_tokenizer
    assert rust.truncation is None
    assert rust.padding is None
    rows = np.zeros((len(texts), tokens + 2), np.int64)
    filled = np.zeros(rows.shape, bool)
    for row, full, text in zip(rows, filled, texts, strict=True):
        ids = (read(text) if read else rust.encode(text, add_special_tokens=False).ids)[:tokens]
        row[: len(ids) + 2] = [first.bos_token_id, *ids, first.eos_token_id]
        full[: len(ids) + 2] = True
    padded = [np.where(filled, rows, tokenizer.pad_token_id) for tokenizer in tokenizers]
    return [_split(ids, tokenizer) for ids, tokenizer in zip(padded, tokenizers, strict=True)]


def _split(ids: np.ndarray, tokenizer: Any) -> np.ndarray:
    """(texts, tokens + 2) -> (texts, tokens // 75, 77)."""
    count, end, pad = (ids.shape[1] - 2) // CHUNK, tokenizer.eos_token_id, tokenizer.pad_token_id
    if count == 1:
        return ids[:, None]
    result = np.empty((len(ids), count, CHUNK + 2), np.int64)
    result[..., 0], result[..., 1:-1], result[..., -1] = ids[:, :1], ids[:, 1:-1].reshape(len(ids), count, CHUNK), ids[:, -1:]
    if pad != end:
        first, last = result[..., 1], result[..., -2]
        result[..., -1][(last != end) & (last != pad)] = end
        first[first == pad] = end
    return result
