"""sd-scripts' own layout comes in as it is on disk, and goes out again; what cannot be used is listed and harms nothing."""

import io
import json
import os
import re
import struct
import zipfile

import numpy as np
import pytest

from astolfo.data.ingest.bucketing import letterbox
from astolfo.data.ingest.json_stream import _LARGEST, members
from astolfo.data.ingest.kohya import Kohya
from astolfo.data.ingest.run import run
from astolfo.data.ingest.source import LeftOut
from astolfo.data.store import LEFT_OUT, Store
from astolfo.errors import InputError


def latents(index, width, height):
    return np.random.Generator(np.random.PCG64(index)).standard_normal((4, height // 8, width // 8), np.float32)


def save(path, index, bucket, original, suffix=""):
    """A `.npz` exactly as that trainer's cache writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = bucket
    arrays = {
        "latents": latents(index, width, height), "original_size": np.array(original),
        "crop_ltrb": np.array(letterbox(*original, bucket)),
    }  # fmt: skip
    np.savez(path, **{name + suffix: array for name, array in arrays.items()})


@pytest.fixture
def data(tmp_path):
    """Six samples: both forms of keys in the .npz, sub-folders, tags, a caption, both."""
    folder = tmp_path / "data"
    save(folder / "danbooru/1.npz", 1, (64, 96), (1000, 1501))
    save(folder / "danbooru/2.npz", 2, (96, 64), (1501, 1000), suffix="_8x12")
    save(folder / "e621/1.npz", 3, (64, 64), (64, 64))
    save(folder / "e621/2_0700x0701_sdxl.npz", 4, (64, 64), (700, 701), suffix="_8x8")
    save(folder / "e621/3.npz", 5, (64, 96), (640, 970))
    save(folder / "e621/4.npz", 6, (96, 64), (960, 640))
    index = {
        "danbooru/1": {"tags": "1girl, solo", "train_resolution": [64, 96]},
        "danbooru/2": {"caption": "a girl\non two lines", "train_resolution": [96, 64]},
        "e621/1.png": {"tags": "1boy", "caption": "a böy – ⚡", "train_resolution": [64, 64]},
        "e621/2": {"tags": "star", "train_resolution": [64, 64], "image_size": [700, 701]},
        str(folder / "e621/3.webp"): {"tags": "absolute", "train_resolution": [64, 96]},
        "e621/4": {"tags": "its .npz is asked for its size"},
    }
    (tmp_path / "meta_lat.json").write_text(json.dumps(index, indent=2))
    return tmp_path


def imported(data, name="store", **options):
    """The store of what lies there, and what was left out: ID -> reason."""
    run(Kohya(data / "meta_lat.json", data / "data"), data / name, **options)
    path = data / name / LEFT_OUT
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return Store(data / name), {row["id"]: row["reason"] for row in rows}


def reindexed(data, text):
    (data / "meta_lat.json").write_text(text, errors="surrogatepass")


def added(data, key, entry):
    """Adds a member to the index."""
    index = json.loads((data / "meta_lat.json").read_text())
    reindexed(data, json.dumps(index | {key: entry}))


def test_every_sample_comes_in_whole(data):
    """Latents to the bit, sizes and crops in the order of the trainer's conditioning, captions, IDs; nothing left out."""
    store, left = imported(data)
    assert left == {}
    assert [(b["height"], b["width"], b["count"]) for b in store.buckets] == [(64, 64, 2), (64, 96, 2), (96, 64, 2)]
    found = {one.id: one for one in map(store.sample, range(6))}
    assert set(found) == {"danbooru/1", "danbooru/2", "e621/1", "e621/2", "e621/3", "e621/4"}
    one = found["danbooru/1"]
    assert np.array_equal(one.latents, latents(1, 64, 96))
    assert (one.original_size, one.crop, one.target_size) == ((1501, 1000), (0, 0), (96, 64))
    assert found["e621/3"].original_size == (970, 640)
    assert (found["danbooru/2"].tags, found["danbooru/2"].sentence) == ("", "a girl\non two lines")
    assert found["e621/1"].sentence == "a böy – ⚡"
    assert np.array_equal(found["e621/2"].latents, latents(4, 64, 64))


def test_the_samples_tell_how_many_pixels_a_latent_has(data):
    """Most of the first samples decide; another number that is given is refused with the sizes; a bad one is no witness."""
    index = {f"half/{n}": {"tags": "a", "train_resolution": [32, 48]} for n in range(4)}
    for n in range(3):
        save(data / f"data/half/{n}.npz", n, (64, 96), (64, 96))  # latents of half as many pixels
    save(data / "data/half/3.npz", 3, (32, 48), (32, 48))
    reindexed(data, json.dumps({"half/4": 7, "half/5": {"train_resolution": [32, 48]}, **index}))
    store, left = imported(data)
    assert Store(store.folder).buckets[0]["latents"] == [4, 12, 8]
    assert set(left) == {"half/3", "half/4", "half/5"}
    said = r"expected 8 pixels per latent, as --factor says, found 4: half/0 has 32x48 pixels and 8x12 latents.*say --factor 4"
    with pytest.raises(InputError, match=said):
        Kohya(data / "meta_lat.json", data / "data", factor=8)
    assert Kohya(data / "meta_lat.json", data / "data", factor=4).factor == 4
    reindexed(data, json.dumps({"half/0": {"tags": "a"}}))
    assert Kohya(data / "meta_lat.json", data / "data").factor == 8


def test_the_index_alone_decides_the_order(data):
    """Inside a bucket samples stand in the order of the index."""
    store, _ = imported(data)
    assert [store.sample(row).id for row in range(6)] == [
        "e621/1", "e621/2", "danbooru/2", "e621/4", "danbooru/1", "e621/3",
    ]  # fmt: skip


def zipped(**members_):
    """The bytes of a zip with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members_.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def damaged(data, index=3):
    """The bytes of a good .npz with a bit flipped inside its latents."""
    content = bytearray((data / "data/danbooru/1.npz").read_bytes())
    content[300 + index] ^= 1
    return bytes(content)


SIZES = {"original_size": npy(np.array([64, 96])), "crop_ltrb": npy(np.array([0, 0, 64, 96]))}
PICKLE = npy(np.zeros((4, 12, 8))).replace(b"'<f8'", b"'|O' ")
NAN = np.full((4, 12, 8), np.nan, np.float32)
HOSTILE = {
    "a flipped bit": (damaged, "damaged: Bad CRC-32"),
    "truncated": (lambda data: damaged(data)[:900], "damaged: File is not a zip file"),
    "empty": (lambda data: b"", "0 bytes"),
    "no zip": (lambda data: b"\x80\x05pickle" * 99, "not a zip file"),
    "a zip bomb": (lambda data: zipped(latents=b"\0" * 50_000_000, **SIZES), "latents of 50,000,000 bytes.*not unpacked"),
    "ten thousand members": (lambda data: zipped(**{f"a{i}": b"" for i in range(10_000)}), "10,000 members"),
    "a pickle": (lambda data: zipped(latents=PICKLE, **SIZES), "no plain array of numbers"),
    "no latents": (lambda data: zipped(**SIZES), "no latents or latents_12x8"),
    "no sizes": (lambda data: zipped(latents=npy(np.zeros((4, 12, 8), np.float32))), "no original_size"),
    "another shape": (lambda data: zipped(latents=npy(np.zeros((4, 8, 12), np.float32)), **SIZES), r"shape \[4, 8, 12\]"),
    "NaN": (lambda data: zipped(latents=npy(NAN), **SIZES), "NaN, infinity or a number beyond float32"),
    "a mad size": (lambda data: zipped(latents=npy(np.zeros((4, 12, 8), np.float32)), **SIZES
                                       | {"original_size": npy(np.array([1e30, np.inf]))}), "original_size in its .npz is"),
    "a mad header": (lambda data: zipped(latents=b"\x93NUMPY\x01\x00\xf0\x00" + b"(" * 240, **SIZES), "no readable header"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_npz_is_listed_and_the_rest_stays(data, what):
    """Damaged, oversized, foreign: the sample is left out with its reason, all others are there."""
    make, reason = HOSTILE[what]
    (data / "data/danbooru/1.npz").write_bytes(make(data))
    store, left = imported(data)
    assert len(store) == 5
    assert list(left) == ["danbooru/1"]
    assert re.search(reason, left["danbooru/1"]), left


def test_a_bad_npz_that_is_asked_for_its_size_is_listed(data):
    """A damaged sample without a train_resolution is left out, too."""
    (data / "data/e621/4.npz").write_bytes(damaged(data))
    assert "its .npz is damaged: Bad CRC-32" in imported(data)[1]["e621/4"]


def test_a_missing_npz_is_listed(data):
    """An index may name more than there is."""
    (data / "data/e621/1.npz").unlink()
    assert imported(data)[1] == {"e621/1": "its .npz is missing"}


DEEP = "[" * 100_000 + "]" * 100_000
ENTRIES = {
    "path traversal": ("../outside", {"tags": "a"}, "leads out of the data's folder"),
    "an absolute path": ("/etc/passwd", {"tags": "a"}, "leads out of the data's folder"),
    "a long ID": ("x" * 5000, {"tags": "a"}, "1 to 1024 bytes"),
    "a control character": ("a\u0000b", {"tags": "a"}, "control characters"),
    "a caption of 1 MB": ("danbooru/9", {"caption": "x" * (1 << 20)}, "more than 65,536 characters"),
    "a tag with a bell": ("danbooru/9", {"tags": "a\u0007b"}, r"control character U\+0007 in the tags"),
    "half a character": ("danbooru/9", {"tags": "\ud800"}, "not valid Unicode"),
    "tags of another type": ("danbooru/9", {"tags": {"a": 1}}, "expected text as tags, found dict"),
    "no object": ("danbooru/9", 7, "expected an object"),
    "no bucket": ("danbooru/9", {"tags": "a", "train_resolution": [-1, 64]}, "two numbers as train_resolution"),
    "a crooked bucket": ("danbooru/9", {"tags": "a", "train_resolution": [65, 64]}, "no multiple of 8"),
    "another bucket": ("danbooru/1", {"tags": "a", "train_resolution": [64, 64]}, r"shape \[4, 12, 8\] in its .npz"),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_a_bad_entry_is_listed_and_the_rest_stays(data, what):
    """Entries that lead elsewhere, or say what cannot be, are left out with their reason; nothing is written outside the store."""
    key, entry, reason = ENTRIES[what]
    added(data, key, entry)
    before = {path for path in data.rglob("*")}
    store, left = imported(data)
    assert len(store) >= 5
    assert len(left) == 1
    assert re.search(reason, next(iter(left.values()))), left
    assert {path for path in data.rglob("*") if data / "store" not in (path, path.parent)} == before


def test_nesting_of_any_depth_is_passed_over(data):
    """An entry that is nested too deeply, inside a window or over many, is left out; what follows is read."""
    text = (data / "meta_lat.json").read_text().rstrip().rstrip("}")
    for deep in (DEEP, '{"a":' * 400_000 + '"]}"' + "}" * 400_000, "[" * (_LARGEST + 9) + "]" * (_LARGEST + 9)):
        reindexed(data, f'{text}, "deep": {deep}, "e621/9": {{"tags": "after"}} }}')
        found = list(members(data / "meta_lat.json"))
        assert len(found) == 8
        assert isinstance(found[6], LeftOut)
        assert "nested too deeply" in found[6].reason or "is larger than" in found[6].reason
        assert found[7] == ("e621/9", {"tags": "after"})


def test_strings_of_any_length_are_passed_over(data, monkeypatch):
    """A value of megabytes is left out and what follows is read; a key like that ends the reading, with a word."""
    monkeypatch.setattr("astolfo.data.ingest.json_stream._WINDOW", 1 << 16)
    long = json.dumps('brackets }]{[ and "quotes" \\ \n' * 90_000)
    reindexed(data, f'{{"a": {{"tags": {long}, "x": [{{"y": {long}}}, {{}}]}}, "b": {long}, "e621/9": {{"tags": "after"}}}}')
    found = list(members(data / "meta_lat.json"))
    assert [isinstance(one, LeftOut) for one in found] == [True, True, False]
    assert "is larger than 2,097,152 characters" in found[0].reason
    assert found[2] == ("e621/9", {"tags": "after"})
    reindexed(data, f'{{"e621/9": {{"tags": "before"}}, {long}: {{}}}}')
    found = list(members(data / "meta_lat.json"))
    assert found[0] == ("e621/9", {"tags": "before"})
    assert "cannot be read on" in found[1].reason


def test_keys_that_come_twice(data):
    """Of two members with one key the last counts, as in that trainer, and the other is listed; inside an entry it is an error."""
    text = (data / "meta_lat.json").read_text().strip()[1:]
    reindexed(data, '{"e621/1": {"tags": "first", "train_resolution": [64, 64]}, "e621/7": {"tags": "a", "tags": "b"}, ' + text)
    store, left = imported(data)
    assert store.sample(store.find("e621/1")).tags == "1boy"
    assert len(store) == 6
    assert "comes again later" in left["e621/1"]
    assert "has a key twice" in left["e621/7"]


@pytest.mark.parametrize(
    ("cut", "reason"), [(lambda t: t[:-40], "breaks off"), (lambda t: t + "x", "something follows"), (lambda t: "[1]", "expected a JSON")]
)  # fmt: skip
def test_an_index_that_breaks_off_says_where(data, cut, reason):
    """What was read until there is used, and the report says that the rest was not."""
    text = (data / "meta_lat.json").read_text()
    reindexed(data, cut(text))
    if reason.startswith("expected"):
        with pytest.raises(InputError, match="No sample can be used: .*cannot be read on"):
            imported(data)
        return
    store, left = imported(data)
    assert len(store) in (5, 6)
    assert "cannot be read on" in left["meta_lat.json"]
    assert reason in left["meta_lat.json"]


def test_windows_of_any_size_read_the_same(data, monkeypatch):
    """Wherever the reader's windows cut the file, the members are the same as the standard library's."""
    expected = list(json.loads((data / "meta_lat.json").read_text()).items())
    for size in (1, 2, 3, 7, 64, 1000):
        monkeypatch.setattr("astolfo.data.ingest.json_stream._WINDOW", size)
        assert list(members(data / "meta_lat.json")) == expected


def test_strict_lists_and_stops(data):
    """Asked to be strict, an import that leaves something out is an error; once mended the same call succeeds."""
    good = (data / "data/danbooru/1.npz").read_bytes()
    (data / "data/danbooru/1.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 samples cannot be used \(danbooru/1: its .npz has 0 bytes\)"):
        imported(data, strict=True)
    assert not (data / "store/store.json").exists()
    (data / "data/danbooru/1.npz").write_bytes(good)
    assert len(imported(data, strict=True)[0]) == 6


def test_a_store_is_not_overwritten(data):
    """A folder that is a store already is refused, and stays as it is."""
    imported(data)
    before = (data / "store/store.json").read_bytes()
    with pytest.raises(InputError, match="is a store already"):
        imported(data)
    assert (data / "store/store.json").read_bytes() == before


def test_a_lying_zip_is_cut_short(data):
    """A member that unpacks to more than its header claims is not unpacked beyond that."""
    content = bytearray(zipped(latents=b"\0" * 10_000_000, **SIZES))
    for signature, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = content.index(signature) + place
        content[at : at + 4] = struct.pack("<I", 1664)
    (data / "data/danbooru/1.npz").write_bytes(content)
    _, left = imported(data)
    assert "damaged" in left["danbooru/1"]
    assert os.path.getsize(data / "store/left-out.jsonl") < 1000
