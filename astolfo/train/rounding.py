"""Stochastic rounding to bf16, keyed like everything else that is random: by (seed, name of the weight, step).

A value between two neighbouring bf16 numbers becomes the upper one with the probability that makes its mean right, so that
changes far below the last place are kept on average (Gupta et al., "Deep learning with limited numerical precision", ICML 2015).
The random integers are those of `astolfo.randomness`, computed with torch's integer operations where the weights are: no
state, nothing to save, and the same bits whichever process or device rounds.
"""

import torch
from torch import Tensor

from astolfo import randomness

_LOW = 0xFFFFFFFF
PIECE = 1 << 24  # elements rounded at once; a multiple of the eight that one block of the generator serves
WORKING = 31  # bytes for each of them while they are rounded, measured on a CPU: the generator's words, above all


def words(seed: int, purpose: str, position: int, count: int, device: torch.device | str, first: int = 0) -> Tensor:
    """`randomness.words` computed on `device`: `count` words in an int64 tensor, beginning with block number `first`."""
    c0 = torch.arange(first, first - (-count // 4), device=device)
    c0, c1 = c0 & _LOW, c0 >> 32
    c2, c3 = torch.full_like(c0, position & _LOW), torch.full_like(c0, position >> 32)
    k0, k1 = randomness.key(seed, purpose)
    for _ in range(10):
        p0, p1 = c0 * int(randomness._MULTIPLIERS[0]), c2 * int(randomness._MULTIPLIERS[1])  # int64 wraps: all 64 bits are right
        c0, c1, c2, c3 = (p1 >> 32 & _LOW) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32 & _LOW) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + randomness._WEYL[0]) & _LOW, (k1 + randomness._WEYL[1]) & _LOW
    return torch.stack([c0, c1, c2, c3], dim=-1).reshape(-1)[:count]


def stochastic(values: Tensor, seed: int, name: str, step: int) -> Tensor:
    """float32 `values` of weight `name` as bf16, rounded up or down at random; what is not finite stays so.

    Element i takes the low (i even) or high half of word i // 2 of the purpose "rounding <name>" at position `step`.
    """
    result = torch.empty(values.shape, dtype=torch.bfloat16, device=values.device)
    flat, out = values.reshape(-1), result.view(-1)
    for start in range(0, flat.numel(), PIECE):
        piece = flat[start : start + PIECE]
        drawn = words(seed, f"rounding {name}", step, -(-len(piece) // 2), values.device, first=start // 8)
        halves = drawn.to(torch.int32).view(torch.int16)[: len(piece)].to(torch.int32) & 0xFFFF
        rounded = ((piece.view(torch.int32) + halves) >> 16).to(torch.int16).view(torch.bfloat16)
        out[start : start + PIECE] = torch.where(piece.isfinite(), rounded, piece.to(torch.bfloat16))
    return result
