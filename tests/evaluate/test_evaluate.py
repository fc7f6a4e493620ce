"""The whole evaluation of a tiny model: its files, its bytes, its page."""

import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from astolfo.errors import InputError
from astolfo.evaluate.evaluate import Models, evaluate
from astolfo.evaluate.page import page

SWEPT = {f"eps-{uncond}-{alpha}" for uncond in ("null", "zero") for alpha in ("0.00", "0.50", "1.00")}
FOREIGN = {f"{runtime}-null-{alpha}" for runtime in ("v", "rf") for alpha in ("0.00", "1.00")}
PICTURES = {f"pictures/{cell}-{n}.png" for cell in SWEPT | FOREIGN for n in ("01", "02")}


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def files(models, words):
    return Models(base=models[0], trained=models[1], vocabulary=words)


@pytest.fixture(scope="module")
def done(files, new_spec, tmp_path_factory):
    """The folder, report and spec of an evaluation, made where older pictures lay."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "pictures").mkdir()
    for old in ("pictures/old.png", "grid-old.png"):
        (folder / old).write_bytes(b"")
    spec = new_spec()
    return folder, evaluate(spec, folder, files), spec


def test_its_files(done):
    """A picture for each prompt and cell, each cell once; the grids, plots, page and numbers; nothing of an older evaluation."""
    folder, report, _ = done
    plots = {"plot-sweep.png", "plot-validation.png"}
    assert set(digests(folder)) == PICTURES | plots | {"grid.png", "grid-runtimes.png", "index.html", "metrics.json"}
    named = [file for cell in report["cells"] for file in cell["files"]]
    assert len(named) == len(set(named))
    assert set(named) == PICTURES
    assert json.loads((folder / "metrics.json").read_text()) == report


def test_grids_name_their_cells(done):
    """A grid's cells lie where its axes say: by z, then by x; and the file has the size that is told."""
    folder, report, _ = done
    sweep, runtimes = report["grids"]
    assert (sweep["name"], sweep["file"], runtimes["file"]) == ("sweep", "grid.png", "grid-runtimes.png")
    for grid in (sweep, runtimes):
        for z, row in zip(grid["z"]["values"], grid["cells"], strict=True):
            for x, number in zip(grid["x"]["values"], row, strict=True):
                cell = report["cells"][number]
                assert (cell[grid["x"]["axis"]], cell[grid["z"]["axis"]]) == (x, z)
        with Image.open(folder / grid["file"]) as image:
            assert image.size == (grid["width"], grid["height"])


@pytest.mark.alone
def test_two_evaluations_are_the_same_files(done, files, tmp_path):
    """In another folder, with two processes instead of one, every file has the same bytes."""
    folder, _, spec = done
    evaluate(spec, tmp_path, files, processes=2)
    assert digests(tmp_path) == digests(folder)


def test_an_untrained_model_does_not_work(done):
    """Random weights draw nothing that was asked: no cell works, and the summary says so of every way, the run's own first."""
    _, report, _ = done
    assert {cell["verdict"] for cell in report["cells"]} <= {"broken", "blur"}
    assert all(len(cell["by_scale"]) == 5 for cell in report["cells"])
    ways = [(one["runtime"], one["uncond"], one["own"]) for one in report["summary"]]
    assert ways == [("eps", "null", True), ("eps", "zero", True), ("v", "null", False), ("rf", "null", False)]
    assert all("show what was asked" in one["sentence"] and one["best"] is None for one in report["summary"])
    assert [report["cells"][number]["alpha"] for number in report["summary"][0]["cells"]] == [0.0, 0.5, 1.0]


def test_an_untrained_model_knows_no_more_than_a_guess(done):
    """Its validation losses are those of a guess or worse, under each objective; v and rf read nothing at high noise."""
    _, report, _ = done
    losses = report["validation"]["models"]["trained"]
    assert set(losses) == {"eps", "v", "rf"}
    assert all(len(found["relative"]) == 10 and min(found["relative"]) > 0.9 for found in losses.values())


def test_pictures_carry_their_parameters(done):
    """A1111's layout: prompt, negative prompt, and a line with steps, seed, size and hash; a foreign runtime is labelled."""
    folder, report, _ = done
    with Image.open(folder / "pictures/v-null-1.00-02.png") as picture:
        prompt, negative, line = picture.text["parameters"].split("\n")
    assert prompt == report["prompts"][1]["text"]
    assert negative == "Negative prompt: "
    assert line.startswith("Steps: 2, CFG scale: 4, Seed: 7, Size: 32x32, Sampler: DDIM, ")
    assert f"Model hash: {report['models']['trained']['sha256'][:10]}" in line
    assert "Alpha: 1.00, Runtime: v, Trained for: eps, Uncond: null, Zero terminal SNR: True" in line


def test_the_page_is_self_contained(done):
    """No script, no outside address; every file it names lies beside it; what the record says is escaped."""
    folder, _, _ = done
    text = (folder / "index.html").read_text()
    names = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag != "script"
            names.extend(value for key, value in attributes if key in ("src", "href"))

    Reader().feed(text)
    assert "://" not in text
    assert all((folder / name).is_file() for name in names if not name.startswith("data:"))
    assert "Works &lt;after&gt; merge" in text


def test_the_page_says_the_verdict(done):
    """Each way's sentence stands on the page, and a foreign runtime is labelled as such."""
    folder, report, _ = done
    text = re.sub("<[^>]*>", "", (folder / "index.html").read_text()).replace("&#x27;", "'")
    assert all(one["sentence"] in text for one in report["summary"])
    assert "v runtime, null uncond (not what it was trained for):" in text
    assert "eps runtime, null uncond:" in text


def test_the_page_follows_from_the_numbers(done):
    """The page made from metrics.json is the page, byte for byte."""
    folder, _, _ = done
    assert page(json.loads((folder / "metrics.json").read_text())) == (folder / "index.html").read_text()


def test_alpha_one_with_and_without_a_base(done, spec, models, words, tmp_path):
    """A run from nothing is judged at alpha 1.0 only, and its pictures are the same bytes as beside a base."""
    folder, _, _ = done
    report = evaluate(spec, tmp_path, Models(trained=models[1], vocabulary=words))
    assert {cell["alpha"] for cell in report["cells"]} == {1.0}
    assert set(report["models"]) == {"trained"}
    for name in ("eps-null-1.00-01.png", "v-null-1.00-02.png"):
        assert (tmp_path / "pictures" / name).read_bytes() == (folder / "pictures" / name).read_bytes()


def test_a_checkpoint_of_the_run(done, spec, models, words, tmp_path):
    """An earlier checkpoint is sampled by its name; one that was not given is an error that names those that were."""
    folder, _, _ = done
    spec["settings"]["grids"] = [{"name": "course", "x": {"checkpoint": ["step00000010", "result"]}}]
    files = Models(base=models[1], trained=models[0], vocabulary=words, checkpoints={"step00000010": models[1]})
    evaluate(spec, tmp_path, files)
    with Image.open(tmp_path / "pictures/eps-null-1.00-step00000010-01.png") as found:
        with Image.open(folder / "pictures/eps-null-1.00-01.png") as wanted:
            assert found.tobytes() == wanted.tobytes()
        assert "Checkpoint: step00000010" in found.text["parameters"]
    with pytest.raises(InputError, match="step00000010.*was given result"):
        evaluate(spec, tmp_path, Models(base=models[1], trained=models[0], vocabulary=words))


def test_prompts_without_known_truth(spec, models, words, tmp_path):
    """Where nobody knows what a prompt asks, the evaluation is made all the same, and says what was not measured and why."""
    spec["settings"] |= {"prompts": {"texts": ["astolfo, solo"]}, "grids": [{"name": "only", "x": {"uncond": ["null"]}}]}
    report = evaluate(spec, tmp_path, Models(trained=models[1], vocabulary=words))
    assert report["cells"][0]["agreement"] is None
    assert report["cells"][0]["reason"].startswith("Nobody checked")
    assert report["validation"] is None
    assert [why.split(":")[0] for why in report["skipped"]] == ["No scorer", "Validation was skipped"]
    assert "No scorer" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"grids": []}, r"settings\.grids.*evaluations\.yaml"),
        ({"grids": [{"name": "sweep", "x": {"alpha": []}}]}, r"evaluation is empty: the axis alpha has no values"),
        ({"grids": [{"name": "sweep", "x": {"alpha": [1.0], "cfg": [2.0]}}]}, r"an axis is one of .*; found alpha and cfg"),
        ({"prompts": {}}, r"settings\.prompts: give procedural or texts"),
        ({"prompts": {"texts": []}}, r"settings\.prompts\.texts"),
    ],
)
def test_an_empty_evaluation_is_an_error(spec, files, tmp_path, wrong, message):
    """Nothing to sample is an error that names the setting and the file to look into; nothing is written."""
    spec["settings"] |= wrong
    with pytest.raises(InputError, match=message):
        evaluate(spec, tmp_path / "out", files)
    assert not (tmp_path / "out").exists()
