"""Datasets joined into one: every sample of the parts, their latents shared, some of them more often in an epoch."""

import os
from collections import Counter

import numpy as np
import pytest

from astolfo.data.ingest.run import run
from astolfo.data.join import Part, Repeated, both_ways, join
from astolfo.data.order import Order
from astolfo.data.store import Store
from astolfo.errors import StoreError
from tests.data.conftest import Given, sample


def store_of(folder, sizes, **options):
    """A store with one sample of each size."""
    run(Given([sample(index, size) for index, size in enumerate(sizes)]), folder, **options)
    return folder


SIZES = {"one": [(64, 64), (64, 64), (48, 64)], "two": [(64, 48), (64, 64)]}


@pytest.fixture
def joined(tmp_path):
    """The store of part `one`, three times an epoch, and part `two`, once."""
    parts = [
        Part(name=name, folder=store_of(tmp_path / name, sizes), repeats={"one": 3, "two": 1}[name])
        for name, sizes in SIZES.items()
    ]
    join(tmp_path / "mix", parts)
    return tmp_path


def test_it_has_every_sample_once(joined):
    """Buckets are those of all parts; every sample is there with its latents, captions and sizes, under its part's name."""
    store = Store(joined / "mix")
    assert {(b["height"], b["width"]): b["count"] for b in store.buckets} == {(48, 64): 1, (64, 48): 1, (64, 64): 3}
    found = {store.sample(row).id: store.sample(row) for row in range(len(store))}
    for name in SIZES:
        part = Store(joined / name)
        for row in range(len(part)):
            own = part.sample(row)
            there = found.pop(f"{name}/{own.id}")
            assert np.array_equal(there.latents, own.latents)
            assert (there.tags, there.sentence, there.original_size, there.crop, there.target_size) == (
                own.tags, own.sentence, own.original_size, own.crop, own.target_size,
            )  # fmt: skip
    assert not found
    assert not list(store.verify())


def test_latents_are_shared(joined):
    """Its shards are the parts' files under other names: no byte of them is written again."""
    own = {os.stat(file).st_ino for name in SIZES for file in (joined / name).glob("latents-*")}
    assert {os.stat(file).st_ino for file in (joined / "mix").glob("latents-*")} == own
    assert all(".astolfo" not in file.name for file in (joined / "mix").iterdir())


def test_an_epoch_takes_each_as_often_as_its_part_repeats(joined):
    """Over an epoch of the data order every sample of part `one` comes three times, of `two` once, in batches of one bucket."""
    counted = Repeated(Store(joined / "mix"))
    assert len(counted) == 3 * 3 + 2
    order = Order(counts=counted.counts, seed=1, ranks=1, batch_size=2, accumulation=1, wraps=False)
    batches = [order.step(step)[0][0] for step in range(order.steps_per_epoch)]
    found = [[counted.sample(row) for row in batch.rows.tolist()] for batch in batches]
    seen = Counter(sample.id for batch in found for sample in batch)
    assert {name: {count for one, count in seen.items() if one.startswith(name)} for name in SIZES} == {"one": {3}, "two": {1}}
    assert len(seen) == 5
    assert all(len({sample.target_size for sample in batch}) == 1 for batch in found)


def test_another_store_counts_each_once(joined):
    """A store that is not joined is what it was: every place of the count is its row."""
    store = Store(joined / "one")
    counted = Repeated(store)
    assert counted.counts == store.counts
    assert [counted.row(place) for place in range(len(counted))] == list(range(len(store)))


def test_repeats_and_parts_decide_the_digest(joined):
    """The same parts make the same store; other repeats, or another order of parts, another one."""

    def digest(*parts):
        return join(joined / "again", [Part(name=name, folder=joined / name, repeats=repeats) for name, repeats in parts])

    first = Store(joined / "mix").digest
    assert digest(("one", 3), ("two", 1)) == first
    assert digest(("one", 2), ("two", 1)) != first
    assert digest(("two", 1), ("one", 3)) != first


def test_latents_that_do_not_fit_together_are_refused(joined):
    """Parts whose latents have another dtype are refused with both dtypes, and nothing that looks like a store is left."""
    store_of(joined / "three", [(64, 64)], dtype="float16")
    parts = [Part(name=name, folder=joined / name) for name in ("one", "three")]
    with pytest.raises(StoreError, match="three has latents of dtype float16 .* another part has float32"):
        join(joined / "bad", parts)
    assert not (joined / "bad").exists()


class Both(Given):
    """Samples whose mirror has the negative of their latents, so that a test can tell the two."""

    def __init__(self, samples, mirrored):
        super().__init__([(name, size, -latents if mirrored else latents, *texts) for name, size, latents, *texts in samples])


SAMPLES = [sample(index, size) for index, size in enumerate([(64, 64), (48, 64), (64, 64), (48, 64), (64, 64)], 1)]


@pytest.fixture
def both(tmp_path):
    """A store of five samples and their mirrors."""
    both_ways(tmp_path / "both", lambda folder, mirrored: run(Both(SAMPLES, mirrored), folder), {"made by": "test"})
    return tmp_path / "both"


def test_mirrors_are_not_counted(both):
    """An epoch has each picture once; each is there both ways round, under its own ID; nothing else stays beside the store."""
    counted = Repeated(Store(both))
    assert counted.mirrored
    assert len(counted) == 5
    for place in range(5):
        one, other = counted.sample(place), counted.sample(place, mirrored=True)
        assert other.id == f"mirrored/{one.id}"
        assert np.array_equal(one.latents, -other.latents)
        assert (one.tags, one.target_size) == (other.tags, other.target_size)
    assert [path.name for path in both.parent.iterdir()] == ["both"]
    assert not list(Store(both).verify())


def test_a_joined_part_keeps_its_mirrors(both, tmp_path):
    """Among other parts, and repeated, its samples still have mirrors, and the others have none."""
    plain = store_of(tmp_path / "plain", [(64, 64), (64, 48)])
    join(tmp_path / "mix", [Part(name="plain", folder=plain, repeats=2), Part(name="both", folder=both, repeats=3)])
    counted = Repeated(Store(tmp_path / "mix"))
    assert len(counted) == 2 * 2 + 5 * 3
    for place in range(len(counted)):
        one, other = counted.sample(place), counted.sample(place, mirrored=True)
        if one.id.startswith("plain/"):
            assert other.id == one.id
        else:
            assert other.id == one.id.replace("both/", "both/mirrored/")
            assert np.array_equal(one.latents, -other.latents)


def test_another_store_has_no_mirrors(joined):
    """Of a store without mirrors every sample is itself, either way."""
    counted = Repeated(Store(joined / "mix"))
    assert not counted.mirrored
    assert [counted.row(place, True) for place in range(len(counted))] == [counted.row(place) for place in range(len(counted))]


def test_other_pictures_are_no_mirror(joined):
    """A store of other samples is refused as a mirror."""
    parts = [Part(name="", folder=joined / "one"), Part(name="mirrored", folder=joined / "two", repeats=0, mirrors=0)]
    with pytest.raises(StoreError, match="two is no mirror of .*one: it has other samples"):
        join(joined / "bad", parts)
