"""What is random about a sample: noise, timestep and caption, each a function of (seed, position).

The position is the sample's absolute number in the run's data order. Under the choice `noise: micro-step` noise and
timestep are keyed by the micro-step since the run began and shared by the ranks, as the original trainer had it: its
ranks all draw from the same seed.
"""

import numpy as np

from astolfo import randomness
from astolfo.data.captions import caption
from astolfo.data.order import Batch
from astolfo.data.store import Sample
from astolfo.ledger.recipe import Recipe


class Draws:
    """The random numbers of a recipe's micro-batches."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.seed = recipe, recipe.seed
        self._shared = recipe.choices.noise == "micro-step"

    def __call__(self, batch: Batch, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Noise, float32 (batch, *shape), and one uniform draw per sample for its timestep, float64 (batch,)."""
        count = len(batch.rows)
        if self._shared:
            position = batch.micro_step - self.recipe.first_step * self.recipe.accumulation
            noise = randomness.normal(self.seed, "noise", position, (count, *shape))
            return noise, randomness.uniform(self.seed, "timestep", position, count)
        positions = [self._position(batch, index) for index in range(count)]
        noise = np.stack([randomness.normal(self.seed, "noise", position, shape) for position in positions])
        return noise, np.concatenate([randomness.uniform(self.seed, "timestep", position) for position in positions])

    def caption(self, batch: Batch, index: int, sample: Sample) -> str:
        """The text that sample number `index` of the batch is trained with."""
        position = self._position(batch, index)
        return caption(self.recipe.captions, sample.tags, sample.sentence, seed=self.seed, position=position)

    def _position(self, batch: Batch, index: int) -> int:
        return batch.position * self.recipe.batch_size + index
