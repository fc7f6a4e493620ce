"""Prodigy: AdamW that estimates its step size from the distance that the weights have moved.

Mishchenko and Defazio, arXiv:2306.06101; the arithmetic is that of its authors' `prodigyopt` and of pytorch_optimizer. It is
written out here because of one sum: the estimate d is of all weights together, so processes that share out the weights must
add up their parts alike. Each parameter's part is summed in float64, and all parts are added in the parameters' order.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

Gather = Callable[[list[tuple[float, float]]], list[list[tuple[float, float]]]]


class Prodigy(torch.optim.Optimizer):
    """Over groups of one learning rate. `gather` gives every process's value, by process; each must call `step`."""

    def __init__(self, rows: Iterable[dict[str, Any]], gather: Gather, *, d0: float, **options: Any):
        self.gather = gather
        super().__init__(list(rows), {**options, "d0": d0, "d": d0, "d_max": d0, "d_numerator": 0.0, "step": 0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update. A step whose weights and gradients have all been 0 so far changes nothing."""
        first = self.param_groups[0]
        lr, kept = self._rate(first), first["beta3"] if first["beta3"] is not None else math.sqrt(first["betas"][1])
        weight = first["d"] / first["d0"]
        parts = [self._observe(group, p, lr, weight, kept) for group, p in self._members()]
        numbers = [part for some in self.gather(_numbers(parts)) for part in some]
        numerator = kept * first["d_numerator"] + weight * lr * sum(part for part, _ in numbers)
        denominator = sum(part for _, part in numbers)
        found = {"d_numerator": numerator, "step": first["step"] + 1}
        if denominator:
            found |= _estimate(first, first["d_coef"] * numerator / denominator)
        for group in self.param_groups:
            group.update(found)
        for group, parameter in self._members() if denominator else ():
            self._apply(group, parameter, lr)

    def _members(self) -> list[tuple[dict[str, Any], nn.Parameter]]:
        return [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]

    @staticmethod
    def _rate(group: dict[str, Any]) -> float:
        """The step size: d times the learning rate, with the moments' bias corrected where that is asked for."""
        lr = group["d"] * group["lr"]
        if group["bias_correction"]:
            one, two = (1.0 - beta ** (group["step"] + 1) for beta in group["betas"])
            lr *= math.sqrt(two) / one
        return lr

    def _observe(self, group: dict[str, Any], p: nn.Parameter, lr: float, weight: float, kept: float) -> tuple[Tensor, Tensor]:
        """Takes a gradient into a parameter's moments; returns the parameter's parts of the estimate's two sums."""
        state, grad, d, betas = self.state[p], p.grad, group["d"], group["betas"]
        assert grad is not None
        if not state:
            state |= {name: torch.zeros_like(p) for name in ("s", "exp_avg", "exp_avg_sq")} | {"p0": p.detach().clone()}
        if group["coupled_decay"] and group["weight_decay"]:
            grad = grad.add(p, alpha=group["weight_decay"])
        moved = (grad * (state["p0"] - p)).sum(dtype=torch.float64)
        state["exp_avg"].mul_(betas[0]).add_(grad, alpha=d * (1.0 - betas[0]))
        state["exp_avg_sq"].mul_(betas[1]).addcmul_(grad, grad, value=d * d * (1.0 - betas[1]))
        state["s"].mul_(kept).add_(grad, alpha=weight * (d if group["safeguard_warmup"] else lr))
        return moved, state["s"].abs().sum(dtype=torch.float64)

    def _apply(self, group: dict[str, Any], p: nn.Parameter, lr: float) -> None:
        state = self.state[p]
        if not group["coupled_decay"]:
            p.mul_(1.0 - lr * group["weight_decay"])
        p.addcdiv_(state["exp_avg"], state["exp_avg_sq"].sqrt().add_(group["d"] * group["eps"]), value=-lr)


def _numbers(parts: list[tuple[Tensor, Tensor]]) -> list[tuple[float, float]]:
    """The parts as numbers, asked of the device at once."""
    if not parts:
        return []
    return [(one, two) for one, two in torch.stack([torch.stack(part) for part in parts]).tolist()]


def _estimate(group: dict[str, Any], found: float) -> dict[str, float]:
    """The next d: the largest estimate so far, which grows by at most `growth_rate` in a step."""
    d = max(group["d"], found) if group["d"] == group["d0"] else group["d"]
    largest = max(group["d_max"], found)
    return {"d": min(largest, d * (group["growth_rate"] or math.inf)), "d_max": largest}
