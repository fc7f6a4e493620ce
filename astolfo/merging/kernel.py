"""The arithmetic of a merge: `A * (1 - alpha) + B * alpha` in fp32, rounded once, to the nearest even, with numpy alone.

numpy converts half precision element by element, which would be three quarters of a merge. Here both conversions are a few
integer and float operations on whole blocks, and give the very same bits. The idea: the 15 low bits of a half, shifted into
a float's exponent and mantissa, are that half times 2**-112, subnormals included; the factor goes into the weight, exactly.

Every operation is elementwise and rounds as IEEE 754 says, so the bits depend on neither block size, threads nor machine.
"""

import numpy as np

FLOATS = {"F16": "<i2", "BF16": "<i2", "F32": "<f4"}
"""The dtypes that can be merged, and how a block of each is held before it is decoded."""

_LIMITS = {"F16": 65504.0, "BF16": 3.3895313892515355e38, "F32": 3.4028234663852886e38}
_OVERFLOWS = {"F16": 65520.0, "BF16": 3.3961775292304601e38, "F32": np.inf}  # from here on rounding gives infinity
_SCALE = 2.0**112


class Scratch:
    """The working memory of one thread, for blocks of at most `size` elements."""

    def __init__(self, size: int):
        self.size = size
        self.stored = [np.empty(size, "<f8") for _ in range(2)]  # as read from the two files; 8 bytes hold any dtype
        self.decoded = [np.empty(size, "<f4") for _ in range(2)]
        self.sum, self.other = np.empty(size, "<f4"), np.empty(size, "<f4")
        self.scaled, self.flags = np.empty(size, "<f4"), np.empty(size, bool)


def decode(stored: np.ndarray, dtype: str, into: np.ndarray) -> tuple[np.ndarray, float]:
    """A block as float32 values and the power of two that they still have to be multiplied with.

    Raises FloatingPointError when a half is NaN or infinite (the other dtypes show it in the sum).
    """
    if dtype == "F32":
        return stored, 1.0
    bits = into[: stored.size].view("<i4")
    np.copyto(bits, stored)
    if dtype == "BF16":
        np.left_shift(bits, 16, out=bits)
        return bits.view("<f4"), 1.0
    if stored.size and (stored.max() >= 0x7C00 or stored.view("<u2").max() >= 0xFC00):
        raise FloatingPointError
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(0x8FFFE000 - 2**32), out=bits)
    return bits.view("<f4"), _SCALE


def weigh(
    first: tuple[np.ndarray, float], second: tuple[np.ndarray, float] | None, alpha: float, scratch: Scratch, last: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """`first * (1 - alpha) + second * alpha` as a float32 block, and a spare block; without `second`, `first` as it is.

    Both weights are rounded to fp32 once, so are both products and their sum. `last` allows to overwrite the inputs, which
    keeps fewer arrays in the processor's cache.
    """
    (values, scale), size = first, first[0].size
    result, spare = values if last else scratch.sum[:size], scratch.other[:size]
    weight = np.float32(1 if second is None else 1.0 - alpha)
    np.multiply(values, np.float32(weight * np.float32(scale)), out=result)
    if second is not None:
        values, scale = second
        spare = values if last else spare
        np.multiply(values, np.float32(np.float32(alpha) * np.float32(scale)), out=spare)
        np.add(result, spare, out=result)
    return result, spare


def encode(
    block: tuple[np.ndarray, np.ndarray], dtype: str, into: np.ndarray, scratch: Scratch, bounded: bool
) -> tuple[int, float]:
    """Rounds what `weigh` gave to `dtype` and writes its bytes `into`; returns how many values were clamped, and the largest.

    `bounded` promises that nothing is NaN, infinite or beyond the dtype. The block is overwritten. Raises
    FloatingPointError for a NaN or an infinity.
    """
    values, spare = block
    clamped = (0, 0.0) if bounded or not values.size else _clamp(values, dtype)
    if dtype == "F32":
        into.view("<f4")[:] = values
    elif dtype == "BF16":
        _round(values.view("<i4"), 16, 1, into.view("<i2"), spare.view("<i4"))
    else:
        _to_half(values, into.view("<i2"), spare.view("<i4"), scratch)
    return clamped


def _clamp(values: np.ndarray, dtype: str) -> tuple[int, float]:
    largest = max(float(values.max()), -float(values.min()))
    if not largest < np.inf:
        raise FloatingPointError
    if largest < _OVERFLOWS[dtype]:
        return 0, 0.0
    count = int((np.abs(values) >= _OVERFLOWS[dtype]).sum())
    np.clip(values, -_LIMITS[dtype], _LIMITS[dtype], out=values)
    return count, largest


def _to_half(values: np.ndarray, into: np.ndarray, spare: np.ndarray, scratch: Scratch) -> None:
    exact, flags = np.multiply(values, np.float32(1 / _SCALE), out=scratch.scaled[: values.size]), scratch.flags[: values.size]
    bits = exact.view("<i4")
    # Subnormal halves are subnormal floats now, already rounded once; where that made a tie, round the value itself again.
    np.bitwise_and(bits, np.int32(0x7F801FFF), out=spare)
    np.equal(spare, np.int32(0x1000), out=flags)
    _round(bits, 13, 0x10000001, into, spare)
    if flags.any():
        where = np.flatnonzero(flags)
        into[where] = values[where].astype("<f2").view("<i2")


def _round(bits: np.ndarray, shift: int, mask: int, into: np.ndarray, spare: np.ndarray) -> None:
    """Drops the `shift` low bits of floats, to the nearest even; keeps 16. `mask` is the last bit kept, and the sign's place."""
    np.right_shift(bits, shift, out=spare)
    np.bitwise_and(spare, np.int32(mask), out=spare)
    np.add(spare, bits, out=spare)
    np.add(spare, np.int32((1 << (shift - 1)) - 1), out=spare)
    np.right_shift(spare, shift, out=spare)
    np.copyto(into, spare, casting="unsafe")
