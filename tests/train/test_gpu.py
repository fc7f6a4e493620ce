"""On a GPU: the same file twice, and the CPU's result up to what roundings do. Without a CUDA device these skip, saying so."""

import pytest
import torch

from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.ledger import recipe_of
from astolfo.provenance.compare import EQUIVALENT, bounds_of, compare
from astolfo.train.model import build_parts
from astolfo.train.segment import Placement, train_segment
from tests.train.conftest import STEPS, digest, in_child

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch finds none")


@pytest.fixture
def train_on(inputs, tmp_path):
    """A function that trains a segment on a kind of device, in a process of its own, and returns the state's path."""

    def run(spec, name, device):
        out = tmp_path / name / f"{spec['to']:08d}.safetensors"
        assert in_child(lambda: train_segment(spec, inputs, None, out, Placement(device=device))) == 0
        return out

    return run


def test_two_builds_on_a_gpu_are_one_file(train_on, spec_of):
    """Four logical ranks on one device, twice: the same bytes."""
    assert digest(train_on(spec_of(), "one", "cuda")) == digest(train_on(spec_of(), "two", "cuda"))


def test_a_gpu_gives_what_a_cpu_gives(train_on, spec_of, ledger, tmp_path):
    """The same recipe on a GPU and on the CPU comes out as equivalent, though not as the same bytes."""
    start = build_parts(recipe_of(ledger, ledger.run("plain")), None, torch.device("cpu"))
    found = {name: weights(open_file(train_on(spec_of(), name, name))) for name in ("cuda", "cpu")}
    found["start"] = {
        key: start[key.split("/")[1].partition(".")[0]].get_parameter(key.partition(".")[2]) for key in found["cpu"]
    }
    paths = {name: tmp_path / f"{name}.safetensors" for name in found}
    for name, tensors in found.items():
        write_file(paths[name], tensors)
    assert compare(paths["cuda"], paths["cpu"], bounds_of(ledger), base=paths["start"]).verdict == EQUIVALENT


def weights(state):
    """The trained weights of a state."""
    return {key: state.tensor(key) for key in state.keys() if key.startswith("weights/")}


def test_every_weight_is_finite_on_a_gpu(train_on, spec_of):
    """A state that a GPU made holds finite weights at the asked step."""
    file = open_file(train_on(spec_of(), "gpu", "cuda"))
    assert file.metadata["astolfo.position"] == str(STEPS)
    assert all(torch.isfinite(file.tensor(key)).all() for key in file.keys() if key.startswith("weights/"))
