"""One segment of training: from a state (or a base) to the next state, the same bits however it is executed.

    train(spec, inputs, placement) -> State written at `inputs.out`

The step: for every logical rank its micro-batches, forward and backward; the ranks' gradients summed in a fixed tree; one
update. Everything random is a function of (seed, position). So the number of processes, a kill and a resume, or where a
segment ends leave no trace in the weights.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astolfo.data.join import Repeated
from astolfo.data.order import Batch, Order
from astolfo.data.prefetch import Reader
from astolfo.data.store import Store
from astolfo.errors import StoreError
from astolfo.ledger.recipe import Recipe
from astolfo.train import update
from astolfo.train.conditioning import CachedText, Text
from astolfo.train.fp32_layers import compute_in_fp32
from astolfo.train.guards import WrongNumber, finite, sample_ids, spike
from astolfo.train.loss import Task, loss
from astolfo.train.model import DTYPES, build_parts, latent_scale, noised_dtype
from astolfo.train.objective import Objective
from astolfo.train.placement import Placement
from astolfo.train.ranks import GradientTree, Processes
from astolfo.train.samples import Preparation, Prepared
from astolfo.train.state import State
from astolfo.train.trainable import trainable_parameters

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The files that a segment reads. `base` is None for a model from nothing."""

    base: Path | None
    dataset: Path
    vocabulary: Path


class Trainer:
    """A model in training. `step(n)` does optimizer step n; `state()` and `restore()` carry it across processes."""

    def __init__(self, recipe: Recipe, inputs: Inputs, processes: Processes, placement: Placement | None = None):
        placement = placement or Placement()
        self.recipe, self.processes, self.device = recipe, processes, torch.device(placement.device)
        self.store = Repeated(Store(inputs.dataset))
        self.order = _order(recipe, self.store)
        self.parts = self._parts(inputs.base)
        self.text = Text.of(
            self.parts, inputs.vocabulary, tokens=recipe.captions.tokens, context=recipe.choices.context,
            mends=recipe.choices.text == "ftfy", ftfy=recipe.ftfy,
        )  # fmt: skip
        prepare, block = Preparation(recipe, self.text), processes.block(recipe.ranks)
        self.reader = Reader(
            self.store, self.order, block, prepare, partial(prepare.take, self.store), threads=placement.loader_workers
        )
        self.objective = Objective(recipe, self.device)
        for part in self.parts.values():
            part.requires_grad_(False)
        chosen = list(trainable_parameters(recipe, self.parts))
        self.names = [f"{part}.{name}" for part, name, _ in chosen]
        self.parameters = [parameter for _, _, parameter in chosen]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        checkpoint(self.parts, placement.gradient_checkpointing)
        if self.device.type == "cpu" and not recipe.engine:
            for part in self.parts.values():
                compute_in_fp32(part)
        self.compute, self.scale = DTYPES[recipe.precision.compute], latent_scale(recipe)
        self.losses: list[float] = []
        self._on_device: dict[int, Prepared] = {}  # by the micro-batch's position: those of a step, on the device
        frozen = not any(part.startswith("text_encoder") for part, _, _ in chosen)
        self.conditioning = CachedText(self.text, len(self.store)) if frozen else self.text
        self.offload = placement.offload_gradients
        self._prepare(chosen)

    def _parts(self, base: Path | None) -> dict[str, nn.Module]:
        """The model's parts on the device."""
        return build_parts(self.recipe, base, self.device)

    def _prepare(self, chosen: list[tuple[str, str, nn.Parameter]]) -> None:
        """Makes what executes the steps over the chosen (part, name, parameter)."""
        masters = {}
        if self.recipe.precision.update == "master":
            masters = {id(parameter): parameter.data for parameter in self.parameters}
            for part in self.parts.values():
                nn.Module.to(part, DTYPES[self.recipe.precision.weights])
        self.gradient_tree = GradientTree(self.parameters, self.processes)
        mine = set(map(id, self.gradient_tree.owned()))
        rows = [row for row in chosen if id(row[2]) in mine]
        self.update = update.build(self.recipe, rows, masters, self.processes.gather_objects)

    def close(self) -> None:
        """Lets go of what would keep this trainer's memory when nobody uses it any more."""
        self.gradient_tree.close()

    def step(self, step: int) -> float:
        """Optimizer step number `step` of the data order; returns its loss. Raises WrongNumber, everywhere, when one appears."""
        rounds = self.reader.step(step)
        self._move_to_device(rounds)
        block = self.processes.block(self.recipe.ranks)
        self.gradient_tree.begin(len(block), self.offload)
        losses = [self._leaf([batch for row in rounds if (batch := row[rank]) is not None], rounds) for rank in block]
        loss = self._mean(losses, step)  # the first numbers that are asked of the device in a step
        if value := spike(self.losses, loss, self.recipe.loss_spike):
            self._wrong("spike", step, [], value)
        owned = self.gradient_tree.reduce()
        owned.div_(self.recipe.ranks)
        self._check("gradient", owned, step)
        self._clip(owned)
        self.update.step(step)
        self._check("weight", self.gradient_tree.owned_weights(), step)
        self.gradient_tree.share_weights()
        self.losses.append(loss)
        return loss

    def _leaf(self, batches: list[Batch], rounds: list[list[Batch | None]]) -> list[tuple[Batch, Tensor]]:
        """One logical rank's gradients of a step, into the tree; returns its micro-batches with their shares of its loss."""
        losses = [(batch, self._backward(batch, rounds)) for batch in batches[:-1]]
        with self.gradient_tree.leaf():  # an epoch's last step may have no batch for this rank
            losses += [(batch, self._backward(batch, rounds)) for batch in batches[-1:]]
        return losses

    def _backward(self, batch: Batch, rounds: list[list[Batch | None]]) -> Tensor:
        value = self._loss(batch) * self._share(batch, rounds)
        value.backward()
        return value.detach()

    def _mean(self, losses: list[list[tuple[Batch, Tensor]]], step: int) -> float:
        """The mean of the ranks' losses, of which `losses` are this process's, by rank and micro-batch.

        Raises WrongNumber in every process when one of them is not finite.
        """
        numbers = [[(batch, value.item()) for batch, value in rank] for rank in losses]
        self._check_losses([(batch, number) for rank in numbers for batch, number in rank if not math.isfinite(number)], step)
        sums = torch.tensor([sum(number for _, number in rank) for rank in numbers], dtype=torch.float64)
        return self.processes.gather(sums).sum().item() / self.recipe.ranks

    def _loss(self, batch: Batch) -> Tensor:
        """The mean loss of one micro-batch, ready for backward."""
        return loss(*self._predict(batch))

    def _move_to_device(self, rounds: list[list[Batch | None]]) -> None:
        """Moves what a step needs to the device at once, since copies of some size wait for what the device is at."""
        mine = (row[rank] for row in rounds for rank in self.processes.block(self.recipe.ranks))
        self._on_device = {batch.position: self._ready(batch) for batch in mine if batch is not None}
        if isinstance(self.conditioning, CachedText):
            self.conditioning.begin([given.tokens for given in self._on_device.values()], self.device)

    def _ready(self, batch: Batch) -> Prepared:
        return self.reader.batch(batch).on(self.device, noised_dtype(self.recipe))

    def _predict(self, batch: Batch) -> tuple[Task, Tensor]:
        given = self._on_device.get(batch.position) or self._ready(batch)
        dtype = DTYPES[self.recipe.precision.weights]
        task = self.objective.task(given.latents * self.scale, given.noise, given.uniform, given.added)
        with torch.autocast(self.device.type, self.compute, enabled=self.compute != dtype):
            context, pooled = self.conditioning.encode(given.tokens, self.device)
            added = None
            if pooled is not None:
                added = {"text_embeds": pooled, "time_ids": given.time_ids.to(self.device, non_blocking=True)}
            prediction = self.parts["unet"](
                task.noisy.to(dtype), task.timestep, context.to(dtype), added_cond_kwargs=added, return_dict=False
            )[0]
        return task, prediction

    def _share(self, batch: Batch, rounds: list[list[Batch | None]]) -> float:
        """What a micro-batch's mean loss is multiplied by, so that ranks' sums over `ranks` are the step's mean."""
        if self.recipe.choices.short_step == "full":
            return 1.0 / self.recipe.accumulation
        samples = sum(len(other.rows) for row in rounds for other in row if other is not None)
        return len(batch.rows) * self.recipe.ranks / samples

    def _check_losses(self, bad: list[tuple[Batch, float]], step: int) -> None:
        """Raises WrongNumber in every process when one of them found a loss that is not finite."""
        if not any(self.processes.any(bool(bad))):
            return
        mine = [(batch.position, str(number), sample_ids(self.store, [batch])) for batch, number in bad]
        found = sorted(row for rows in self.processes.gather_objects(mine) for row in rows)
        samples = list(dict.fromkeys(sample for *_, ids in found for sample in ids))
        raise WrongNumber("loss", step, found[0][0], samples, value=found[0][1])

    def _check(self, what: str, mine: Tensor, step: int) -> None:
        """Raises WrongNumber in every process when one process's gradients or weights are not finite."""
        if not any(self.processes.any(not finite(mine))):
            return
        names = []
        for index, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            value = parameter if what == "weight" else parameter.grad
            if self.gradient_tree.owner(index) == self.processes.index and value is not None and not finite(value):
                names.append(name)
        self._wrong(what, step, names)

    def _wrong(self, what: str, step: int, names: list[str], value: str = "") -> None:
        """Raises WrongNumber for the parameters that the processes found, in the order in which they are kept."""
        found = {name for part in self.processes.gather_objects(names) for name in part}
        batches = [batch for row in self.order.step(step) for batch in row if batch is not None]
        position = min(batch.position for batch in batches)
        raise WrongNumber(what, step, position, sample_ids(self.store, batches), [n for n in self.names if n in found], value)

    def _clip(self, owned: Tensor) -> None:
        """Scales the gradient down to the recipe's joint norm; the norm is summed parameter by parameter, in their order."""
        way = self.recipe.choices.clipping
        if not self.recipe.max_grad_norm or way == "never":
            return
        if way == "gradients":
            return self._clip_in_their_dtype(owned)
        squares = torch.zeros(len(self.parameters), dtype=torch.float64, device=self.device)
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                squares[index] = parameter.grad.double().square().sum()
        norm = math.sqrt(sum(self.processes.gather(squares.cpu()).sum(dim=0).tolist()))
        if norm > self.recipe.max_grad_norm:
            owned.mul_(self.recipe.max_grad_norm / (norm + 1e-6))

    def _clip_in_their_dtype(self, owned: Tensor) -> None:
        """As `torch.nn.utils.clip_grad_norm_`: each norm, the norm of the norms and the factor have the gradients' dtype."""
        norms = torch.zeros(len(self.parameters), dtype=torch.float64, device=self.device)
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                norms[index] = torch.linalg.vector_norm(parameter.grad)
        every = self.processes.gather(norms.cpu()).sum(dim=0).to(owned.dtype)  # each has one owner, so that this adds zeros
        factor = self.recipe.max_grad_norm / (torch.linalg.vector_norm(every) + 1e-6)
        owned.mul_(factor.clamp(max=1.0).to(owned.device))

    # ---- states

    def state(self, position: int) -> State | None:
        """The state after `position` steps, on process 0; None elsewhere. Every process must call it."""
        entries, masters = {}, {}
        for index, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            owner = self.gradient_tree.owner(index)
            mine = self.update.state_of(parameter) if owner == self.processes.index else {}
            found = self.processes.collect(owner, mine)
            if update.MASTER in found:
                masters[name] = found.pop(update.MASTER)
            if found:
                entries[name] = found
        if self.processes.index:
            return None
        return State(position=position, weights=self._weights() | masters, optimizer=entries, loss=list(self.losses))

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu() for name, p in zip(self.names, self.parameters, strict=True)}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Continues from `state`: weights, optimizer and losses. Every process gets the whole state and keeps its part."""
        missing = [name for name in self.names if name not in state.weights]
        assert not missing, f"the state lacks {missing[:3]}"
        for index, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            parameter.copy_(state.weights[name])
            if self.gradient_tree.owner(index) == self.processes.index:
                self.update.restore(parameter, state.weights[name], state.optimizer.get(name, {}))
            state.release(name)
        self.losses = list(state.loss)


def checkpoint(parts: Mapping[str, Any], blocks: bool | tuple[str, ...]) -> None:
    """Has blocks of a model (True: all) keep few activations and compute the others again in backward, by the same operators.

    "text_encoders" are their layers; other names are the UNet's, such as "down_blocks.1". Call it when what trains is known: an
    encoder that does not train keeps nothing, and with this its output would want gradients.
    """
    if not blocks:
        return
    for name, part in parts.items():
        if name != "unet":
            trains = any(parameter.requires_grad for parameter in part.parameters())
            if trains and (isinstance(blocks, bool) or "text_encoders" in blocks):
                part.activation_checkpointing_enable({"use_reentrant": False})
            continue
        part.enable_gradient_checkpointing()
        for place, module in part.named_modules():
            if not isinstance(blocks, bool) and hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = any(f"{place}.".startswith(f"{block}.") for block in blocks)


def _order(recipe: Recipe, store: Repeated) -> Order:
    order = Order(
        counts=store.counts, seed=recipe.seed, ranks=recipe.ranks, batch_size=recipe.batch_size,
        accumulation=recipe.accumulation, wraps=recipe.choices.short_step == "full",
    )  # fmt: skip
    if recipe.steps_per_epoch not in (None, order.steps_per_epoch):
        raise StoreError(
            f"{store.folder} has {len(store):,} images, which make {order.steps_per_epoch:,} steps an epoch; the recipe expects "
            f"{recipe.steps_per_epoch:,}. Is it the right dataset, and whole?"
        )
    return order
