"""Every picture, caption and name that people have is imported with its right values, or left out by name, by every importer."""

import contextlib
import io
import json
import os
import re
import socket
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from astolfo.data.ingest.bucketing import Bucketing, centred, resized
from astolfo.data.ingest.colours import Reading
from astolfo.data.ingest.folder import Folder
from astolfo.data.ingest.pictures import PLAIN, probe, read
from astolfo.data.ingest.run import Encoding, run
from astolfo.data.ingest.source import Refused
from astolfo.data.ingest.table import Table
from astolfo.data.ingest.tars import Tars
from astolfo.data.store import LEFT_OUT, Store
from astolfo.errors import InputError
from astolfo.ledger.content import content as content_of
from astolfo.ledger.file_kinds import PICTURES as SUFFIXES
from astolfo.ledger.file_kinds import role, split
from tests.hostile.pictures import BLUE, CAPTIONS, NAMES, NOTES, PICTURES, RED, REFUSED_NAMES, half_clear, plain, saved, turned

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata

SMALL = Bucketing(resolution=64, smallest=32, largest=96, step=16)
GOOD = saved(plain(), "PNG")


def means(pictures):
    """An encoder that is no autoencoder: the mean colour of every 4 x 4 pixels, and their brightness."""
    for picture in pictures:
        height, width, _ = picture.shape
        colours = picture.reshape(height // 4, 4, width // 4, 4, 3).mean(axis=(1, 3)).astype(np.float32)
        yield np.concatenate([colours, colours.mean(axis=2, keepdims=True)], axis=2).transpose(2, 0, 1)


def imported(kind, place, out, *, reading=PLAIN, prefixes=None, **options):
    """The store, what was left out (ID -> reason), and the report."""
    more = {"prefixes": prefixes} if prefixes else {}
    source = kind([place], SMALL, crop="kohya", draw="mean", factor=4, reading=reading, **more)
    encoding = Encoding(encode=lambda pictures: list(means(pictures)), batch=2, identity={})
    report = run(source, out, encoding=encoding, **options)
    lines = (out / LEFT_OUT).read_text().splitlines() if (out / LEFT_OUT).exists() else []
    left = {row["id"]: row["reason"] for row in map(json.loads, lines)}
    return Store(out), left, report


def folder_of(path, files):
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tar_of(path, files, mode="w", **options):
    with tarfile.open(path, mode, **options) as tar:
        for name, content in files if isinstance(files, list) else files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def as_folder(tmp_path, files):
    return Folder, folder_of(tmp_path / "in", files)


def as_tar(tmp_path, files):
    return Tars, tar_of(tmp_path / "in.tar", files)


def as_table(tmp_path, files):
    """A table of the pictures among the files."""
    rows = {split(name)[0]: content for name, content in files.items() if role(name) == "picture"}
    pq.write_table(pa.table({"id": list(rows), "image": list(rows.values())}), tmp_path / "in.parquet")
    return Table, tmp_path / "in.parquet"


def colour(store, row):
    return store.latents(row)[:3].mean(axis=(1, 2))


@pytest.mark.parametrize("importer", [as_folder, as_tar, as_table])
@pytest.mark.parametrize("what", PICTURES)
def test_a_picture_has_its_right_values_or_is_left_out(tmp_path, importer, what):
    """The mean colour is right to a few levels; what is left out is named with its reason; what is beside it is there."""
    name, content, expected = PICTURES[what]
    if importer is as_table and role(name) != "picture":
        pytest.skip("a table has pictures only")
    store, left, report = imported(*importer(tmp_path, {"good.png": GOOD, name: content}), tmp_path / "out")
    assert np.abs(colour(store, store.find("good")) - RED).max() < 2
    if isinstance(expected, str):
        assert len(store) == 1
        (named,) = left
        assert named.removesuffix(split(name)[1]).lower() in (split(name)[0].lower(), name.lower())
        assert re.search(expected if importer is not as_tar or "without" not in expected else "no picture among", left[named])
        return
    assert not left
    assert np.abs(colour(store, store.find("a")) - expected).max() < 4
    assert NOTES.get(what, "") in str(report)
    assert bool(report.notes) == (what in NOTES)


@pytest.mark.parametrize("importer", [as_folder, as_tar])
@pytest.mark.parametrize("what", CAPTIONS)
def test_a_caption_is_read_whole_or_its_picture_left_out(tmp_path, importer, what):
    """Suffixes in any case and both ends of lines are read; what is no text keeps its picture out, by name."""
    name, content, expected = CAPTIONS[what]
    if importer is as_tar and name == "a.png.txt":
        pytest.skip("WebDataset's keys end at the first dot")
    store, left, _ = imported(*importer(tmp_path, {"good.png": GOOD, "a.png": GOOD, name: content}), tmp_path / "out")
    if len(store) == 2:
        assert (store.captions(store.find("a"))[0], left) == (expected, {})
    else:
        assert list(left) == ["a"]
        assert re.search(expected, left["a"])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_kind_is_an_id(tmp_path, name):
    """Spaces, ends of lines, dots, accents in both spellings, long names: the picture and its caption come in."""
    files = {f"{name}.png": GOOD, f"{name}.txt": b"1girl"} if len(name) < 200 else {f"{name}.png": GOOD}
    store, left, _ = imported(*as_folder(tmp_path, files), tmp_path / "out")
    assert (store.sample(0).id, len(store), left) == (name, 1, {})
    assert store.captions(0)[0] == ("1girl" if len(name) < 200 else "")


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_a_name_that_is_no_id_is_left_out(tmp_path, name):
    """What could not be told from a path or printed is named in an escaped form."""
    _, left, _ = imported(*as_folder(tmp_path, {"good.png": GOOD, f"{name}.png": GOOD}), tmp_path / "out")
    assert re.search(REFUSED_NAMES[name], next(iter(left.values())))


def test_accents_in_two_spellings_are_one_name(tmp_path):
    """A caption whose name a Mac wrote belongs to the picture whose name it did not."""
    store, left, _ = imported(*as_folder(tmp_path, {"ü.png": GOOD, "u\u0308.txt": b"1girl"}), tmp_path / "out")
    assert (store.captions(0)[0], left) == ("1girl", {})


def test_what_lies_in_a_folder_that_is_no_file(tmp_path):
    """Pipes and sockets are not opened, broken links are named, links to folders followed once, and none leads round."""
    place = folder_of(tmp_path / "in", {"a/1.png": GOOD, "b.txt": b"x"})
    os.mkfifo(place / "pipe.png")
    (place / "gone.png").symlink_to("nowhere")
    (place / "self.png").symlink_to("self.png")
    (place / "a" / "round").symlink_to("..")
    (place / "again").symlink_to("a")
    (place / "linked.png").symlink_to("a/1.png")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place / "s"))
        store, left, _ = imported(Folder, place, tmp_path / "out")
    assert {store.sample(row).id for row in range(len(store))} == {"a/1", "again/1", "linked"}
    assert {name for name, reason in left.items() if "no plain file" in reason} == {"pipe.png", "gone.png", "self.png", "s"}
    assert {name for name, reason in left.items() if "lies in" in reason} == {"a/round", "again/round"}
    assert left["b.txt"] == "a caption without its picture"


@contextlib.contextmanager
def nobody():
    """What follows is done by a user without rights, where this is root; the folder is that user's."""
    if os.geteuid():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_named(monkeypatch):
    """A picture, a caption and a folder without the right to read them are left out by name; the rest comes in."""
    with nobody() as folder:
        place = folder_of(folder / "in", {"a.png": GOOD, "b.png": GOOD, "b.txt": b"x", "good.png": GOOD})
        for name, mode in (("shut", 0o000), ("listed", 0o444)):
            folder_of(place / name, {"c.png": GOOD}).chmod(mode)
        for name in ("a.png", "b.txt"):
            (place / name).chmod(0)
        store, left, _ = imported(Folder, place, folder / "out")
        assert [store.sample(row).id for row in range(len(store))] == ["good"]
        with monkeypatch.context() as there:
            there.chdir(folder)
            assert content_of(place).pictures == 3
        for name in ("shut", "listed"):
            (place / name).chmod(0o755)
    assert set(left) == {"a", "b", "shut", "listed/c"}
    assert all("Permission denied" in reason for reason in left.values())


def test_strict_minds_samples_and_not_what_is_beside_them(tmp_path):
    """A picture that is not read, or a caption without one, is an error by name; a note or a cache beside them is none."""
    files = {"a.png": GOOD, "notes.md": b"", "a.npz": b"", ".DS_Store": b""}
    assert len(imported(*as_folder(tmp_path, files), tmp_path / "ok", strict=True)[0]) == 1
    for name in ("x.jxl", "x.txt", "x.gif"):
        kind, place = as_folder(tmp_path, files)
        (place / name).write_bytes(b"x")
        with pytest.raises(InputError, match=f"1 samples cannot be used .*{re.escape(split(name)[0])}"):
            imported(kind, place, tmp_path / "out", strict=True)
        (place / name).unlink()


def test_two_pictures_of_one_id(tmp_path):
    """Of a.jpg and a.png one comes in and the other is named; names that differ by case are two."""
    files = {"a.jpg": saved(plain(), "JPEG"), "a.png": GOOD, "A.png": GOOD}
    store, left, _ = imported(*as_folder(tmp_path, files), tmp_path / "folder")
    assert (len(store), "comes again later" in left["a"]) == (2, True)
    store, left, _ = imported(*as_tar(tmp_path, files), tmp_path / "tar")
    assert (len(store), left) == (2, {"a.png": "a second picture of a; the first one counts"})


@pytest.mark.parametrize("order", ["grouped", "pictures first", "captions first", "mixed"])
@pytest.mark.parametrize("prefix", ["", "./", "x/../", ".//./"])
@pytest.mark.parametrize("suffixes", [(".png", ".txt"), (".PNG", ".TXT")])
def test_members_in_any_order_and_spelling(tmp_path, order, prefix, suffixes):
    """The captions of a tar are read in whatever order its members come, and however their paths are spelt."""
    members = [
        (f"{prefix}{n}{suffix}", GOOD if suffix == suffixes[0] else str(n).encode()) for n in range(3) for suffix in suffixes
    ]
    orders = {
        "grouped": members, "pictures first": sorted(members, key=lambda m: m[0].endswith(suffixes[1])),
        "captions first": sorted(members, key=lambda m: m[0].endswith(suffixes[0])), "mixed": members[::-1],
    }  # fmt: skip
    store, left, _ = imported(Tars, tar_of(tmp_path / "x.tar", orders[order]), tmp_path / "out")
    assert {store.sample(row).id: store.captions(row)[0] for row in range(3)} == {"0": "0", "1": "1", "2": "2"}
    assert left == {}


def linked(tar, name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    tar.addfile(member)


def test_links_and_odd_members_of_a_tar(tmp_path):
    """Links to members are followed, in both forms; pipes, devices, tars in tars and links out of it are named."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        linked(tar, "before.png", "d/a.png", tarfile.LNKTYPE)
        for name, content in (("d/a.png", GOOD), ("inner.tar", b"x"), ("d/notes.md", b"x")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        linked(tar, "d/soft.png", "a.png", tarfile.SYMTYPE)
        linked(tar, "out.png", "/etc/passwd", tarfile.SYMTYPE)
        linked(tar, "pipe.png", "", tarfile.FIFOTYPE)
        linked(tar, "folder.png", "", tarfile.DIRTYPE)
    store, left, _ = imported(Tars, tmp_path / "x.tar", tmp_path / "out")
    assert {store.sample(row).id for row in range(len(store))} == {"before", "d/a", "d/soft"}
    assert {name: reason[:12] for name, reason in left.items()} == {
        "inner.tar": "no picture a", "d/notes.md": "no picture a", "out.png": "a link to wh", "pipe.png": "no plain fil",
    }  # fmt: skip


def test_keys_with_several_dots(tmp_path):
    """A key ends at the first dot where something is known behind it; a mask beside a picture is no sample; v1.5.png is one."""
    files = {"a.jpg": saved(plain(), "JPEG"), "a.seg.png": GOOD, "a.cls": b"7", "a.txt": b"x", "v1.5.png": GOOD, "v1.5.txt": b"y"}
    store, left, _ = imported(*as_tar(tmp_path, files), tmp_path / "out")
    assert {store.sample(row).id: store.captions(row)[0] for row in range(len(store))} == {"a": "x", "v1.5": "y"}
    assert set(left) == {"a.seg.png", "a.cls"}


@pytest.mark.parametrize(
    "kind", ["gz", "bz2", "xz", "zstd", "zip", "cut", "damaged", "two", "empty", "absolute", "parent", "sparse"]
)
def test_tars_that_are_not_plain(tmp_path, kind):
    """Packed, cut, damaged, doubled: what cannot be read is said, and what could be is there."""
    files = [(f"{n}.png", GOOD) for n in range(3)]
    path = tar_of(tmp_path / "x.tar", files)
    content = path.read_bytes()
    second = content.index(b"1.png")
    changed = {
        "zstd": b"(\xb5/\xfd" + content, "zip": b"PK\x03\x04" + content, "cut": content[: second + 600], "two": content + content,
        "damaged": content[:second] + b"\xff" * 512 + content[second + 512 :], "empty": b"",
    }  # fmt: skip
    if kind in ("gz", "bz2", "xz"):
        tar_of(path, files, f"w:{kind}")
    elif kind in ("absolute", "parent"):
        tar_of(path, [*files, ("/etc/x.png" if kind == "absolute" else "../../x.png", GOOD)])
    elif kind == "sparse":
        with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as tar:
            member = tarfile.TarInfo("s.png")
            member.pax_headers = {
                "GNU.sparse.major": "0",
                "GNU.sparse.minor": "1",
                "GNU.sparse.map": "0,4",
                "GNU.sparse.size": "4",
            }
            member.size = 4
            tar.addfile(member, io.BytesIO(b"abcd"))
    else:
        path.write_bytes(changed[kind])
    tar_of(tmp_path / "good.tar", [("good.png", GOOD)])
    source = Tars([path, tmp_path / "good.tar"], SMALL, crop="kohya", draw="mean", factor=4)
    report = run(source, tmp_path / "out", encoding=Encoding(encode=lambda p: list(means(p)), batch=2, identity={}))
    said = (tmp_path / "out" / LEFT_OUT).read_text()
    expected = {"absolute": "leads out", "parent": "leads out", "sparse": "stored with holes"}.get(kind, "cannot be read on")
    assert expected in said
    assert report.images == {"cut": 2, "damaged": 2, "two": 4, "absolute": 4, "parent": 4, "sparse": 4}.get(kind, 1)


def test_a_json_with_both_captions(tmp_path):
    """A .json beside a picture gives both texts, in any case of its suffix; one that is none keeps the picture out."""
    files = {
        "a.png": GOOD,
        "a.JSON": b'{"tags": "t", "caption": "c"}',
        "b.png": GOOD,
        "b.json": b"[]",
        "c.png": GOOD,
        "c.json": b"{",
    }
    store, left, _ = imported(*as_tar(tmp_path, files), tmp_path / "out")
    assert store.captions(store.find("a")) == ("t", "c")
    assert set(left) == {"b", "c"}


def test_a_table_of_another_machine(tmp_path):
    """Paths of another machine are left out with a proposal, and found with --prefix; a row without an ID is named."""
    folder_of(tmp_path, {"set/1.png": GOOD, "set/2.png": GOOD})
    rows = {"id": ["1", "2", "3", None], "image": ["C:\\set\\1.png", "C:/set/2.png", "./set/1.png", "set/1.png"]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    store, left, report = imported(Table, tmp_path / "t.parquet", tmp_path / "out")
    assert (len(store), set(left)) == (1, {"1", "2", "t.parquet, group 0, row 3"})
    assert "--prefix 'C:/set='" in str(report)
    store, left, _ = imported(Table, tmp_path / "t.parquet", tmp_path / "again", prefixes=[("C:\\set", "set")])
    assert (len(store), len(left)) == (3, 1)


def test_a_table_that_is_damaged_inside(tmp_path):
    """A row group that cannot be read is left out by its number, or its pictures are; the others come in."""
    for column, expected in (("tags", {"t.parquet, group 1"}), ("image", {"1"})):
        rows = {"id": ["0", "1", "2"], "image": [GOOD] * 3, "tags": ["a", "b", "c"]}
        pq.write_table(pa.table(rows), tmp_path / "t.parquet", row_group_size=1, use_dictionary=False, compression="snappy")
        found = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(1).column(list(rows).index(column))
        damaged = bytearray((tmp_path / "t.parquet").read_bytes())
        damaged[found.data_page_offset : found.data_page_offset + 30] = b"\xff" * 30
        (tmp_path / "t.parquet").write_bytes(damaged)
        store, left, _ = imported(Table, tmp_path / "t.parquet", tmp_path / column)
        assert ({store.sample(row).id for row in range(len(store))}, set(left)) == ({"0", "2"}, expected)
        assert "cannot be read" in left.popitem()[1]


def test_a_folder_that_becomes_a_store_keeps_what_is_its_users(tmp_path):
    """An import into a folder that is there takes away what a store's files are called, and nothing that only resembles them."""
    kind, place = as_folder(tmp_path, {"a.png": GOOD})
    own = ("latents-of-mine.safetensors", "latents-64x64-mine.safetensors", "my index.arrow", "a.png")
    folder_of(tmp_path / "out", dict.fromkeys((*own, "latents-64x64-00007.safetensors", "index.arrow"), b"x"))
    store, _, _ = imported(kind, place, tmp_path / "out")
    assert [(tmp_path / "out" / name).read_bytes() for name in own] == [b"x"] * len(own)
    assert not (tmp_path / "out/latents-64x64-00007.safetensors").exists()
    assert list(store.verify()) == []


def test_exif_and_alpha_are_choices(tmp_path):
    """As stored, a turned picture lies on its side and hidden colours show; asked to, it stands and they are covered."""
    bucket = probe(turned("JPEG"), SMALL)
    stands = Reading(exif="apply")
    assert probe(turned("JPEG"), SMALL, stands) == bucket[::-1]
    assert read(turned("JPEG"), bucket, "kohya").original_size == (40, 48)
    assert read(turned("JPEG"), bucket[::-1], "kohya", stands).original_size == (48, 40)
    clear = half_clear("RGBA", "PNG")
    for alpha, left_half in (("stored", RED), ("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        pixels = read(clear, probe(clear, SMALL), "kohya", Reading(alpha=alpha)).pixels
        assert np.abs(pixels[:, :10].mean(axis=(0, 1)) - left_half).max() < 2
        assert np.abs(pixels[:, -10:].mean(axis=(0, 1)) - BLUE).max() < 2
    for wrong in ({"alpha": "wite"}, {"exif": "yes"}):
        with pytest.raises(Refused, match="expected"):
            Reading(**wrong)


def test_a_narrow_picture_costs_no_memory(monkeypatch):
    """What is made of a picture is bounded by its bucket, not by its shape; its pixels are those of the longer way."""
    content = PICTURES["1 x 20,000"][1]
    tracemalloc.start()
    read(content, (1024, 256), "kohya")
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()
    ramp = Image.fromarray(np.linspace(0, 255, 700 * 4, dtype=np.uint8).reshape(700, 4)).convert("RGB")
    whole = read(saved(ramp, "PNG"), (96, 32), "reference").pixels.astype(int)
    monkeypatch.setattr("astolfo.data.ingest.pictures.MOST_MADE", 1)
    assert np.abs(read(saved(ramp, "PNG"), (96, 32), "reference").pixels - whole).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_ordinary_pictures_keep_their_bytes(mode):
    """The record's reading of pictures of ordinary modes and shapes is convert, resize, crop, byte for byte."""
    noise = Image.fromarray(np.random.Generator(np.random.PCG64(3)).integers(0, 256, (61, 83, 4), np.uint8))
    image = (noise.convert("RGB") if mode in ("P", "1") else noise).convert(mode)
    for bucket in ((32, 96), (64, 64), (96, 128)):
        size = resized(83, 61, bucket[::-1])
        method = Image.Resampling.LANCZOS if size[0] > 83 or size[1] > 61 else Image.Resampling.BOX
        left, top = centred(size, bucket[::-1])
        plainly = image.convert("RGB").resize(size, method).crop((left, top, left + bucket[1], top + bucket[0]))
        assert np.array_equal(read(saved(image, "PNG"), bucket, "kohya").pixels, np.asarray(plainly))


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_is_read_in_capitals(tmp_path, suffix):
    """Each suffix that is read is read in capital letters, too."""
    store, left, _ = imported(*as_folder(tmp_path, {f"a{suffix.upper()}": GOOD}), tmp_path / "out")
    assert (store.sample(0).id, left) == ("a", {})
