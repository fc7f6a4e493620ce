"""Each local job has its own devices: no two hold one, the lock goes with the process, and a cluster's choice is left alone."""

import os
import subprocess
import sys

import pytest

from astolfo import devices

CLAIM = "import logging, sys; logging.basicConfig(level=logging.INFO); from pathlib import Path; from astolfo import devices; print(*devices.claim(int(sys.argv[2]), Path(sys.argv[1])), flush=True); sys.stdin.read()"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Starts jobs on a machine with four devices, each a process that holds what it claimed until its input ends."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    for name in devices._ALLOCATED:
        monkeypatch.delenv(name, raising=False)
    started = []

    def job(count):
        command = [sys.executable, "-c", CLAIM, str(tmp_path / "locks"), str(count)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield job
    for process in started:
        process.kill()
        process.communicate()


def test_no_two_jobs_share_a_device(machine):
    """Two jobs of one device and one of two get four different ones."""
    jobs = [machine(1), machine(2), machine(1)]
    held = [name for job in jobs for name in job.stdout.readline().split()]
    assert sorted(held) == ["0", "1", "2", "3"]


def test_a_killed_job_frees_its_devices(machine):
    """A job waits while others hold what it needs, and goes on as soon as one of them was killed."""
    first = machine(3)
    assert first.stdout.readline().split() == ["0", "1", "2"]
    second = machine(2)
    assert "waiting for 2 of the devices 0, 1, 2, 3, which other jobs hold" in second.stderr.readline()
    first.kill()
    assert second.stdout.readline().split() == ["0", "1"]


def test_what_a_cluster_gave_is_left_alone(tmp_path, monkeypatch):
    """Under SLURM the devices that a job sees are its own: nothing is claimed, nothing renamed."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert devices.claim(1, tmp_path) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_fewer_devices_than_asked_for_are_all_taken(tmp_path, monkeypatch):
    """A job that could use four devices takes the two that there are, and sees only those."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc")
    for name in devices._ALLOCATED:
        monkeypatch.delenv(name, raising=False)
    assert devices.claim(4, tmp_path) == ["5", "GPU-abc"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,GPU-abc"
    while devices._held:
        devices._held.pop().close()


def test_a_machine_without_devices_claims_none(tmp_path, monkeypatch):
    """Without a device nothing is waited for; the job itself says what is missing."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.claim(1, tmp_path) == []


def test_the_smallest_card_that_may_be_used_counts(monkeypatch):
    """Only the cards that this process may use are asked about; without the driver's program, or a number, nothing is known."""
    asked = []

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="24576\n16384\n")

    monkeypatch.setattr(devices.shutil, "which", lambda name: name)
    monkeypatch.setattr(devices.subprocess, "run", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert devices.memory() == 16384 << 20
    assert "--id=0,2" in asked[-1]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    devices.memory()
    assert not any(word.startswith("--id") for word in asked[-1])
    monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, stdout="[N/A]\n"))
    assert devices.memory() is None
