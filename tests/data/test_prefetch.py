"""Reading ahead changes what is waited for, and nothing else."""

import threading

import numpy as np
import pytest

from astolfo.data.ingest.run import run
from astolfo.data.order import Order
from astolfo.data.prefetch import Reader
from astolfo.data.store import Store
from astolfo.errors import StoreError
from tests.data.conftest import Given, samples


@pytest.fixture
def store(tmp_path):
    run(Given(samples(23)), tmp_path / "store")
    return Store(tmp_path / "store")


def order(store, **changes):
    options = {"seed": 3, "ranks": 4, "batch_size": 1, "accumulation": 2, "wraps": False} | changes
    return Order(counts=store.counts, **options)


def plain(batches, samples):
    """The samples as they are."""
    assert len(batches) == len(samples)
    return samples


@pytest.mark.parametrize("steps", [range(7), (2, 3, 9, 4, 4, 0)])
@pytest.mark.parametrize("changes", [{}, {"batch_size": 3, "wraps": True}])
def test_the_same_samples_as_without(store, steps, changes):
    """Walked through or jumped about in, an order's steps and their samples are those that a plain reading gives."""
    found = order(store, **changes)
    reader = Reader(store, found, range(1, 3), plain)
    for step in steps:
        rounds = reader.step(step)
        assert str(rounds) == str(found.step(step))
        for batch in (batch for row in rounds for batch in row if batch is not None):
            given = reader.batch(batch)
            assert [one.id for one in given] == [store.sample(row).id for row in batch.rows.tolist()]
            assert all(
                np.array_equal(one.latents, store.latents(row)) for one, row in zip(given, batch.rows.tolist(), strict=True)
            )


def test_a_step_is_there_before_it_is_asked_for(store):
    """While one step is worked on, the samples of the next are read, those of this process's ranks alone."""
    reader = Reader(store, order(store), range(2), plain)
    reader.step(0)
    reader._coming[1].result()
    asked = []
    store.sample = lambda row: asked.append(row)
    rounds = reader.step(1)
    reader._coming[1].result()
    asked.clear()
    for row in rounds:
        for rank in range(2):
            assert len(reader.batch(row[rank])) == 1
    assert asked == []


def test_damage_is_met_where_it_is(store, tmp_path):
    """What the thread could not read is an error in the step that needs it, not in the one before."""
    reader = Reader(store, order(store), range(4), plain)
    for shard in (tmp_path / "store").glob("latents-*"):
        shard.unlink()
    reader.step(0)
    with pytest.raises(StoreError, match="is missing"):
        reader.step(1)


def test_several_threads_wait_at_once(store):
    """With several threads as many of a step's micro-batches are being read at the same moment, and they are the same ones."""
    together, met = threading.Barrier(4), threading.Event()

    def take(batch):
        if not met.is_set():
            together.wait()  # nobody passes alone
            met.set()
        return [store.sample(row) for row in batch.rows.tolist()]

    found = order(store)
    reader = Reader(store, found, range(4), plain, take, threads=4)
    reader.step(0)
    reader._coming[1].result()
    for batch in (batch for row in reader.step(1) for batch in row):
        assert [one.id for one in reader.batch(batch)] == [store.sample(row).id for row in batch.rows.tolist()]
