"""The longer proofs, each a stage with its cost: `make test-all`, or `python tests/stages.py --budget MINUTES [STAGE ...]`.

Stages that guard what changed code breaks first always run, and run first. The others follow in an order that the number of
commits rotates, as many as fit the budget (default: all); what was left out is printed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
EMULATOR, EMULATOR_FROM = "qemu-x86_64", "on Debian and Ubuntu: apt install qemu-user"


@dataclass(frozen=True)
class Stage:
    """One proof: its name, what it shows, the minutes it takes on two cores, the command, and the program that it needs besides."""

    name: str
    shows: str
    minutes: float
    command: tuple[str, ...]
    always: bool = False
    needs: str = ""
    install: str = ""

    @property
    def missing(self) -> str:
        """What is lacking, and how to get it; "" where nothing is."""
        return f"{self.needs} is not installed ({self.install})" if self.needs and shutil.which(self.needs) is None else ""


def pytest(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest", "-m", "slow", "-rs", *arguments)


STAGES = (
    Stage(
        "twice",
        "two clones build 25112201, its merge and its evaluation to the same bytes",
        8,
        pytest("tests/workflow/test_twice.py"),
        always=True,
    ),
    Stage(
        "tutorial",
        "docs/your-own.md and docs/how-to.md as they stand; strangers reproduce what was published of a ledger",
        12,
        pytest("tests/workflow/test_own.py", "tests/docs"),
    ),
    Stage(
        "eps-base",
        "the rules of the shipped eps base and of SDXL's autoencoder rebuild exactly their digests",
        15,
        pytest("tests/workflow/test_bases.py", "-k", "AK-NIL or sdxl-vae"),
    ),
    Stage(
        "v-base",
        "the rule of the shipped v base rebuilds exactly its digest; a stand-in that is not shipped is made, and draws",
        16,
        pytest("tests/workflow/test_bases.py", "tests/evaluate/test_base_draws.py", "-k", "AC-NoobAI or graph_makes"),
    ),
    Stage(
        "sd2-base",
        "the rules of the shipped SD 2 base and of its autoencoder rebuild exactly their digests",
        25,
        pytest("tests/workflow/test_bases.py", "-k", "21b or sd2-vae"),
    ),
    Stage(
        "lineage",
        "every artifact of the lineage to 26022301 is the same file in two builds",
        30,
        pytest("tests/workflow/test_lineage.py"),
    ),
    Stage(
        "ledger",
        "every run of the record, its merges and its bases are rebuilt to the recorded bytes",
        35,
        pytest("tests/workflow/test_ledger.py"),
    ),
    Stage(
        "optimizers",
        "every optimizer, every other key of a run, and checkpointing in bf16 give the same bits for one, two and four processes",
        6,
        pytest("tests/train/test_optimizer_segment.py", "tests/train/test_keys.py", "tests/train/test_placement.py"),
        always=True,
    ),
    # In a process of its own: what compiles kernels starts threads, which a later training's fork does not survive.
    Stage("kernels", "compiled kernels give the same bits wherever they are kept", 2, pytest("tests/train/test_optimizer.py")),
    Stage(
        "kills",
        "a training killed at 20 random moments, and a build that a scheduler stops, end with the same files",
        8,
        pytest("tests/train/test_kills.py", "tests/workflow/test_interrupted.py"),
        always=True,
    ),
    Stage(
        "graph",
        "a rewritten segment in a chain of 778 and a stale cache are noticed; Snakemake's archive of a checkout",
        1,
        pytest("tests/workflow/test_traps.py", "tests/workflow/test_reports.py"),
    ),
    Stage(
        "equivalence",
        "one changed rounding is equivalent to the reference, another seed or rate is different",
        2,
        pytest("tests/provenance/test_spread.py"),
    ),
    Stage(
        "full-size",
        "the memory and the work of true shapes, updates with every optimizer, and torchrun's own processes",
        5,
        pytest(
            "tests/train/test_memory.py",
            "tests/train/test_host_memory.py",
            "tests/train/test_update.py",
            "tests/train/test_card.py",
            "tests/train/test_launched.py",
            "tests/plan",
        ),
    ),
    Stage(
        "card",
        "all that is measured on the day there is a card, rehearsed at toy size on a CPU",
        4,
        pytest("tests/test_benchmarks.py"),
    ),
    Stage(
        "true-size",
        "random models of SDXL's true shapes go through the graph on a CPU; skipped where 21 GB of memory are not free",
        23,
        pytest("tests/workflow/test_true_size.py::test_from_random_weights_to_a_card[true]"),
    ),
    Stage(
        "whole",
        "the same at reduced shapes: from random models to a card, with a kill between",
        3,
        pytest("tests/workflow/test_true_size.py::test_from_random_weights_to_a_card[reduced]"),
    ),
    Stage(
        "deepspeed",
        "DeepSpeed's states cut nowhere: the same bits after a resume, compiled or not",
        4,
        pytest("tests/train/test_deepspeed.py"),
    ),
    Stage(
        "imports",
        "an import that is killed at random moments ends as the same store; hundreds of random files, and no import or merge is lost",
        5,
        pytest("tests/data", "tests/hostile"),
    ),
    Stage(
        "processors",
        "operator calls and whole artifacts are the same on an emulated Intel Haswell, Intel Skylake and AMD Rome",
        25,
        pytest("tests/processors"),
        needs=EMULATOR,
        install=EMULATOR_FROM,
    ),
    Stage(
        "slurm",
        "25112201 and its merge, submitted job by job to a SLURM cluster of one node, have the local build's digests",
        8,
        pytest("tests/workflow/test_slurm.py"),
    ),
    Stage(
        "wheelhouse",
        "the files of the exact locks, downloaded again, have the hash that the flake expects; its program builds the same bytes",
        8,
        pytest("tests/nix"),
    ),
    Stage(
        "checkpoints",
        "true-size checkpoints load in the programs that people use",
        2,
        pytest("tests/checkpoint", "tests/merging"),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=float("inf"), help="minutes")
    parser.add_argument("stages", nargs="*", choices=[[], *(stage.name for stage in STAGES)], help="only these")
    options = parser.parse_args()
    chosen = [stage for stage in STAGES if stage.name in options.stages] or _rotated()
    left, skipped, failed = options.budget, [], []
    for stage in chosen:
        if stage.missing:
            print(f"== {stage.name}: skipped, {stage.missing} ({stage.shows})", flush=True)
            continue
        if stage.minutes > left:
            skipped.append(stage)
            continue
        print(f"== {stage.name}: {stage.shows} (about {stage.minutes:g} min)", flush=True)
        begun = time.monotonic()
        outcome = run(stage)
        if outcome == "FAILED":
            failed.append(stage)
        taken = (time.monotonic() - begun) / 60
        left -= taken
        print(f"== {stage.name}: {outcome} in {taken:.1f} min", flush=True)
    for stage in skipped:
        print(f"== {stage.name}: skipped, {stage.minutes:g} min do not fit the budget ({stage.shows})")
    return bool(failed)


def run(stage: Stage) -> str:
    """Runs a stage: "FAILED", "passed", and of how many tests none or not all were run, since this machine lacks something."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        if subprocess.run([*stage.command, f"--junit-xml={report}"], cwd=ROOT).returncode:
            return "FAILED"
        suites = ElementTree.parse(report).getroot().iter("testsuite")
        tests, skipped = map(
            sum, zip(*((int(suite.get("tests", 0)), int(suite.get("skipped", 0))) for suite in suites), strict=True)
        )
    if skipped == tests:
        return f"skipped, all {tests} tests (their reasons stand above)"
    return f"passed, but for {skipped} of {tests} tests that were skipped," if skipped else "passed"


def _rotated() -> list[Stage]:
    """The stages that always run, then the others beginning at one that the number of commits picks."""
    count = subprocess.run(["git", "rev-list", "--count", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    always, others = [stage for stage in STAGES if stage.always], [stage for stage in STAGES if not stage.always]
    start = int(count.stdout or 0) % len(others)
    return [*always, *others[start:], *others[:start]]


if __name__ == "__main__":
    sys.exit(main())
