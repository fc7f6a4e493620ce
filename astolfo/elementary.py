"""Logarithm, exponential, power and cosine from +, -, *, / and sqrt alone, whose bytes are the same on every processor.

libm's last bit depends on the instruction set; IEEE 754 rounds the basic operations in one way. All take and give float64.
"""

import numpy as np

_LN2 = 0.6931471805599453


def log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm: x = m * 2**e, log m = 2 artanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa, exponent = np.where(low, mantissa * 2.0, mantissa), exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * _LN2 + 2.0 * s * polynomial(tuple(1.0 / n for n in range(23, 0, -2)), s * s)


def exp(x: np.ndarray) -> np.ndarray:
    """Exponential: x = n ln 2 + r, Taylor series in r (|r| <= 0.35), scaled by 2**n."""
    n = np.rint(x / _LN2)
    r = x - n * _LN2
    result = np.ones_like(r)
    for k in range(16, 0, -1):
        result = 1.0 + result * r / k
    return np.ldexp(result, n.astype(np.int32))


def power(x: float, exponent: float) -> float:
    """`x` to the `exponent`, for x from 0 on and an exponent above 0."""
    return float(exp(exponent * log(np.array([float(x)])))[0]) if x > 0 else 0.0


def cosine(half_turns: float) -> float:
    """cos(pi h) for h in [0, 1], as the sine of a quarter turn less: Taylor series in |y| <= pi / 2."""
    assert 0 <= half_turns <= 1, half_turns
    y = (0.5 - half_turns) * 3.141592653589793
    result = 1.0
    for k in range(22, 0, -2):
        result = 1.0 - result * y * y / (k * (k + 1))
    return y * result


def polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Horner's rule, highest power first."""
    result = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        result = result * x + c
    return result
