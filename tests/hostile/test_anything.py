"""What nobody thought of: names, sizes, modes, orders and damaged bytes as hypothesis finds them, over every importer."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from astolfo.data.ingest.colours import AS_STORED, Reading, decoded
from astolfo.data.ingest.kohya import Kohya
from astolfo.data.ingest.pictures import read
from astolfo.data.ingest.run import run
from astolfo.data.ingest.source import Refused, clean, shown
from astolfo.data.ingest.table import Table
from astolfo.data.ingest.tars import Tars
from astolfo.data.store import LEFT_OUT, Store
from astolfo.errors import AstolfoError
from astolfo.ledger.file_kinds import CAPTIONS, PICTURE, normalized, role, split
from tests.hostile.pictures import RED, plain, saved
from tests.hostile.test_caches import cache
from tests.hostile.test_pictures import GOOD, as_folder, as_table, as_tar, colour, imported, tar_of

hypothesis = pytest.importorskip("hypothesis", reason="what the tests use is not installed: make develop")
st = pytest.importorskip("hypothesis.strategies")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FEW_AND_MANY = pytest.mark.parametrize("examples", [8, pytest.param(400, marks=pytest.mark.slow)], ids=["few", "many"])


def over(examples, **given):
    """A decorator: has a check called with examples of `given` and a fresh folder, the same ones each time."""

    def wrap(check):
        @hypothesis.settings(max_examples=examples, deadline=None, derandomize=True, database=None)
        @hypothesis.given(**given)
        def in_a_folder(**values):
            with tempfile.TemporaryDirectory() as folder:
                check(Path(folder), **values)

        in_a_folder()

    return wrap


def left_of(store):
    """The IDs that are left out, each as often as it is."""
    path = store / LEFT_OUT
    return [json.loads(line)["id"] for line in path.read_text().splitlines()] if path.exists() else []


def names():
    """Relative paths of a file or two below at most one folder, with suffixes that mean something, in any case."""
    word = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12)
    stem = word.filter(lambda name: name not in (".", ".."))
    suffix = st.sampled_from([".png", ".PNG", ".jpg", ".txt", ".Txt", ".caption", ".png.txt", ".jxl", ".csv", "", ".a.png", "."])
    return st.builds(lambda folder, name, end: f"{folder}{name}{end}", st.sampled_from(["", "a/"]), stem, suffix)


@FEW_AND_MANY
@pytest.mark.parametrize("importer", [as_folder, as_tar])
def test_every_file_is_accounted_for(importer, examples):
    """Whatever files are called, each is in the store, is the caption of a picture, or is left out by its name."""

    @over(examples, found=st.lists(names(), max_size=6, unique_by=lambda name: name.casefold()))
    def check(folder, found):
        files = {"good.png": GOOD} | {name: GOOD if role(name) == PICTURE else b"1girl" for name in found}
        store, _, _ = imported(*importer(folder, files), folder / "out")
        ids, left = {store.sample(row).id for row in range(len(store))}, left_of(folder / "out")
        pictures = {normalized(stem) for name in files if role(name) == PICTURE for stem in _keys(name, importer)}
        for name in files:
            names = {shown(name), *map(shown, _keys(name, importer))}
            there = names & {*left, *map(shown, ids)}
            assert there or (role(name) in CAPTIONS.values() and pictures & set(map(normalized, _keys(name, importer)))), name
        assert "good" in ids


def _keys(name, importer):
    """The samples that a file may belong to: up to its last dot, less a picture's suffix before that, or up to its first."""
    name = clean(name)
    stem = split(name)[0]
    folder, _, file = name.rpartition("/")
    first = f"{folder}/{file.partition('.')[0]}" if folder else file.partition(".")[0]
    return [stem, split(stem)[0], *([first] if importer is as_tar else [])]


PLAIN_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")
KINDS = {"PNG": (*PLAIN_MODES[:-1], "I;16"), "TIFF": (*PLAIN_MODES, "I;16", "LAB"), "WEBP": ("RGB", "RGBA"), "BMP": ("RGB", "L", "P", "1")}  # fmt: skip


@FEW_AND_MANY
@pytest.mark.parametrize("importer", [as_folder, as_tar, as_table])
def test_a_picture_of_any_size_and_mode(importer, examples):
    """Its mean colour is what Pillow's own conversion gives (16 bits: what their range says), and its size is recorded."""
    sides = st.one_of(st.integers(1, 130), st.sampled_from([1, 2, 2000, 3001]))
    kinds = st.sampled_from([(kind, mode) for kind, modes in KINDS.items() for mode in modes])

    @over(
        examples,
        size=st.tuples(sides, st.integers(1, 130)),
        kind=kinds,
        levels=st.tuples(*[st.integers(0, 255)] * 4),
        turn=st.booleans(),
    )
    def check(folder, size, kind, levels, turn):
        size, (kind, mode) = size[::-1] if turn else size, kind
        if mode == "I;16":
            image = Image.fromarray(np.full(size[::-1], levels[0] * 257, np.uint16))
            expected = (levels[0],) * 3
        else:
            count = len(Image.new(mode, (1, 1)).getbands())
            value = levels[:count] if count > 1 else levels[0] if mode != "1" else levels[0] % 2
            image = Image.new(mode, size, value)
            if mode == "P":
                image.putpalette(bytes(range(256)) * 3)
            expected = np.asarray(image.convert("RGBA" if mode in ("RGBA", "LA") else "RGB").convert("RGB")).reshape(-1, 3)[0]
        content = saved(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
        store, left, _ = imported(*importer(folder, {f"a.{kind.lower()}": content}), folder / "out")
        assert (len(store), left) == (1, {})
        assert np.abs(colour(store, 0) - expected).max() < 4
        assert store.sample(0).original_size == (size[1], size[0])


@FEW_AND_MANY
def test_members_of_a_tar_in_any_order(examples):
    """Captions and pictures of four samples, a .json among them, give the same store in whatever order they come."""
    members = [(f"{n}.png", GOOD) for n in range(4)] + [(f"{n}.txt", f"t{n}".encode()) for n in range(4)]
    members += [("0.json", b'{"tags": "j0", "caption": "c0"}'), ("1.caption", b"c1"), ("notes.md", b"x")]

    @over(examples, order=st.permutations(members))
    def check(folder, order):
        store, left, _ = imported(Tars, tar_of(folder / "x.tar", order), folder / "out")
        found = {store.sample(row).id: store.captions(row) for row in range(len(store))}
        assert found == {"0": ("t0", "c0"), "1": ("t1", "c1"), "2": ("t2", ""), "3": ("t3", "")}
        assert list(left) == ["notes.md"]


def cached(folder):
    for number in range(3):
        cache(folder / "data" / f"{number}.npz", number)
    entries = {str(number): {"tags": "t", "train_resolution": [64, 64]} for number in range(3)}
    (folder / "data/meta.json").write_text(json.dumps(entries))
    return folder / "data/meta.json"


def tabled(folder):
    rows = {"id": ["0", "1", "2"], "image": [GOOD] * 3, "tags": ["a", "b", "c"]}
    pq.write_table(pa.table(rows), folder / "t.parquet", row_group_size=1)
    return folder / "t.parquet"


SOURCES = {
    "tar": (lambda folder: tar_of(folder / "x.tar", {f"{n}.{end}": GOOD if end == "png" else b"t" for n in range(3) for end in ("png", "txt")}),
            lambda path, out: imported(Tars, path, out)),
    "table": (tabled, lambda path, out: imported(Table, path, out)),
    "index": (cached, lambda path, out: run(Kohya(path, path.parent), out)),
    "cache": (lambda folder: cached(folder).with_name("1.npz"), lambda path, out: run(Kohya(path.parent / "meta.json", path.parent), out)),
}  # fmt: skip


@FEW_AND_MANY
@pytest.mark.parametrize("what", SOURCES)
def test_damaged_bytes_end_no_import(what, examples):
    """A byte changed, cut off or put in anywhere: what can be read is there, or an error of ours says what is wrong."""
    make, bring = SOURCES[what]

    @over(
        examples,
        place=st.floats(0, 1, exclude_max=True),
        change=st.sampled_from(["flip", "cut", "zeros", "put in"]),
        value=st.integers(1, 255),
    )
    def check(folder, place, change, value):
        path = make(folder)
        content = bytearray(path.read_bytes())
        at = int(place * len(content))
        if change == "flip":
            content[at] ^= value
        else:
            content[at:] = {"cut": b"", "zeros": bytes(len(content) - at), "put in": bytes([value]) + content[at:]}[change]
        path.write_bytes(content)
        try:
            bring(path, folder / "out")
        except AstolfoError:
            return
        assert len(Store(folder / "out")) + len(left_of(folder / "out")) >= 1


@FEW_AND_MANY
def test_damaged_pictures_are_read_or_refused(examples):
    """A damaged picture of any kind is read or refused, with whatever choices of reading, and never another error."""
    kinds = {kind: saved(plain(), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "AVIF", "GIF", "TIFF")}
    readings = st.builds(Reading, exif=st.sampled_from(["ignore", "apply"]), alpha=st.sampled_from([AS_STORED, "white"]))

    @over(
        10 * examples,
        kind=st.sampled_from(sorted(kinds)),
        places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
        reading=readings,
    )
    def check(folder, kind, places, reading):
        content = bytearray(kinds[kind])
        for place, value in places:
            content[int(place * len(content))] = value
        try:
            found = read(bytes(content), (64, 64), "kohya", reading)
        except Refused:
            return
        assert found.pixels.shape == (64, 64, 3)


def test_the_reader_of_these_tests_reads():
    """A whole picture comes through the readers that are tried above with its own colour."""
    image, notes = decoded(plain(), Reading())
    assert (image.getpixel((0, 0)), notes) == (RED, ())
