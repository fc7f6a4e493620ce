"""The whole evaluation of a tiny model: its files, its bytes, its page."""

import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from astolfo.errors import InputError
from astolfo.evaluate.evaluate import evaluate
from astolfo.evaluate.page import page
from astolfo.evaluate.prompts import Prompt


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def done(models, words, new_spec, tmp_path_factory):
    """The folder, report and spec of an evaluation, made where an older picture lay."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "old.png").write_bytes(b"")
    spec = new_spec()
    return folder, evaluate(spec, folder, base=models[0], trained=models[1], vocabulary=words), spec


def test_its_files(done):
    """A picture for each prompt, alpha and runtime, the grid, the page and the numbers; nothing of an older evaluation."""
    folder, report, _ = done
    pictures = {
        f"pictures/{runtime}-null-{alpha}-{n}.png"
        for runtime in ("eps", "v")
        for alpha in ("0.00", "0.50", "1.00")
        for n in ("01", "02")
    }
    assert set(digests(folder)) == pictures | {"grid.png", "index.html", "metrics.json"}
    assert {file for column in report["columns"] for file in column["files"]} == pictures
    assert json.loads((folder / "metrics.json").read_text()) == report


def test_two_evaluations_are_the_same_files(done, models, words, tmp_path):
    """In another folder, every file has the same bytes."""
    folder, _, spec = done
    evaluate(spec, tmp_path, base=models[0], trained=models[1], vocabulary=words)
    assert digests(tmp_path) == digests(folder)


def test_an_untrained_model_does_not_work(done):
    """Random weights draw nothing that was asked: no column works, and the summary says so of both runtimes."""
    _, report, _ = done
    assert {column["verdict"] for column in report["columns"]} <= {"broken", "blur"}
    assert [(one["runtime"], one["alpha"]) for one in report["summary"]] == [("eps", 1.0), ("v", 1.0)]
    assert all("show what was asked" in one["sentence"] for one in report["summary"])


def test_pictures_carry_their_parameters(done):
    """A1111's layout: prompt, negative prompt, and a line that begins with the steps and holds seed, size and hash."""
    folder, report, _ = done
    with Image.open(folder / "pictures/v-null-0.50-02.png") as picture:
        prompt, negative, line = picture.text["parameters"].split("\n")
    assert prompt == report["prompts"][1]["text"]
    assert negative == "Negative prompt: "
    assert line.startswith("Steps: 2, CFG scale: 4, Seed: 7, Size: 32x32, Sampler: DDIM, ")
    assert f"Model hash: {report['models']['trained']['sha256'][:10]}" in line
    assert "Alpha: 0.50, Runtime: v, Uncond: null, Zero terminal SNR: True" in line


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
    """Each runtime's sentence stands on the page, and a foreign runtime is labelled as such."""
    folder, report, _ = done
    text = re.sub("<[^>]*>", "", (folder / "index.html").read_text()).replace("&#x27;", "'")
    assert all(one["sentence"] in text for one in report["summary"])
    assert "v runtime, null uncond (not what it was trained for):" in text
    assert "eps runtime, null uncond:" in text


def test_the_page_follows_from_the_numbers(done):
    """The page made from metrics.json is the page, byte for byte."""
    folder, _, _ = done
    assert page(json.loads((folder / "metrics.json").read_text())) == (folder / "index.html").read_text()


def test_without_a_base_there_is_the_model_alone(spec, models, words, tmp_path):
    """A run from nothing is judged at alpha 1.0 only."""
    report = evaluate(spec, tmp_path, base=None, trained=models[1], vocabulary=words)
    assert {column["alpha"] for column in report["columns"]} == {1.0}
    assert set(report["models"]) == {"trained"}


def test_alpha_one_with_and_without_a_base(done, spec, models, words, tmp_path):
    """The trained model's pictures are the same bytes, whether it is merged beside or not."""
    folder, _, _ = done
    evaluate(spec, tmp_path, base=None, trained=models[1], vocabulary=words)
    for name in ("eps-null-1.00-01.png", "v-null-1.00-02.png"):
        assert (tmp_path / "pictures" / name).read_bytes() == (folder / "pictures" / name).read_bytes()


def test_prompts_without_known_truth(spec, models, words, tmp_path):
    """Where nobody knows what a prompt asks, the evaluation is made all the same and says that nobody checked."""
    report = evaluate(spec, tmp_path, base=None, trained=models[1], vocabulary=words, prompts=[Prompt("astolfo, solo")])
    assert report["columns"][0]["agreement"] is None
    assert report["columns"][0]["reason"].startswith("Nobody checked")
    assert (tmp_path / "index.html").exists()


@pytest.mark.parametrize("empty", ["alphas", "runtimes", "unconds"])
def test_an_empty_evaluation_is_an_error(spec, models, words, tmp_path, empty):
    """Nothing to sample is an error that names the run and the file to look into; nothing is written."""
    spec["settings"][empty] = []
    with pytest.raises(InputError, match=r"25112201.*evaluations\.yaml"):
        evaluate(spec, tmp_path / "out", base=models[0], trained=models[1], vocabulary=words)
    assert not (tmp_path / "out").exists()
