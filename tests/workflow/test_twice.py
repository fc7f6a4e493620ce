"""Two clones in two folders build the same files of the record."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import artifacts

TARGETS = ["results/25112201.safetensors", "results/25112201-0.50.safetensors", "evaluations/25112201/index.html"]


def clone(folder):
    """A clone of the last commit with this environment beside it, as a user has it after `make env`."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    shutil.copytree(ROOT / ".venv" / "bin", folder / ".venv" / "bin", symlinks=True)
    shutil.copy(ROOT / ".venv" / "ready", folder / ".venv")  # without what it says, `make` would install everything anew
    return folder


@pytest.mark.slow
def test_two_clones_build_the_same_files(tmp_path):
    """`make` in two fresh clones gives equal bytes for every artifact of the first command, its merge and its evaluation."""
    folders = [clone(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        own = os.environ | {"PYTHONPATH": str(folder)}  # the clone's package, not the one that the environment links to
        subprocess.run(["make", *TARGETS], cwd=folder, check=True, capture_output=True, env=own)
    first, second = (artifacts(folder) for folder in folders)
    assert first == second
    assert {"results/25112201.safetensors.sha256", "evaluations/25112201/grid.png"} <= set(first)
