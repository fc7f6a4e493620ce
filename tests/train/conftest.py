"""A tiny training that tests can run: the miniature's model from nothing, 16 procedural pictures, a recipe of the ledger.

Trainings run in forked processes. What each would import for itself, bitsandbytes above all, is imported before the first.
"""

import os
import traceback
from pathlib import Path

import pytest
import torch

from astolfo import deferred_imports, numerics
from astolfo.checkpoint.architecture import Architecture
from astolfo.data import vocabulary
from astolfo.data.make import make_dataset
from astolfo.files import json_digest, read_sidecar
from astolfo.ledger import load, recipe_of
from astolfo.train.initialise import initialise
from astolfo.train.loop import Inputs
from astolfo.train.samples import Preparation
from astolfo.train.segment import Placement, train_segment
from tests.conftest import SMALL

STEPS = 3  # the first two are an epoch


@pytest.fixture(scope="session")
def ledger():
    """The tests' ledger, with a UNet of two blocks in the place of the miniature's: a step takes half the time."""
    found = load(SMALL)
    shapes = found.scale.architectures
    small = shapes["sdxl"] | {"unet": shapes["sdxl"]["unet"] | few(["Down", "CrossAttnDown"])}
    found.scale = found.scale.model_copy(update={"architectures": shapes | {"sdxl": small}})
    return found


def few(blocks):
    """The keys of a UNet of these blocks and one layer each."""
    ups = [kind.replace("Down", "Up") + "Block2D" for kind in reversed(blocks)]
    return {
        "layers_per_block": 1, "down_block_types": [f"{kind}Block2D" for kind in blocks], "up_block_types": ups,
        "block_out_channels": [32] * len(blocks), "transformer_layers_per_block": [1] * len(blocks),
        "attention_head_dim": [2] * len(blocks),
    }  # fmt: skip


@pytest.fixture(scope="session")
def inputs_of(ledger, tmp_path_factory):
    """A function that makes a dataset of pictures behind an untrained autoencoder, and a vocabulary, without a base: a model from nothing."""
    numerics.make_deterministic()
    deferred_imports.load("bitsandbytes")
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    autoencoder = initialise(architecture.build("vae", "cpu"), 1).eval().requires_grad_(False)

    def make(images):
        folder = tmp_path_factory.mktemp("inputs")
        with torch.no_grad():
            make_dataset(folder / "dataset", autoencoder, ledger.scale.pictures, seed=5, images=images, about={})
        vocabulary.write(folder / "vocabulary")
        return Inputs(base=None, dataset=folder / "dataset", vocabulary=folder / "vocabulary")

    return make


@pytest.fixture(scope="session")
def inputs(inputs_of):
    """Those of 16 pictures, two steps of eight."""
    return inputs_of(16)


@pytest.fixture
def spec_of(ledger):
    """A function that gives the spec of a segment from step `begin` to `end`; `changes` go into the recipe."""

    def make(begin=0, end=STEPS, run="plain", **changes):
        recipe = recipe_of(ledger, ledger.run(run)).model_copy(update={"accumulation": 2, "steps_per_epoch": 2, **changes})
        return {"verb": "train", "parents": {}, "recipe": recipe.canonical(), "from": begin, "to": end}

    return make


@pytest.fixture
def bad_noise(monkeypatch):
    """A function that has the micro-batch at a position of the data order draw NaN as its noise."""

    def at(position):
        draws = Preparation.draws

        def drawn(self, batches, shapes):
            found = zip(batches, draws(self, batches, shapes), strict=True)
            return [(noise * float("nan") if batch.position == position else noise, uniform) for batch, (noise, uniform) in found]

        monkeypatch.setattr(Preparation, "draws", drawn)

    return at


@pytest.fixture
def train(inputs, tmp_path):
    """A function that trains a segment in a process of its own and returns the state's path."""

    def run(spec, name="out", before=None, processes=1, given=inputs):
        out = tmp_path / name / f"{spec['to']:08d}.safetensors"
        code = in_child(lambda: train_segment(spec, given, before, out, Placement(processes=processes)))
        assert code == 0
        return out

    return run


@pytest.fixture(scope="session")
def undisturbed(inputs, tmp_path_factory):
    """A function that gives the state of a spec's segment, trained once a session by one process; it is never written.

    Not for use where a test has changed the trainer.
    """
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(spec):
        out = folder / json_digest(spec) / f"{spec['to']:08d}.safetensors"
        if not out.exists():
            assert in_child(lambda: train_segment(spec, inputs, None, out, Placement())) == 0
        return out

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs a test marked `alone` in a forked process: a backward pass may start threads that a later fork does not survive."""
    if pyfuncitem.get_closest_marker("alone") is None:
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    assert in_child(lambda: pyfuncitem.obj(**given)) == 0, "the test failed in its own process; its traceback stands below"
    return True


def in_child(work) -> int:
    """Runs `work` in a forked process, which may fork further, and returns its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        numerics.make_deterministic()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def digest(path: Path) -> str:
    """The recorded sha256 of an artifact."""
    return read_sidecar(path)
