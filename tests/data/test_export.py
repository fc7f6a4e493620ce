"""What came in can go out again: to sd-scripts' layout, to a table, and back."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from astolfo.data.export import export_kohya, export_table, recaptioned
from astolfo.data.ingest.kohya import Kohya
from astolfo.data.ingest.run import run
from astolfo.data.store import Store
from astolfo.errors import InputError, StateError, StoreError
from tests.data.conftest import Given, sample, samples


@pytest.fixture
def store(tmp_path):
    run(Given(samples()), tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.mark.parametrize("sized", [False, True])
def test_to_sd_scripts_and_back(store, tmp_path, sized):
    """An exported store imports to the same index, captions and latents, whichever way its files are named."""
    export_kohya(store, tmp_path / "out", sized=sized)
    file = "s1_0080x0048_sdxl.npz" if sized else "s1.npz"
    assert set(np.load(tmp_path / "out" / file, allow_pickle=False)) == {"latents", "original_size", "crop_ltrb"}
    run(Kohya(tmp_path / "out/meta_lat.json", tmp_path / "out"), tmp_path / "again")
    for name in ("index.arrow", "captions.arrow"):
        assert (tmp_path / "again" / name).read_bytes() == (store.folder / name).read_bytes()
    assert Store(tmp_path / "again").manifest["shards"] == store.manifest["shards"]


def test_the_index_is_what_the_trainer_reads(store, tmp_path):
    """Entries have tags, caption and train_resolution as width and height; captions that are empty are left away."""
    run(Given([sample(0), ("a/b", (48, 80), np.zeros((4, 12, 20), np.float32), "", "Größe")]), tmp_path / "two")
    export_kohya(Store(tmp_path / "two"), tmp_path / "out")
    assert json.loads((tmp_path / "out/meta_lat.json").read_text()) == {
        "a/b": {"caption": "Größe", "train_resolution": [80, 48], "image_size": [80, 48]},
        "s0": {"tags": "tag0", "caption": "sentence 0", "train_resolution": [64, 64], "image_size": [64, 64]},
    }
    assert (tmp_path / "out/a/b.npz").exists()
    arrays = np.load(tmp_path / "out/s0.npz", allow_pickle=False)
    assert arrays["latents"].dtype == np.float32
    assert arrays["original_size"].tolist() == [64, 65]


def kohya_ss(key, entry, folder):
    """Where kohya-ss looks for a sample's latents (48d368f, `FineTuningDataset` and `get_latents_npz_path`), from index and files."""
    path = folder / key
    old = path.parent / f"{os.path.splitext(path.name)[0]}.npz"
    width, height = entry["image_size"]
    return old if old.exists() else path.parent / f"{os.path.splitext(path.name)[0]}_{width:04d}x{height:04d}_sdxl.npz"


def fork(key, entry, folder):
    """Where the fork looks for them (6DammK9/sd-scripts, train-native at 42b8d79, with --skip_cache_check), by the key alone."""
    return folder / f"{key}.npz"


@pytest.mark.parametrize(("sized", "readers"), [(False, [kohya_ss, fork]), (True, [kohya_ss])])
def test_that_trainers_readers_find_every_sample(tmp_path, sized, readers):
    """Each reader's naming rule leads from a key to that sample's own latents, in a bucket of their size; dots are no matter."""
    given = [(name, (48, 80), np.full((4, 12, 20), number, np.float32), "t", "") for number, name in
             enumerate(("plain", "d/1", "d.e/2", "3.jpg", "a.b", "a.c", "a", "v1.5/x.y.z", "ünï.1", "with space.2"))]  # fmt: skip
    run(Given(given), tmp_path / "store")
    store = Store(tmp_path / "store")
    export_kohya(store, tmp_path / "out", sized=sized)
    index = json.loads((tmp_path / "out/meta_lat.json").read_text())
    assert len(index) == len(given)
    for reader in readers:
        found = [np.load(reader(key, entry, tmp_path / "out"), allow_pickle=False) for key, entry in index.items()]
        assert sorted(int(one["latents"][0, 0, 0]) for one in found) == list(range(len(given)))
        assert all(entry["image_size"] == entry["train_resolution"] == [80, 48] for entry in index.values())
    run(Kohya(tmp_path / "out/meta_lat.json", tmp_path / "out", factor=4), tmp_path / "again")
    assert (tmp_path / "again/index.arrow").read_bytes() == (store.folder / "index.arrow").read_bytes()


def test_two_ids_that_need_one_name(tmp_path):
    """No sample's latents are put over another's: IDs that the readers cannot tell apart are an error that says so."""
    run(Given([("a.b", *sample(0)[1:]), ("a.b.png", *sample(1)[1:])]), tmp_path / "store")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoreError, match="'a.b' and 'a.b.png' need the same file name"):
        export_kohya(Store(tmp_path / "store"), tmp_path / "out", workers=1)


def test_two_exports_are_the_same_files(store, tmp_path):
    """No date and no order of threads reaches the files, and an export that was killed goes on to the same end."""
    export_kohya(store, tmp_path / "a", workers=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/.astolfo-export").write_text(store.digest + "\n")
    (tmp_path / "b/s0.npz").write_bytes((tmp_path / "a/s0.npz").read_bytes())
    (tmp_path / "b/.s1.npz.part").write_bytes(b"half a fi")
    export_kohya(store, tmp_path / "b", workers=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert not (tmp_path / "b/.astolfo-export").exists()


def test_an_export_minds_what_is_there(store, tmp_path):
    """A finished export is not written over, and another store's unfinished one is not mixed with this one's."""
    export_kohya(store, tmp_path / "a")
    with pytest.raises(InputError, match="is there already"):
        export_kohya(store, tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/.astolfo-export").write_text("another\n")
    with pytest.raises(StateError, match="unfinished export of another store"):
        export_kohya(store, tmp_path / "b")


def test_an_id_that_leads_elsewhere_is_not_exported(tmp_path):
    """A store from elsewhere cannot have anything written outside the export's folder."""
    run(Given([("../x", *sample(0)[1:])]), tmp_path / "store")
    with pytest.raises(StoreError, match="cannot be exported"):
        export_kohya(Store(tmp_path / "store"), tmp_path / "out")
    assert not (tmp_path / "x.npz").exists()


def test_other_captions_share_the_latents(store, tmp_path):
    """A table of captions makes another store: the same latents and index, other captions, another digest; the old one stays."""
    export_table(store, tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet").slice(2, 3)
    assert table.column("id").to_pylist() == ["s5", "s0", "s2"]
    assert table.column("width").to_pylist() == [80, 64, 64]
    edited = table.set_column(table.schema.get_field_index("tags"), "tags", pa.array(["new", "", "newer"]))
    pq.write_table(edited, tmp_path / "edited.parquet")
    digest = recaptioned(store, tmp_path / "edited.parquet", tmp_path / "new")
    new = Store(tmp_path / "new")
    assert list(new.verify()) == []
    assert digest == new.digest != store.digest
    assert [new.captions(row)[0] for row in range(7)] == ["tag1", "tag3", "new", "", "newer", "tag4", "tag6"]
    assert [new.captions(row)[1] for row in range(7)] == [store.captions(row)[1] for row in range(7)]
    shard = store.manifest["shards"][0]["file"]
    assert (tmp_path / "new" / shard).samefile(store.folder / shard)
    assert list(store.verify()) == []


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"id": ["s0", "s1"], "tags": ["a", "b"], "sentence": ["", ""]}, "not in the store's order"),
        ({"id": ["unknown"], "tags": ["a"], "sentence": [""]}, "'unknown' is not in"),
        ({"id": ["s0"], "tags": ["a\0"], "sentence": [""]}, "control character"),
        ({"id": ["s0"], "tags": ["a"]}, "it lacks sentence"),
    ],
)
def test_captions_that_do_not_fit(store, tmp_path, rows, reason):
    """A row that is not the store's, or no caption, is refused by name, and nothing is a store afterwards."""
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    with pytest.raises((InputError, StoreError), match=reason):
        recaptioned(store, tmp_path / "t.parquet", tmp_path / "new")
    assert not (tmp_path / "new/store.json").exists()
