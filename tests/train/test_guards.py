"""A wrong number stops the run, says where, and leaves the last good state; with `on_failure: keep` that is its result."""

import json
import weakref

import pytest
import torch

from astolfo.checkpoint.safefile import open_file
from astolfo.errors import StateError, StoreError
from astolfo.ledger.recipe import Recipe
from astolfo.train import state
from astolfo.train.guards import WrongNumber, all_finite, spike
from astolfo.train.loop import Trainer
from astolfo.train.ranks import Processes
from astolfo.train.segment import Placement, train_segment
from tests.train.conftest import STEPS, digest, in_child

pytestmark = pytest.mark.alone
KEEP = {"on_failure": "keep"}


@pytest.fixture
def trainer(inputs, spec_of):
    return Trainer(Recipe.model_validate(spec_of()["recipe"]), inputs, Processes())


def test_many_tensors_are_finite_when_each_is():
    """An infinity or a NaN in any of many tensors is found; that finite numbers have an infinite sum is none."""
    large = torch.full((4,), torch.finfo(torch.float32).max)
    assert all_finite([large, large])
    assert not any(all_finite([large, torch.tensor([0.0, wrong])]) for wrong in (float("inf"), float("nan")))


def test_a_nan_loss_names_step_and_sample(trainer):
    """A NaN in the loss stops before the update, with step, position and sample IDs."""
    with torch.no_grad():
        trainer.parts["unet"].conv_out.bias.fill_(float("nan"))
    before = trainer.gradient_tree.weights.clone()
    with pytest.raises(WrongNumber, match=r"loss is nan at step 0, position 0, samples 5-000000\d\d"):
        trainer.step(0)
    assert torch.equal(before.nan_to_num(), trainer.gradient_tree.weights.nan_to_num())


def test_an_infinite_gradient_names_the_parameter(trainer):
    """An infinite gradient stops before the update and names the parameter."""
    trainer.parts["unet"].conv_out.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(WrongNumber, match=r"gradient at step 0, first in unet\.conv_out\.weight") as error:
        trainer.step(0)
    assert error.value.parameters == ["unet.conv_out.weight"]
    assert len(error.value.samples) == 8


def test_a_state_with_nan_is_not_written(trainer, tmp_path):
    """A weight that is not finite is never saved; nothing appears on the disk."""
    found = trainer.state(1)
    found.weights["unet.conv_out.bias"][0] = float("inf")
    with pytest.raises(StateError, match=r"unet\.conv_out\.bias has NaN or infinity at step 1"):
        state.save(tmp_path / "s.safetensors", found, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_of_another_size_is_refused(inputs, spec_of):
    """A store that makes another number of steps an epoch than the recipe expects is refused before training."""
    recipe = Recipe.model_validate(spec_of()["recipe"] | {"steps_per_epoch": 78})
    with pytest.raises(StoreError, match="16 images, which make 2 steps an epoch; the recipe expects 78"):
        Trainer(recipe, inputs, Processes())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failed_run_reports_and_keeps_its_last_good_state(inputs, spec_of, undisturbed, bad_noise, tmp_path, processes):
    """Without `keep` the segment fails; beside it stand a report and the state before the bad step."""
    bad_noise(2 * 8 + 5)
    out, spec = tmp_path / "bad" / f"{STEPS:08d}.safetensors", spec_of()
    assert in_child(lambda: train_segment(spec, inputs, None, out, Placement(processes=processes))) == 1
    assert not out.exists()
    report = json.loads((out.parent / f"{STEPS:08d}.failure.json").read_text())
    assert (report["why"], report["step"], report["position"], len(report["samples"])) == ("loss", 2, 21, 1)
    assert "`on_failure: keep`" in report["message"]
    kept, good = state.load(next(out.parent.glob(".*.safetensors"))), state.load(undisturbed(spec_of(0, 2)))
    assert kept.position == 2
    assert all(torch.equal(kept.weights[name], good.weights[name]) for name in good.weights)


def test_a_mended_run_goes_on_from_there(inputs, spec_of, train, bad_noise, monkeypatch, tmp_path, undisturbed):
    """Where the cause is gone, the same command ends with the bytes of an undisturbed run, and the report is gone too."""
    whole = digest(undisturbed(spec_of()))
    with monkeypatch.context():
        bad_noise(21)
        out = tmp_path / "bad" / f"{STEPS:08d}.safetensors"
        in_child(lambda: train_segment(spec_of(), inputs, None, out, Placement()))
        monkeypatch.undo()
    assert digest(train(spec_of(), "bad")) == whole
    assert sorted(path.name for path in out.parent.iterdir() if not path.name.endswith(".lock")) == [
        out.name,
        f"{out.name}.sha256",
    ]


def test_a_kept_run_ends_with_its_last_good_state(spec_of, train, bad_noise, undisturbed):
    """With `keep` a chain of segments gives the state before the bad step, labelled; processes, cuts and what follows leave no trace."""
    good = state.load(undisturbed(spec_of(0, 2, **KEEP)))
    bad_noise(21)
    chains = []
    for count in (1, 2):
        before, begin = None, 0
        for end in (1, 3, STEPS + 1):
            before, begin = train(spec_of(begin, end, **KEEP), f"p{count}", before, processes=count), end
        chains.append(before)
    uncut = train(spec_of(0, STEPS + 1, **KEEP), "uncut")
    assert {digest(path) for path in chains} == {digest(uncut)}
    found = state.load(uncut)
    assert (found.position, found.loss) == (2, good.loss)
    assert (found.stopped["step"], found.stopped["why"], len(found.stopped["samples"])) == (2, "loss", 1)
    assert all(torch.equal(found.weights[name], good.weights[name]) for name in good.weights)
    assert "astolfo.stopped" not in open_file(chains[0].with_name("00000001.safetensors")).metadata


def test_a_spike_is_over_so_many_times_the_median():
    """After sixteen steps a loss over the factor times the median of the last 64 is told; before, and without a factor, none."""
    usual = [0.5, 1.0, 1.5] * 20
    assert spike(usual[:15], 100.0, 4.0) is None
    assert spike(usual, 4.0, 4.0) is None
    assert spike(usual, 100.0, None) is None
    assert spike(usual, 4.1, 4.0) == "4.1, over 4 times the median 1 of the steps before,"
    assert spike([100.0] * 50 + [1.0] * 64, 4.1, 4.0)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_spike_ends_a_run_before_its_update(inputs, spec_of, train, monkeypatch, processes, undisturbed):
    """A loss that jumps stops every process at that step; with `keep` the state before it is the result, labelled so."""
    changes = {**KEEP, "loss_spike": 3.0, "accumulation": 1, "steps_per_epoch": None, "ranks": 2}
    monkeypatch.setattr("astolfo.train.guards._FEWEST", 2)
    good = state.load(undisturbed(spec_of(0, 2, **changes)))
    original = Trainer._loss
    monkeypatch.setattr(Trainer, "_loss", lambda self, batch: original(self, batch) * (9 if len(self.losses) == 2 else 1))
    found = state.load(train(spec_of(**changes), "spiked", processes=processes))
    assert (found.position, found.stopped["step"], found.stopped["why"]) == (2, 2, "spike")
    assert all(torch.equal(found.weights[name], good.weights[name]) for name in good.weights)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bad_update_is_undone(spec_of, train, monkeypatch, processes, undisturbed):
    """Where an update itself makes an infinite weight, the kept state is the one before it, and the parameter is named.

    The trainer that went wrong is gone before there is another.
    """
    good = state.load(undisturbed(spec_of(0, 2, **KEEP)))
    original, parameter, init, trees = Trainer.step, "unet.conv_out.bias", Trainer.__init__, []

    def begin(self, *given, **named):
        assert not any(tree() for tree in trees)
        init(self, *given, **named)
        trees.append(weakref.ref(self.gradient_tree))

    def step(self, number):
        if number == 2 and self.gradient_tree.owner(index := self.names.index(parameter)) == self.processes.index:
            update = self.update.step
            weight = self.parameters[index]
            self.update.step = lambda number: (update(number), weight.data.fill_(float("inf")))
        return original(self, number)

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(Trainer, "__init__", begin)
    found = state.load(train(spec_of(**KEEP), f"p{processes}", processes=processes))
    assert (found.position, found.stopped["why"], found.stopped["parameters"]) == (2, "weight", [parameter])
    assert all(torch.equal(found.weights[name], good.weights[name]) for name in good.weights)
    assert all(torch.equal(row[key], found.optimizer[name][key]) for name, row in good.optimizer.items() for key in row)
