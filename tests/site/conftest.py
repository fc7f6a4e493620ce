"""A working directory as a build of the record leaves it, made in a second: models of two numbers, states of losses, evaluations of flat pictures."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from astolfo.checkpoint.safefile import write_file
from astolfo.ledger import load
from astolfo.site.build import build
from tests.conftest import CONFIG
from tests.site.chromium import Chromium, find

RUN, OTHER, CONTINUED = "26011501", "25111002", "25031101"
ALPHAS = (0.0, 0.5, 0.9, 1.0)
PROMPTS = ("a red star on the left", "a <blue> disc & a line")


def write_state(directory: Path, run: str, position: int, losses) -> None:
    path = directory / "states" / run / f"{position:08d}.safetensors"
    write_file(path, {"loss": np.array(losses, np.float32)}, {"astolfo.position": str(position)})


def write_model(path: Path, **metadata: str) -> str:
    about = {f"astolfo.{key}": value for key, value in metadata.items()}
    return write_file(path, {"weights": np.array([1.0, 2.0], np.float32)}, {"modelspec.title": path.stem, **about})


def write_evaluation(directory: Path, run: str, *, best: float | None = 0.9) -> dict:
    """An evaluation in the form of `metrics.json`, format 2, with pictures that differ from cell to cell."""
    folder = directory / "evaluations" / run
    cells, summary = [], []
    for runtime, uncond in (("v", "null"), ("v", "zero"), ("eps", "null")):
        alphas = ALPHAS if runtime == "v" else (0.0, 1.0)
        summary.append(_verdict(runtime, uncond, best if runtime == "v" else None, range(len(cells), len(cells) + len(alphas))))
        cells += [_cell(runtime, uncond, alpha) for alpha in alphas]
    for number, (cell, i) in enumerate(itertools.product(cells, range(len(PROMPTS)))):
        _picture(folder / cell["files"][i], number)
    for name in ("grid.png", "plot-sweep.png"):
        _picture(folder / name, 7)
    (folder / "index.html").write_text("<!doctype html><title>Evaluation</title>")
    report = {
        "format": 3, "run": run, "set": "default", "scale": "miniature", "objective": {"kind": "v"}, "outcome": "Kinda works.",
        "settings": {"seed": 1, "cfg": 4.0, "steps": 20, "sampler": "DDIM", "width": 8, "height": 8, "runtime": "v", "uncond": "null"},
        "models": {"trained": {"name": run, "file": f"{run}.safetensors", "sha256": "0" * 64}},
        "prompts": [{"text": f"1star, {text}", "label": text, "scene": None} for text in PROMPTS],
        "summary": summary, "cells": cells, "skipped": ["No scorer."],
        "grids": [{"name": "sweep", "file": "grid.png", "width": 8, "height": 8, "x": {"axis": "alpha"}, "y": {"axis": "prompt"}}],
        "plots": [{"name": "sweep", "file": "plot-sweep.png", "alt": "What is shown over alpha.", "width": 8, "height": 8}],
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(report))
    return report


def _verdict(runtime, uncond, best, cells) -> dict:
    own = runtime == "v"
    word = "works after merge" if own else "blur"
    return {"runtime": runtime, "uncond": uncond, "own": own, "verdict": word, "alpha": 0.9 if own else 1.0, "best": best,
            "works_at": [best] if own else [], "sentence": f"{word.capitalize()} under {runtime}.", "evidence": None,
            "cells": list(cells)}  # fmt: skip


def _cell(runtime, uncond, alpha) -> dict:
    files = [f"pictures/{runtime}-{uncond}-{alpha:.2f}-{i + 1:02d}.png" for i in range(len(PROMPTS))]
    return {"alpha": alpha, "runtime": runtime, "uncond": uncond, "sampler": {"v": "DDIM"}.get(runtime, "Euler"), "cfg": 4.0, "steps": 20, "checkpoint": "result",
            "verdict": "works" if alpha == 0.9 else "broken", "reason": f"{alpha} was looked at.", "shows": [True, False],
            "files": files}  # fmt: skip


def _picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number * 9 % 256, 120, 200)).save(path)


def statement(digest: str) -> dict:
    """An attestation in the form of an in-toto statement with a SLSA provenance predicate."""
    parent = {"name": "bases/AK-NIL-1.2.safetensors", "digest": {"sha256": "ab" * 32}, "annotations": {"role": "base"}}
    losses = {"name": "loss", "digest": {"sha256": "ef" * 32}, "annotations": {"step": 90}}
    definition = {
        "buildType": "urn:astolfo:job:export:v1", "resolvedDependencies": [parent],
        "externalParameters": {"semantics": "kohya", "spec": {"verb": "export"}, "recipe_sha256": "cd" * 32},
        "internalParameters": {"numerics": {"device": "cpu", "isa": "avx2"}},
    }  # fmt: skip
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"results/{RUN}.safetensors", "digest": {"sha256": digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": definition, "runDetails": {"builder": {"id": "astolfo"}, "byproducts": [losses]}},
    }


@pytest.fixture(scope="session")
def outputs(tmp_path_factory) -> Path:
    """A working directory with four models, three loss curves and one evaluation."""
    folder = tmp_path_factory.mktemp("outputs")
    rising = np.linspace(0.5, 0.1, 90)
    write_state(folder, RUN, 40, rising[:40])
    write_state(folder, RUN, 90, rising)
    write_state(folder, OTHER, 14, np.linspace(0.3, 0.2, 14))
    write_state(folder, CONTINUED, 4, [0.4, 0.3, 0.2])
    digest = write_model(folder / "results" / f"{RUN}.safetensors", recipe="cd" * 32, semantics="kohya", scale="miniature")
    write_model(folder / "results" / f"{RUN}-0.82.safetensors", parents=json.dumps({"trained": digest, "base": "ab" * 32}))
    stopped = json.dumps({"step": 9, "why": "NaN in the loss"})
    write_model(folder / "results" / f"{OTHER}.safetensors", stopped=stopped)
    write_model(folder / "bases" / "AK-NIL-1.2.safetensors")
    write_model(folder / "results" / "my own.safetensors")
    (folder / "results" / f"{RUN}.safetensors.attestation.json").write_text(json.dumps(statement(digest)))
    write_evaluation(folder, RUN)
    return folder


@pytest.fixture(scope="session")
def ledger():
    """The record, whose pages are the fullest that there are."""
    return load(CONFIG)


@pytest.fixture(scope="session")
def site(ledger, outputs, tmp_path_factory) -> Path:
    """The site of that directory."""
    folder = tmp_path_factory.mktemp("built") / "site"
    build(ledger, outputs, folder)
    return folder


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A real Chromium; tests that need it are skipped, with a message, where there is none."""
    if find() is None:
        pytest.skip("no Chromium here: the pages are not tried in a browser (on Debian: apt-get install chromium)")
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
