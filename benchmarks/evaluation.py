"""What an evaluation costs: CPU and wall seconds of one miniature run's, with two processes.

    python benchmarks/evaluation.py DIRECTORY 25112201        # a working directory with that run's result and its base

CPU seconds, as they are steadier than wall time on a shared machine; the wall time is printed beside them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from astolfo.files import canonical_json, sha256_of
from astolfo.ledger import load
from astolfo.ledger.specs import Specs
from astolfo.program import ROOT


def once(directory: Path, run_id: str) -> tuple[float, float]:
    """CPU seconds (with those of its processes) and wall seconds of one evaluation into a folder that is thrown away."""
    ledger = load(ROOT / "config")
    run, spec = ledger.run(run_id), Specs(ledger, sha256_of(ROOT / "envs" / "lock.txt")).evaluation(run_id)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "astolfo", "job", "evaluate", "--spec", canonical_json(spec), "--processes", "2",
            "--base", str(directory / ledger.merge_base(run).path), "--trained", str(directory / f"results/{run_id}.safetensors"),
            "--vocabulary", str(directory / "vocabulary"), "--out", folder,
        ]  # fmt: skip
        before, begun = os.times(), time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return cpu, time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("run")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    cpu, wall = zip(*(once(options.directory, options.run) for _ in range(options.times)), strict=True)
    middle, waited = statistics.median(cpu), statistics.median(wall)
    print(f"evaluation of {options.run}: {middle:.1f} s of CPU, {waited:.1f} s of wall time ({waited / middle:.2f} of it)")


if __name__ == "__main__":
    main()
