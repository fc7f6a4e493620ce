"""The order of the data is a function of (seed, epoch, position), complete and bucket-homogeneous."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from astolfo.data.order import Order


def order(counts, **changes):
    options = {"seed": 1, "ranks": 4, "batch_size": 1, "accumulation": 4, "wraps": False} | changes
    return Order(counts=counts, **options)


def epoch(found, number=0):
    """All batches of one epoch, None left out."""
    steps = range(number * found.steps_per_epoch, (number + 1) * found.steps_per_epoch)
    return [batch for step in steps for row in found.step(step) for batch in row if batch is not None]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_epoch_takes_every_sample_once(batch_size):
    """Without wrapping, an epoch is a permutation of the dataset."""
    found = order([20, 1, 35], batch_size=batch_size)
    rows = np.concatenate([batch.rows for batch in epoch(found)])
    assert sorted(rows.tolist()) == list(range(56))


def test_batches_are_of_one_bucket():
    """All samples of a batch have one shape."""
    cuts = np.cumsum([20, 1, 35])
    for batch in epoch(order([20, 1, 35], batch_size=4)):
        assert {int(np.searchsorted(cuts, row, side="right")) for row in batch.rows} == {batch.bucket}


def test_epochs_differ():
    """The second epoch has another order than the first."""
    found = order([64])
    assert [b.rows.tolist() for b in epoch(found, 0)] != [b.rows.tolist() for b in epoch(found, 1)]


def test_ranks_and_accumulation_only_regroup():
    """The samples of an epoch come in the same sequence however they are dealt out to ranks and micro-steps."""
    sequences = [
        [b.rows.tolist() for b in epoch(order([64], ranks=r, accumulation=a))] for r, a in ((1, 1), (4, 4), (2, 8), (1, 16))
    ]
    assert all(sequence == sequences[0] for sequence in sequences)


def test_a_step_is_the_same_whoever_asks():
    """Any step can be asked for alone, which is all that a resume needs."""
    walked = [order([100, 30]).step(step) for step in range(12)]
    asked = order([100, 30]).step(9)
    assert [[b.rows.tolist() for b in row] for row in walked[9]] == [[b.rows.tolist() for b in row] for row in asked]


def test_the_last_step_of_an_epoch_is_short():
    """Batches that do not fill a step make a shorter one; missing ranks stay empty, or wrap to the epoch's start."""
    short = order([21]).step(1)
    assert [[batch is not None for batch in row] for row in short] == [[True] * 4, [True, False, False, False]]
    wrapped = order([21], wraps=True).step(1)
    first = [batch.rows.tolist() for batch in order([21]).step(0)[0]]
    assert [batch.rows.tolist() for batch in wrapped[1][1:]] == first[:3]


def test_steps_of_the_production_run():
    """12,446,670 images at 4 x 1 x 4 make 777,917 steps an epoch."""
    assert order([12_446_670]).steps_per_epoch == 777_917


@pytest.mark.parametrize("wraps", [False, True])
def test_accumulation_may_exceed_an_epoch(wraps):
    """4 ranks x 64 micro-batches of 32 images: one short step an epoch, of 8 rounds."""
    found = order([12, 20], accumulation=64, wraps=wraps)
    assert found.steps_per_epoch == 1
    assert [[len(row) for row in found.step(step)] for step in range(3)] == [[4] * 8] * 3
    for number in range(3):
        assert sorted(np.concatenate([batch.rows for batch in epoch(found, number)]).tolist()) == list(range(32))
    assert [b.position for b in epoch(found, 1)] == list(range(256, 288))


@pytest.mark.parametrize("accumulation", [1, 4, 16, 64])
def test_positions_are_never_used_twice(accumulation):
    """Absolute positions of batches differ over epochs, so the numbers keyed by them do."""
    found = order([30, 7], accumulation=accumulation, batch_size=4)
    positions = [batch.position for number in range(3) for batch in epoch(found, number)]
    assert len(set(positions)) == len(positions) == 3 * 10


@pytest.mark.parametrize(("batch_size", "sizes"), [(2, [1, 2, 2, 2, 2]), (4, [1, 4, 4]), (64, [4, 5])])
def test_a_buckets_last_batch_is_short(batch_size, sizes):
    """The samples that do not fill a bucket's last batch make a smaller one; none is dropped or filled up."""
    found = order([5, 4], batch_size=batch_size, ranks=1, accumulation=1)
    assert sorted(len(batch.rows) for batch in epoch(found)) == sizes


def test_wrapping_fills_an_epoch_smaller_than_the_ranks():
    """Four ranks and three batches: the missing rank repeats the epoch's first batch, or has none."""
    wrapped = order([3], wraps=True).step(0)
    assert [batch.rows.tolist() for batch in wrapped[0]][3] == wrapped[0][0].rows.tolist()
    assert order([3]).step(0)[0][3] is None


def test_threads_may_ask_for_steps_at_once():
    """The thread that reads ahead and the trainer ask the same order, for steps far apart too, and each gets its own."""
    found, steps = order([20, 1, 35]), [0, 400, 31, 32, 1000, 63, 5, 64] * 20
    wanted = [repr(order([20, 1, 35]).step(step)) for step in steps]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda step: repr(found.step(step)), steps)) == wanted
