"""bf16 layers on a CPU, computed in fp32 arithmetic and rounded once: for processors without bf16 units.

Under the pinned instruction set (AVX2) oneDNN has only its reference code for bf16: a convolution of 320 channels on 32x32 takes
5.2 s of a thread there and 0.08 s widened, a product of 256x1280 with 10240x1280 takes 26 s and 0.33 s (docs/performance.md).
Inputs and weights are widened as they are used, layer by layer, and kept in bf16: the model's fp32 copy never exists. A model
that computes in fp32, as the miniature's, is not touched.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class _Linear(torch.autograd.Function):
    """x W^T + b in fp32, of tensors in bf16; keeps x and W as they are."""

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return nn.functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        given, wanted = gradients[0].float(), ctx.needs_input_grad
        flat = given.reshape(-1, given.shape[-1])
        return (
            (given @ weight.float()).to(x.dtype) if wanted[0] else None,
            (flat.T @ x.reshape(-1, x.shape[-1]).float()).to(weight.dtype) if wanted[1] else None,
            flat.sum(dim=0).to(weight.dtype) if wanted[2] else None,
        )


class _Convolution(torch.autograd.Function):
    """A two-dimensional convolution in fp32, of tensors in bf16; keeps x and W as they are."""

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape, ctx.bias = shape, bias is not None
        return nn.functional.conv2d(x.float(), weight.float(), None if bias is None else bias.float(), *shape).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        wanted = [*ctx.needs_input_grad[:2], ctx.bias and ctx.needs_input_grad[2]]
        given = [tensor.float() for tensor in (gradients[0], x, weight)]
        found = torch.ops.aten.convolution_backward(
            *given, [len(weight)], stride, padding, dilation, False, [0, 0], groups, wanted
        )
        return (*(value if value is None else value.to(x.dtype) for value in found), None)


def compute_in_fp32(part: nn.Module) -> None:
    """Has the linear and convolution layers of a module compute so whenever they compute in bf16; it decides bits."""
    for module in part.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_linear, module)  # type: ignore[method-assign]
        elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.forward = partial(_convolution, module)  # type: ignore[method-assign]


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    given = _given(module, x)
    return nn.Linear.forward(module, x) if given is None else _Linear.apply(*given)


def _convolution(module: nn.Conv2d, x: Tensor) -> Tensor:
    given = _given(module, x)
    if given is None:
        return nn.Conv2d.forward(module, x)
    return _Convolution.apply(*given, (module.stride, module.padding, module.dilation, module.groups))


def _given(module: nn.Linear | nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """A layer's input, weight and bias in bf16, cast where autocast asks for it; None where it computes in another dtype."""
    given = (x, module.weight, module.bias)
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16:
        return tuple(value if value is None else value.to(torch.bfloat16) for value in given)  # type: ignore[return-value]
    return given if x.dtype == module.weight.dtype == torch.bfloat16 else None
