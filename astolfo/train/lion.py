"""Lion as lion-pytorch 0.2.3 computes it, which kohya-ss/sd-scripts names in its requirements: the choice `lion: add`.

The rule is that of pytorch_optimizer (Chen et al., arXiv:2302.06675), and in fp32 so are the weights. In bf16 its averages are
b m + (1 - b) g, each product rounded, where pytorch_optimizer, and lion-pytorch 0.0.6 of the fork, interpolate at once.
"""

from collections.abc import Iterable
from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """Sign of the gradient's average, with decoupled weight decay."""

    def __init__(self, rows: Iterable[dict[str, Any]], betas: tuple[float, float], weight_decay: float):
        super().__init__([{**row, "step": 0} for row in rows], {"betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """The update of every parameter that has a gradient."""
        for group in self.param_groups:
            (beta1, beta2), rate = group["betas"], group["lr"]
            group["step"] += 1  # so that a state says how many it has done
            for parameter in (one for one in group["params"] if one.grad is not None):
                average = self.state[parameter].setdefault("exp_avg", torch.zeros_like(parameter))
                parameter.mul_(1.0 - rate * group["weight_decay"])
                update = average.clone().mul_(beta1).add_(parameter.grad, alpha=1.0 - beta1).sign_()
                parameter.add_(update, alpha=-rate)
                average.mul_(beta2).add_(parameter.grad, alpha=1.0 - beta2)
