"""Updates: how what an optimizer computes reaches the weights. A choice of the recipe's `precision`.

    {weights: bf16}                      the library's optimizer works on the bf16 weights and rounds to nearest
    {weights: bf16, update: stochastic}  it works on fp32 copies, which are rounded at random and forgotten
    {weights: bf16, update: master}      it works on fp32 weights that are kept, and saved; the bf16 ones are their rounding

The first is what the record's trainer did: at its rates most changes are smaller than half a last place and are lost
(docs/performance.md has the measure). The others give the optimizer fp32 weights and gradients, so moments that a library
keeps whole are in fp32 too. Both work in stretches of some million weights, so what they need at a time stays small.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from astolfo.ledger.recipe import Recipe
from astolfo.train import optimizer as optimizers
from astolfo.train import schedule
from astolfo.train.prodigy import Gather
from astolfo.train.rounding import stochastic

MASTER = "master"  # among a weight's entries: the weight itself in fp32
STRETCH = 1 << 25  # weights widened at once: 256 MiB with their gradients

Row = tuple[str, str, nn.Parameter]  # part, name, parameter


class DirectUpdate:
    """The library's optimizer on the weights themselves."""

    def __init__(self, recipe: Recipe, rows: Iterable[Row], gather: Gather):
        self.recipe, self.optimizer = recipe, optimizers.build(recipe, rows, gather)

    def step(self, step: int) -> None:
        """The update of optimizer step number `step`, from the parameters' gradients."""
        optimizers.set_rate(self.optimizer, schedule.factor(self.recipe, step))
        self.optimizer.step()

    def state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What the next segment needs to go on with a parameter, as tensors on the CPU."""
        return optimizers.state_of(self.optimizer, parameter)

    def restore(self, parameter: nn.Parameter, weight: Tensor, saved: dict[str, Tensor]) -> None:
        """Puts back what `state_of` gave; `weight` is the parameter's value in the state."""
        optimizers.restore(self.optimizer, parameter, saved)


@dataclass
class _Fp32Weight:
    """A bf16 parameter and its fp32 counterpart, which an optimizer holds. Between steps it is empty, or the master."""

    name: str
    narrow: nn.Parameter
    wide: nn.Parameter
    optimizer: torch.optim.Optimizer | None = None


class Fp32Update:
    """The library's optimizer on fp32 counterparts of the weights; `masters` are those that stay, by the parameter's id."""

    def __init__(self, recipe: Recipe, rows: Iterable[Row], masters: Mapping[int, Tensor] | None):
        self.recipe, self.keeps = recipe, masters is not None
        self._stretches: list[list[_Fp32Weight]] = []
        self._of: dict[int, _Fp32Weight] = {}
        for stretch in _stretches(list(rows)):
            wides = []
            for part, name, parameter in stretch:
                value = masters[id(parameter)] if masters is not None else _unallocated(parameter)
                self._of[id(parameter)] = _Fp32Weight(f"{part}.{name}", parameter, nn.Parameter(value))
                wides.append((part, name, self._of[id(parameter)].wide))
            members = [self._of[id(parameter)] for _, _, parameter in stretch]
            optimizer = optimizers.build(recipe, wides)
            for member in members:
                member.optimizer = optimizer
            self._stretches.append(members)

    @torch.no_grad()
    def step(self, step: int) -> None:
        """As `DirectUpdate.step`, stretch by stretch."""
        factor = schedule.factor(self.recipe, step)
        for members in self._stretches:
            for member in members:
                self._fill(member)
                assert member.narrow.grad is not None
                member.wide.grad = member.narrow.grad.float()
            optimizer = members[0].optimizer
            assert optimizer
            optimizers.set_rate(optimizer, factor)
            optimizer.step()
            for member in members:
                member.narrow.copy_(self._rounded(member, step))
                member.wide.grad = None
                self._empty(member)

    def state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """As `DirectUpdate.state_of`; with a master, that too."""
        member = self._of[id(parameter)]
        assert member.optimizer
        master = {MASTER: member.wide.detach().cpu()} if self.keeps else {}
        return optimizers.state_of(member.optimizer, member.wide) | master

    @torch.no_grad()
    def restore(self, parameter: nn.Parameter, weight: Tensor, saved: dict[str, Tensor]) -> None:
        """As `DirectUpdate.restore`; `weight` is the master where there is one."""
        member = self._of[id(parameter)]
        assert member.optimizer
        if self.keeps:
            member.wide.copy_(weight)
        self._fill(member)  # libraries size their buffers by it
        optimizers.restore(member.optimizer, member.wide, saved)
        self._empty(member)

    def _rounded(self, member: _Fp32Weight, step: int) -> Tensor:
        if self.keeps:
            return member.wide.to(member.narrow.dtype)
        return stochastic(member.wide, self.recipe.seed, member.name, step)

    def _fill(self, member: _Fp32Weight) -> None:
        if not self.keeps:
            member.wide.data = member.narrow.detach().float()

    def _empty(self, member: _Fp32Weight) -> None:
        if not self.keeps:
            member.wide.data = _unallocated(member.narrow)


def build(
    recipe: Recipe, rows: Iterable[Row], masters: Mapping[int, Tensor], gather: Gather = lambda parts: [parts]
) -> DirectUpdate | Fp32Update:
    """The update that the recipe chooses over (part, name, parameter); `masters`: the weights in fp32, by parameter id.

    `gather` is `astolfo.train.optimizer.build`'s.
    """
    if recipe.precision.update is None:
        return DirectUpdate(recipe, rows, gather)
    return Fp32Update(recipe, rows, masters if recipe.precision.update == "master" else None)


def _unallocated(parameter: nn.Parameter) -> Tensor:
    return torch.empty(0, dtype=torch.float32, device=parameter.device)


def _stretches(rows: list[Row]) -> list[list[Row]]:
    """The rows cut into stretches of about STRETCH weights, never within a parameter."""
    found: list[list[Row]] = []
    room = 0
    for row in rows:
        if row[2].numel() > room or not found:
            found.append([])
            room = STRETCH
        found[-1].append(row)
        room -= row[2].numel()
    return found
