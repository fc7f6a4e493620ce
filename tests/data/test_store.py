"""A store gives back what was put in, its bytes are the same in two builds, and damage is found."""

import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pytest

from astolfo.data import merkle
from astolfo.data.ingest.run import run
from astolfo.data.store import CAPTIONS, INDEX, Store, tree_leaves, tree_root
from astolfo.data.write import SHARD_ROWS, rebatched, shard_rows
from astolfo.errors import StoreError
from tests.data.conftest import Given, samples


@pytest.fixture
def folder(tmp_path):
    run(Given(samples()), tmp_path / "a")
    return tmp_path / "a"


def test_round_trip(folder):
    """Every sample comes back whole; rows are grouped by bucket."""
    store = Store(folder)
    assert len(store) == 7
    assert store.counts == [3, 4]
    found = [store.sample(row) for row in range(7)]
    assert [one.id for one in found] == ["s1", "s3", "s5", "s0", "s2", "s4", "s6"]
    assert found[1].latents.shape == (4, 12, 20)
    assert (found[1].latents == 3).all()
    assert (found[1].original_size, found[1].crop, found[1].target_size) == ((49, 80), (0, 3), (48, 80))
    assert (found[1].tags, found[1].sentence) == ("tag3", "sentence 3")
    assert [store.find(f"s{index}") for index in range(7)] == [3, 0, 4, 1, 5, 2, 6]


def test_two_builds_are_the_same_files(folder, tmp_path):
    """The same samples give the same bytes in every file of the store, whatever the number of threads; nothing else stays."""
    run(Given(samples()), tmp_path / "b", workers=5)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_half_precision(tmp_path):
    """Latents may be stored in float16, and come back so."""
    run(Given(samples()), tmp_path / "half", dtype="float16")
    assert Store(tmp_path / "half").latents(1).dtype == np.float16
    assert (Store(tmp_path / "half").latents(1) == 3).all()


def test_one_flipped_bit_is_found(folder):
    """`verify` names the file whose bytes are not the manifest's; a part of the store can be verified alone."""
    assert list(Store(folder).verify()) == []
    shard = next(folder.glob("latents-64x64-*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert [line.split(":")[0] for line in Store(folder).verify()] == [str(shard)]
    assert list(Store(folder).verify("latents-48x80-*")) == []
    with pytest.raises(StoreError, match="no file that matches"):
        list(Store(folder).verify("latents-1x1-*"))


def test_a_changed_manifest_is_found(folder):
    """The store's digest covers the manifest: counts, shards and what it says about itself."""
    manifest = json.loads((folder / "store.json").read_text())
    manifest["about"] = {"made by": "another"}
    (folder / "store.json").write_text(json.dumps(manifest))
    assert "expected the root" in next(Store(folder).verify())


def test_the_digest_is_the_root_of_a_tree(folder):
    """What the store is, tables and shards are its leaves, and halves of the tree are trees of their own."""
    manifest = Store(folder).manifest
    leaves = [merkle.leaf(value) for value in tree_leaves(manifest)]
    assert len(leaves) == 1 + 2 + 2
    left, right = merkle.root(leaves[:4]), merkle.root(leaves[4:])
    assert hashlib.sha256(b"\1" + left + right).hexdigest() == tree_root(manifest) == manifest["digest"]


def test_every_leaf_counts():
    """Another leaf, another order, or one more leaf make another root, for trees of any size."""
    roots = set()
    for count in range(1, 20):
        leaves = [merkle.leaf(number) for number in range(count)]
        for index in range(count):
            roots.add(merkle.root([*leaves[:index], merkle.leaf("other"), *leaves[index + 1 :]]))
        roots |= {merkle.root(leaves), merkle.root(leaves[::-1])}
    assert len(roots) == sum(count + 2 for count in range(1, 20)) - 1  # one leaf reversed is itself


def test_a_missing_store_says_what_is_missing(tmp_path):
    """Opening a folder that is no store names the folder and the file it lacks."""
    with pytest.raises(StoreError, match="no dataset store in .*store.json is missing"):
        Store(tmp_path / "nothing")


@pytest.mark.parametrize("name", [INDEX, CAPTIONS])
def test_a_damaged_table_is_an_error(folder, name):
    """A truncated table is reported, not read."""
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(StoreError, match=f"damaged: {name}"):
        Store(folder)


def test_a_truncated_shard_is_an_error(folder):
    """A shard of another size than its manifest says is refused when it is read, by name; so is a missing one."""
    shard = next(folder.glob("latents-48x80-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match=f"{shard.name} is truncated"):
        Store(folder).sample(0)
    shard.unlink()
    with pytest.raises(StoreError, match=f"{shard.name} is missing"):
        Store(folder).sample(0)


def test_another_format_is_refused(folder):
    """A store of an older program says so and what to do."""
    manifest = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(manifest | {"format": 1}))
    with pytest.raises(StoreError, match=r"expected store format 2, found 1.*Make the store again"):
        Store(folder)


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1] * 7, [0, 5, 0, 2]])
def test_a_tables_batches_depend_on_its_rows_alone(sizes):
    """However rows come in, the batches of a table are full but for the last."""
    numbers = iter(range(7))
    batches = [pa.record_batch({"n": [next(numbers) for _ in range(size)]}, pa.schema([("n", pa.int64())])) for size in sizes]
    assert [batch.column(0).to_pylist() for batch in rebatched(batches, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_shards_have_a_sensible_size():
    """Small latents come by the thousands in a shard, large ones by the hundreds."""
    assert shard_rows((4, 12, 12), "float32") == SHARD_ROWS
    assert shard_rows((4, 128, 128), "float32") == 512
    assert shard_rows((4, 128, 128), "float16") == 1024
