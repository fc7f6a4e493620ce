"""SLURM for real: a one-node cluster runs the chain of plain and its merge, with the profile that a user would take."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import artifacts, snakemake
from tests.workflow.slurm import PARTITION, Unavailable, cluster

TARGET = "results/plain-0.50.safetensors"


@pytest.mark.slow
def test_slurm_gives_the_same_digests(tmp_path, small):
    """Submitted job by job through `snakemake --executor slurm`, every artifact of the chain is the local build's."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # munge wants a short path for its socket
        try:
            with cluster(Path(folder)) as environment:
                found = _submit(there, small, environment)
        except Unavailable as reason:
            pytest.skip(f"no SLURM here: {reason}")
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert "SLURM jobid" in found.stdout + found.stderr
    snakemake(here, TARGET, config=[f"ledger={small}"])
    local = artifacts(here)
    assert artifacts(there) == local
    assert any(name.startswith("results/plain-0.50") for name in local)


def _submit(directory: Path, ledger: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    site = ["mem_mb=1000", "runtime=60", f"slurm_partition='{PARTITION}'"]
    command = [
        *(sys.executable, "-m", "snakemake", TARGET, "--snakefile", ROOT / "workflow" / "Snakefile", "--directory", directory),
        *("--workflow-profile", ROOT / "profiles" / "slurm", "--slurm-no-account", "--latency-wait", "10"),
        *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"),
        *("--cores", str(min(os.cpu_count() or 1, 4)), "--seconds-between-status-checks", "5"),
        *("--default-resources", *site, "--config", f"ledger={ledger}"),
    ]
    return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, cwd=directory)
