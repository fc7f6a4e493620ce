"""Runs Snakemake with a user's arguments, in a working directory of the test's own."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL
from tests.workflow import warm

OPTIONS = ("--snakefile", str(ROOT / "Snakefile"), "--workflow-profile", str(ROOT / "workflow/profiles/default"))
SNAKEMAKE = (sys.executable, "-m", "snakemake", *OPTIONS)  # where a process of its own is what is tested


def snakemake(directory, *arguments, config=(), scale="miniature", check=True, env=None):
    """Calls Snakemake in `directory`; arguments before --config, which swallows what follows it."""
    arguments = [*OPTIONS, *arguments, "--directory", str(directory), "--config", f"scale={scale}", *config]
    try:
        return warm.run(arguments, directory, env, check)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr[-5000:])
        raise


LEDGER = """\
bases: {own: {}}
datasets: {pictures: {images: 16}}
runs:
  first: {base: own, dataset: pictures, steps: 2, save_every: {steps: 1}, learning_rate: {unet: 1.0e-5}}
"""


@dataclass(frozen=True)
class Built:
    """A ledger of one run of two steps, and the working directory that has its result."""

    ledger: Path
    directory: Path

    def snakemake(self, *arguments, **options):
        """Snakemake in the directory, with the ledger."""
        return snakemake(self.directory, *arguments, config=[f"ledger={self.ledger}"], **options)


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    """The smallest build, made once for all processes of the tests. It is never written: `copy` is what a test may change."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    found = Built(root / "built" / "config", root / "built" / "work")
    with open(root / "built.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found.directory / "results/first.safetensors").exists():
            shutil.rmtree(root / "built", ignore_errors=True)
            found.ledger.mkdir(parents=True)
            found.directory.mkdir()
            (found.ledger / "ledger.yaml").write_text(LEDGER)
            found.snakemake("results/first.safetensors", "--cores", "2")
    return found


@pytest.fixture
def copy(built, tmp_path) -> Built:
    """A copy of the build, of this test alone."""
    shutil.copytree(built.directory, tmp_path / "copy", symlinks=True)
    return Built(built.ledger, tmp_path / "copy")


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A ledger whose runs take seconds: the small one with 48 and 16 images at the miniature instead of 1,245 and 32."""
    folder = shutil.copytree(SMALL, tmp_path_factory.mktemp("ledger") / "config")
    text = (folder / "ledger.yaml").read_text()
    for old, new in (("{images: 12446670}", 48), ("{images: 6224}", 16)):
        assert old in text
        text = text.replace(old, f"{old[:-1]}, miniature: {{images: {new}}}}}")
    (folder / "ledger.yaml").write_text(text)
    return folder


def artifacts(directory: Path) -> dict[str, bytes]:
    """Every artifact of a working directory by its relative path: side-cars, attestations, pages, pictures and numbers."""
    found = {}
    for pattern in ("**/*.sha256", "**/*.attestation.json", "evaluations/**/*.*"):
        for path in directory.glob(pattern):
            if path.is_file() and ".snakemake" not in path.parts and not path.name.startswith("."):
                found[str(path.relative_to(directory))] = path.read_bytes()
    return found


def jobs(output: str) -> dict[str, int]:
    """Rule -> number of jobs of a dry run."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
