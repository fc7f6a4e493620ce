"""This machine as an entry of hardware/: its cards by a made-up driver, or its cores; and a plan for it."""

import os

import pytest
import yaml
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import PlacementError
from astolfo.ledger import schema
from astolfo.plan import machine
from tests.conftest import SMALL

TWO = "NVIDIA GeForce RTX 3090, 24576, 350.00, 8.6\nNVIDIA GeForce RTX 3090, 24576, 280.00, 8.6\n"


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts a made-up nvidia-smi on PATH that says what it is given; "" is a machine whose driver answers nothing."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def says(text, old=False):
        refusal = 'case "$*" in *compute_cap*) echo "Field is not a valid field" >&2; exit 2;; esac\n' if old else ""
        program = tmp_path / "nvidia-smi"
        (tmp_path / "said").write_text(text)
        program.write_text(f'#!/bin/sh\n{refusal}echo "$*" >> {tmp_path}/asked\ncat {tmp_path}/said\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "asked"

    return says


def astolfo(*arguments, code=0):
    found = CliRunner().invoke(cli, ["--config", str(SMALL), *arguments])
    assert found.exit_code == code, found.output
    return found.output if not found.exception or code != 1 else str(found.exception)


def test_cards_are_those_of_the_driver(driver):
    """Two cards of the driver are one machine, with their own power limits and what the library knows of the card."""
    driver(TWO)
    found = machine.this_machine("cuda")
    assert (found.title, found.devices, found.device_memory_gib) == ("Two GeForce RTX 3090", 2, 24)
    assert (found.compute_capability, found.peak_tflops, found.power.watts) == ((8, 6), 71, 630)


def test_only_the_cards_of_this_process_count(driver, monkeypatch):
    """CUDA_VISIBLE_DEVICES is respected: it names the cards that are asked about, and none at all where it is empty."""
    asked = driver(TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    machine.this_machine("cuda")
    assert "--id=1" in asked.read_text()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(PlacementError, match="no CUDA device"):
        machine.this_machine("cuda")


def test_an_old_driver_and_an_unknown_card_are_described(driver):
    """A driver that knows no capabilities still tells of cards; what of a card is not known is left out, not guessed."""
    driver("NVIDIA GeForce RTX 4090, 24564, 450.00\n", old=True)
    assert machine.this_machine("cuda").compute_capability == (8, 9)
    driver("NVIDIA GeForce RTX 3070 Laptop GPU, 8192, [N/A], 8.6\n")
    found = machine.this_machine("cuda")
    assert (found.title, found.peak_tflops, found.power) == ("One GeForce RTX 3070 Laptop GPU", None, None)
    assert (found.device_memory_gib, found.compute_capability) == (8, (8, 6))


@pytest.mark.parametrize("said", ["", "No devices were found\n", "Failed to initialize NVML: Driver/library version mismatch\n"])
def test_a_driver_without_cards_has_none(driver, said):
    """What a driver without a card or with an error prints is no card."""
    driver(said)
    with pytest.raises(PlacementError, match="no CUDA device"):
        machine.this_machine("cuda")


def test_a_card_without_a_memory_is_refused(driver):
    """A card whose memory the driver does not tell cannot be planned for, and the message says what to do."""
    driver("NVIDIA GeForce RTX 4090, [N/A], 450.00, 8.9\n")
    with pytest.raises(PlacementError, match="device_memory_gib"):
        machine.this_machine("cuda")


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    """A machine without cards is its cores, as many as this process may use, and its memory."""
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 3, 5})
    found = machine.this_machine("cpu")
    assert (found.device, found.devices) == ("cpu", 3)
    assert found.title.startswith("3 cores of ")
    assert found.host_memory_gib > 0


def test_what_is_printed_is_an_entry_of_the_ledger(driver):
    """`astolfo hardware` prints a file of hardware/: read again it is the same machine, and so is that of a named one."""
    driver(TWO)
    said = astolfo("hardware")
    assert schema.Hardware.model_validate(yaml.safe_load(said)) == machine.this_machine("cuda")
    assert yaml.safe_load(astolfo("hardware", "--cpu"))["device"] == "cpu"
    assert yaml.safe_load(astolfo("hardware", "2x4090"))["devices"] == 2
    assert len(schema.Hardware.model_validate(yaml.safe_load(astolfo("hardware", "4x3090"))).measured) > 3
    assert "4060Ti-16GB" in astolfo("hardware", "--list")
    assert "one of the three" in astolfo("hardware", "4090", "--list", code=2)


def test_a_plan_is_for_this_machine(driver, monkeypatch):
    """Without --hardware a plan is for this machine's cards; for its cores where there are none, or where the scale wants them."""
    driver(TWO)
    assert "flow on Two GeForce RTX 3090, at the full scale" in astolfo("plan", "flow")
    assert "miniature scale" in astolfo("--scale", "miniature", "plan", "plain")
    driver("")
    said = astolfo("plan", "plain")
    assert "miniature scale" in said
    assert "not measured" in said
    assert "no CUDA device" in astolfo("--scale", "full", "plan", "plain", code=1)
