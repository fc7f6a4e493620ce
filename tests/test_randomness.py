"""Randomness is a function of (seed, purpose, position), with bytes that no instruction set can change."""

import hashlib
from statistics import NormalDist

import numpy as np
import pytest

from astolfo import randomness


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """Philox4x32-10 gives the known answers that its authors publish with Random123."""
    words = randomness.philox4x32(np.array([counter], np.uint32), key)[0]
    assert " ".join(f"{word:08x}" for word in words) == expected


def test_bytes_are_fixed():
    """The bytes of normal numbers are part of the promise: a change of one bit anywhere changes every run."""
    numbers = randomness.normal(25112101, "noise", 7, (4, 16, 16))
    assert hashlib.sha256(numbers.tobytes()).hexdigest() == "75dea8388e6eab27a3988bcaef03eb0ec6e3813ea0539df1b8bc810447024103"


def test_positions_and_purposes_are_independent():
    """Another position, purpose or seed gives other numbers; the same gives the same."""
    first = randomness.words(1, "noise", 0, 8).tolist()
    assert first == randomness.words(1, "noise", 0, 8).tolist()
    others = [randomness.words(2, "noise", 0, 8), randomness.words(1, "order", 0, 8), randomness.words(1, "noise", 1, 8)]
    assert all(first != other.tolist() for other in others)


def test_a_shorter_request_is_a_prefix():
    """How many numbers are asked for does not change the first ones."""
    assert randomness.words(1, "noise", 3, 100)[:7].tolist() == randomness.words(1, "noise", 3, 7).tolist()


def test_many_positions_are_rows():
    """An array of positions, of whatever shape, gives what each position gives, beyond 32 bits too."""
    positions = [[0, 3, 1 << 40], [2**64 - 1, 7, 7]]
    for draw in (
        lambda at: randomness.words(1, "noise", at, 7),
        lambda at: randomness.uniform(1, "noise", at, 3),
        lambda at: randomness.normal(1, "noise", at, (2, 3)),
    ):
        together = draw(np.array(positions, np.uint64))
        assert np.array_equal(together, [[draw(at) for at in row] for row in positions])


def test_inverse_normal_matches_the_standard_library():
    """The quantile function agrees with Python's to 1e-13, in the centre and far in the tails."""
    points = np.array([1e-9, 1e-6, 0.001, 0.02425, 0.075, 0.3, 0.5, 0.6, 0.925, 0.999, 1 - 1e-7])
    expected = [NormalDist().inv_cdf(point) for point in points]
    np.testing.assert_allclose(randomness.inverse_normal(points), expected, rtol=1e-12, atol=1e-13)


def test_normal_moments():
    """A million normal numbers have the moments of the standard normal distribution."""
    numbers = randomness.normal(1, "test", 0, (1_000_000,)).astype(np.float64)
    assert abs(numbers.mean()) < 4e-3
    assert abs(numbers.std() - 1) < 4e-3
    assert abs((numbers**4).mean() - 3) < 0.05


def test_logistic_matches_numpy():
    """The logistic function from basic operations agrees with numpy's to 1e-14."""
    x = np.linspace(-30, 30, 1001)
    np.testing.assert_allclose(randomness.logistic(x), 1 / (1 + np.exp(-x)), rtol=1e-14)


@pytest.mark.parametrize("size", [1, 2, 3, 20, 257, 1245, 20_011])
def test_permutation_is_one(size):
    """Every size is permuted onto itself, without a repeat or a gap."""
    assert sorted(randomness.permuted(5, "order", np.arange(size), size).tolist()) == list(range(size))


def test_permutation_needs_no_neighbours():
    """One index asked for alone goes where it goes when all are asked for, also among 12.4 million."""
    size = 12_446_670
    some = np.array([0, 1, 777_917, size - 1])
    together = randomness.permuted(5, "order", some, size)
    alone = [int(randomness.permuted(5, "order", np.array([index]), size)[0]) for index in some]
    assert together.tolist() == alone


def test_permutation_looks_random():
    """Neighbours do not stay neighbours: the mean distance after permuting is that of random pairs, a third of the range."""
    moved = randomness.permuted(5, "order", np.arange(10_000), 10_000)
    assert abs(np.abs(np.diff(moved)).mean() / 10_000 - 1 / 3) < 0.02
