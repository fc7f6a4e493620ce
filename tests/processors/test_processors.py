"""Any x86-64 processor with AVX2 and FMA computes the same bits: shown under emulated ones, call by call and file by file."""

import json
import os
import shutil

import pytest

from tests.processors import emulated

pytestmark = [pytest.mark.slow, emulated.needed]


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Every distinct operator call of what the miniature does, as this processor computes it."""
    folder = tmp_path_factory.mktemp("calls") / "calls"
    emulated.run("tests.processors.calls", "record", folder)
    return folder


def differing(calls, processor=None):
    out = calls.with_name(f"{processor}.json")
    emulated.run("tests.processors.calls", "replay", calls, out, processor=processor)
    return json.loads(out.read_text())


def files(printed):
    """Path -> sha256 of what `tests.processors.work` printed."""
    return {path: digest for digest, path in (line.split("  ") for line in printed.splitlines() if "  " in line)}


def work(kind, folder, processor=None, *, steps=1):
    """What `tests.processors.work` makes there: path -> sha256."""
    return files(emulated.run("tests.processors.work", kind, folder, "--steps", str(steps), processor=processor))


def test_a_step_gives_the_same_files(tmp_path):
    """The quick piece: a dataset, the state of one step and its result are the same files on an emulated Intel Haswell."""
    made = work("training", tmp_path / "here")
    assert {"dataset/store.json", "states/00000001.safetensors", "result.safetensors"} <= set(made)
    assert work("training", tmp_path / "there", "Haswell") == made


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="a C++ compiler is not installed")
@pytest.mark.parametrize("kind", ["compiled-optimizer", "compiled-blocks"])
def test_what_a_compiler_makes_gives_the_same_files(tmp_path, kind):
    """AdamW4bit's update, and the blocks of a UNet in DeepSpeed's engine, compiled for an emulated Intel Haswell and run there."""
    assert work(kind, tmp_path / "there", "Haswell") == work(kind, tmp_path / "here")


def test_every_call_is_repeated_here(calls):
    """Made again on the processor that recorded it, every call gives the same bits: what differs elsewhere is the processor's."""
    assert differing(calls) == []


@pytest.mark.parametrize("processor", emulated.PROCESSORS)
def test_every_call_is_the_same(calls, processor):
    """Each distinct operator call gives the same bits on an emulated Intel Haswell, an Intel Skylake and an AMD Rome."""
    assert differing(calls, processor) == []


def test_a_few_steps_give_the_same_files(tmp_path):
    """The state of three steps and its result are the same files on an emulated Intel Skylake."""
    assert work("training", tmp_path / "there", "Skylake", steps=3) == work("training", tmp_path / "here", steps=3)


def test_all_that_follows_gives_the_same_files(tmp_path):
    """Merge, pictures, numbers and an autoencoder, after a step and with one each, are the same files on an emulated Intel Skylake."""
    made = work("chain", tmp_path / "here")
    assert {"merged.safetensors", "evaluation/metrics.json", "evaluation/grid.png", "autoencoder.safetensors"} <= set(made)
    assert work("chain", tmp_path / "there", "Skylake") == made
