"""What a micro-batch is made of, made ready on the host: everything random is a function of (seed, position).

The position is the sample's absolute number in the run's data order. Under the choice `noise: micro-step` noise and
timestep are keyed by the micro-step since the run began and shared by the ranks, as the original trainer had it: its
ranks all draw from the same seed.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astolfo import randomness
from astolfo.data.captions import caption
from astolfo.data.join import Repeated
from astolfo.data.order import Batch
from astolfo.data.store import Sample
from astolfo.ledger.recipe import Recipe
from astolfo.train import noise
from astolfo.train.conditioning import Text, time_ids
from astolfo.train.model import latent_scale

Key = tuple[int, tuple[int, ...]]  # a position and the shape of the noise that belongs to it
_AT_ONCE = 1 << 16  # numbers that are drawn together; more of them would not stay in the processor's caches


@dataclass(frozen=True)
class Prepared:
    """A micro-batch on the host, all that the device needs to be told of it. First axes are its samples."""

    latents: Tensor  # (batch, channels, height, width), unscaled, of the store's dtype
    noise: Tensor  # float32, of the latents' shape
    uniform: np.ndarray  # float64 (batch,), in (0, 1): they choose the timesteps
    tokens: list[Tensor]  # int64 (batch, chunks, 77) for each text encoder
    time_ids: Tensor  # float32 (batch, 6)
    added: Tensor | None = None  # the noise that is added to the latents, where it is not the one that is to be predicted

    def on(self, device: torch.device, dtype: torch.dtype) -> "Prepared":
        """The same with what is large, latents and noise, on a device, in the dtype that the model computes with."""
        large = {"latents": self.latents, "noise": self.noise, "added": self.added}
        there: dict[str, Any] = {
            name: value.to(device, dtype, non_blocking=True) for name, value in large.items() if value is not None
        }
        return replace(self, **there)


class Preparation:
    """Makes a recipe's micro-batches ready, those of a step together: a thread does so a step ahead of the training."""

    def __init__(self, recipe: Recipe, text: Text):
        self.recipe, self.seed, self.text = recipe, recipe.seed, text
        self._shared = recipe.choices.noise == "micro-step"

    def __call__(self, batches: Sequence[Batch], samples: Sequence[Sequence[Sample]]) -> list[Prepared]:
        """`batches`, whose `samples` the store gave, ready for the device."""
        if not batches:
            return []
        cuts = np.cumsum([len(batch.rows) for batch in batches])[:-1].tolist()
        captions = [self.captions(*one) for one in zip(batches, samples, strict=True)]
        tokens = [ids.tensor_split(cuts) for ids in self.text.read([text for texts in captions for text in texts])]
        latents = [torch.from_numpy(np.stack([sample.latents for sample in given])) for given in samples]
        draws = self.draws(batches, [tuple(stacked.shape[1:]) for stacked in latents])
        found = []
        for batch, given, stacked, (drawn, uniform), *ids in zip(batches, samples, latents, draws, *tokens, strict=True):
            own, added = self._shaped(batch, drawn, stacked)
            found.append(Prepared(stacked, own, uniform, ids, time_ids(given), added))
        return found

    def take(self, store: Repeated, batch: Batch) -> list[Sample]:
        """A micro-batch's samples, half of them mirrored where the store has them both ways round."""
        if not store.mirrored:
            return [store.sample(row) for row in batch.rows.tolist()]
        draws = randomness.uniform(self.seed, "mirror", np.array(self._positions(batch), np.uint64))[:, 0]
        return [store.sample(row, draw < 0.5) for row, draw in zip(batch.rows.tolist(), draws.tolist(), strict=True)]

    def _shaped(self, batch: Batch, drawn: np.ndarray, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        """A micro-batch's noise as the objective asks for it, and the one that is added to its latents where that is another."""
        if not noise.changes(self.recipe.objective):
            return torch.from_numpy(drawn), None
        means = latents.numpy().mean(axis=(2, 3), dtype=np.float64) * latent_scale(self.recipe)
        found, first = [], 0
        for position, shape in self._keys(batch, drawn.shape[1:]):
            part = slice(first, first + shape[0])
            found.append(noise.shaped(self.recipe.objective, drawn[part], means[part], seed=self.seed, position=position))
            first = part.stop
        own, added = zip(*found, strict=True)
        joined = None if added[0] is None else torch.from_numpy(np.concatenate(added))
        return torch.from_numpy(np.concatenate(own)), joined

    def draws(self, batches: Sequence[Batch], shapes: Sequence[tuple[int, ...]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Noise, float32 (batch, *shape), and uniforms, float64 (batch,), for each of `batches`; `shapes` are their samples'."""
        wanted = [self._keys(*one) for one in zip(batches, shapes, strict=True)]
        known = self._drawn({key for keys in wanted for key in keys})
        found = []
        for keys in wanted:
            normal, uniform = zip(*(known[key] for key in keys), strict=True)
            found.append((np.concatenate(normal), np.concatenate(uniform)))
        return found

    def _keys(self, batch: Batch, shape: tuple[int, ...]) -> list[Key]:
        """What a micro-batch's draws are keyed by: a position for each sample, or one that they share."""
        if self._shared:
            return [(batch.micro_step - self.recipe.first_step * self.recipe.accumulation, (len(batch.rows), *shape))]
        return [(position, (1, *shape)) for position in self._positions(batch)]

    def _drawn(self, keys: Iterable[Key]) -> dict[Key, list[np.ndarray]]:
        """Noise and uniforms of `keys`. One call draws many small ones: most of its time does not depend on their number."""
        positions: dict[tuple[int, ...], list[int]] = defaultdict(list)
        known: dict[Key, list[np.ndarray]] = {}
        for position, shape in sorted(keys):
            positions[shape].append(position)
        for shape, members in positions.items():
            each = max(1, _AT_ONCE // math.prod(shape))
            for some in (members[at : at + each] for at in range(0, len(members), each)):
                normal = randomness.normal(self.seed, "noise", np.array(some, np.uint64), shape)
                uniform = randomness.uniform(self.seed, "timestep", np.array(some, np.uint64), shape[0])
                known |= {(position, shape): drawn for position, *drawn in zip(some, normal, uniform, strict=True)}
        return known

    def captions(self, batch: Batch, samples: Sequence[Sample]) -> list[str]:
        """The text that each sample of a micro-batch is trained with."""
        wanted, way = self.recipe.captions, self.recipe.choices.captions
        return [
            caption(wanted, one.tags, one.sentence, seed=self.seed, position=position, epoch=batch.epoch, way=way)
            for position, one in zip(self._positions(batch), samples, strict=True)
        ]

    def _positions(self, batch: Batch) -> range:
        first = batch.position * self.recipe.batch_size
        return range(first, first + len(batch.rows))
