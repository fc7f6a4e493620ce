"""Placement decides no bit, and what a machine lacks does not stop a run."""

import logging
import os

import pytest

from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import Precision
from astolfo.train import placement
from astolfo.train.loop import Trainer
from astolfo.train.placement import Placement, bind, near
from astolfo.train.ranks import Processes
from astolfo.train.segment import train_segment
from tests.train.conftest import digest, in_child

LAYER = "text_model.encoder.layers.0"


@pytest.fixture
def placed(inputs, tmp_path):
    """A function that trains a spec somewhere and returns the state's digest."""

    def run(spec, name, **where):
        out = tmp_path / name / f"{spec['to']:08d}.safetensors"
        assert in_child(lambda: train_segment(spec, inputs, None, out, Placement(**where))) == 0
        return digest(out)

    return run


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_gradient_checkpointing_leaves_no_trace(placed, spec_of, compute):
    """Activations that are computed again in the backward pass are the same bits, in fp32 and in bf16."""
    spec = spec_of(0, 2, precision=Precision(weights=compute, compute=compute))
    assert placed(spec, "with", gradient_checkpointing=True) == placed(spec, "without")


def test_gradient_checkpointing_computes_again(inputs, spec_of):
    """With it, a step's backward pass runs the UNet's blocks and the encoders' layers a second time."""

    def work():  # in a process of its own: its backward pass starts threads, which a later fork would not survive
        counts = []
        for on in (False, True):
            recipe = Recipe.model_validate(spec_of()["recipe"])
            trainer = Trainer(recipe, inputs, Processes(), Placement(gradient_checkpointing=on))
            calls = []
            for block in (
                trainer.parts["unet"].down_blocks[1].resnets[0],
                trainer.parts["text_encoder_2"].get_submodule(LAYER).self_attn,
            ):
                block.register_forward_pre_hook(lambda module, *_, calls=calls: calls.append(module))
            trainer.step(0)
            counts.append(len(calls))
        assert counts[1] == 2 * counts[0] > 0

    assert in_child(work) == 0


def test_offloaded_gradients_leave_no_trace(placed, spec_of):
    """Four logical ranks of one process whose partial sums wait in the host's memory give the same state."""
    spec = spec_of(0, 1)
    assert placed(spec, "there", offload_gradients=True) == placed(spec, "here")


def test_numa_and_ramdisk_leave_no_trace(placed, spec_of):
    """A run bound to a NUMA node that reads from the RAM disk gives the same state."""
    spec = spec_of(0, 1)
    assert placed(spec, "there", numa=0, ramdisk=True) == placed(spec, "here")


def test_a_node_that_is_not_there_is_said_and_left_out(caplog):
    """The record's NUMA node 1 on a machine without it: a line in the log, and every CPU."""
    before = os.sched_getaffinity(0)
    bind(999)
    assert "NUMA node 999 is not available here" in caplog.text
    assert os.sched_getaffinity(0) == before


def test_a_node_binds_to_its_cpus(tmp_path, monkeypatch):
    """The CPUs of the node that this process may use are those it then uses."""
    before = os.sched_getaffinity(0)
    first = min(before)
    (tmp_path / "node3").mkdir()
    (tmp_path / "node3" / "cpulist").write_text(f"{first},5000-5003\n")
    monkeypatch.setattr(placement, "_NODES", tmp_path)
    try:
        bind(3)
        assert os.sched_getaffinity(0) == {first}
    finally:
        os.sched_setaffinity(0, before)


def test_the_ram_disk_holds_a_copy_for_as_long_as_it_is_used(inputs, tmp_path, monkeypatch):
    """The dataset's files are copied, byte for byte, and gone afterwards."""
    monkeypatch.setattr(placement, "_RAMDISK", tmp_path)
    with near(inputs.dataset, True) as copy:
        assert copy.parent == tmp_path
        assert {p.name: p.read_bytes() for p in copy.iterdir()} == {p.name: p.read_bytes() for p in inputs.dataset.iterdir()}
    assert not copy.exists()


def test_without_room_the_dataset_stays_where_it_is(inputs, monkeypatch, caplog):
    """A RAM disk that is too small is said in the log; the dataset is read from its own place."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(placement, "_SPARE", 1 << 60)
    with near(inputs.dataset, True) as folder:
        assert folder == inputs.dataset
    assert "stays where it is" in caplog.text
