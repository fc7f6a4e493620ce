"""Any x86-64 processor with AVX2 and FMA computes the same bits: shown under emulated ones, call by call and file by file."""

import json

import pytest

from tests.processors import emulated

pytestmark = [pytest.mark.slow, emulated.needed]


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Every distinct operator call of what the miniature does, as this processor computes it."""
    folder = tmp_path_factory.mktemp("calls") / "calls"
    emulated.run("tests.processors.calls", "record", folder)
    return folder


@pytest.fixture(scope="module")
def here(calls):
    """The calls that differ when they are made again on this processor: for lack of a setting, none."""
    return differing(calls)


def differing(calls, processor=None):
    out = calls.with_name(f"{processor}.json")
    emulated.run("tests.processors.calls", "replay", calls, out, processor=processor)
    return json.loads(out.read_text())


def files(printed):
    """Path -> sha256 of what `tests.processors.work` printed."""
    return {path: digest for digest, path in (line.split("  ") for line in printed.splitlines() if "  " in line)}


def test_a_step_gives_the_same_files(tmp_path):
    """One step, its result, a merge, pictures, numbers and an autoencoder are the same files on an emulated Intel Haswell."""
    here, there = tmp_path / "here", tmp_path / "there"
    made = files(emulated.run("tests.processors.work", here))
    assert {"AdamW8bit.safetensors", "merged.safetensors", "evaluation/metrics.json", "evaluation/grid.png"} <= set(made)
    assert files(emulated.run("tests.processors.work", there, processor="Haswell")) == made


def test_every_call_is_repeated_here(here):
    """Made again on the processor that recorded it, every call gives the same bits: what differs elsewhere is the processor's."""
    assert here == []


@pytest.mark.parametrize("processor", emulated.PROCESSORS)
def test_every_call_is_the_same(calls, here, processor):
    """Each distinct operator call gives the same bits on an emulated Intel Haswell, an Intel Skylake and an AMD Rome."""
    assert differing(calls, processor) == []


def test_a_few_steps_give_the_same_files(tmp_path):
    """Three steps with optimizers of each library, and all that follows from them, are the same files on an emulated Skylake."""
    kinds = ("--steps", "3", "--optimizer", "Prodigy", "AdaFactor", "CAME", "AdamWScheduleFree", "Lion8bit", "AdamW8bit")
    made = files(emulated.run("tests.processors.work", tmp_path / "here", *kinds))
    assert files(emulated.run("tests.processors.work", tmp_path / "there", *kinds, processor="Skylake")) == made
