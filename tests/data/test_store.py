"""A store gives back what was put in, its bytes are the same in two builds, and damage is found."""

import numpy as np
import pytest

from astolfo.data.store import NewSample, Store, write_store
from astolfo.errors import StoreError


def sample(index, size):
    latents = np.full((4, size[0] // 4, size[1] // 4), index, np.float32)
    return NewSample(
        id=f"s{index}", latents=latents, bucket=size, original_size=(size[0] + 1, size[1]), crop=(0, index), tags=f"tag{index}",
        sentence=f"sentence {index}",
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_store(tmp_path / "a", [sample(index, ((64, 64), (48, 80))[index % 2]) for index in range(7)], {"made by": "test"})
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


def test_two_builds_are_the_same_files(folder, tmp_path):
    """The same samples give the same bytes in every file of the store."""
    write_store(tmp_path / "b", [sample(index, ((64, 64), (48, 80))[index % 2]) for index in range(7)], {"made by": "test"})
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_one_flipped_bit_is_found(folder):
    """`verify` names the file whose bytes are not the manifest's."""
    assert list(Store(folder).verify()) == []
    shard = next(folder.glob("latents-64x64-*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert [line.split(":")[0] for line in Store(folder).verify()] == [str(shard)]


def test_nan_latents_are_refused(tmp_path):
    """Latents with a NaN are refused by name, and no manifest is written."""
    bad = sample(3, (64, 64))
    bad.latents[0, 0, 0] = np.nan
    with pytest.raises(StoreError, match="NaN or infinity.*s3"):
        write_store(tmp_path / "c", [sample(0, (64, 64)), bad], {})
    assert not (tmp_path / "c" / "store.json").exists()


def test_a_missing_store_says_what_is_missing(tmp_path):
    """Opening a folder that is no store names the folder and the file it lacks."""
    with pytest.raises(StoreError, match="no dataset store in .*missing"):
        Store(tmp_path / "nothing")


def test_a_damaged_index_is_an_error(folder):
    """A truncated index is reported, not read."""
    index = folder / "index.arrow"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(StoreError, match="damaged"):
        Store(folder)
