"""One segment of training: from a state (or a base) to the next state, the same bits however it is executed.

    train(spec, inputs, placement) -> State written at `inputs.out`

The step: for every logical rank its micro-batches, forward and backward; the ranks' gradients summed in a fixed tree; one
update. Everything random is a function of (seed, position). So the number of processes, a kill and a resume, or where a
segment ends leave no trace in the weights.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astolfo.data.order import Batch, Order
from astolfo.data.store import Sample, Store
from astolfo.errors import NumericsError, StoreError
from astolfo.ledger.recipe import Recipe
from astolfo.train import optimizer as optimizers
from astolfo.train.conditioning import Text, time_ids
from astolfo.train.model import DTYPES, build_parts, latent_scale
from astolfo.train.objective import Objective, loss
from astolfo.train.partial import trained
from astolfo.train.ranks import Flat, PairwiseSum, Processes
from astolfo.train.samples import Draws
from astolfo.train.state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The files that a segment reads. `base` is None for a model from nothing."""

    base: Path | None
    dataset: Path
    vocabulary: Path


class Trainer:
    """A model in training. `step(n)` does optimizer step n; `state()` and `restore()` carry it across processes."""

    def __init__(self, recipe: Recipe, inputs: Inputs, processes: Processes, device: torch.device | str = "cpu"):
        self.recipe, self.processes, self.device = recipe, processes, torch.device(device)
        self.store = Store(inputs.dataset)
        self.order = _order(recipe, self.store)
        self.parts = build_parts(recipe, inputs.base, self.device)
        self.text = Text.of(self.parts, inputs.vocabulary, tokens=recipe.captions.tokens, context=recipe.choices.context)
        self.objective, self.draws = Objective(recipe), Draws(recipe)
        for part in self.parts.values():
            part.requires_grad_(False)
        chosen = list(trained(recipe, self.parts))
        self.names = [f"{part}.{name}" for part, name, _ in chosen]
        self.parameters = [parameter.requires_grad_(True) for _, _, parameter in chosen]
        self.flat = Flat(self.parameters, processes)
        mine = set(map(id, self.flat.owned()))
        self.optimizer = optimizers.build(recipe, [row for row in chosen if id(row[2]) in mine])
        self.compute, self.scale = DTYPES[recipe.precision.compute], latent_scale(recipe)
        self.losses: list[float] = []

    def step(self, step: int) -> float:
        """Optimizer step number `step` of the data order; returns its loss. Raises NumericsError when it is not finite."""
        rounds = self.order.step(step)
        tree, losses = PairwiseSum(), []
        for rank in self.processes.block(self.recipe.ranks):
            gradients = self.flat.fresh_gradients()
            value = 0.0
            for batch in (row[rank] for row in rounds):
                if batch is not None:
                    value += self._micro_batch(batch, self._share(batch, rounds), step)
            tree.add(gradients)
            losses.append(value)
        owned = self.flat.reduce(tree.total())
        owned.div_(self.recipe.ranks)
        self._check_gradients(owned, step)
        self._clip(owned)
        optimizers.set_rate(self.optimizer, optimizers.schedule_factor(self.recipe, step))
        self.optimizer.step()
        self.flat.share_weights()
        mean = self.processes.gather(torch.tensor(losses, dtype=torch.float64)).sum().item() / self.recipe.ranks
        self.losses.append(mean)
        return mean

    def _micro_batch(self, batch: Batch, share: float, step: int) -> float:
        """Forward and backward of one micro-batch, whose loss counts `share` in its rank's sum; returns that part."""
        samples = [self.store.sample(int(row)) for row in batch.rows]
        value = loss(*self._predict(samples, batch)) * share
        if not math.isfinite(value.item()):
            ids = ", ".join(sample.id for sample in samples)
            raise NumericsError(
                f"The loss is {value.item()} at step {step}, position {batch.position}, samples {ids}. Training stopped; the "
                "last good state stays. Check these samples' latents, or lower the learning rate."
            )
        value.backward()
        return value.item()

    def _predict(self, samples: list[Sample], batch: Batch) -> tuple[Any, Tensor]:
        dtype = DTYPES[self.recipe.precision.weights]
        latents = torch.stack([torch.from_numpy(sample.latents) for sample in samples]).to(self.device, dtype) * self.scale
        noise, draws = self.draws(batch, tuple(latents.shape[1:]))
        task = self.objective.task(latents, torch.from_numpy(noise).to(self.device, dtype), draws)
        captions = [self.draws.caption(batch, index, sample) for index, sample in enumerate(samples)]
        with torch.autocast(self.device.type, self.compute, enabled=self.compute != dtype):
            context, pooled = self.text(captions, self.device)
            added = None
            if pooled is not None:
                added = {"text_embeds": pooled, "time_ids": time_ids(samples).to(self.device)}
            prediction = self.parts["unet"](
                task.noisy, task.timestep, context.to(dtype), added_cond_kwargs=added, return_dict=False
            )[0]
        return task, prediction

    def _share(self, batch: Batch, rounds: list[list[Batch | None]]) -> float:
        """What a micro-batch's mean loss is multiplied by, so that ranks' sums over `ranks` are the step's mean."""
        if self.recipe.choices.short_step == "full":
            return 1.0 / self.recipe.accumulation
        samples = sum(len(other.rows) for row in rounds for other in row if other is not None)
        return len(batch.rows) * self.recipe.ranks / samples

    def _check_gradients(self, owned: Tensor, step: int) -> None:
        bad = torch.tensor([0 if torch.isfinite(owned).all() else 1])
        if not self.processes.gather(bad).any():
            return
        names = [
            name
            for name, p in zip(self.names, self.parameters, strict=True)
            if p.grad is not None and not p.grad.isfinite().all()
        ]
        raise NumericsError(
            f"NaN or infinity in the gradient at step {step}, first in {', '.join(names[:3]) or 'another process'}. "
            "Training stopped before the update; the last good state stays."
        )

    def _clip(self, owned: Tensor) -> None:
        """Scales the gradient down to the recipe's joint norm; the norm is summed parameter by parameter, in their order."""
        if not self.recipe.max_grad_norm:
            return
        squares = torch.zeros(len(self.parameters), dtype=torch.float64)
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                squares[index] = parameter.grad.double().square().sum()
        norm = math.sqrt(sum(self.processes.gather(squares).sum(dim=0).tolist()))
        if norm > self.recipe.max_grad_norm:
            owned.mul_(self.recipe.max_grad_norm / (norm + 1e-6))

    # ---- states

    def state(self, position: int) -> State | None:
        """The state after `position` steps, on process 0; None elsewhere. Every process must call it."""
        entries = {}
        for index, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            found = self._collect(self.flat.owner(index), parameter)
            if found:
                entries[name] = found
        if self.processes.index:
            return None
        weights = {name: p.detach().cpu() for name, p in zip(self.names, self.parameters, strict=True)}
        return State(position=position, weights=weights, optimizer=entries, loss=list(self.losses))

    def _collect(self, owner: int, parameter: nn.Parameter) -> dict[str, Tensor]:
        """One parameter's optimizer state at process 0, sent by its owner."""
        mine = optimizers.state_of(self.optimizer, parameter) if owner == self.processes.index else {}
        if owner == 0:
            return mine
        if self.processes.index == owner:
            torch.distributed.send_object_list([{k: (v.shape, v.dtype) for k, v in mine.items()}], dst=0)
            for value in mine.values():
                torch.distributed.send(value.contiguous(), dst=0)
        elif self.processes.index == 0:
            shapes: list[Any] = [None]
            torch.distributed.recv_object_list(shapes, src=owner)
            mine = {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in shapes[0].items()}
            for value in mine.values():
                torch.distributed.recv(value, src=owner)
        return mine

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Continues from `state`: weights, optimizer and losses. Every process gets the whole state and keeps its part."""
        missing = [name for name in self.names if name not in state.weights]
        assert not missing, f"the state lacks {missing[:3]}"
        for index, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            parameter.copy_(state.weights[name])
            if self.flat.owner(index) == self.processes.index:
                optimizers.restore(self.optimizer, parameter, state.optimizer.get(name, {}))
        self.losses = list(state.loss)


def _order(recipe: Recipe, store: Store) -> Order:
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
