"""What a micro-batch is made of, made ready on the host: everything random is a function of (seed, position).

The position is the sample's absolute number in the run's data order. Under the choice `noise: micro-step` noise and
timestep are keyed by the micro-step since the run began and shared by the ranks, as the original trainer had it: its
ranks all draw from the same seed.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from astolfo import randomness
from astolfo.data.captions import caption
from astolfo.data.order import Batch
from astolfo.data.store import Sample
from astolfo.ledger.recipe import Recipe
from astolfo.train.conditioning import Text, time_ids

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

    def on(self, device: torch.device, dtype: torch.dtype) -> "Prepared":
        """The same with what is large, latents and noise, on a device, in the dtype that the model computes with."""
        latents, noise = (values.to(device, dtype, non_blocking=True) for values in (self.latents, self.noise))
        return replace(self, latents=latents, noise=noise)


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
        return [
            Prepared(stacked, torch.from_numpy(noise), uniform, list(ids), time_ids(given))
            for stacked, (noise, uniform), ids, given in zip(latents, draws, zip(*tokens, strict=True), samples, strict=True)
        ]

    def draws(self, batches: Sequence[Batch], shapes: Sequence[tuple[int, ...]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Noise, float32 (batch, *shape), and uniforms, float64 (batch,), for each of `batches`; `shapes` are their samples'."""
        wanted = [self._keys(*one) for one in zip(batches, shapes, strict=True)]
        known = self._drawn({key for keys in wanted for key in keys})
        found = []
        for keys in wanted:
            noise, uniform = zip(*(known[key] for key in keys), strict=True)
            found.append((np.concatenate(noise), np.concatenate(uniform)))
        return found

    def _keys(self, batch: Batch, shape: tuple[int, ...]) -> list[Key]:
        """What a micro-batch's draws are keyed by: a position for each sample, or one that they share."""
        if self._shared:
            return [(batch.micro_step - self.recipe.first_step * self.recipe.accumulation, (len(batch.rows), *shape))]
        return [(position, (1, *shape)) for position in self._positions(batch)]

    def _drawn(self, keys: Iterable[Key]) -> dict[Key, list[np.ndarray]]:
        """Noise and uniforms of `keys`. One call draws many small ones: most of its time does not depend on their number."""
        positions, known = defaultdict(list), {}
        for position, shape in sorted(keys):
            positions[shape].append(position)
        for shape, members in positions.items():
            each = max(1, _AT_ONCE // math.prod(shape))
            for some in (members[at : at + each] for at in range(0, len(members), each)):
                noise = randomness.normal(self.seed, "noise", np.array(some, np.uint64), shape)
                uniform = randomness.uniform(self.seed, "timestep", np.array(some, np.uint64), shape[0])
                known |= {(position, shape): drawn for position, *drawn in zip(some, noise, uniform, strict=True)}
        return known

    def captions(self, batch: Batch, samples: Sequence[Sample]) -> list[str]:
        """The text that each sample of a micro-batch is trained with."""
        placed = zip(self._positions(batch), samples, strict=True)
        return [caption(self.recipe.captions, one.tags, one.sentence, seed=self.seed, position=at) for at, one in placed]

    def _positions(self, batch: Batch) -> range:
        first = batch.position * self.recipe.batch_size
        return range(first, first + len(batch.rows))
