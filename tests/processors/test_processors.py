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
    assert {"result.safetensors", "merged.safetensors", "evaluation/metrics.json", "evaluation/grid.png"} <= set(made)
    assert files(emulated.run("tests.processors.work", there, processor="Haswell")) == made


def test_every_call_is_repeated_here(calls):
    """Made again on the processor that recorded it, every call gives the same bits: what differs elsewhere is the processor's."""
    assert differing(calls) == []


@pytest.mark.parametrize("processor", emulated.PROCESSORS)
def test_every_call_is_the_same(calls, processor):
    """Each distinct operator call gives the same bits on an emulated Intel Haswell, an Intel Skylake and an AMD Rome."""
    assert differing(calls, processor) == []


def test_a_few_steps_give_the_same_files(tmp_path):
    """Three steps, sampling in three, and all that follows from them are the same files on an emulated Intel Skylake."""
    made = files(emulated.run("tests.processors.work", tmp_path / "here", "--steps", "3"))
    assert files(emulated.run("tests.processors.work", tmp_path / "there", "--steps", "3", processor="Skylake")) == made
