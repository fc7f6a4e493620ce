"""Optimizers: the libraries' own, built from a recipe, with their state as named tensors.

    AdamW                       torch              Loshchilov and Hutter, arXiv:1711.05101
    AdamW8bit, PagedAdamW8bit   bitsandbytes       the same with moments in 8 bits, Dettmers et al., arXiv:2110.02861
    AdamW4bit                   torchao            the same with moments in 4 bits, Li et al., arXiv:2309.01507
    Lion                        pytorch_optimizer  Chen et al., arXiv:2302.06675; under `lion: add` ours (`astolfo.train.lion`)
    Lion8bit                    bitsandbytes       the same with its moment in 8 bits
    CautiousLion, C-Lion        pytorch_optimizer  Liang et al., arXiv:2411.16085
    AdaFactor                   transformers       Shazeer and Stern, arXiv:1804.04235
    CAME                        pytorch_optimizer  Luo et al., arXiv:2307.02047
    AdamWScheduleFree           pytorch_optimizer  Defazio et al., arXiv:2405.15682: trains y, its result is the average x
    Prodigy                     ours               Mishchenko and Defazio, arXiv:2306.06101 (`astolfo.train.prodigy`)

Of tensors under 4,096 elements (AdamW4bit: and those that do not divide into blocks of 128) the moments are whole in every
kind. Moments that torch, torchao and pytorch_optimizer keep whole have the weights' dtype; the others are in fp32.

CautiousLion and C-Lion are one update with Lion's and with its authors' default betas: the mask of pytorch_optimizer is
that of the authors' own `c_lion.py` (github.com/kyleliang919/C-Optim), the elements whose update has the gradient's
sign, times n / (count + 1).

Every update of a parameter depends on that parameter alone, so it does not matter which process owns it; Prodigy's depends on one
number more, for which processes are asked. None draws random numbers. The state of a parameter is a small dictionary of
tensors and a count of steps; it is saved and restored by name, to the bit, so which process held it, or which segment, leaves
no trace.
"""

import logging
import os
import shutil
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from astolfo import deferred_imports
from astolfo.errors import PlacementError
from astolfo.ledger import schema
from astolfo.ledger.recipe import Recipe
from astolfo.train.lion import Lion
from astolfo.train.prodigy import Gather, Prodigy

log = logging.getLogger(__name__)

_COUNTED = ("step", "weight_sum", "lr_max", "d", "d_max", "d_numerator")  # numbers that steps change, where a group has them
_NUMBERS = {int: torch.int64, float: torch.float64}
_CODE_BOOKS = ("qmap", "qmap1", "qmap2")  # of the 8-bit and 4-bit moments: constants of their libraries, not state


def build(
    recipe: Recipe, parameters: Iterable[tuple[str, str, nn.Parameter]], gather: Gather = lambda parts: [parts]
) -> torch.optim.Optimizer:
    """The recipe's optimizer over (part, name, parameter) triples, one group for each learning rate of a part.

    `gather` gives every process's value, by process, where others hold further parameters. Raises PlacementError when this
    machine cannot run it.
    """
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for part, name, parameter in parameters:
        groups.setdefault((part, recipe.learning_rate.of(part, name)), []).append(parameter)
    device = next((members[0].device for members in groups.values()), torch.device("cpu"))
    check_machine(recipe, device)
    rows = []
    for (_, rate), members in groups.items():
        given = None if recipe.optimizer.relative_step else rate
        rows.append({"params": members, "lr": given, "rate": given})
    if recipe.optimizer.kind == "Prodigy":
        return Prodigy(rows, gather, **_options(recipe.optimizer))
    if recipe.optimizer.kind == "Lion" and recipe.choices.lion == "add":
        return Lion(rows, **_options(recipe.optimizer))
    return _build(recipe.optimizer, rows, device)


def _options(choice: schema.Optimizer) -> dict[str, Any]:
    """What an entry says of its optimizer, by the entry's names."""
    return {name: getattr(choice, name) for name in schema.OPTIMIZERS[choice.kind]}


def check_machine(recipe: Recipe, device: torch.device) -> None:
    """Raises PlacementError when the recipe's optimizer needs something that this machine lacks. Imports no library."""
    compiler = os.environ.get("CXX", "g++")  # as torch.compile looks for it
    if recipe.optimizer.kind == "AdamW4bit" and device.type == "cpu" and shutil.which(compiler) is None:
        raise PlacementError(
            f"AdamW4bit compiles its update, which on a CPU takes a C++ compiler: expected {compiler} on PATH, found none. "
            "Install g++, or set CXX to a compiler. No other optimizer gives the same bits."
        )


def _build(choice: schema.Optimizer, rows: list[dict[str, Any]], device: torch.device) -> torch.optim.Optimizer:
    decay: dict[str, Any] = {"weight_decay": choice.weight_decay}
    adam = {"betas": choice.betas, "eps": choice.eps, **decay}
    match choice.kind:
        case "AdamW":
            return torch.optim.AdamW(rows, foreach=False, **adam)
        case "AdamW8bit":
            return deferred_imports.load("bitsandbytes").optim.AdamW8bit(rows, **adam)
        case "PagedAdamW8bit":
            if device.type != "cpu":
                return deferred_imports.load("bitsandbytes").optim.PagedAdamW8bit(rows, **adam)
            log.info("PagedAdamW8bit runs unpaged: the moments are in the CPU's memory already. Paging decides no bits.")
            return deferred_imports.load("bitsandbytes").optim.AdamW8bit(rows, **adam)
        case "Lion8bit":
            return deferred_imports.load("bitsandbytes").optim.Lion8bit(rows, betas=choice.betas, **decay)
        case "AdamW4bit":
            return _adamw4bit(rows, adam)
        case "AdaFactor":
            return _adafactor(choice, rows)
    import pytorch_optimizer

    rows = [{**row, "step": 0} for row in rows]  # this library counts steps by group, and begins a count it does not find
    if choice.kind == "CAME":
        return pytorch_optimizer.CAME(rows, betas=choice.betas, clip_threshold=choice.clip_threshold, foreach=False, **decay)
    if choice.kind == "AdamWScheduleFree":
        powers = {"r": choice.averaging_power, "weight_lr_power": choice.rate_power}
        return pytorch_optimizer.ScheduleFreeAdamW(rows, foreach=False, **powers, **adam)
    assert choice.kind in ("Lion", "CautiousLion", "C-Lion")
    return pytorch_optimizer.Lion(rows, betas=choice.betas, cautious=choice.kind != "Lion", foreach=False, **decay)


def _adafactor(choice: schema.Optimizer, rows: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdaFactor, whose steps scale with each weight's root mean square unless `scale_parameter` is false.

    So they do with the recipe's rates too, where the library advises against it: that is its default, as in the paper.
    """
    from transformers.optimization import Adafactor

    return Adafactor(
        rows, relative_step=choice.relative_step, warmup_init=choice.warmup_init, clip_threshold=choice.clip_threshold,
        weight_decay=choice.weight_decay, scale_parameter=choice.scale_parameter is None,
    )  # fmt: skip


def _adamw4bit(rows: list[dict[str, Any]], adam: dict[str, Any]) -> torch.optim.Optimizer:
    """torchao's AdamW4bit, which compiles one kernel per shape at the first step; where they are cached does not matter."""
    optim = deferred_imports.load("torchao.optim")
    from torch._inductor import config

    config.compile_threads = 1  # no worker processes, which would outlive a training that is killed
    warnings.filterwarnings("ignore", message=".*_stable_hash_for_caching")  # only says that the cache may miss
    return optim.AdamW4bit(rows, bf16_stochastic_round=False, **adam)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to its recipe's times `factor`; AdaFactor's relative step has none to set."""
    for group in optimizer.param_groups:
        if group["rate"] is None:
            continue
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(group["rate"] * factor)
        else:
            group["lr"] = group["rate"] * factor


def state_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """One parameter's state as plain tensors on the CPU; empty before its first step.

    A count of steps that the library keeps as an integer, by parameter or by group, is the int64 entry "step"; other numbers
    of a group that its steps change are float64 entries. A tensor that is made of others, as in 4 bits, is one entry for
    each: "exp_avg.codes", "exp_avg.scale".
    """
    state = optimizer.state.get(parameter)
    if not state:
        return {}
    group, _ = _place(optimizer, parameter)
    counts = {name: group[name] for name in _COUNTED if name in group}
    return {
        name: value.cpu() if torch.is_tensor(value) else torch.tensor(value, dtype=_NUMBERS[type(value)])
        for name, value in (counts | _entries(state)).items()
    }


def averaged(recipe: Recipe, weight: Tensor, saved: dict[str, Tensor]) -> Tensor:
    """The value that a result has for a weight in training with that state: the weight, or the average that an optimizer means.

    AdamWScheduleFree trains y between its average x and its iterate z: x = y + (1 - 1 / beta1) (z - y).
    """
    if recipe.optimizer.kind != "AdamWScheduleFree" or "z" not in saved:
        return weight
    assert recipe.optimizer.betas
    return weight.float().lerp(saved["z"].float(), 1.0 - 1.0 / recipe.optimizer.betas[0])


def restore(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, saved: dict[str, Tensor]) -> None:
    """Puts back what `state_of` gave."""
    if not saved:
        return
    group, (number, index) = _place(optimizer, parameter)
    numbers = {name: saved[name].item() for name in _COUNTED if name in group}
    group.update(numbers)
    saved = {name: value for name, value in saved.items() if name not in numbers}
    state = optimizer.state[parameter]
    if hasattr(optimizer, "init_state"):
        _begin_bitsandbytes(optimizer, parameter, number, index)
    elif hasattr(optimizer, "_new_buffer"):  # torchao
        state |= {"exp_avg": optimizer._new_buffer(parameter, True), "exp_avg_sq": optimizer._new_buffer(parameter, False)}
    buffers = _entries(state)
    for name, value in saved.items():
        if torch.is_tensor(buffers.get(name)):
            buffers[name].copy_(value)
        elif name == "step":  # torch and torchao count in a float on the CPU, the others in an integer
            state[name] = value.clone() if value.is_floating_point() else int(value)
        else:
            state[name] = value.to(parameter.device, copy=True)


def _begin_bitsandbytes(optimizer: Any, parameter: nn.Parameter, number: int, index: int) -> None:
    """Lets bitsandbytes make one parameter's buffers and code books, as its first step would."""
    if not optimizer.initialized:
        optimizer.check_overrides()
        optimizer.to_gpu()
        optimizer.initialized = True
    optimizer.init_state(optimizer.param_groups[number], parameter, number, index)
    if parameter.is_cuda:
        torch.cuda.synchronize(parameter.device)  # paged buffers are zeroed on the device but written by the CPU


def _entries(state: dict[str, Any]) -> dict[str, Any]:
    """A parameter's state with composed tensors taken apart and without the code books. The tensors are the state's own."""
    found = {}
    for name, value in state.items():
        if torch.is_tensor(value) and is_traceable_wrapper_subclass(value):
            found |= {f"{name}.{inner}": getattr(value, inner) for inner in value.__tensor_flatten__()[0]}
        else:
            found[name] = value
    return {name: value for name, value in found.items() if name.rpartition(".")[2] not in _CODE_BOOKS}


def _place(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> tuple[dict[str, Any], tuple[int, int]]:
    """The group that holds `parameter`, with the group's number and the parameter's index in it."""
    for number, group in enumerate(optimizer.param_groups):
        for index, member in enumerate(group["params"]):
            if member is parameter:
                return group, (number, index)
    raise AssertionError("a parameter that the optimizer does not hold")
