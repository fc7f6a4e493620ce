"""Where a dataset's pictures are: drawn, in a folder, in a store, or brought, at each scale by what its entry says."""

from pathlib import Path

import pytest

from astolfo.errors import InputError, LedgerError
from astolfo.ledger.specs import Specs, identity
from astolfo.pins import pin


@pytest.mark.parametrize(
    ("scale", "entry", "kind", "place"),
    [
        ("miniature", {}, "drawn", None),
        ("full", {}, "store", "inputs/pictures"),
        ("miniature", {"folder": "here"}, "drawn", None),
        ("full", {"folder": "here"}, "folder", "config/here"),
        ("full", {"folder": "../there"}, "folder", "there"),
        ("miniature", {"miniature": {"folder": "/some/where"}}, "folder", "/some/where"),
        ("full", {"miniature": {"folder": "/some/where"}}, "store", "inputs/pictures"),
        ("miniature", {"miniature": {"store": "~/it"}}, "store", str(Path("~/it").expanduser())),
    ],
)
def test_each_scale_has_its_place(mine, tmp_path, scale, entry, kind, place):
    """A folder or store of the entry is full scale's, one under `miniature` the miniature's; a path is the ledger's folder's."""
    found = mine(scale, {"pictures": {"images": 200, **entry}}).dataset_source("pictures")
    wanted = "" if place is None else Path(place) if place.startswith("inputs") else tmp_path / place
    assert found == (kind, Path(wanted))


def test_own_pictures_are_as_many_as_the_entry_says(mine):
    """A folder of the miniature has the entry's count, unless it has its own."""
    given = {
        "pictures": {"images": 200, "miniature": {"folder": "x"}},
        "few": {"images": 200, "miniature": {"folder": "x", "images": 7}},
    }
    ledger = mine(datasets=given)
    assert [ledger.dataset(name).images for name in given] == [200, 7]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"folder": "a", "store": "b"}, "one of folder and store"),
        ({"miniature": {"folder": "a", "digest": "0" * 64}}, "a digest is a store's"),
        ({"miniature": {"foldr": "a"}}, "Did you mean folder"),
    ],
)
def test_what_cannot_be_is_refused(mine, entry, message):
    """Two places, a digest of a folder, and a misspelt key are errors at their line."""
    with pytest.raises(LedgerError, match=message):
        mine(datasets={"pictures": {"images": 200, **entry}})


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures, two of which have one name, and a folder of one; a store of five."""
    for name in ("all/a.png", "all/a.JPG", "all/b/a.webp", "all/a.txt", "few/c.png", "store/store.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"images": 5}')
    return tmp_path


@pytest.mark.parametrize(
    ("entry", "images"),
    [
        ({"folder": "../all"}, (2, 2)),
        ({"folder": "../all", "miniature": {"folder": "../few"}}, (2, 1)),
        ({"folder": "../all", "miniature": {"folder": "../few", "images": 7}}, (2, 7)),
        ({"miniature": {"folder": "../few"}}, (1, 1)),
        ({"store": "../store"}, (5, 5)),
        ({"images": 90, "folder": "../all"}, (90, 32)),
        ({"images": 2000, "miniature": {"folder": "../all"}}, (2000, 2)),
        ({"images": 2000, "miniature": {"store": "../store"}}, (2000, 5)),
        ({"images": 2000, "miniature": {"folder": "../gone"}}, (2000, 2000)),
    ],
)
def test_pictures_are_counted_where_nobody_says_how_many(mine, pictures, entry, images):
    """Without `images` a folder's pictures, or a store's samples, are counted: of two of one name one is trained on."""
    assert tuple(mine(scale, {"pictures": entry}).dataset("pictures").images for scale in ("full", "miniature")) == images


def test_a_place_that_is_not_here_is_known(mine, pictures):
    """Of a dataset, or of its parts, the folders and stores that are named at a scale and not here; what is drawn or brought has none."""
    datasets = {
        "pictures": {"parts": {"a": 1, "b": 1}},
        "a": {"images": 9, "folder": "../gone", "miniature": {"folder": "../few"}},
        "b": {"images": 9, "miniature": {"store": "../lost"}},
    }
    assert mine("full", datasets).absent("pictures") == [pictures / "gone"]
    assert mine("miniature", datasets).absent("pictures") == [pictures / "lost"]


def test_what_cannot_be_counted_is_named(mine, pictures):
    """Where there is nothing to count, file, line, place, what is wrong with it and the remedy are said."""
    (pictures / "empty").mkdir()
    for place, why in (("../gone", "is no folder here"), ("../empty", "holds none that can be counted")):
        with pytest.raises(LedgerError, match=rf"datasets\.yaml:1: .*{place[3:]} {why}\. Correct the path, or say images: N\."):
            mine("full", {"pictures": {"folder": place}})


def test_a_folder_that_is_not_there_yet_can_be_planned(mine, tmp_path):
    """A spec needs no files: without the folder what it holds is unknown, and where a folder lies is no part of its identity."""
    ledger = mine(datasets={"pictures": {"images": 1, "miniature": {"folder": "../in"}}})
    before = Specs(ledger, "lock").dataset("pictures")
    assert before["content"] == "unknown"
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_text("picture")
    after = identity(Specs(ledger, "lock").dataset("pictures"))
    assert after != identity(before)
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = mine(datasets={"pictures": {"images": 1, "miniature": {"folder": "../moved"}}})
    assert identity(Specs(moved, "lock").dataset("pictures")) == after


def test_what_the_ledger_names_is_not_pinned(mine, tmp_path):
    """A dataset whose folder or store the ledger names is taken from there, so a pin of it is refused."""
    ledger = mine(datasets={"pictures": {"images": 1, "miniature": {"folder": "../in"}}})
    with pytest.raises(InputError, match="as the folder of pictures"):
        pin(ledger, "pictures", tmp_path, tmp_path)
