"""Reading ahead: one thread finds out the next step's samples and fetches them while this step is computed.

What is read ahead decides no bit: a batch that was not fetched is read when it is asked for. A step's samples are all that is
held; everything else is the page cache's.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from astolfo.data.order import Batch, Order
from astolfo.data.store import Sample, Store

Rounds = list[list[Batch | None]]
Fetched = dict[tuple[int, ...], list[Sample]]


class Reader:
    """The steps of an order with the samples that the logical `ranks` of this process take.

    Its thread starts with the first step, so after any fork.
    """

    def __init__(self, store: Store, order: Order, ranks: Iterable[int]):
        self.store, self.order, self.ranks = store, order, tuple(ranks)
        self._thread: ThreadPoolExecutor | None = None
        self._coming: tuple[int, Future[tuple[Rounds, Fetched]]] | None = None
        self._here: Fetched = {}

    def step(self, step: int) -> Rounds:
        """The micro-batches of a step, as the order has them; the step after it is fetched from now on."""
        if self._coming and self._coming[0] == step:
            rounds, self._here = self._coming[1].result()
        else:
            rounds, self._here = self.order.step(step), {}
        self._thread = self._thread or ThreadPoolExecutor(1, "astolfo-reader")
        self._coming = step + 1, self._thread.submit(self._fetch, step + 1)
        return rounds

    def samples(self, batch: Batch) -> list[Sample]:
        """The samples of a batch."""
        return self._here.get(tuple(batch.rows.tolist())) or self._read(batch)

    def _read(self, batch: Batch) -> list[Sample]:
        return [self.store.sample(row) for row in batch.rows.tolist()]

    def _fetch(self, step: int) -> tuple[Rounds, Fetched]:
        rounds = self.order.step(step)
        self.store.let_go()
        mine = (batch for row in rounds for batch in (row[rank] for rank in self.ranks) if batch is not None)
        return rounds, {tuple(batch.rows.tolist()): self._read(batch) for batch in mine}
