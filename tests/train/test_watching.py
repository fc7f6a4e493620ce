"""What is watched from outside changes nothing: heartbeat, sample pictures, states that are deleted."""

import json
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from astolfo import devices
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.autoencoder import save_autoencoder
from astolfo.evaluate.preview import draw
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.specs import identity
from astolfo.train import progress
from astolfo.train.export import export
from astolfo.train.initialise import initialise
from astolfo.train.loop import Inputs
from astolfo.train.progress import Progress
from astolfo.train.retention import prune
from astolfo.train.segment import Placement, train_segment
from tests.train.conftest import digest, in_child

QUICK = {"ranks": 1, "accumulation": 1, "steps_per_epoch": None}


@pytest.fixture
def lines(spec_of, tmp_path, monkeypatch):
    """A function that reports three steps, each in an interval of its own, and returns the heartbeat's lines."""
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    recipe = Recipe.model_validate(spec_of()["recipe"])

    def run(error=None, run_end=None):
        path = tmp_path / "logs" / "25112201.jsonl"
        try:
            with Progress("25112201", 0, 1, 4, recipe, None, quiet=False, heartbeat=path, run_end=run_end) as told:
                for step in range(1, 4):
                    told.advance(step, 0.5 + step)
                if error:
                    raise error
        except RuntimeError:
            pass
        return [json.loads(line) for line in path.read_text().splitlines()]

    return run


def test_a_line_each_interval_and_one_at_the_end(lines, monkeypatch):
    """Every line says when, which run, how far, how fast; the last says how it ended. Without cards there is no power."""
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    *rows, last = lines()
    assert [(row["run"], row["what"], row["step"], row["end"], row["loss"]) for row in rows] == [
        ("25112201", "training", step, 4, step - 0.5) for step in (2, 3, 4)
    ]
    assert all(row["images_per_second"] == pytest.approx(8 * row["steps_per_second"], rel=0.01) for row in rows)
    assert "watts" not in rows[0]
    assert (last["what"], last["step"]) == ("ended", 4)


def test_the_run_has_an_end_of_its_own(lines, caplog):
    """Of a run with more segments, the lines tell its last step and the time to it; of the last segment, its own end."""
    caplog.set_level("INFO")
    beats, ended = lines(run_end=2004)[-2:]
    assert (beats["end"], beats["run_end"], ended["run_end"]) == (4, 2004, 2004)
    assert beats["run_seconds_left"] == pytest.approx(2000 / beats["steps_per_second"], rel=0.01, abs=1)
    assert "to the run's end at step 2,004" in caplog.text
    caplog.clear()
    assert lines()[-1]["run_end"] == 4
    assert "run's end" not in caplog.text
    assert progress._duration(44 * 86400 + 11525.4) == "44 days, 3:12:05"


def test_an_error_is_the_last_line(lines):
    """A training that fails says by what."""
    assert lines(RuntimeError("x"))[-1]["what"] == "RuntimeError"


def test_power_is_what_the_driver_says(lines, monkeypatch):
    """The watts of all cards are added; what the driver's program says otherwise counts as nothing known."""
    monkeypatch.setattr(devices.shutil, "which", lambda name: name)
    said = subprocess.CompletedProcess([], 0, stdout="250.5\n249.5\n")
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: said)
    assert devices.watts() == 500.0
    assert lines()[-2]["watts"] == 500.0
    said.stdout = "[N/A]\n"
    assert devices.watts() is None


def test_sample_pictures_leave_no_trace(train, spec_of, inputs, ledger, tmp_path):
    """A run that draws after every step ends with the bytes of one that draws nothing; its pictures are the model's size."""
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    save_autoencoder(tmp_path / "vae.safetensors", initialise(architecture.build("vae", "cpu"), 1), architecture)
    spec = spec_of(0, 1, **QUICK)
    about = {"title": "a base", "semantics": "kohya", "scale": "miniature", "images": 16, "recipe": spec["recipe"]}
    base = tmp_path / "base.safetensors"
    export(about | {"parents": {"state": identity(spec)}}, train(spec, "base"), None, tmp_path / "vae.safetensors", base)
    given, spec = Inputs(base=base, dataset=inputs.dataset, vocabulary=inputs.vocabulary), spec_of(0, 2, **QUICK)
    out = tmp_path / "drawn" / "00000002.safetensors"
    place = Placement(samples=tmp_path / "samples", sample_every=1, draw=draw)
    assert in_child(lambda: train_segment(spec, given, None, out, place)) == 0
    assert digest(out) == digest(train(spec, "plain", given=given))
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "samples").iterdir())]
    assert [picture.shape for picture in pictures] == [(48, 4 * 48, 3)] * 2
    assert not np.array_equal(*pictures)


@pytest.fixture
def folder(tmp_path):
    """Five states with their side-cars, and what a training leaves beside them."""
    for step in (10, 20, 30, 40, 50):
        (tmp_path / f"{step:08d}.safetensors").write_bytes(b"x")
        (tmp_path / f"{step:08d}.safetensors.sha256").write_bytes(b"x")
    (tmp_path / ".00000060-0123456789abcdef.safetensors").write_bytes(b"unfinished")
    return tmp_path


def test_the_last_and_the_named_states_stay(folder):
    """Two last states, and one that the ledger names; side-cars and an unfinished state are not touched."""
    gone = prune(folder, 2, {10})
    assert [path.name for path in gone] == ["00000020.safetensors", "00000030.safetensors"]
    assert len(list(folder.glob("*.sha256"))) == 5
    assert (folder / ".00000060-0123456789abcdef.safetensors").exists()
    assert prune(folder, 2, {10}) == []


def test_later_states_do_not_count(folder):
    """A middle step that was made again does not push out the states around it that it is one of the last of."""
    assert [path.name for path in prune(folder, 2, (), before=30)] == ["00000010.safetensors"]


def test_one_state_always_stays(folder):
    """Whatever is asked, the last state stays."""
    prune(folder, 0, ())
    assert [path.name for path in folder.glob("0*.safetensors")] == ["00000050.safetensors"]


def test_a_step_that_takes_long_has_a_heartbeat(spec_of, tmp_path, monkeypatch, caplog):
    """Within a step the heartbeat goes on and the log says for how long it has been under way; the end comes last."""
    monkeypatch.setattr(progress, "_WITHIN", 0.01)
    monkeypatch.setattr(progress, "_SLOW", 0.01)
    recipe, path = Recipe.model_validate(spec_of()["recipe"]), tmp_path / "25112201.jsonl"
    with caplog.at_level("INFO"), Progress("25112201", 0, 1, 4, recipe, None, quiet=False, heartbeat=path):
        while not path.exists() or "under way" not in caplog.text:
            time.sleep(0.01)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert (found[0]["what"], found[0]["step"], found[0]["end"]) == ("within a step", 1, 4)
    assert found[-1]["what"] == "ended"
    assert "step 2 of 4, under way for 0:00:0" in caplog.text
