"""The arithmetic of merges gives the bits of IEEE 754, for every half there is."""

import numpy as np
import pytest

from astolfo.merging.kernel import Scratch, decode, encode, weigh

HALVES = np.arange(65536, dtype=np.uint16).view(np.float16)
FINITE = HALVES[np.isfinite(HALVES)]


def merged(first, second, alpha, last=True):
    """The bits of a merge of two blocks of halves."""
    scratch, result = Scratch(first.size), np.empty(first.size, "<i2")
    sides = [decode(side.view("<i2"), "F16", into) for side, into in zip((first, second), scratch.decoded, strict=True)]
    encode(weigh(*sides, alpha, scratch, last), "F16", result.view("u1"), scratch, True)
    return result


def expected(first, second, alpha):
    """The same by numpy's own conversions."""
    total = first.astype("f4") * np.float32(1 - alpha) + second.astype("f4") * np.float32(alpha)
    return total.astype("f2").view("<i2")


@pytest.mark.parametrize("alpha", [0.5, 0.25, 0.3, 1 / 3, 0.999, 1e-3, 0.1])
@pytest.mark.parametrize("last", [True, False])
def test_every_half_merges_as_numpy_would(alpha, last):
    """All finite halves, against random others: normals, subnormals, zeros of both signs, ties."""
    random = np.random.default_rng(0)
    small = FINITE[np.abs(FINITE) < 2e-4]
    for first in (FINITE, np.tile(small, 20)):
        for _ in range(5):
            second = random.permutation(first)
            assert np.array_equal(merged(first, second, alpha, last), expected(first, second, alpha))


def test_rounding_to_half_is_exact_near_every_tie():
    """float32 values around the midpoints between halves, of all sizes, are rounded once and to the even neighbour."""
    random, scratch, result = np.random.default_rng(0), Scratch(1 << 16), np.empty(1 << 16, "<i2")
    for scale in 10.0 ** np.arange(-9, 5, 0.5):
        values = (random.standard_normal(1 << 16) * scale).clip(-60000, 60000).astype("f4")
        values.view("i4")[::2] = ((values.view("i4")[::2] & ~0x1FFF) | 0x1000) + random.integers(-2, 3, 1 << 15, dtype="i4")
        wanted = values.astype("f2").view("<i2")
        encode((values, np.empty_like(values)), "F16", result.view("u1"), scratch, True)
        assert np.array_equal(result, wanted)


def test_bf16_is_rounded_to_nearest_even():
    """bf16 goes through the same rounding as torch's."""
    torch = pytest.importorskip("torch")
    values = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)) * 3
    values.view(torch.int32)[::3] &= ~0x7FFF
    wanted, result, scratch = values.bfloat16(), np.empty(1 << 16, "<i2"), Scratch(1 << 16)
    encode((values.numpy().copy(), np.empty(1 << 16, "f4")), "BF16", result.view("u1"), scratch, False)
    assert np.array_equal(result, wanted.view(torch.int16).numpy())
    decoded, scale = decode(result, "BF16", scratch.decoded[0])
    assert scale == 1
    assert np.array_equal(decoded, wanted.float().numpy())


def test_a_half_that_is_no_number_is_noticed():
    """Every NaN and both infinities are noticed, wherever they are."""
    for value in HALVES[~np.isfinite(HALVES)]:
        block = np.zeros(100, "f2")
        block[77] = value
        with pytest.raises(FloatingPointError):
            decode(block.view("<i2"), "F16", np.empty(100, "f4"))


@pytest.mark.parametrize(("dtype", "limit"), [("F16", 65504.0), ("BF16", 3.3895313892515355e38)])
def test_what_a_dtype_cannot_hold_is_clamped_and_counted(dtype, limit):
    """Beyond the largest number there is no infinity; NaN and infinity themselves are refused."""
    scratch, result = Scratch(4), np.empty(4, "<i2")
    values = np.array([1, np.float32(limit) * np.float32(1.003), -np.float32(limit) * np.float32(1.003), limit], "f4")
    count, largest = encode((values.copy(), np.empty(4, "f4")), dtype, result.view("u1"), scratch, False)
    assert (count, largest) == (2, float(values[1]))
    back, scale = decode(result, dtype, scratch.decoded[0])
    assert (back * np.float32(scale)).tolist() == [1, limit, -limit, limit]
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(FloatingPointError):
            encode((np.array([0, wrong], "f4"), np.empty(2, "f4")), dtype, result[:2].view("u1"), scratch, False)
