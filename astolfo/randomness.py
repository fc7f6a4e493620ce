"""Randomness as a function: every random number is computed from (seed, purpose, position).

There is no stream and no state. Whoever asks for the noise of sample 7 of step 12 gets the same bytes, on whatever
device, in whatever order, after whatever interruption. The generator is Philox4x32-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011), which uses integers only; floats are made from its words with +, -, *, / and
sqrt alone, which IEEE 754 rounds the same way on every processor. No libm function takes part, because libm's last bit
depends on the instruction set.

Purposes are names ("noise", "timestep", "order" ...): each is its own independent family of numbers.
"""

import hashlib
import struct

import numpy as np

from astolfo import elementary

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x32: `counter` (..., 4) uint32 under a 64-bit `key` -> (..., 4) uint32."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def key(seed: int, purpose: str) -> tuple[int, int]:
    """The Philox key of a (seed, purpose) pair: the first 64 bits of sha256("<purpose>:<seed>")."""
    return struct.unpack("<II", hashlib.sha256(f"{purpose}:{seed}".encode()).digest()[:8])


def words(seed: int, purpose: str, position: int | np.ndarray, count: int) -> np.ndarray:
    """`count` uint32 words that belong to `position` (0 <= position < 2**64) of `purpose`.

    An array of positions gives as many rows: one call for many small draws costs little more than one of them.
    """
    positions, blocks = np.asarray(position, np.uint64), np.arange(-(-count // 4), dtype=np.uint64)
    counter = np.empty((*positions.shape, len(blocks), 4), np.uint32)
    counter[..., 0], counter[..., 1] = blocks & _LOW, blocks >> _32
    counter[..., 2], counter[..., 3] = (positions & _LOW)[..., None], (positions >> _32)[..., None]
    return philox4x32(counter, key(seed, purpose)).reshape(*positions.shape, -1)[..., :count]


def uniform(seed: int, purpose: str, position: int | np.ndarray, count: int = 1) -> np.ndarray:
    """`count` float64 numbers, uniform in the open interval (0, 1), with 32 random bits each; a row for each position."""
    return (words(seed, purpose, position, count).astype(np.float64) + 0.5) * 2.0**-32


def integers(seed: int, purpose: str, position: int, below: int, count: int = 1) -> np.ndarray:
    """`count` int64 numbers, uniform in [0, below); `below` at most 2**32 (the bias is under below / 2**32)."""
    assert 0 < below <= 2**32, below
    return ((words(seed, purpose, position, count).astype(np.uint64) * np.uint64(below)) >> _32).astype(np.int64)


def normal(seed: int, purpose: str, position: int | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 numbers of `shape` that belong to `position` of `purpose`; (positions, *shape) of an array."""
    draws = uniform(seed, purpose, position, int(np.prod(shape)))
    return inverse_normal(draws).astype(np.float32).reshape(*np.shape(position), *shape)


def permuted(seed: int, purpose: str, index: np.ndarray, size: int) -> np.ndarray:
    """Where a random permutation of range(size) sends each `index`: O(1) time and memory per index.

    A four-wide Feistel network of eight rounds over the next even power of two, walked until it lands inside the range
    (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
    """
    assert 0 < size <= 2**40, size
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, shift, round_key = np.uint64((1 << half) - 1), np.uint64(half), key(seed, purpose)

    def network(value: np.ndarray) -> np.ndarray:
        left, right = value >> shift, value & mask
        for number in range(8):
            counter = np.zeros((len(value), 4), np.uint32)
            counter[:, 0], counter[:, 1], counter[:, 2] = right & _LOW, right >> _32, number
            left, right = right, left ^ (philox4x32(counter, round_key)[:, 0].astype(np.uint64) & mask)
        return (left << shift) | right

    result = np.atleast_1d(np.asarray(index)).astype(np.uint64)
    assert (result < size).all(), "index outside the permutation"
    outside = np.arange(len(result))
    while len(outside):
        result[outside] = network(result[outside])
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988), PPND16.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_MIDDLE = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def inverse_normal(p: np.ndarray) -> np.ndarray:
    """The quantile function of the standard normal distribution, float64 in (0, 1) -> float64, relative error 1e-14."""
    q = p - 0.5
    r = 0.180625 - q * q
    result: np.ndarray = q * _ratio(_CENTRE, r)
    outer = np.abs(q) > 0.425
    if outer.any():
        r = np.sqrt(-elementary.log(np.where(q[outer] < 0, p[outer], 1.0 - p[outer])))
        value = np.where(r <= 5.0, _ratio(_MIDDLE, r - 1.6), _ratio(_TAIL, r - 5.0))
        result[outer] = np.where(q[outer] < 0, -value, value)
    return result


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) for float64 x, from basic operations only, so that its bytes are the same everywhere."""
    return 1.0 / (1.0 + elementary.exp(-np.asarray(x, np.float64)))


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    numerator, denominator = (elementary.polynomial(c, x) for c in coefficients)
    ratio: np.ndarray = numerator / denominator
    return ratio
