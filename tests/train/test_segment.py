"""The recipe alone decides the bits: not the processes, not the segments, not a kill."""

import contextlib
import os
import shutil
import signal
import time

import pytest
import torch

from astolfo.checkpoint.safefile import open_file
from astolfo.errors import InputError, StateError
from astolfo.liveness import watch_parent
from astolfo.train import state
from astolfo.train.loop import Trainer
from astolfo.train.ranks import Processes
from astolfo.train.saving import Saver
from astolfo.train.segment import Placement, train_segment
from tests.train.conftest import STEPS, digest, in_child


@pytest.fixture
def whole(undisturbed, spec_of):
    return digest(undisturbed(spec_of()))


def test_processes_leave_no_trace(train, undisturbed, spec_of):
    """Four logical ranks run by 1, 2 or 4 processes give the same state file after an epoch."""
    spec = spec_of(0, 2)
    assert {digest(train(spec, f"p{count}", processes=count)) for count in (2, 4)} == {digest(undisturbed(spec))}


@pytest.mark.parametrize("cuts", [(2,), (1, 2)])
def test_segments_leave_no_trace(train, spec_of, whole, cuts):
    """A run cut anywhere, also within an epoch, gives the same last state as an uncut one."""
    before, begin = None, 0
    for end in (*cuts, STEPS):
        before = train(spec_of(begin, end), "cut", before)
        begin = end
    assert digest(before) == whole


def test_two_runs_are_the_same_file(train, spec_of, whole):
    """Training twice gives the same bytes."""
    assert digest(train(spec_of(), "again")) == whole


def test_another_recipe_is_another_file(undisturbed, spec_of):
    """Another seed gives other bytes after one step, so the equalities above mean something."""
    assert digest(undisturbed(spec_of(0, 1, seed=1))) != digest(undisturbed(spec_of(0, 1)))


@pytest.mark.parametrize("kind", ["AdamW", "AdamW8bit"])
def test_optimizer_state_survives_a_cut(train, undisturbed, spec_of, kind):
    """Moments and step counts of each optimizer are restored to the bit; most of AdamW8bit's are in 8 bits."""
    from astolfo.ledger.schema import Optimizer

    changes = {"optimizer": Optimizer(kind=kind)}
    uncut = undisturbed(spec_of(**changes))
    first = undisturbed(spec_of(0, 2, **changes))
    assert digest(train(spec_of(2, STEPS, **changes), "cut", first)) == digest(uncut)
    file = open_file(uncut)
    moments = [key for key in file.keys() if key.endswith(("state1", "exp_avg"))]
    eight = [key for key in moments if file.dtype(key) == "U8"]
    elements = [sum(torch.Size(file.shape(key)).numel() for key in keys) for keys in (eight, moments)]
    assert elements[0] / elements[1] > 0.8 if kind == "AdamW8bit" else not eight


def test_a_kill_leaves_no_trace(inputs, spec_of, whole, tmp_path):
    """A training killed with SIGKILL after any step goes on from its last saved step and ends with the same bytes."""
    out, spec = tmp_path / "killed" / f"{STEPS:08d}.safetensors", spec_of()
    kills = 0
    while not out.exists():
        child = os.fork()
        if child == 0:
            _train_and_die_after_one_step(spec, inputs, out)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        kills += status == -signal.SIGKILL
        assert status in (0, -signal.SIGKILL)
    assert kills == STEPS - 1
    assert digest(out) == whole
    assert [path.name for path in out.parent.glob(".*.safetensors*")] == []


def _train_and_die_after_one_step(spec, inputs, out):
    original, done, start = Trainer.step, [], Saver.start
    Saver.start = lambda self, *given: (start(self, *given), self.wait())  # test_saving.py kills during a write

    def step(self, number):
        if done:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(number)
        return original(self, number)

    Trainer.step = step
    try:
        train_segment(spec, inputs, None, out, Placement(keep_every=0.0))
    finally:
        os._exit(0 if out.exists() else 1)


def test_sigterm_saves_and_says_so(inputs, spec_of, whole, tmp_path, train):
    """Asked to stop, a training saves after the step it is in; the next attempt goes on and gives the same bytes."""
    out, spec = tmp_path / "out" / f"{STEPS:08d}.safetensors", spec_of()
    child = os.fork()
    if child == 0:
        original = Trainer.step

        def step(self, number):
            os.kill(os.getpid(), signal.SIGTERM)
            return original(self, number)

        Trainer.step = step
        os._exit(in_child(lambda: train_segment(spec, inputs, None, out, Placement())))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    kept = next(out.parent.glob(".*.safetensors"))
    assert state.load(kept).position == 1
    assert digest(train(spec)) == whole


def test_processes_die_with_their_parent(inputs, spec_of, tmp_path):
    """When process 0 is killed, the others end by themselves, as soon as any process notices that its parent is gone."""
    out, spec = tmp_path / "out" / "00000999.safetensors", spec_of(0, 999)
    child = os.fork()
    if child == 0:
        os.setsid()
        try:
            train_segment(spec, inputs, None, out, Placement(processes=2, keep_every=0.0))
        finally:
            os._exit(0)
    try:
        while not list(out.parent.glob(".*.safetensors.sha256")):  # then both are at work
            assert os.waitpid(child, os.WNOHANG)[0] == 0, "the training ended before it kept a state"
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for _ in range(20):
            if not _group_alive(child):
                break
            _notice_a_gone_parent()
        assert not _group_alive(child), "a process of the training outlived it"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def _notice_a_gone_parent():
    """Returns when a process that does nothing else has noticed that its parent is gone: a measure of this machine as it is."""
    (said, say), (ended, end) = os.pipe(), os.pipe()
    parent = os.fork()
    if parent == 0:
        mine = os.getpid()
        if os.fork() == 0:
            watch_parent(mine)
            os.write(say, b".")
            signal.pause()
        os.read(said, 1)
        os._exit(0)
    os.close(end)
    os.waitpid(parent, 0)
    os.read(ended, 1)  # nobody writes: it returns when nobody could
    for one in (said, say, ended):
        os.close(one)


def _group_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_state_of_another_recipe_is_refused(undisturbed, spec_of, inputs, tmp_path):
    """A segment does not start from the state of another recipe."""
    first = undisturbed(spec_of(0, 1, seed=1))
    with pytest.raises(StateError, match="belongs to another recipe"):
        train_segment(spec_of(1, STEPS), inputs, first, tmp_path / "x" / "3.safetensors", Placement())


def test_a_damaged_state_is_refused(undisturbed, spec_of, inputs, tmp_path):
    """One flipped bit in a state stops the run that would start from it, with both digests."""
    first = shutil.copytree(undisturbed(spec_of(0, 2)).parent, tmp_path / "first") / "00000002.safetensors"
    data = bytearray(first.read_bytes())
    data[-9] ^= 1
    first.write_bytes(data)
    with pytest.raises(InputError, match="damaged: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        train_segment(spec_of(2, STEPS), inputs, first, tmp_path / "x" / "3.safetensors", Placement())


def test_frozen_blocks_stay_out_of_the_state(undisturbed, spec_of):
    """The 71 % UNet keeps its frozen blocks: they are in no state."""
    keys = open_file(undisturbed(spec_of(0, 1))).keys()
    assert not [key for key in keys if key.startswith("weights/unet.up_blocks.2.resnets")]
    assert [key for key in keys if key.startswith("weights/unet.up_blocks.1.resnets")]


def test_a_rate_of_zero_trains_nothing(inputs, spec_of):
    """With learning rate 0 a part's weights are not trained at all."""
    from astolfo.ledger.recipe import Recipe
    from astolfo.ledger.schema import LearningRate

    recipe = Recipe.model_validate(
        spec_of()["recipe"] | {"learning_rate": LearningRate(unet=0.0, text_encoders=1e-5).model_dump()}
    )
    names = Trainer(recipe, inputs, Processes()).names
    assert {name.split(".")[0] for name in names} == {"text_encoder", "text_encoder_2"}
