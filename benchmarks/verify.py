"""What `astolfo verify` costs: one 6.9 GB file with its attestation, against `sha256sum` of the same file, alternating, medians.

    python benchmarks/verify.py [--rounds 3] [--gigabytes 6.9]

The file is sparse, so it takes no disk and its bytes come from memory: what is measured is the hash. Both times are told, on
the clock and of the processor; on a machine that does something else beside it, the latter is the one to trust.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from astolfo.files import write_sidecar
from astolfo.provenance import attestation

SPEC = {"verb": "pinned", "sha256": "0" * 64, "file": "X.safetensors", "family": "sdxl", "kind": "model"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=6.9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bases", "X.safetensors")
        path.parent.mkdir()
        with open(path, "wb") as file:
            file.truncate(int(options.gigabytes * 1e9))
        write_sidecar(path)
        attestation.write(attestation.ADOPT, path, SPEC, {})
        commands = {
            "sha256sum": ["sha256sum", str(path)],
            "astolfo verify": [sys.executable, "-m", "astolfo", "verify", str(path)],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                times[name].append(timed(command))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    for name, (wall, cpu) in medians.items():
        ratios = [value / base for value, base in zip((wall, cpu), medians["sha256sum"], strict=True)]
        print(f"{name:15} {wall:.2f} s on the clock ({ratios[0]:.2f}), {cpu:.2f} s of the processor ({ratios[1]:.2f})")


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds on the clock and of the processor that a command takes."""
    begun, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begun, cpu


if __name__ == "__main__":
    main()
