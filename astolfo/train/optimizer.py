"""Optimizers: the libraries' own, built from a recipe, with their state as named tensors.

A parameter's state is a small dictionary of tensors and one step count; it is saved and restored by name, to the bit, so
which process held it, or which segment, leaves no trace.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from astolfo.ledger.recipe import Recipe

_SHARED = ("qmap1", "qmap2")  # bitsandbytes' code books: constants of the library, not state


def build(recipe: Recipe, parameters: Iterable[tuple[str, str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The recipe's optimizer over (part, name, parameter) triples, one group per part with its own learning rate."""
    groups: dict[str, list[nn.Parameter]] = {}
    for part, _, parameter in parameters:
        groups.setdefault(part, []).append(parameter)
    rates = recipe.learning_rate.model_dump()
    rows = [{"params": members, "lr": rates[part], "rate": rates[part]} for part, members in groups.items()]
    options = {"betas": recipe.optimizer.betas, "eps": recipe.optimizer.eps, "weight_decay": recipe.optimizer.weight_decay}
    if recipe.optimizer.kind == "AdamW8bit":
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(rows, **options)
    return torch.optim.AdamW(rows, foreach=False, **options)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to its recipe's times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor


def schedule_factor(recipe: Recipe, step: int) -> float:
    """The schedule's factor at optimizer step `step`, counted from the start of the run's data order."""
    done, schedule = step - recipe.first_step, recipe.schedule
    factor = 1.0
    if schedule.kind != "constant" and done < schedule.warmup_steps:
        factor = (done + 1) / schedule.warmup_steps
    if schedule.kind == "warmup-linear":
        assert recipe.last_step is not None
        factor = min(factor, (recipe.last_step - step) / (recipe.last_step - recipe.first_step))
    return factor


def state_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """One parameter's state as tensors on the CPU; empty before its first step."""
    state = optimizer.state.get(parameter, {})
    return {
        name: torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.int64).cpu()
        for name, value in state.items()
        if name not in _SHARED
    }


def restore(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, saved: dict[str, Tensor]) -> None:
    """Puts back what `state_of` gave."""
    if not saved:
        return
    if hasattr(optimizer, "init_state"):  # bitsandbytes makes its buffers and code books itself
        if not optimizer.initialized:
            optimizer.check_overrides()
            optimizer.to_gpu()
            optimizer.initialized = True
        group, index = _place(optimizer, parameter)
        optimizer.init_state(optimizer.param_groups[group], parameter, group, index)
        state = optimizer.state[parameter]
        for name, value in saved.items():
            state[name] = int(value) if name == "step" else state[name].copy_(value)
    else:
        optimizer.state[parameter] = {
            name: value.clone() if name == "step" else value.to(parameter.device, copy=True) for name, value in saved.items()
        }


def _place(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> tuple[int, int]:
    for group, row in enumerate(optimizer.param_groups):
        for index, member in enumerate(row["params"]):
            if member is parameter:
                return group, index
    raise AssertionError("a parameter that the optimizer does not hold")
