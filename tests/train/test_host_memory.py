"""The host's memory is looked at before it runs out, and a training that the kernel ended is told of."""

import logging
import mmap
import os
import platform
import signal
from pathlib import Path

import pytest
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.errors import PlacementError
from astolfo.ledger import load, recipe_of
from astolfo.train import host_memory
from tests.conftest import SMALL
from tests.train.conftest import in_child


@pytest.mark.slow
def test_what_true_size_needs_is_what_was_measured():
    """One rank that trains the whole UNet alone needs 19.0 GB with latents of 16x16, to 10 %."""
    full = load(SMALL, "full")
    recipe = recipe_of(full, full.run("flow")).model_copy(update={"ranks": 1})
    assert host_memory.needed_by_training(recipe, 1, False, (128, 128)) == pytest.approx(19.0e9, rel=0.1)


def test_of_the_miniature_nothing_is_said(ledger):
    """A model that has room everywhere is trained without a word."""
    assert host_memory.needed_by_training(recipe_of(ledger, ledger.run("flow")), 1, False, (48, 48)) is None


def test_what_an_evaluation_needs_is_counted(ledger):
    """SDXL's 3.47 billion parameters in fp32, and once more for each of several processes; of the miniature nothing is said.

    Besides, each process holds three times the decoder's widest layer: 256 channels of the picture's size.
    """
    found = [Architecture.from_mapping(one.scale.architectures["sdxl"], "sdxl") for one in (load(SMALL, "full"), ledger)]
    widest, large = 4 * 256 * 1024 * 1024, (1024, 1024)
    assert host_memory.needed_by_evaluation(found[0], 1, 1, large) == pytest.approx(
        13.88e9 + 3 * widest + host_memory.PROGRAM, rel=0.001
    )
    assert host_memory.needed_by_evaluation(found[0], 2, 1, large) == pytest.approx(
        3 * 13.88e9 + 6 * widest + host_memory.PROGRAM, rel=0.001
    )
    assert host_memory.needed_by_evaluation(found[1], 2, 8, (48, 48)) is None


def test_host_memory_is_the_less_of_machine_and_control_group(tmp_path):
    """Free memory is the machine's, or what a control group leaves of it; page cache counts as free."""
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 50 kB\n")
    assert host_memory.available(tmp_path, tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("25000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\ninactive_file 10000\n")
    assert host_memory.available(tmp_path, tmp_path) == 15000
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory.available(tmp_path, tmp_path) == 50 * 1024
    assert host_memory.available(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc, whose ways these are")
def test_freed_memory_goes_back_to_the_system(capfd):
    """Every second of 200 tensors of 2 MB is freed between the others: its memory is given back, not kept as a gap.

    But for those that lay in what this process had free before.
    """

    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    def work():
        host_memory.free_at_once()
        torch.ones(30_000_000, dtype=torch.uint8)  # which would move glibc's own bound to its size
        tensors = [torch.ones(2_000_000, dtype=torch.uint8) for _ in range(200)]
        before, tensors[::2] = held(), [None] * 100
        print(before - held())

    assert in_child(work) == 0
    assert int(capfd.readouterr().out) > 100_000_000


def test_too_little_memory_is_said_first(caplog):
    """What is needed and what is free stand in the log, as a warning with what helps when it is hardly enough."""
    with caplog.at_level(logging.INFO):
        host_memory.check(18e9, 30e9, 0.0)
        host_memory.check(18e9, 17e9, 0.0)
        host_memory.check(18e9, 10e9, 8e9)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]
    assert "18.0 GB of memory are needed, and 17.0 GB are free: What helps" in caplog.text


def test_what_cannot_fit_is_refused():
    """A training that the kernel would end does not begin."""
    with pytest.raises(PlacementError, match=r"18.0 GB of memory are needed, and 10.0 GB are free: the kernel would end"):
        host_memory.check(18e9, 10e9, 0.0)
    with pytest.raises(PlacementError, match=r"10.0 GB and 4.0 GB of swap space are free"):
        host_memory.check(18e9, 10e9, 4e9)


def test_swap_space_is_the_less_of_machine_and_control_group(tmp_path):
    """Free swap space is the machine's, or what a control group leaves of it."""
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nSwapFree: 50 kB\n")
    assert host_memory.available_swap(tmp_path, tmp_path) == 50 * 1024
    (tmp_path / "memory.swap.max").write_text("30000\n")
    (tmp_path / "memory.swap.current").write_text("20000\n")
    assert host_memory.available_swap(tmp_path, tmp_path) == 10000
    assert host_memory.available_swap(tmp_path / "none", tmp_path / "none") == 0.0


def test_a_killed_training_is_told_of():
    """When the kernel ends the process that trains, the one that waits for it says so, with what was needed."""

    def work():
        with pytest.raises(PlacementError, match="killed by signal 9, most likely for want of memory: about 18.0 GB were needed"):
            host_memory.supervised(lambda: os.kill(os.getpid(), signal.SIGKILL), 18e9)

    assert in_child(work) == 0


def test_a_supervised_training_ends_as_it_would_alone(tmp_path):
    """Its exit status is handed on, and what it did is done."""

    def work():
        host_memory.supervised(lambda: (tmp_path / "done").touch(), 18e9)
        with pytest.raises(SystemExit, match="3"):
            host_memory.supervised(lambda: exit(3), 18e9)

    assert in_child(work) == 0
    assert (tmp_path / "done").exists()
