"""Operators put in the place of torch's own on the CPU, since torch's give other bits on another processor.

    operators.replace()           # torch.sqrt, x ** 0.5, optimizers, autograd: whoever computes on the CPU, from then on

torch takes the square roots of float32 and float64 from MKL, which begins at the processor's own estimate of 1 / sqrt and stops
one unit in the last place beside the true root in a fifth of all cases: in other cases on another processor. IEEE 754 has one
correctly rounded root, and numpy asks the processor for it. Everything else that the engine calls is the same on every
processor under the switches of `astolfo.numerics`; `tests/processors` shows both. Importing this imports torch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MKL = (torch.float32, torch.float64)  # the others are computed by torch itself, correctly rounded


@dataclass(frozen=True)
class Replaced:
    """An operator of torch by its name, and why another computes it."""

    name: str
    reason: str


REPLACED = (
    Replaced("sqrt", "MKL's begins at the processor's own estimate; numpy's is correctly rounded"),
    Replaced("sqrt.out", "the same, into a tensor that is given"),
    Replaced("sqrt_", "the same, in place"),
    Replaced("pow.Tensor_Scalar", "of the exponent 1/2, of which torch makes a square root"),
    Replaced("pow.Tensor_Scalar_out", "the same, into a tensor that is given"),
    Replaced("pow_.Scalar", "the same, in place"),
)

_library: Any = None  # what was put in place lives as long as this
_torchs: dict[str, Any] = {}


def replace() -> None:
    """Puts the operators in place for this process and those that it forks. Calling it again does nothing."""
    global _library
    if _library is not None:
        return
    for one in REPLACED:
        _torchs[one.name] = torch.library.get_kernel(f"aten::{one.name}", "CPU")
    _library = torch.library.Library("aten", "IMPL")
    ours = (_sqrt, _sqrt_out, _sqrt_, _pow, _pow_out, _pow_)
    for one, kernel in zip(REPLACED, ours, strict=True):
        _library.impl(one.name, kernel, "CPU", with_keyset=True, allow_override=True)


def square_root(x: Tensor) -> Tensor:
    """The correctly rounded square root of a float32 or float64 tensor on the CPU, in x's own memory layout. NaN below zero."""
    root = torch.empty_like(x)
    _into(x, root)
    return root


def _into(x: Tensor, root: Tensor) -> None:
    with np.errstate(invalid="ignore"):
        np.sqrt(x.detach().numpy(), out=root.detach().numpy())


def _sqrt(keys: Any, x: Tensor) -> Tensor:
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.get_default_dtype())
    return square_root(x) if x.dtype in _MKL else _torchs["sqrt"].call_boxed(keys, x)


def _sqrt_out(keys: Any, x: Tensor, out: Tensor) -> Tensor:
    if x.dtype in _MKL and out.dtype == x.dtype and out.shape == x.shape:
        _into(x, out)
        return out
    if x.dtype not in _MKL and (x.is_floating_point() or x.is_complex()):
        return _torchs["sqrt.out"].call_boxed(keys, x, out=out)
    root = _sqrt(keys, x)
    return out.resize_(root.shape).copy_(root)


def _sqrt_(keys: Any, x: Tensor) -> Tensor:
    if x.dtype not in _MKL:
        return _torchs["sqrt_"].call_boxed(keys, x)
    _into(x, x)
    return x


def _pow(keys: Any, x: Tensor, exponent: float) -> Tensor:
    return square_root(x) if exponent == 0.5 and x.dtype in _MKL else _torchs["pow.Tensor_Scalar"].call_boxed(keys, x, exponent)


def _pow_out(keys: Any, x: Tensor, exponent: float, out: Tensor) -> Tensor:
    if exponent == 0.5 and x.dtype in _MKL:
        return _sqrt_out(keys, x, out)
    return _torchs["pow.Tensor_Scalar_out"].call_boxed(keys, x, exponent, out=out)


def _pow_(keys: Any, x: Tensor, exponent: float) -> Tensor:
    if exponent == 0.5 and x.dtype in _MKL:
        return _sqrt_(keys, x)
    return _torchs["pow_.Scalar"].call_boxed(keys, x, exponent)
