"""Runs of the DeepSpeed engine: same recipe, same bits, over segments and attempts; what a machine lacks is said."""

import json
import os

import pytest
import torch

from astolfo.checkpoint.safefile import open_file
from astolfo.errors import PlacementError
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import Engine, Optimizer, Precision
from astolfo.train import deepspeed, state
from astolfo.train.placement import Placement
from astolfo.train.segment import train_segment
from tests.train.conftest import digest, in_child

ENGINE = Engine(kind="deepspeed", attention="memory-efficient")


@pytest.fixture
def zero(spec_of):
    """A function that gives the spec of a segment of a run of two ranks."""

    def make(begin=0, end=4, **changes):
        return spec_of(begin, end, **{"engine": ENGINE, "ranks": 2, "steps_per_epoch": None, **changes})

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "weights"), [("AdamW", "fp32"), ("AdamW8bit", "bf16")])
def test_a_resume_leaves_no_trace(train, zero, kind, weights):
    """A run cut into segments ends with the bytes of an uncut one: flat partitions and moments are restored to the bit."""
    changes = {"optimizer": Optimizer(kind=kind), "precision": Precision(weights=weights, compute=weights)}
    uncut = train(zero(**changes), "uncut")
    first = train(zero(0, 2, **changes), "cut")
    assert digest(train(zero(2, 4, **changes), "cut", first)) == digest(uncut)


def test_a_state_holds_every_ranks_partitions(undisturbed, zero):
    """A state has weights by name and, as tensors, what each rank holds; their fp32 partitions are the weights."""
    path = undisturbed(zero(0, 1))
    found = state.load(path)
    assert {key.split("/")[0] for key in found.engine} == {"0", "1"}
    flat = torch.cat([found.engine[f"{rank}/0/fp32"] for rank in range(2)])
    unet = torch.cat([value.reshape(-1) for name, value in found.weights.items() if name.startswith("unet.")])
    assert torch.equal(flat[: len(unet)].sort().values, unet.sort().values)  # a file's tensors are in another order
    assert found.optimizer == {}


def test_what_the_device_lacks_is_in_the_state(undisturbed, zero):
    """Memory-efficient attention needs a GPU: a state made without one says what it had instead."""
    metadata = open_file(undisturbed(zero(0, 1))).metadata
    assert json.loads(metadata["astolfo.realised"]) == {"attention": "math"}


def test_one_rank_trains(train, zero):
    """A run of one rank, for which no process is forked, has a world of that process alone."""
    found = state.load(train(zero(0, 1, ranks=1)))
    assert {key.split("/")[0] for key in found.engine} == {"0"}


def test_it_trains_the_same_model(train, zero):
    """In fp32 its first steps have the losses of our own engine: other bits, the same training."""
    ours = state.load(train(zero(0, 2, engine=None), "ours")).loss
    theirs = state.load(train(zero(0, 2, engine=Engine(kind="deepspeed")), "theirs")).loss
    assert ours == pytest.approx(theirs, rel=1e-3)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)


@pytest.mark.slow
def test_ranks_without_a_batch_keep_step(train, zero, spec_of):
    """Where an epoch's last step has fewer batches than ranks, the engine's loss is that of ours."""
    choices = spec_of()["recipe"]["choices"] | {"short_step": "actual"}
    changes = {"accumulation": 5, "choices": Recipe.model_validate(spec_of()["recipe"] | {"choices": choices}).choices}
    ours = state.load(train(zero(0, 3, engine=None, **changes), "ours")).loss
    theirs = state.load(train(zero(0, 3, **changes), "theirs")).loss
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_a_wrong_number_stops_every_rank(zero, train, bad_noise):
    """A NaN ends a kept run with its last good state, labelled; the ranks agree."""
    good = state.load(train(zero(0, 2, on_failure="keep"), "good"))
    bad_noise(2 * 4 + 1)
    found = state.load(train(zero(0, 4, on_failure="keep"), "bad"))
    assert (found.position, found.stopped["why"], len(found.stopped["samples"])) == (2, "loss", 1)
    assert all(torch.equal(found.weights[name], good.weights[name]) for name in good.weights)


@pytest.mark.slow
def test_a_bad_update_is_undone(zero, train, monkeypatch):
    """Where an engine's update makes an infinite weight, it is taken down, and another one does the steps before again."""
    good = state.load(train(zero(0, 2, on_failure="keep"), "good"))
    original = deepspeed.DeepSpeedTrainer.step

    def step(self, number):
        if number == 2 and self.processes.index == 1:
            update, weights = self.engine.step, self.zero.single_partition_of_fp32_groups[0]
            self.engine.step = lambda: (update(), weights.data.fill_(float("inf")))
        return original(self, number)

    monkeypatch.setattr(deepspeed.DeepSpeedTrainer, "step", step)
    found = state.load(train(zero(0, 4, on_failure="keep"), "bad"))
    assert (found.position, found.stopped["why"]) == (2, "weight")
    assert all(torch.equal(found.weights[name], good.weights[name]) for name in good.weights)
    assert all(torch.equal(found.engine[name], good.engine[name]) for name in good.engine)


def test_nothing_is_written_elsewhere(inputs, zero, tmp_path, monkeypatch):
    """The engine leaves no cache in the home folder, and no file beside the state."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    out = work / "states" / "00000001.safetensors"
    assert in_child(lambda: train_segment(zero(0, 1), inputs, None, out, Placement())) == 0
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in work.rglob("*") if path.is_file()) == [".00000001.lock", out.name, f"{out.name}.sha256"]


def test_compiling_needs_a_compiler(zero, inputs, tmp_path, monkeypatch):
    """A run that compiles is refused, before anything runs, where there is no C++ compiler; the message names it."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    spec = zero(engine=Engine(kind="deepspeed", compile="inductor"))
    with pytest.raises(PlacementError, match=r"'no-such-compiler' is not on the PATH\. Install g\+\+"):
        train_segment(spec, inputs, None, tmp_path / "x" / "4.safetensors", Placement())


def test_the_world_size_is_the_recipes(zero):
    """However many processes are asked for, every rank gets one; a machine with fewer GPUs is refused."""
    recipe = Recipe.model_validate(zero()["recipe"])
    assert deepspeed.check(recipe, Placement(processes=1)).processes == 2
    if torch.cuda.device_count() < 2:
        with pytest.raises(PlacementError, match="needs 2 CUDA devices"):
            deepspeed.check(recipe, Placement(device="cuda"))


@pytest.mark.slow
def test_a_compiled_run_is_reproducible(train, zero, tmp_path, monkeypatch):
    """With compiled blocks a run cut into segments gives the same bytes as an uncut one; kernels are kept in .astolfo/."""
    monkeypatch.chdir(tmp_path)
    changes = {"engine": Engine(kind="deepspeed", compile="inductor", attention="memory-efficient")}
    uncut = train(zero(**changes), "uncut")
    first = train(zero(0, 2, **changes), "cut")
    assert digest(train(zero(2, 4, **changes), "cut", first)) == digest(uncut)
    assert os.listdir(".astolfo/torchinductor")
