"""States are written while the training goes on: what is written is what was, and a kill meanwhile loses nothing."""

import os
import re
import signal
import threading
import weakref
from pathlib import Path

import pytest
import torch

from astolfo.errors import InputError, StateError
from astolfo.train import state
from astolfo.train.autosave import Autosave
from astolfo.train.segment import Placement, train_segment
from astolfo.train.state import State
from tests.train.conftest import STEPS, digest

pytestmark = pytest.mark.alone


def small(value=1.0):
    return State(position=3, weights={"unet.a": torch.full((64, 64), value)}, optimizer={"unet.a": {"m": torch.ones(64)}})


@pytest.fixture
def held(monkeypatch):
    """An event that every write waits for."""
    event, save = threading.Event(), state.save
    monkeypatch.setattr(state, "save", lambda *given, **options: (event.wait(), save(*given, **options)))
    return event


@pytest.fixture
def kept(tmp_path):
    """The kept states of a segment that is not there yet."""
    return Autosave(tmp_path / "00000009.safetensors", {"any": "spec"})


def test_what_changes_meanwhile_is_not_written(kept, held):
    """The file holds the state as it was when the write began, though the training changed its tensors meanwhile."""
    found = small()
    kept.save(found.staged(), wait=False)
    found.weights["unet.a"].fill_(2.0)
    held.set()
    assert kept.load().weights["unet.a"].unique().tolist() == [1.0]


def test_nothing_is_there_before_it_is_whole(kept, held, tmp_path):
    """While a state is being written there is no file of it."""
    kept.save(small(), wait=False)
    assert not list(tmp_path.glob(".*.safetensors"))
    held.set()
    kept.wait()
    assert len(list(tmp_path.glob(".*.safetensors"))) == 1


def test_a_written_tensor_is_given_back(kept, tmp_path):
    """After the write nothing holds the staged tensors, though the state itself is still held."""
    staged = small().staged()
    alive = weakref.ref(staged.weights["unet.a"])
    kept.save(staged, wait=False)
    kept.wait()
    assert alive() is None
    assert kept.load().weights["unet.a"].equal(small().weights["unet.a"])


def test_a_failed_write_is_told(kept, tmp_path):
    """What goes wrong in the background is raised where the training next waits for it, once."""
    kept.save(small(float("nan")), wait=False)
    with pytest.raises(StateError, match="NaN or infinity at step 3"):
        kept.wait()
    kept.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_bf16_weight_is_found(tmp_path, bad):
    """One NaN or infinity among bf16 weights stops the write; the largest numbers do not."""
    weight = torch.full((64, 64), torch.finfo(torch.bfloat16).max, dtype=torch.bfloat16)
    state.save(tmp_path / "good.safetensors", State(position=1, weights={"unet.a": -weight}), "x")
    weight[63, 1] = bad
    with pytest.raises(StateError, match="NaN or infinity"):
        state.save(tmp_path / "bad.safetensors", State(position=1, weights={"unet.a": weight}), "x")


def test_a_kill_during_a_write_loses_nothing(inputs, spec_of, train, tmp_path, undisturbed):
    """Killed while its second state is half written, a training goes on from its first and ends with the same bytes."""
    whole, spec = digest(undisturbed(spec_of())), spec_of()
    out = tmp_path / "killed" / f"{STEPS:08d}.safetensors"
    child = os.fork()
    if child == 0:
        write_file, saves = state.write_file, []

        def write(path, tensors, *rest, **options):
            saves.append(path)
            if len(saves) == 2:  # a file that is begun beside its place, and never finished
                path.with_name(f".{path.name}.{os.getpid()}.part").write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            return write_file(path, tensors, *rest, **options)

        state.write_file = write
        try:
            train_segment(spec, inputs, None, out, Placement(keep_every=0.0))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert state.load(next(out.parent.glob(".*.safetensors"))).position == 1
    assert digest(train(spec, "killed")) == whole
    assert not list(out.parent.glob(".*.part"))


def test_a_damaged_state_explains_what_went_wrong(tmp_path):
    """A flipped bit is an error when the block ends, whatever went wrong inside it; an error of a whole file stays itself."""
    path = tmp_path / "state.safetensors"
    state.save(path, State(position=3, weights={"unet.x": torch.arange(100_000.0)}), "mine")
    with pytest.raises(ZeroDivisionError), state.reading(path):
        1 / 0  # noqa: B018
    with pytest.raises(StateError, match="belongs to another recipe"):
        state.load(path, "other")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged"), state.reading(path) as found:
        assert found.position == 3
    with pytest.raises(InputError, match="is damaged"), state.reading(path):
        1 / 0  # noqa: B018
    with pytest.raises(InputError, match="is damaged"):
        state.load(path, "other")


def test_a_restored_state_gives_its_pages_back(tmp_path):
    """A weight that is copied leaves this process's memory, its neighbours stay readable, and so does it."""
    large = {name: torch.full((1 << 20,), value) for name, value in (("unet.a", 1.0), ("unet.b", 2.0))}
    state.save(
        tmp_path / "x.safetensors", State(position=1, weights=dict(large), optimizer={"unet.a": {"m": large["unet.b"]}}), "id"
    )
    found = state.load(tmp_path / "x.safetensors", "id")
    for value in (*found.weights.values(), found.optimizer["unet.a"]["m"]):
        value.sum()
    before = _mapped(tmp_path / "x.safetensors")
    found.release("unet.a")
    assert before - _mapped(tmp_path / "x.safetensors") >= 2 * (4 << 20) - 4 * 4096
    assert torch.equal(found.weights["unet.a"], large["unet.a"])
    assert torch.equal(found.weights["unet.b"], large["unet.b"])


def _mapped(path):
    """Bytes of a file's pages that are in this process's memory."""
    lines, within, found = Path("/proc/self/smaps").read_text().splitlines(), False, 0
    for line in lines:
        if re.match(r"[0-9a-f]+-", line):
            within = line.endswith(str(path))
        elif within and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found
