"""`astolfo compare`: identical, equivalent, different, and where two checkpoints part."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from astolfo.checkpoint.safefile import write_file
from astolfo.cli import cli
from astolfo.errors import InputError
from astolfo.files import sha256_of, write_json
from astolfo.ledger import load
from astolfo.provenance import attestation
from astolfo.provenance.compare import Bounds, bounds_of, compare
from tests.conftest import SMALL
from tests.provenance.conftest import PINNED, spec

BOUNDS = Bounds(measured="for the test", weights=0.1, tensor=0.2, loss=0.01, pictures=2.0)
RNG = np.random.default_rng(0)
BASE = {name: RNG.normal(size=(64, 32)).astype(np.float16) for name in ("a", "b", "frozen")}
MOVE = {name: RNG.normal(size=(64, 32)) * 0.1 for name in ("a", "b")}
LOSS = np.abs(RNG.normal(size=8)).astype(np.float32)


def run(folder, off=0.0, loss=LOSS, scale=1.0, extra=None, picture=100):
    """A run's result: the base moved, `off` its movement times something else; with its state, attestations and evaluation."""
    noise = np.random.default_rng(7)
    moved = {name: BASE[name] + scale * MOVE[name] + off * 0.1 * noise.normal(size=(64, 32)) for name in MOVE}
    tensors = BASE | {name: value.astype(np.float16) for name, value in moved.items()} | (extra or {})
    base, state, result = (
        folder / "bases/AK.safetensors",
        folder / "states/1/00000008.safetensors",
        folder / "results/1.safetensors",
    )
    write_file(base, BASE)
    attestation.write("adopt", base, PINNED, {})
    write_file(state, {"loss": loss}, {"astolfo.position": "8"})
    attestation.write("train", state, spec("train"), {"base": base})
    write_file(result, tensors)
    attestation.write("export", result, spec("export"), {"state": state, "base": base})
    pictures = folder / "evaluations/1/pictures"
    pictures.mkdir(parents=True)
    cells = []
    for runtime, alpha, value in (("eps", 1.0, picture), ("eps", 0.5, 255 - picture), ("v", 1.0, 255 - picture)):
        name = f"pictures/{runtime}-null-{alpha:.2f}-01.png"
        Image.new("RGB", (4, 4), (value, value, value)).save(pictures.parent / name)
        cells.append({"runtime": runtime, "alpha": alpha, "files": [name]})
    metrics = {"models": {"trained": {"sha256": sha256_of(result)}}, "objective": {"kind": "eps"}, "cells": cells}
    write_json(pictures.parent / "metrics.json", metrics)
    return result


@pytest.fixture
def reference(tmp_path):
    return run(tmp_path / "reference")


def test_equal_bytes_are_identical(reference, tmp_path):
    """The same file elsewhere is identical, and nothing else is looked at."""
    assert compare(reference, run(tmp_path / "again"), BOUNDS).verdict == "identical"


def test_a_small_distance_is_equivalent(reference, tmp_path):
    """Weights, losses and pictures within the bounds: equivalent, with the first tensor and step in which they part."""
    loss = LOSS.copy()
    loss[3:] *= 1.0001
    found = compare(reference, run(tmp_path / "b", off=0.03, loss=loss, picture=101), BOUNDS)
    assert found.verdict == "equivalent"
    assert found.weights == pytest.approx(0.03, rel=0.1)
    assert found.pictures == 1.0
    assert (found.first_tensor, found.first_step) == ("a", 4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"off": 1.0}, "the weights lie"),
        ({"scale": 1.5}, "the weights lie"),
        ({"off": 0.01, "loss": LOSS * np.float32(1.1)}, "the loss curves lie"),
        ({"off": 0.01, "loss": LOSS[:5]}, "one trained steps 1 to 8, the other 4 to 8"),
        ({"off": 0.01, "picture": 150}, "the pictures that they draw lie"),
        ({"extra": {"frozen": BASE["frozen"] + np.float16(1)}}, "frozen lies"),
        ({"extra": {"more": BASE["a"]}}, "more has not the same dtype and shape in both"),
    ],
)
def test_what_is_beyond_a_bound_is_different(reference, tmp_path, change, reason):
    """Other weights, rates, losses, pictures, a frozen tensor that moved, a tensor that is not in both: each is different."""
    found = compare(reference, run(tmp_path / "b", **change), BOUNDS)
    assert found.verdict == "different"
    assert any(line.startswith(reason) for line in found.reasons), found.reasons


def test_the_file_s_own_rounding_is_free(reference, tmp_path):
    """A tensor that hardly moved, and differs in single last bits of its dtype, is not called different for that."""
    tiny = {"a": BASE["a"].copy()}
    for path, column in ((tmp_path / "b", 0), (tmp_path / "c", 1)):
        moved = tiny["a"].copy()
        moved[:5, column] = np.nextafter(moved[:5, column], np.float16(np.inf))
        run(path, extra={"a": moved})
    found = compare(tmp_path / "b/results/1.safetensors", tmp_path / "c/results/1.safetensors", BOUNDS)
    assert found.verdict == "equivalent"
    assert found.tensor == 0.0


def test_a_bias_that_attention_cancels_does_not_count(tmp_path):
    """A key's bias has no gradient but rounding, so two equivalent runs may take it anywhere; another bias may not."""
    for name, verdict in (("layers.0.self_attn.k_proj.bias", "equivalent"), ("layers.0.self_attn.v_proj.bias", "different")):
        paths = [tmp_path / name / side for side in "abc"]
        for path, value in zip(paths, (0, 1e-3, -1e-3), strict=True):
            write_file(
                path, BASE | {name: np.full(4, value, np.float16), "a": (BASE["a"] + MOVE["a"] * bool(value)).astype("f2")}
            )
        assert compare(paths[1], paths[2], BOUNDS, base=paths[0]).verdict == verdict


def test_without_a_base_nothing_tells_how_far_is_far(reference, tmp_path):
    """Two different files without attestations need --base."""
    for name in ("x", "y"):
        write_file(tmp_path / f"{name}.safetensors", {"a": BASE["a"] + np.float16(name == "x")})
    with pytest.raises(InputError, match="Name it with --base"):
        compare(tmp_path / "x.safetensors", tmp_path / "y.safetensors", BOUNDS)
    base = tmp_path / "reference/bases/AK.safetensors"
    assert compare(tmp_path / "x.safetensors", tmp_path / "y.safetensors", BOUNDS, base=base).verdict == "different"


def test_a_continued_run_is_measured_from_the_common_base(tmp_path):
    """Where the bases themselves differ, movement counts from the model that both lines share."""
    results = []
    for name, off in (("a", 0.0), ("b", 0.02)):
        first = run(tmp_path / name, off=off)
        second = first.with_name("2.safetensors")
        moved = {key: (BASE[key] + (1.01 + off) * MOVE[key]).astype(np.float16) for key in MOVE}
        write_file(second, BASE | moved)
        attestation.write("export", second, spec("export"), {"base": first})
        results.append(second)
    found = compare(*results, BOUNDS)
    assert found.verdict == "equivalent"
    assert found.weights == pytest.approx(0.02, rel=0.1)


def test_without_states_the_attestations_tell_the_segment(reference, tmp_path):
    """When the states are gone, the digests of the losses still say up to which step they agreed."""
    other = run(tmp_path / "b", off=0.01, loss=LOSS + np.float32(1e-6))
    for path in (reference, other):
        next((path.parent.parent / "states").rglob("*8.safetensors")).unlink()
    found = compare(reference, other, BOUNDS)
    assert found.first_step == 8
    assert found.loss is None
    assert "the losses were not compared: the states are not beside the checkpoints" in found.reasons


def test_the_command(reference, tmp_path):
    """Exit status 0 for identical and equivalent, 1 for different; --json has the distances."""
    other = run(tmp_path / "b", off=1.0)
    assert CliRunner().invoke(cli, ["compare", str(reference), str(reference)]).output == "identical\n"
    done = CliRunner().invoke(cli, ["compare", str(reference), str(other), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["weights"] > 0.5


def test_the_bounds_are_stated():
    """The shipped ledger states bounds, and where they were measured."""
    found = bounds_of(load(SMALL))
    assert all(0 < bound < 1 for bound in (found.weights, found.tensor, found.loss, found.pictures))
    assert "benchmarks/spread.py" in found.measured
