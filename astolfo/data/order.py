"""The order of the data: position -> samples, as a function.

An epoch's batches are each of one aspect-ratio bucket; which samples a batch holds and when it comes is computed from
(seed, epoch, position) by two small permutations, in O(1) and without a list of the samples. So any process can ask for
any step, in any order, and a resume needs nothing but the step's number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from astolfo import randomness

_TOGETHER = 32  # steps whose order is computed at once


@dataclass(frozen=True)
class Batch:
    """One micro-batch: the rows of the store it takes (all of one bucket), and where it stands in the run.

    `position` is the absolute number of the batch since the run's data order began; `micro_step` counts the rounds of
    all ranks since then, `epoch` the epochs.
    """

    bucket: int
    rows: np.ndarray
    position: int
    micro_step: int
    epoch: int


@dataclass(frozen=True, kw_only=True)
class Order:
    """The data order of a run. `counts[b]` samples lie in bucket b; rows of a store are grouped by bucket.

    `wraps`: the batches that are missing to give every rank one at an epoch's end are taken from its beginning (what
    accelerate does), instead of leaving those ranks out.
    """

    counts: Sequence[int]
    seed: int
    ranks: int
    batch_size: int
    accumulation: int
    wraps: bool

    @cached_property
    def _batches(self) -> np.ndarray:
        """Cumulative number of batches per bucket."""
        return np.cumsum([-(-count // self.batch_size) for count in self.counts])

    @property
    def batches_per_epoch(self) -> int:
        return int(self._batches[-1])

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.batches_per_epoch // (self.ranks * self.accumulation))

    def step(self, step: int) -> list[list[Batch | None]]:
        """The micro-batches of optimizer step `step` (from 0): `[micro-step][rank]`, None where an epoch's end has none.

        The last step of an epoch has fewer micro-steps when the epoch's batches do not fill them.
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        return self._together(epoch, within - within % _TOGETHER)[within % _TOGETHER]

    @cached_property
    def _together(self) -> Callable[[int, int], list[list[list[Batch | None]]]]:
        """`_block`, which remembers: one block for the trainer, one for the thread that reads ahead of it."""
        return lru_cache(2)(self._block)

    def _block(self, epoch: int, first: int) -> list[list[list[Batch | None]]]:
        """Steps number `first` and after it in an epoch: one call costs little more than one step would."""
        each, count = self.ranks * self.accumulation, self.batches_per_epoch
        last = min(first + _TOGETHER, self.steps_per_epoch)
        places = np.arange(first * each, min(last * each, -(-count // self.ranks) * self.ranks))
        batches = self._batches_at(epoch, places, (epoch * self.steps_per_epoch + first) * each)
        rounds = [batches[at : at + self.ranks] for at in range(0, len(batches), self.ranks)]
        return [rounds[at : at + self.accumulation] for at in range(0, len(rounds), self.accumulation)]

    def _batches_at(self, epoch: int, places: np.ndarray, position: int) -> list[Batch | None]:
        """The batches at `places` of an epoch's order; the first of them has the absolute number `position`."""
        count = self.batches_per_epoch
        shuffled = randomness.permuted(self.seed, f"order of batches, epoch {epoch}", places % count, count)
        buckets = np.searchsorted(self._batches, shuffled, side="right")
        found: list[Batch | None] = [None] * len(places)
        for bucket in set(buckets.tolist()):
            members = np.flatnonzero(buckets == bucket)
            for number, rows in zip(members, self._rows(epoch, bucket, shuffled[members]), strict=True):
                if places[number] < count or self.wraps:
                    at = position + int(number)
                    found[number] = Batch(bucket, rows, at, at // self.ranks, epoch)
        return found

    def _rows(self, epoch: int, bucket: int, batches: np.ndarray) -> list[np.ndarray]:
        """The rows of the store that each of a bucket's `batches` (numbered before shuffling) takes."""
        before = int(self._batches[bucket - 1]) if bucket else 0
        firsts = ((batches - before) * self.batch_size).tolist()
        inside = [np.arange(first, min(first + self.batch_size, self.counts[bucket])) for first in firsts]
        purpose = f"order in bucket {bucket}, epoch {epoch}"
        rows = randomness.permuted(self.seed, purpose, np.concatenate(inside), self.counts[bucket]) + sum(self.counts[:bucket])
        return np.split(rows, np.cumsum([len(one) for one in inside])[:-1])
