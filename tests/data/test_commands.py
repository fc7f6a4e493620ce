"""`astolfo dataset`, as a user calls it, and datasets that a user brings to the graph."""

import json
import logging

import pytest
from click.testing import CliRunner
from PIL import Image

from astolfo.cli import cli
from astolfo.data import vocabulary
from astolfo.data.ingest.run import run
from astolfo.data.store import Store
from astolfo.data.summary import Reading
from astolfo.errors import InputError, StoreError
from astolfo.ledger import load
from astolfo.ledger.ledger import read_pins
from astolfo.ledger.schema import SEMANTICS, Captions
from astolfo.ledger.specs import Specs
from astolfo.pins import pin
from tests.conftest import STAND_INS
from tests.data.conftest import Given, sample, samples

ENCODER = STAND_INS / "sdxl-vae.safetensors"


def call(*arguments, fails=None):
    """What a command prints; with `fails`, its exit status."""
    result = CliRunner().invoke(cli, ["dataset", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == (fails or 0), result.output
    return result.output


@pytest.fixture
def folder(tmp_path):
    given = samples()
    given[4] = ("copy", *given[2][1:])
    given[5] = (*given[5][:3], "", "")
    run(Given(given), tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    vocabulary.write(tmp_path_factory.mktemp("words"), ["a", "star", "red"])
    return tmp_path_factory.getbasetemp() / "words0"


def test_info(folder, words):
    """Counts per bucket, which captions there are, duplicates by name, and caption lengths in tokens."""
    text = call("info", folder, "--vocabulary", words)
    assert "7 samples in 2 buckets, 2 shards" in text
    assert "80 x 48               3" in text
    assert "6 with tags and a sentence" in text
    assert "1 with no caption at all" in text
    assert "1 duplicates by content\n  s2 = copy" in text
    assert "in tokens, median" in text


def test_a_sample(folder, words):
    """One sample with its sizes, its digest, and its caption in the chunks that are read; an unknown ID is said so."""
    text = call("sample", folder, "s3", "--vocabulary", words, "--tokens", "150")
    assert "picture of 80 x 49 pixels, trained at 80 x 48, crop 3 from the left" in text
    assert "tags: tag3" in text
    assert "chunk 2:  0 tokens" in text
    with pytest.raises(StoreError, match="has no sample 'nobody'. IDs look like 's1'"):
        call("sample", folder, "nobody")


def test_a_sample_is_shown_under_the_semantics_that_are_asked_for(folder, words):
    """What is said to be trained names its semantics: their join, and their tokens."""
    found = {one: call("sample", folder, "s3", "--vocabulary", words, "--semantics", one) for one in SEMANTICS}
    assert "as trained (concat, semantics: reference, 225 tokens): tag3, " in found["reference"]
    assert "as trained (concat, semantics: kohya-native, 225 tokens): " in found["kohya-native"]
    assert found["kohya-native"].split("tokens): ")[1].splitlines()[0].endswith(",tag3")
    assert found["reference"].split("chunk")[0].splitlines()[:4] == found["kohya"].split("chunk")[0].splitlines()[:4]
    assert "captions (concat, semantics: kohya) in tokens" in call("info", folder, "--vocabulary", words, "--semantics", "kohya")


def test_curly_quotes_are_counted_as_the_trainer_reads_them(words):
    """ftfy makes one token of a curly quote, which else is pieces of bytes."""
    both = {name: Reading(vocabulary.tokenizers(words)[0], Captions(kind="tags"), name) for name in ("reference", "kohya")}
    assert both["kohya"].lengths(["“a”", '"a"']) == [3, 3]
    assert both["reference"].lengths(["“a”", '"a"'])[0] > 3
    assert both["kohya"].chunks("“a”") == both["reference"].chunks('"a"') == both["kohya"].chunks('"a"')


def test_chunks_are_cut_as_the_trainer_cuts_them(words):
    """80 tokens make a full chunk and five tokens of the next."""
    reading = Reading(vocabulary.tokenizers(words)[0], Captions(kind="concat", tokens=150))
    shown = reading.chunks(" ".join(["star"] * 80))
    assert [text.split("tokens")[0].strip() for text in shown] == ["75", "5"]
    assert shown[1].endswith("star star star star star")


def test_verify(folder):
    """A good store is named by its digest with status 0, a damaged one by its files with status 1."""
    assert Store(folder).digest in call("verify", folder)
    shard = next(folder.glob("latents-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert f"{shard.name}: expected sha256" in call("verify", folder, fails=1)
    assert Store(folder).digest in call("verify", folder, "--only", "*.arrow")


def test_in_and_out(tmp_path):
    """A folder of pictures becomes a store, a contact sheet, sd-scripts' files, and the same store again."""
    (tmp_path / "in").mkdir()
    for number, size in enumerate([(60, 60), (90, 50)]):
        Image.new("RGB", size, (200, 40 * number, 0)).save(tmp_path / f"in/{number}.png")
        (tmp_path / f"in/{number}.txt").write_text(f"tag {number}")
    (tmp_path / "in/bad.png").write_bytes(b"")
    sizes = ("--resolution", 64, "--smallest", 48, "--largest", 96, "--step", 16)
    text = call("import", "folder", tmp_path / "in", "-o", tmp_path / "store", "--autoencoder", ENCODER, *sizes)
    assert "2 samples, 1 left out" in text
    assert "the picture has N bytes" in text
    call("sheet", tmp_path / "store", "-o", tmp_path / "sheet.png", "--autoencoder", ENCODER, "--count", 2)
    page = Image.open(tmp_path / "sheet.png").convert("RGB")
    assert page.size == (484, 324)
    assert len(set(page.crop((0, 0, 484, 230)).get_flattened_data())) > 20
    call("export", tmp_path / "store", tmp_path / "out")
    assert json.loads((tmp_path / "out/meta_lat.json").read_text())["0"]["train_resolution"] == [64, 64]
    call("import", "kohya", tmp_path / "out/meta_lat.json", tmp_path / "out", "-o", tmp_path / "again", "--strict")
    assert Store(tmp_path / "again").manifest["shards"] == Store(tmp_path / "store").manifest["shards"]
    call("table", tmp_path / "store", tmp_path / "t.parquet")
    call("captions", tmp_path / "store", tmp_path / "t.parquet", "-o", tmp_path / "recaptioned")
    assert Store(tmp_path / "recaptioned").captions(0) == Store(tmp_path / "store").captions(0)


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures with tags, of three shapes."""
    (tmp_path / "pictures").mkdir()
    for number, size in enumerate([(96, 96), (120, 90), (300, 400)]):
        Image.new("RGB", size, (200, 40 * number, 0)).save(tmp_path / f"pictures/{number}.png")
        (tmp_path / f"pictures/{number}.txt").write_text(f"tag {number}")
    return tmp_path / "pictures"


def test_an_import_takes_the_sizes_of_the_scale(pictures, tmp_path):
    """At the miniature pictures come to the miniature's buckets and autoencoder by themselves; an option says otherwise."""
    call("import", "folder", pictures, "-o", tmp_path / "store")
    assert sizes(tmp_path / "store") == [(48, 48), (48, 64), (64, 48)]
    call("import", "folder", pictures, "-o", tmp_path / "square", "--largest", 48)
    assert sizes(tmp_path / "square") == [(48, 48)]


def sizes(store):
    return sorted((bucket["width"], bucket["height"]) for bucket in Store(store).manifest["buckets"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [((), "pin sdxl-vae FILE"), (("--autoencoder", ENCODER), "is an sdxl autoencoder of the miniature scale")],
)
def test_an_import_at_full_scale_wants_its_autoencoder(pictures, tmp_path, monkeypatch, options, expected):
    """Without the full scale's autoencoder, or with one of the miniature, an import says which it wants and how to name it."""
    monkeypatch.chdir(tmp_path)
    command = ["--scale", "full", "dataset", "import", "folder", str(pictures), "-o", str(tmp_path / "store"), *map(str, options)]
    with pytest.raises(InputError, match=expected):
        CliRunner().invoke(cli, command, catch_exceptions=False)


@pytest.fixture
def twenty(tmp_path):
    run(Given([sample(index) for index in range(20)]), tmp_path / "twenty")
    return tmp_path / "twenty"


def test_a_dataset_is_pinned_by_its_digest(twenty, tmp_path):
    """A pinned store is linked where the graph looks, its digest is what specs name, and another store is refused."""
    own = tmp_path / "ledger"
    own.mkdir()
    (own / "ledger.yaml").write_text('datasets: {"20": {images: 20}, 6k: {images: 6224}}\n')
    ledger = load(own, "full")
    assert Store(twenty).digest in pin(ledger, "20", twenty, tmp_path)
    assert (tmp_path / "inputs/20").resolve() == twenty
    pins = read_pins(tmp_path)
    assert Specs(load(own, "full", pins), "lock").dataset("20")["digest"] == Store(twenty).digest
    run(Given([sample(index + 1) for index in range(20)]), tmp_path / "other")
    with pytest.raises(InputError, match="is not the 20 that is recorded"):
        pin(load(own, "full", pins), "20", tmp_path / "other", tmp_path)
    with pytest.raises(InputError, match="has 20 images, 6k has 6,224"):
        pin(ledger, "6k", twenty, tmp_path)
    with pytest.raises(InputError, match="made by the graph at the scale miniature"):
        pin(load(own), "20", twenty, tmp_path)


def given(spec, store, out):
    runner = CliRunner()
    return runner.invoke(cli, ["job", "given-dataset", "--spec", json.dumps(spec), "--folder", str(store), "--out", str(out)],
                         catch_exceptions=False)  # fmt: skip


def test_the_graph_takes_the_pinned_store_alone(twenty, tmp_path, caplog):
    """A store that a user brings is linked after a look at its digest and tables; without a pin the log says how to pin it."""
    spec = {"verb": "given", "dataset": "20", "images": 20, "digest": Store(twenty).digest}
    assert given(spec, twenty, tmp_path / "datasets/20").exit_code == 0
    assert list(Store(tmp_path / "datasets/20").verify()) == []
    with pytest.raises(InputError, match="is not the pinned 20: expected the digest 0+"):
        given(spec | {"digest": "0" * 64}, twenty, tmp_path / "datasets/20")
    with caplog.at_level(logging.WARNING):
        given(spec | {"digest": "unknown"}, twenty, tmp_path / "datasets/20")
    assert "pin 20 FOLDER" in caplog.text
    captions = (twenty / "captions.arrow").read_bytes()
    (twenty / "captions.arrow").write_bytes(captions.replace(b"tag1", b"tag9"))
    with pytest.raises(InputError, match=r"captions.arrow: expected sha256"):
        given(spec, twenty, tmp_path / "datasets/20")
