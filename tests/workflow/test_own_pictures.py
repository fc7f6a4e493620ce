"""Pictures of one's own in the graph: a folder is imported as a job, again when what it holds changed, and at no other time."""

import shutil

import pytest
import yaml
from PIL import Image

from astolfo.checkpoint.safefile import open_file
from astolfo.data.store import Store
from tests.workflow.conftest import jobs, snakemake

STORE = "datasets/pics/store.json"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A ledger of one base and two datasets, a folder of four pictures with tags, and a working directory."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("pictures/sub", "config/runs", "work"):
        (folder / name).mkdir(parents=True)
    for number, name in enumerate(("a", "b", "sub/c", "sub/d")):
        Image.new("RGB", (96, 96), (200, 60 * number, 0)).save(folder / f"pictures/{name}.png")
        (folder / f"pictures/{name}.txt").write_text(f"1girl, {name[-1]}")
    ledger = {
        "bases": {"own": {"objective": "eps"}},
        "datasets": {
            "pics": {"images": 400, "miniature": {"images": 4, "folder": "../pictures"}},
            "stored": {"images": 4, "miniature": {"store": "../store"}},
        },
    }
    (folder / "config/ledger.yaml").write_text(yaml.safe_dump(ledger))
    build(folder, STORE, "bases/own.safetensors")
    return folder


def build(folder, *targets, **options):
    return snakemake(folder / "work", "--cores", "1", *targets, config=[f"ledger={folder / 'config'}"], **options)


def planned(folder, *targets):
    return jobs(build(folder, "--dry-run", *targets).stdout)


def test_a_folder_becomes_the_miniatures_dataset(place):
    """Pictures of 96 pixels are brought to the miniature's 48, and the base is a model of its own with the base's name."""
    store = Store(place / "work/datasets/pics")
    assert len(store) == 4
    assert [(bucket["width"], bucket["height"], bucket["latents"]) for bucket in store.manifest["buckets"]] == [
        (48, 48, [4, 12, 12])
    ]
    with open_file(place / "work/bases/own.safetensors") as file:
        assert file.metadata["modelspec.title"] == "own"


def test_content_decides_staleness(place):
    """A touched picture and another program's file change nothing; a changed caption imports the folder again."""
    (place / "pictures/a.png").touch()
    (place / "pictures/notes.md").write_text("mine")
    assert planned(place, STORE) == {}
    before = (place / "pictures/a.txt").read_text()
    (place / "pictures/a.txt").write_text("2girls")
    assert planned(place, STORE)["dataset_imported"] == 1
    (place / "pictures/a.txt").write_text(before)


def test_a_store_can_be_named_too(place):
    """A store made by hand for the scale is linked; its own digest is what the specs name."""
    shutil.copytree(place / "work/datasets/pics", place / "store", dirs_exist_ok=True)
    build(place, "datasets/stored/store.json")
    assert Store(place / "work/datasets/stored").digest == Store(place / "store").digest


def test_another_number_of_pictures_is_refused(place):
    """The ledger's count is what a run's length follows from, so fewer pictures than it says are an error that says both."""
    moved = (place / "pictures/a.png").rename(place / "a.png")
    try:
        failed = build(place, STORE, check=False)
        assert failed.returncode
        assert "holds 3 pictures, and the ledger says images: 4 for pics" in failed.stdout + failed.stderr
        assert "`miniature.images`" in failed.stdout + failed.stderr
    finally:
        moved.rename(place / "pictures/a.png")
