"""Placement decides no bit, and what a machine lacks does not stop a run."""

import logging
import os
from collections import Counter

import pytest
import torch
from click.testing import CliRunner

from astolfo import devices
from astolfo.cli import cli
from astolfo.commands.jobs import training
from astolfo.errors import PlacementError
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import Precision
from astolfo.plan import memory
from astolfo.train import placement
from astolfo.train.loop import Trainer
from astolfo.train.placement import Placement, bind, on_ramdisk
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


@pytest.mark.parametrize("compute", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("blocks", [True, ("text_encoders", "up_blocks.1")])
def test_gradient_checkpointing_leaves_no_trace(placed, undisturbed, spec_of, compute, blocks):
    """Activations that are computed again in the backward pass are the same bits, in fp32 and in bf16, whichever they are."""
    spec = spec_of(0, 2, precision=Precision(weights=compute, compute=compute))
    assert placed(spec, "with", gradient_checkpointing=blocks) == digest(undisturbed(spec))


def test_gradient_checkpointing_computes_again(inputs, spec_of):
    """A step's backward pass runs the blocks that it names, of the UNet and of the encoders, a second time, and no other."""

    def work():  # in a process of its own: its backward pass starts threads, which a later fork would not survive
        counts = []
        for blocks in (False, True, ("down_blocks.1",), ("text_encoders", "mid_block")):
            recipe = Recipe.model_validate(spec_of()["recipe"])
            trainer = Trainer(recipe, inputs, Processes(), Placement(gradient_checkpointing=blocks))
            unet, encoder, calls = trainer.parts["unet"], trainer.parts["text_encoder_2"], Counter()
            for name, module in (
                ("down", unet.down_blocks[1].resnets[0]),
                ("up", unet.up_blocks[0].resnets[0]),
                ("attention", unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1),
                ("text", encoder.get_submodule(LAYER).self_attn),
            ):
                module.register_forward_pre_hook(lambda *_, name=name, calls=calls: calls.update([name]))
            trainer.step(0)
            counts.append(calls)
        none, every, down, text = counts
        assert every == {name: 2 * count for name, count in none.items()}
        assert down == none | {name: 2 * none[name] for name in ("down", "attention")}
        assert text == none | {"text": 2 * none["text"]}

    assert in_child(work) == 0


def test_frozen_text_encoders_are_not_computed_again(inputs, spec_of):
    """What does not train keeps no activations to save: the conditioning wants no gradients, and is remembered over steps."""

    def work():
        recipe = Recipe.model_validate(spec_of(run="velocity", ranks=1, steps_per_epoch=None)["recipe"])
        assert recipe.learning_rate.text_encoder == recipe.learning_rate.text_encoder_2 == 0.0
        trainer = Trainer(recipe, inputs, Processes(), Placement(gradient_checkpointing=True))
        trainer.step(0)
        trainer.step(0)  # the same captions
        context, pooled = trainer.conditioning.encode(trainer.text.read(["a caption"]), "cpu")
        assert not context.requires_grad
        assert not pooled.requires_grad

    assert in_child(work) == 0


def test_a_gpu_decides_what_is_computed_again(spec_of, monkeypatch, caplog):
    """What nobody asked for is chosen from the GPU's memory, and logged; what was asked for stands, and on a CPU there is nothing."""
    recipe, nothing = spec_of()["recipe"], dict.fromkeys(memory.SAVING)
    kept, every = (dict.fromkeys(memory.SAVING, value) for value in (False, True))
    caplog.set_level(logging.INFO)
    for gigabytes, chosen, level in ((80, kept, "INFO"), (12, every, "WARNING")):
        monkeypatch.setattr(devices, "memory", lambda size=gigabytes: size << 30)
        caplog.clear()
        assert training._fitting(recipe, 1, "cuda", nothing) == chosen
        (said,) = caplog.records
        assert said.levelname == level
        assert f"of {gigabytes * 1.0737:.1f} GB a device" in said.message
    assert training._fitting(recipe, 1, "cuda", nothing | {"gradient_checkpointing": ("mid_block",)}) == {
        "gradient_checkpointing": ("mid_block",), "offload_gradients": False,
    }  # fmt: skip
    assert training._fitting(recipe, 1, "cpu", nothing) == kept


def test_an_unknown_block_is_refused():
    """A misspelt block names those there are."""
    said = CliRunner().invoke(cli, ["job", "train", "--gradient-checkpointing", "mid_block,middle"])
    assert said.exit_code == 2
    assert "Expected all, none, or some of text_encoders,mid_block," in said.output
    assert "found 'middle'." in said.output


def test_a_full_gpu_says_what_helps(inputs, spec_of, tmp_path, monkeypatch):
    """A training whose GPU's memory runs out names the run, and the placement that needs least."""

    def step(self, number):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. If reserved memory is large try X")

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(PlacementError, match=r"Tried to allocate 2\.00 GiB\. Give the run out .*offload_gradients: true"):
        train_segment(spec_of(0, 1), inputs, None, tmp_path / "out" / "00000001.safetensors", Placement())


def test_full_gpus_say_the_same(inputs, spec_of, tmp_path, monkeypatch, capfd):
    """All processes run out at once: each says what helps, and the last word is not that another one failed."""

    def step(self, number):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Trainer, "step", step)
    out = tmp_path / "out" / "00000001.safetensors"
    assert in_child(lambda: train_segment(spec_of(0, 1), inputs, None, out, Placement(processes=2))) == 1
    said = capfd.readouterr().err
    assert "PlacementError: The GPU's memory ran out: CUDA out of memory. Tried to allocate 2.00 GiB. Give the run out" in said
    assert "Another training process stopped" not in said


def test_offloaded_gradients_leave_no_trace(placed, undisturbed, spec_of):
    """Four logical ranks of one process whose partial sums wait in the host's memory give the same state."""
    spec = spec_of(0, 1)
    assert placed(spec, "there", offload_gradients=True) == digest(undisturbed(spec))


def test_numa_and_ramdisk_leave_no_trace(placed, undisturbed, spec_of):
    """A run bound to a NUMA node that reads by several threads from the RAM disk gives the same state."""
    spec = spec_of(0, 1)
    assert placed(spec, "there", numa=0, ramdisk=True, loader_workers=3) == digest(undisturbed(spec))


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
    with on_ramdisk(inputs.dataset, True) as copy:
        assert copy.parent == tmp_path
        assert {p.name: p.read_bytes() for p in copy.iterdir()} == {p.name: p.read_bytes() for p in inputs.dataset.iterdir()}
    assert not copy.exists()


def test_without_room_the_dataset_stays_where_it_is(inputs, monkeypatch, caplog):
    """A RAM disk that is too small is said in the log; the dataset is read from its own place."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(placement, "_SPARE", 1 << 60)
    with on_ramdisk(inputs.dataset, True) as folder:
        assert folder == inputs.dataset
    assert "stays where it is" in caplog.text
