"""sd-scripts' latents are found under every name that its versions give them, and keys of other machines are made out."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.data.ingest.kohya import Kohya
from astolfo.data.ingest.run import run
from astolfo.data.ingest.source import clean, relocated
from astolfo.data.store import LEFT_OUT, Store


def cache(path, number=1):
    """A `.npz` of 64 x 64 pixels as that trainer writes it; its latents have the value `number`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "latents": np.full((4, 8, 8), number, np.float32),
        "original_size": np.array([70, 70]),
        "crop_ltrb": np.zeros(4, int),
    }
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def imported(tmp_path, index, *, name="meta.json", prefixes=()):
    """ID -> number of the latents, what was left out, and the report, of the caches below tmp_path/data."""
    text = json.dumps(index) if isinstance(index, dict) else index
    (tmp_path / name).write_text(text)
    report = run(Kohya(tmp_path / name, tmp_path / "data", prefixes=prefixes), tmp_path / "out")
    store = Store(tmp_path / "out")
    lines = (tmp_path / "out" / LEFT_OUT).read_text().splitlines() if (tmp_path / "out" / LEFT_OUT).exists() else []
    left = {row["id"]: row["reason"] for row in map(json.loads, lines)}
    return {store.sample(row).id: int(store.latents(row)[0, 0, 0]) for row in range(len(store))}, left, report


T = {"tags": "t", "train_resolution": [64, 64]}
FOUND = {
    "a plain key": ("a/1", T, "a/1.npz", "a/1"),
    "a picture's key": ("a/1.png", T, "a/1.npz", "a/1"),
    "in capital letters": ("IMG2.PNG", T, "IMG2.npz", "IMG2"),
    "a cache in capital letters": ("IMG2.PNG", T, "IMG2.NPZ", "IMG2"),
    "with ./": ("./rel.png", T, "rel.npz", "rel"),
    "with //": ("a//rel.png", T, "a/rel.npz", "a/rel"),
    "with ..": ("x/../rel.png", T, "rel.npz", "rel"),
    "with backslashes": ("a\\rel.png", T, "a/rel.npz", "a/rel"),
    "behind its suffix": ("photo.jpg", T, "photo.jpg.npz", "photo.jpg"),
    "of 3.jpg.png": ("3.jpg", T, "3.jpg.npz", "3.jpg"),
    "sized, without image_size": ("1.png", T, "1_1664x2048_sdxl.npz", "1"),
    "sized, a plain key": ("1", T, "1_1664x2048_sdxl.npz", "1"),
    "sized, with image_size": ("1", T | {"image_size": [1664, 2048]}, "1_1664x2048_sdxl.npz", "1"),
    "sized, of SD 2": ("1", T | {"image_size": [1664, 2048]}, "1_1664x2048_sd.npz", "1"),
    "sized, with another image_size": ("1", T | {"image_size": [1, 2]}, "1_1664x2048_sdxl.npz", "1"),
    "without train_resolution": ("1", {"tags": "t"}, "1_0064x0064_sdxl.npz", "1"),
    "dots in its name": ("v1.5/a.b.c", T, "v1.5/a.b.c.npz", "v1.5/a.b.c"),
    "dots and a suffix": ("a.b.webp", T, "a.b.npz", "a.b"),
    "an .avif": ("1.avif", T, "1.npz", "1"),
    "a .jxl": ("1.JXL", T, "1.npz", "1"),
    "accents in another spelling": ("u\u0308", T, "ü_1664x2048_sdxl.npz", "u\u0308"),
}


@pytest.mark.parametrize("what", FOUND)
def test_latents_are_found_where_that_trainer_keeps_them(tmp_path, what):
    """Whatever the key's form and the cache's name, the sample comes in under its own ID."""
    key, entry, file, name = FOUND[what]
    cache(tmp_path / "data" / file)
    found, left, _ = imported(tmp_path, {key: entry})
    assert (found, left) == ({name: 1}, {})


def test_names_that_are_alike_stay_apart(tmp_path):
    """3.png and 3.jpg.png, photo.jpg and photo.png, 1 and 10: each sample has its own latents, and none is lost."""
    files = {
        "3.npz": 1,
        "3.jpg.npz": 2,
        "photo.jpg.npz": 3,
        "photo.png.npz": 4,
        "1_0064x0064_sdxl.npz": 5,
        "10_0064x0064_sdxl.npz": 6,
    }
    for file, number in files.items():
        cache(tmp_path / "data" / file, number)
    found, left, _ = imported(tmp_path, dict.fromkeys(("3", "3.jpg", "photo.jpg", "photo.png", "1", "10"), T))
    assert (found, left) == ({"3": 1, "3.jpg": 2, "photo.jpg": 3, "photo.png": 4, "1": 5, "10": 6}, {})


def test_several_sizes_need_an_image_size(tmp_path):
    """Where two caches could be meant the sample is left out and told what would say which; SDXL's goes before SD's."""
    for name in ("a_0064x0064_sdxl", "a_0128x0128_sdxl", "b_0064x0064_sdxl", "b_0064x0064_sd"):
        cache(tmp_path / "data" / f"{name}.npz", len(name))
    found, left, _ = imported(tmp_path, {"a": T, "b": T})
    assert found == {"b": 16}
    assert "2 files of latents for it, such as a_0064x0064_sdxl.npz; an image_size would tell which" in left["a"]


LINES = """{"image_path": "1.png", "caption": "a girl", "tags": "t", "image_size": [70, 70]}

{"image_path": "./2.png", "caption": "b"}
{"caption": "no path"}
[1]
{"image_path": "3.png", "caption": "c", "caption": "d"}
{"image_path": 7}
no JSON
{"image_path": "gone.png"}
"""


def test_an_index_by_lines(tmp_path):
    """JSON by lines is read as that trainer reads it, whatever the file is called; a line that is no entry is named by its number."""
    for number in (1, 2, 3):
        cache(tmp_path / f"data/{number}_0070x0070_sdxl.npz", number)
    for name in ("meta.jsonl", "META.JSONL", "meta.json", "meta"):
        found, left, _ = imported(tmp_path, LINES.replace("\n", "\r\n"), name=name)
        assert found == {"1": 1, "2": 2}
        assert Store(tmp_path / "out").captions(0) == ("t", "a girl")
        assert set(left) == {f"{name}:4", f"{name}:5", "3.png", f"{name}:7", f"{name}:8", "gone"}
        (tmp_path / "out" / "store.json").unlink()


@pytest.mark.parametrize(
    ("old", "key"),
    [
        ("C:/set", "C:\\set\\a\\1.png"), ("C:/my set", "C:/my set/a/1.png"), ("/other/place", "/other/place/a/1.png"),
        ("//nas/x", "\\\\nas\\x\\a\\1.png"),
    ],
)  # fmt: skip
def test_keys_of_another_machine(tmp_path, old, key):
    """They are counted under one reason, the report proposes the prefix that would have them found, and it does."""
    cache(tmp_path / "data/a/1.npz", 1)
    cache(tmp_path / "data/b.npz", 2)
    found, left, report = imported(tmp_path, {key: T, "b": T})
    assert (found, len(left)) == ({"b": 2}, 1)
    assert f"--prefix '{old}='" in str(report)
    (tmp_path / "out" / "store.json").unlink()
    for given in (old, f"{old}/", old.replace("/", "\\")):
        for new in ("", str(tmp_path / "data")):
            found, left, report = imported(tmp_path, {key: T, "b": T}, prefixes=[(given, new)])
            assert (found, left, report.hint) == ({"a/1": 1, "b": 2}, {}, "")
            (tmp_path / "out" / "store.json").unlink()


def test_the_command_takes_prefixes(tmp_path):
    """`--prefix OLD=NEW` may be repeated; anything else is refused with an example."""
    cache(tmp_path / "data/1.npz")
    (tmp_path / "meta.json").write_text(json.dumps({"C:\\set\\1.png": T}))
    words = ["dataset", "import", "kohya", str(tmp_path / "meta.json"), str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code
    assert "--prefix 'C:/set='" in (str(done.exception) + done.output)
    assert "expected OLD=NEW" in CliRunner().invoke(cli, [*words, "--prefix", "C:"]).output
    done = CliRunner().invoke(cli, [*words, "--prefix", "D:/x=y", "--prefix", "C:\\set="], catch_exceptions=False)
    assert "1 samples, 0 left out" in done.output


@pytest.mark.parametrize(
    ("path", "expected"),
    [("./a", "a"), ("a//b", "a/b"), ("a/./b", "a/b"), ("a/../b", "b"), ("../a", "../a"), ("a/../../b", "../b"), ("/a/../b", "/b"),
     ("a/", "a"), ("..a", "..a"), ("", ""), (".", ".")],
)  # fmt: skip
def test_paths_are_made_plain(path, expected):
    """What leads nowhere else is taken out; what leads out still does, and is refused later."""
    assert clean(path) == expected


def test_a_prefix_is_whole_folders():
    """C:/set is no prefix of C:/settings."""
    assert relocated("C:/settings/1.png", [("C:/set", "x")]) == "C:/settings/1.png"
    assert relocated("C:/set/1.png", [("C:/set", "x/")]) == "x/1.png"
