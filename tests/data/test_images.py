"""Pictures come in from folders, tars and tables: into the right bucket, with the right sizes, whatever lies among them."""

import io
import json
import re
import tarfile
import zlib
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from astolfo.data.ingest.bucketing import Bucketing, centred, letterbox, resized
from astolfo.data.ingest.colours import Reading
from astolfo.data.ingest.folder import Folder
from astolfo.data.ingest.pictures import read
from astolfo.data.ingest.run import Encoding, run
from astolfo.data.ingest.table import Table
from astolfo.data.ingest.tars import Tars
from astolfo.data.store import LEFT_OUT, Store
from astolfo.errors import InputError, StateError

SMALL = Bucketing(resolution=64, smallest=32, largest=96, step=16)


def means(pictures):
    """An encoder that is no autoencoder: the mean colour of every 4 x 4 pixels, and their brightness."""
    for picture in pictures:
        height, width, _ = picture.shape
        colours = picture.reshape(height // 4, 4, width // 4, 4, 3).mean(axis=(1, 3)).astype(np.float32)
        yield np.concatenate([colours, colours.mean(axis=2, keepdims=True)], axis=2).transpose(2, 0, 1)


def imported(kind, places, out, **options):
    """The store of these places, and what was left out: ID -> reason."""
    source = kind(places, SMALL, crop=options.pop("crop", "kohya"), draw="mean", factor=4)
    run(source, out, encoding=Encoding(encode=lambda pictures: list(means(pictures)), batch=2, identity={}), **options)
    left = (out / LEFT_OUT).read_text().splitlines() if (out / LEFT_OUT).exists() else []
    return Store(out), {row["id"]: row["reason"] for row in map(json.loads, left)}


def picture(index, size=(70, 50), kind="PNG", mode="RGB"):
    """The bytes of a picture of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size, (10 * index, 100, 200, 255)[: len(mode)]).save(buffer, kind)
    return buffer.getvalue()


def folder_of(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


FILES = {
    "a/1.png": picture(1),
    "a/1.txt": "1girl, solo",
    "a/1.caption": "a girl",
    "a/2.jpg": picture(2, (50, 70), "JPEG"),
    "b/1.webp": picture(3, (64, 64), "WEBP"),
    "b/1.txt": "1boy\n",
    "c.png": picture(4, (200, 40), mode="RGBA"),
    "notes.md": "no picture",
}


def test_a_folder(tmp_path):
    """Pictures of all kinds below a folder, with the captions that lie beside them."""
    store, left = imported(Folder, [folder_of(tmp_path / "in", FILES)], tmp_path / "out")
    assert left == {"notes.md": "no picture and no caption: .md"}
    found = {one.id: one for one in map(store.sample, range(len(store)))}
    assert set(found) == {"a/1", "a/2", "b/1", "c"}
    assert (found["a/1"].tags, found["a/1"].sentence) == ("1girl, solo", "a girl")
    assert (found["b/1"].tags, found["b/1"].sentence) == ("1boy", "")
    assert (found["a/1"].original_size, found["a/1"].target_size) == ((50, 70), (48, 80))
    assert found["c"].target_size == (32, 96)
    assert found["b/1"].latents.shape == (4, 16, 16)
    assert np.abs(found["a/1"].latents[:, 5, 5] - [10, 100, 200, 310 / 3]).max() < 0.01


@pytest.mark.parametrize(("extension", "texts"), [(".txt", ("1girl, solo", "")), (".caption", ("", "a girl"))])
def test_captions_of_one_extension(tmp_path, extension, texts):
    """Captions of one extension alone are read, however it is written; the others are listed, and are no error."""
    files = folder_of(tmp_path / "in", FILES | {"c.TXT": "upper", "c.Caption": "Upper"})
    store, left = imported(partial(Folder, extension=extension), [files], tmp_path / "out", strict=True)
    found = {one.id: (one.tags, one.sentence) for one in map(store.sample, range(len(store)))}
    assert found["a/1"] == texts
    assert found["b/1"] == (("1boy", "") if extension == ".txt" else ("", ""))
    assert found["c"] == (("upper", "") if extension == ".txt" else ("", "Upper"))
    other = {".txt": ["a/1.caption", "c.Caption"], ".caption": ["a/1.txt", "b/1.txt", "c.TXT"]}[extension]
    assert sorted(left) == sorted([*other, "notes.md"])
    assert store.manifest["about"]["captions"] == extension


def test_tars_hold_the_same(tmp_path):
    """The same samples in tars, with captions as files or as JSON, make the same rows; members of no sample are listed."""
    files = folder_of(tmp_path / "in", FILES)
    for number, names in enumerate(
        (["a/1.png", "a/1.txt", "a/1.caption"], ["a/2.jpg", "b/1.webp", "b/1.txt", "c.png", "notes.md"])
    ):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for name in names:
                tar.add(files / name, name)
    store, left = imported(Tars, [tmp_path / "0.tar", tmp_path / "1.tar"], tmp_path / "tars")
    other, _ = imported(Folder, [files], tmp_path / "folder")
    assert left == {"notes.md": "no picture and no caption: .md"}
    assert (tmp_path / "tars/index.arrow").read_bytes() == (tmp_path / "folder/index.arrow").read_bytes()
    assert store.manifest["shards"] == other.manifest["shards"]
    with tarfile.open(tmp_path / "json.tar", "w") as tar:
        for name, content in (("x.png", picture(1)), ("x.json", b'{"tags": "star", "caption": "a star", "more": 1}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    store, _ = imported(Tars, [tmp_path / "json.tar"], tmp_path / "json")
    assert store.captions(0) == ("star", "a star")


def test_a_tar_that_breaks_off(tmp_path):
    """What a truncated tar still holds is used, and the report says that it was cut; so it says of a compressed one."""
    files = folder_of(tmp_path / "in", FILES)
    with tarfile.open(tmp_path / "cut.tar", "w") as tar:
        tar.add(files / "a/1.png", "a.png")
        tar.add(files / "c.png", "b.png")
    content = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: content.index(b"b.png") + 600])
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as tar:
        tar.add(files / "a/1.png", "c.png")
    store, left = imported(Tars, [tmp_path / "cut.tar", tmp_path / "packed.tar.gz"], tmp_path / "out")
    assert len(store) == 1
    assert "cannot be read on" in left["cut.tar"]
    assert "Unpack a compressed one" in left["packed.tar.gz"]


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
def test_a_table_holds_the_same(tmp_path, form):
    """A Parquet table with pictures as bytes, as structs of bytes, or as paths beside it."""
    files = folder_of(tmp_path, {"1.png": picture(1), "2.png": picture(2)})
    images = {
        "bytes": [picture(1), picture(2)],
        "struct": [{"bytes": picture(1), "path": "x"}, {"bytes": picture(2), "path": None}],
        "path": ["1.png", "../2.png"],
    }[form]
    table = pa.table({"id": ["one", "two"], "image": images, "tags": ["a", None], "caption": [None, "b"]})
    pq.write_table(table, files / "t.parquet", row_group_size=1)
    store, left = imported(Table, [files / "t.parquet"], tmp_path / "out")
    assert store.sample(0).id == "one"
    assert store.captions(0) == ("a", "")
    if form == "path":
        assert "leads out of the data's folder" in left["two"]
    else:
        assert store.captions(1) == ("", "b")


def gigantic():
    """A PNG whose header claims 100 megapixels and which has no data to speak of."""
    content = bytearray(picture(1))
    at = content.index(b"IHDR")
    content[at + 4 : at + 12] = (10_000).to_bytes(4, "big") * 2
    content[at + 17 : at + 21] = zlib.crc32(content[at : at + 17]).to_bytes(4, "big")
    return bytes(content)


NOISE = np.random.Generator(np.random.PCG64(1)).bytes(5000)
HOSTILE = {
    "0 bytes": ({"x.png": b""}, "0 bytes"),
    "100 megapixels": ({"x.png": gigantic()}, "100.0 megapixels; at most 64"),
    "noise": ({"x.png": NOISE}, "no picture of a known kind"),
    "truncated": ({"x.png": picture(1)[:-40]}, "cannot be decoded"),
    "another kind": ({"x.png": b"%!PS-Adobe-3.0 EPSF-3.0\n" + NOISE}, "no picture of a known kind"),
    "a caption of 1 MB": ({"x.png": picture(1), "x.caption": "x" * (1 << 20)}, "more than 65,536 characters"),
    "a tag with an escape": ({"x.png": picture(1), "x.txt": "a\x1b[31mb"}, r"control character U\+001B in the tags"),
    "captions that are no text": ({"x.png": picture(1), "x.txt": b"\xff\xfe\x00"}, "not UTF-8"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_bad_picture_is_listed_and_the_rest_stays(tmp_path, what):
    """Empty, gigantic, damaged, mislabelled: left out with a reason, and all others are there."""
    files, reason = HOSTILE[what]
    store, left = imported(Folder, [folder_of(tmp_path / "in", FILES | files)], tmp_path / "out")
    assert len(store) == 4
    assert sorted(left) == ["notes.md", "x"]
    assert re.search(reason, left["x"]), left


def test_nothing_but_bad_pictures(tmp_path):
    """An import that finds nothing to use says why, and is not a store."""
    with pytest.raises(InputError, match=r"No sample can be used: 1 x no picture of a known kind"):
        imported(Folder, [folder_of(tmp_path / "in", {"x.png": NOISE})], tmp_path / "out")
    assert not (tmp_path / "out/store.json").exists()
    with pytest.raises(InputError, match="No sample can be used: 1 x no picture and no caption"):
        imported(Folder, [folder_of(tmp_path / "in2", {"x.md": ""})], tmp_path / "out")
    (tmp_path / "in3").mkdir()
    with pytest.raises(InputError, match="the source is empty"):
        imported(Folder, [tmp_path / "in3"], tmp_path / "out")


def test_another_import_in_the_way(tmp_path):
    """What an interrupted import left is not mixed with another one's settings."""
    files = folder_of(tmp_path / "in", FILES)

    def stop(pictures):
        raise KeyboardInterrupt

    source = Folder([files], SMALL, crop="kohya", draw="mean", factor=4)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out", encoding=Encoding(encode=stop, batch=2, identity={}))
    with pytest.raises(StateError, match=r"\.out\.importing is what an interrupted import with another source"):
        imported(Folder, [files], tmp_path / "out", crop="reference")
    assert len(imported(Folder, [files], tmp_path / "out")[0]) == 4


def test_the_records_buckets():
    """256 to 1024 by 64 at 1024²: 25 buckets, none larger than the square; at 768² SD 2.1's."""
    sizes = Bucketing().sizes
    assert len(sizes) == 25
    assert max(width * height for width, height in sizes) == 1024**2
    assert {(1024, 1024), (704, 1024), (256, 1024), (1024, 256)} <= set(sizes)
    assert (768, 768) in Bucketing(resolution=768).sizes
    assert (576, 1024) in Bucketing(resolution=768).sizes


@pytest.mark.parametrize(
    ("size", "bucket", "covering", "crop", "boxed"),
    [
        ((1000, 1500), (704, 1024), (704, 1056), (0, 16), (10, 0)),
        ((704, 1024), (704, 1024), (704, 1024), (0, 0), (0, 0)),
        ((3000, 1000), (1024, 320), (1024, 341), (0, 10), (32, 0)),
        ((100, 100), (1024, 1024), (1024, 1024), (0, 0), (0, 0)),
    ],
)
def test_sizes_and_crops(size, bucket, covering, crop, boxed):
    """A picture covers its bucket; the crop is where pixels were cut, or, as sd-scripts records it, where a letterbox would be."""
    assert Bucketing().choose(*size) == bucket
    assert resized(*size, bucket) == covering
    assert centred(covering, bucket) == crop
    assert tuple(map(int, letterbox(*size, bucket)[:2])) == boxed


@pytest.mark.parametrize(
    ("size", "resolution", "step", "bucket", "resized"),
    [
        ((1000, 1500), 1024, 64, (832, 1216), (832, 1248)),
        ((3000, 1000), 1024, 64, (1728, 576), (1728, 576)),
        ((1920, 1080), 1024, 64, (1344, 768), (1365, 768)),
        ((5000, 331), 1024, 64, (3840, 256), (3867, 256)),
        ((1100, 1000), 1024, 64, (1024, 960), (1056, 960)),
        ((1024, 1024), 1024, 64, (1024, 1024), (1024, 1024)),
        ((700, 500), 1024, 64, (640, 448), (700, 500)),
        ((513, 1023), 512, 32, (352, 704), (353, 704)),
        ((2048, 1365), (832, 1216), 64, (1152, 768), (1152, 768)),
        ((63, 300), 1024, 64, (0, 256), (63, 300)),
    ],
)
def test_no_picture_is_enlarged(size, resolution, step, bucket, resized):
    """Buckets and sizes without enlarging are those of sd-scripts' own `BucketManager.select_bucket`, run at 48d368f."""
    assert Bucketing(resolution=resolution, step=step, upscale=False).placed(*size) == (bucket, resized)


def test_an_area_of_two_sides_has_them_as_a_bucket():
    """`--resolution 960x1024` has the bucket 960 x 1024, which the square of about as many pixels has not."""
    assert (960, 1024) in Bucketing(resolution=(960, 1024)).sizes
    assert (960, 1024) not in Bucketing(resolution=991).sizes


def test_small_pictures_keep_their_pixels(tmp_path):
    """Without enlarging a small picture is cut around its centre and nothing else; one that is narrower than a step is left out."""
    noise = np.random.default_rng(2).integers(0, 256, (37, 51, 3), np.uint8)
    bucketing = Bucketing(resolution=64, step=16, upscale=False)
    Image.fromarray(noise).save(tmp_path / "a.png")
    plain, other = (read(tmp_path / "a.png", (32, 48), "reference", Reading(mirrored=way), bucketing) for way in (False, True))
    assert np.array_equal(plain.pixels, noise[2:34, 1:49])
    assert (plain.crop, other.crop) == ((2, 1), (2, 2))
    assert np.array_equal(other.pixels, plain.pixels[:, ::-1])
    files = folder_of(
        tmp_path / "in", {"a.png": picture(1, (70, 50)), "thin.png": picture(1, (15, 200)), "big.png": picture(1, (300, 100))}
    )
    run(
        Folder([files], bucketing, crop="kohya", draw="mean", factor=4),
        tmp_path / "out",
        encoding=Encoding(encode=lambda pictures: list(means(pictures)), batch=2, identity={}),
    )
    store = Store(tmp_path / "out")
    assert {one.id: one.target_size for one in map(store.sample, range(len(store)))} == {"a": (48, 64), "big": (32, 96)}
    assert "no bucket is so narrow" in (tmp_path / "out" / LEFT_OUT).read_text()
    assert store.manifest["about"]["bucketing"] == {"resolution": 64, "step": 16, "upscale": False}


def test_where_crops_are_recorded(tmp_path):
    """The pixels are the same under both conventions, the recorded crops differ."""
    files = folder_of(tmp_path / "in", {"x.png": picture(1, (70, 50))})
    kohya, _ = imported(Folder, [files], tmp_path / "kohya")
    reference, _ = imported(Folder, [files], tmp_path / "reference", crop="reference")
    assert np.array_equal(kohya.latents(0), reference.latents(0))
    assert kohya.sample(0).crop == (0, 6)
    assert reference.sample(0).crop == (4, 0)


@pytest.mark.parametrize(
    ("size", "bucket"), [((100, 60), (64, 64)), ((60, 101), (64, 64)), ((97, 64), (48, 80)), ((64, 64), (64, 64))]
)
def test_a_mirrored_picture_is_cropped_the_other_way_round(tmp_path, size, bucket):
    """The pixels of a mirrored reading are the plain one's from right to left; what was cut on the right is cut on the left.

    Recorded as sd-scripts records it, the left is the bucket's width less the plain crop's right (`train_util.py:1685-1689`).
    """
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    plain, other = (read(tmp_path / "a.png", bucket, "reference", Reading(mirrored=way)) for way in (False, True))
    assert np.array_equal(other.pixels, plain.pixels[:, ::-1])
    wanted = bucket[1], bucket[0]
    covering = resized(*size, wanted)
    assert plain.crop[1] + other.crop[1] == covering[0] - wanted[0]
    assert (other.crop[0], other.original_size) == (plain.crop[0], plain.original_size)
    box = letterbox(*size, wanted)
    assert read(tmp_path / "a.png", bucket, "kohya", Reading(mirrored=True)).crop == (int(box[1]), int(wanted[0] - box[2]))
