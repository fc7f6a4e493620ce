"""What is killed in the middle goes on from the last good state, and gives the same bytes: the stage `kills`."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

import pytest

from astolfo.files import read_sidecar
from tests.conftest import ROOT
from tests.workflow.conftest import SNAKEMAKE, snakemake

pytestmark = pytest.mark.slow

TARGET = "results/plain.safetensors"


@pytest.fixture(scope="module")
def whole_folder(small, tmp_path_factory):
    """An undisturbed build with the small ledger."""
    folder = tmp_path_factory.mktemp("whole")
    snakemake(folder, TARGET, config=[f"ledger={small}"])
    return folder


@pytest.fixture(scope="module")
def whole(whole_folder):
    """The digest of the undisturbed build's result."""
    return read_sidecar(whole_folder / TARGET)


@contextlib.contextmanager
def started(folder, small):
    """A build in the background, in a session of its own, once its second segment trains. Whatever happens, it is ended."""
    command = [*SNAKEMAKE, TARGET, "--directory", str(folder), "--config", f"ledger={small}"]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_listening
    )
    try:
        while not list(folder.glob("states/plain/.00000002.lock")):
            assert process.poll() is None, "the build ended before its second segment"
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listening():
    """Has the build hear Ctrl-C, also where these tests run in a shell's background, which ignores it for all below."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_killed_snakemake(small, whole, tmp_path):
    """kill -9 of Snakemake: its job ends by itself, `make` clears the lock, and the build goes on to the same file."""
    with started(tmp_path, small) as process:
        process.kill()
        process.wait()
        assert list((tmp_path / ".snakemake" / "locks").iterdir())
        _goes_on(tmp_path, small)
    assert read_sidecar(tmp_path / TARGET) == whole


def _goes_on(tmp_path, small):
    """The build, called again as `make` does, clears the lock and ends well."""
    script = [str(ROOT / "envs" / "snakemake"), TARGET, "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--workflow-profile",
              str(ROOT / "workflow/profiles/default"), "--directory", str(tmp_path), "--config", f"ledger={small}"]  # fmt: skip
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "clearing the lock of a Snakemake that was killed" in done.stdout


def test_deleted_states_make_nothing_stale(small, whole, whole_folder, tmp_path):
    """Without its states a result is still up to date; a middle checkpoint that is asked for is made again, with its old bytes."""
    folder, ledger = tmp_path / "copy", [f"ledger={small}"]
    shutil.copytree(whole_folder, folder)
    states = sorted((folder / "states" / "plain").glob("*.safetensors"))
    digests = [read_sidecar(path) for path in states]
    for path in states:
        path.unlink()
    assert "Nothing to be done" in snakemake(folder, "-n", TARGET, config=ledger).stdout
    snakemake(folder, str(states[1].relative_to(folder)), config=ledger)
    assert [read_sidecar(path) for path in states] == digests
    assert states[1].exists()
    assert not states[2].exists()
    assert "Nothing to be done" in snakemake(folder, "-n", TARGET, config=ledger).stdout
    assert read_sidecar(folder / TARGET) == whole


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(small, whole, tmp_path, asked):
    """Ctrl-C, or a scheduler's SIGTERM: Snakemake and its job end, the finished segment stays, and the build goes on."""
    with started(tmp_path, small) as process:
        os.killpg(process.pid, asked)
        assert process.wait() != 0
    assert (tmp_path / "states/plain/00000001.safetensors").exists()
    snakemake(tmp_path, TARGET, config=[f"ledger={small}"])
    assert read_sidecar(tmp_path / TARGET) == whole
