"""Time leaves no trace: a training that is killed at any moment, loses power or fills the disk ends with the same file."""

import errno
import os
import random
import signal
import time

import pytest

from astolfo import files
from astolfo.checkpoint import safefile
from astolfo.errors import InputError, PlacementError
from astolfo.files import sidecar
from astolfo.ledger.schema import Optimizer
from astolfo.train import state
from astolfo.train.autosave import Autosave
from astolfo.train.loop import Trainer
from astolfo.train.segment import Placement, train_segment
from tests.train.conftest import digest, in_child

STEPS = 4
SMALL = {"ranks": 2, "accumulation": 1, "steps_per_epoch": None}


def started(spec, inputs, out, processes):
    """A training in processes of its own that keeps its state after every step; returns the group's leader."""
    child = os.fork()
    if child == 0:
        os.setsid()
        placement = Placement(processes=processes, keep_every=0.0)
        os._exit(in_child_code(lambda: train_segment(spec, inputs, None, out, placement)))
    return child


def in_child_code(work):
    """0 when `work` ends well. The caller is the process to be killed, so nothing stands between it and the training."""
    from astolfo import numerics

    numerics.make_deterministic()
    try:
        work()
    except BaseException:
        return 1
    return 0


def killed_at(child, out, moment, fraction):
    """Kills the group of `child` at a moment: so far into its start, into a step, or into a save. Returns the moment, or "end"."""
    begun = time.monotonic()
    seen = kept_time(out)
    while True:
        if os.waitpid(child, os.WNOHANG)[0]:
            return "end"
        if (
            (moment == "start" and time.monotonic() - begun > 2 * fraction)
            or (moment == "step" and kept_time(out) != seen)
            or (moment == "save" and list(out.parent.glob(".*.part")))
        ):
            break
        time.sleep(0.0005)
    time.sleep({"start": 0.0, "step": 0.4 * fraction, "save": 0.02 * fraction}[moment])
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while group_alive(child):
        time.sleep(0.05)
    return moment


def kept_time(out):
    """When the newest kept state was complete; 0 when there is none."""
    times = []
    for path in out.parent.glob(f".{out.stem}-*.sha256"):
        try:
            times.append(path.stat().st_mtime_ns)
        except FileNotFoundError:
            continue
    return max(times, default=0)


def group_alive(group):
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("kills", "steps"), [(3, 8), pytest.param(20, 40, marks=pytest.mark.slow)], ids=["three", "twenty"])
def test_kills_leave_no_trace(train, spec_of, inputs, tmp_path, kills, steps, undisturbed):
    """Killed with SIGKILL at random moments of starting, of steps and of saves, in one or two processes: the same file."""
    spec, seeded = spec_of(0, steps, optimizer=Optimizer(kind="AdamW8bit"), **SMALL), random.Random(25112201)
    moments = [("start", "step", "save")[number % 3] for number in range(kills)]
    seeded.shuffle(moments)
    out, ended = tmp_path / "killed" / f"{steps:08d}.safetensors", []
    for moment in moments:
        child = started(spec, inputs, out, seeded.choice((1, 2)))
        ended.append(killed_at(child, out, moment, seeded.random()))
    assert ended == moments, "the training was done before it was killed often enough"
    assert digest(train(spec, "killed")) == digest(undisturbed(spec))
    assert [path.name for path in out.parent.glob(".*.safetensors*")] == []


@pytest.fixture
def interrupted(spec_of, inputs, tmp_path):
    """(spec, out, kept state) of a training that was stopped after its second step."""
    spec, out = spec_of(0, STEPS, **SMALL), tmp_path / "out" / f"{STEPS:08d}.safetensors"

    def stop_at_the_second():
        original = Trainer.step

        def step(self, number):
            if number == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, number)

        Trainer.step = step
        train_segment(spec, inputs, None, out, Placement())

    assert in_child(stop_at_the_second) == 1
    return spec, out, next(out.parent.glob(".*.safetensors"))


def halved(path):
    os.truncate(path, path.stat().st_size // 2)


def zeroed(path):
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size)


LOSSES = {
    "the state was cut short": lambda kept: halved(kept),
    "the state's last blocks are zeros": lambda kept: zeroed(kept),
    "the state is empty": lambda kept: os.truncate(kept, 0),
    "the side-car is missing": lambda kept: sidecar(kept).unlink(),
    "the side-car is empty": lambda kept: os.truncate(sidecar(kept), 0),
    "the side-car is zeros": lambda kept: sidecar(kept).write_bytes(bytes(80)),
    "the side-car is no text": lambda kept: sidecar(kept).write_bytes(b"\xff" * 80),
}


def test_power_loss_is_recognised(interrupted, train, undisturbed):
    """Whatever of a kept state did not reach the disk, it is not used; the run begins again and gives the same bytes."""
    spec, out, kept = interrupted
    whole, record = kept.read_bytes(), sidecar(kept).read_bytes()
    found = Autosave(out, spec).load()
    assert found is not None
    assert found.position == 2
    for what, lose in LOSSES.items():
        kept.write_bytes(whole)
        sidecar(kept).write_bytes(record)
        lose(kept)
        with pytest.raises(InputError):
            state.load(kept)
        assert Autosave(out, spec).load() is None, what
    assert digest(train(spec)) == digest(undisturbed(spec))


def test_a_kill_between_a_state_and_its_side_car(interrupted, inputs):
    """Killed when a new kept state is there but its side-car is not, the next attempt goes on from the one before it."""
    spec, out, _ = interrupted
    child = os.fork()
    if child == 0:
        safefile.write_sidecar = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        os._exit(in_child_code(lambda: train_segment(spec, inputs, None, out, Placement(keep_every=0.0))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(list(out.parent.glob(".*.safetensors"))) == 2
    assert Autosave(out, spec).load().position == 2


def test_a_full_disk_leaves_the_last_state(interrupted, inputs, train, undisturbed):
    """A disk that fills up while a state is kept ends the job and says so; the state before it is whole, and used."""
    spec, out, kept = interrupted
    before = kept.read_bytes()

    def fill_up():
        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        files.os.fsync = full
        with pytest.raises(PlacementError, match="disk is full.*Nothing was lost"):
            train_segment(spec, inputs, None, out, Placement(keep_every=0.0))

    assert in_child(fill_up) == 0
    assert not out.exists()
    assert [path.name for path in out.parent.glob(".*.part")] == []
    assert (kept.read_bytes(), Autosave(out, spec).load().position) == (before, 2)
    assert digest(train(spec)) == digest(undisturbed(spec))
