"""Reading ahead: a thread finds out the next step's samples, fetches them and makes them ready while this step is computed.

What is read ahead decides no bit: a batch that was not fetched is read when it is asked for. What is
held is the samples of this step and the next one; everything else is the page cache's.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from astolfo.data.join import Repeated
from astolfo.data.order import Batch, Order
from astolfo.data.store import Sample, Store

Rounds = list[list[Batch | None]]
Ready = TypeVar("Ready")


class Reader(Generic[Ready]):
    """The steps of an order with the samples that the logical `ranks` of this process take, as `prepare` makes them ready.

    `prepare` gets some micro-batches and the samples of each, which `take` takes from the store (by default as they
    are), and gives back one thing for each. Its thread starts with the
    first step, so after any fork. With more than one of `threads` a step's micro-batches are fetched side by side, so that a slow
    disk is asked for several at once.
    """

    def __init__(
        self, store: Store | Repeated, order: Order, ranks: Iterable[int],
        prepare: Callable[[Sequence[Batch], Sequence[Sequence[Sample]]], Sequence[Ready]],
        take: Callable[[Batch], list[Sample]] | None = None, threads: int = 1,
    ):  # fmt: skip
        self.store, self.order, self.ranks, self.prepare = store, order, tuple(ranks), prepare
        self._read = take or self._plain
        self._threads = threads
        self._thread: ThreadPoolExecutor | None = None
        self._beside: ThreadPoolExecutor | None = None
        self._coming: tuple[int, Future[tuple[Rounds, dict[int, Ready]]]] | None = None
        self._here: dict[int, Ready] = {}  # by the batch's position

    def step(self, step: int) -> Rounds:
        """The micro-batches of a step, as the order has them; the step after it is fetched from now on."""
        if self._coming and self._coming[0] == step:
            rounds, self._here = self._coming[1].result()
        else:
            rounds, self._here = self.order.step(step), {}
        self._thread = self._thread or ThreadPoolExecutor(1, "astolfo-reader")
        self._coming = step + 1, self._thread.submit(self._fetch, step + 1)
        return rounds

    def batch(self, batch: Batch) -> Ready:
        """A micro-batch's samples, made ready."""
        if batch.position in self._here:
            return self._here[batch.position]
        return self.prepare([batch], [self._read(batch)])[0]

    def _plain(self, batch: Batch) -> list[Sample]:
        return [self.store.sample(row) for row in batch.rows.tolist()]

    def _fetch(self, step: int) -> tuple[Rounds, dict[int, Ready]]:
        rounds = self.order.step(step)
        self.store.release()
        mine = [batch for row in rounds for batch in (row[rank] for rank in self.ranks) if batch is not None]
        if self._threads > 1:
            self._beside = self._beside or ThreadPoolExecutor(self._threads, "astolfo-loader")
        samples = list((self._beside.map if self._beside else map)(self._read, mine))
        ready = self.prepare(mine, samples)
        return rounds, {batch.position: one for batch, one in zip(mine, ready, strict=True)}
