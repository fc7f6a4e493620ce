"""What a plan costs: a dry run of a target against one of an empty Snakefile, alternating, medians.

Beside them stands a workflow that computes nothing and has 900 jobs of the shape of a segment: what Snakemake itself takes for so
many. The record at full scale has 906.

python benchmarks/dry_run.py [--rounds 5] [--scale full] [TARGET ...]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BARE = """\
def before(wildcards):
    number = int(wildcards.step)
    state = f"states/{wildcards.run}/{number - 1}"
    return {"state": ancient(state), "state_digest": f"{state}.sha256"} if number else {}


rule all:
    input:
        [f"states/{run}/9" for run in range(90)],


rule base:
    output:
        "base",
        "base.sha256",
        "base.attestation.json",
    shell:
        "true"


rule segment:
    input:
        unpack(before),
        base=ancient("base"),
        base_digest="base.sha256",
    output:
        state="states/{run}/{step,[0-9]}",
        digest="states/{run}/{step,[0-9]}.sha256",
        attestation="states/{run}/{step,[0-9]}.attestation.json",
    threads: lambda wildcards: 1
    resources:
        gpu=lambda wildcards: 0,
        placement=lambda wildcards: "",
    params:
        spec=lambda wildcards: "x" * 4000,
    shell:
        "true {params.spec:q} {input.base} {threads} {resources.placement} {output.state}"
"""
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
        bare = Path(folder, "bare.smk")
        bare.write_text(BARE)
        plans = {"empty Snakefile": ["x", "--snakefile", str(empty), "--config", "scale=none"]}
        plans["900 jobs that compute nothing"] = ["all", "--snakefile", str(bare), "--config", "scale=none"]
        for target in options.targets:
            plans[target] = [target, "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--config", f"scale={options.scale}"]
        times: dict[str, list[float]] = {name: [] for name in plans}
        for _ in range(options.rounds):
            for name, arguments in plans.items():
                times[name].append(timed(arguments, folder))
    nothing = statistics.median(times["empty Snakefile"])
    for name, values in times.items():
        median = statistics.median(values)
        print(
            f"{name:40} {median:.2f} CPU s, {median / nothing:.2f} times the empty one"
            f" (median of {len(values)}, scale {options.scale})"
        )


def timed(arguments: list[str], folder: str) -> float:
    """CPU seconds of one dry run in `folder`: other work on the machine changes them less than the duration.

    The last two arguments come last, as --config swallows what follows.
    """
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
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
