"""What a plan costs: a dry run of a target against one of an empty Snakefile, alternating, medians.

python benchmarks/dry_run.py [--rounds 5] [--scale full] [TARGET ...]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGETS = ["results/25112201.safetensors", "results/26022301.safetensors", "ledger"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", default="miniature")
    parser.add_argument("targets", nargs="*", default=TARGETS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.smk")
        empty.write_text('rule all:\n    output: "x"\n    shell: "touch x"\n')
        plans = {"empty Snakefile": ["x", "--snakefile", str(empty), "--config", "scale=none"]}
        for target in options.targets:
            plans[target] = [target, "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--config", f"scale={options.scale}"]
        times: dict[str, list[float]] = {name: [] for name in plans}
        for _ in range(options.rounds):
            for name, arguments in plans.items():
                times[name].append(timed(arguments, folder))
    bare = statistics.median(times["empty Snakefile"])
    for name, values in times.items():
        median = statistics.median(values)
        print(
            f"{name:40} {median:.2f} s, {median / bare:.2f} times the empty one (median of {len(values)}, scale {options.scale})"
        )


def timed(arguments: list[str], folder: str) -> float:
    """Seconds of one dry run in `folder`; the last two arguments come last, as --config swallows what follows."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        *arguments[:-2],
        "-n",
        "--quiet",
        "all",
        "--cores",
        "1",
        "--directory",
        folder,
        *arguments[-2:],
    ]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
