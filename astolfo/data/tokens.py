"""Tokens: a caption as the 77-token chunks that the two CLIP text encoders read.

75 tokens make one chunk. Longer recipes cut the caption's tokens every 75 and give each chunk its own begin and end
token, always the same number of chunks, as sd-scripts does (it does not look for a comma near the cut, as A1111 does
when sampling). SDXL's first tokenizer pads with the end token, the second with id 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

CHUNK = 75


def chunks(tokenizer: Any, texts: Sequence[str], tokens: int) -> np.ndarray:
    """Token ids of `texts`: int64 (texts, tokens // 75, 77). `tokens` is 75, 150 or 225."""
    length, rust = tokens + 2, tokenizer.backend_tokenizer
    rust.no_truncation()
    rust.no_padding()
    rows = np.full((len(texts), length), tokenizer.pad_token_id, np.int64)
    for row, text in zip(rows, texts, strict=True):
        ids = rust.encode(text, add_special_tokens=False).ids[:tokens]
        row[: len(ids) + 2] = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    return np.array([_split(row, tokenizer, length) for row in rows])


def _split(ids: np.ndarray, tokenizer: Any, length: int) -> np.ndarray:
    if length == CHUNK + 2:
        return ids[None]
    begin, end, pad = ids[0], tokenizer.eos_token_id, tokenizer.pad_token_id
    result = np.array([[begin, *ids[i : i + CHUNK], ids[-1]] for i in range(1, length - 1, CHUNK)])
    if pad == end:
        return result
    for chunk in result:
        if chunk[-2] not in (end, pad):
            chunk[-1] = end
        if chunk[1] == pad:
            chunk[1] = end
    return result
