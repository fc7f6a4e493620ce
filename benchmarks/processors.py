"""What bits that every x86-64 processor shares cost: the miniature's training step with those switches, against one model's bits.

    python benchmarks/processors.py [--run 25112201 ...] [--steps 9]

Two processes train the same recipe on the same data, one with the switches of `astolfo.numerics`, the other with those that give
the bits of one model of processor: MKL's path for it, torch's own square root. They take a step in turns, and which goes first
alternates; counted is processor time. The ratio is taken step by step; its median is printed with the quarters of the steps
around it.
"""

import argparse
import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVERY, ONE = "every", "one"  # processor's bits
OF_ONE = {"MKL_CBWR": "AVX2"}  # where every processor's bits have COMPATIBLE
UNSET = ("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_CPP_MARCH")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", default=["25112201"], help="whose recipes are timed")
    parser.add_argument("--steps", type=int, default=9, help="timed steps of each kind")
    parser.add_argument("--bits", choices=(EVERY, ONE), help=argparse.SUPPRESS)  # of a process that takes steps
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: expected 2 or more, for the quarters of the steps' ratios")
    if options.bits:
        take_steps(options.run[0], options.bits)
        return
    for run in options.run:
        report(run, timed(run, options.steps))


def timed(run: str, steps: int) -> dict[str, list[float]]:
    """Seconds of each step by whose bits they give."""
    command = [sys.executable, __file__, "--run", run, "--bits"]
    children = {
        bits: subprocess.Popen([*command, bits], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for bits in (EVERY, ONE)
    }
    times: dict[str, list[float]] = {bits: [] for bits in children}
    for step in range(steps + 1):  # the first one warms up
        for bits in sorted(children, reverse=bool(step % 2)):
            child = children[bits]
            child.stdin.write("step\n")
            child.stdin.flush()
            times[bits].append(float(child.stdout.readline()))
    for child in children.values():
        child.stdin.close()
        child.wait()
    return {bits: values[1:] for bits, values in times.items()}


def set_for_one() -> None:
    """Has this process compute with the switches and the operators of one model's bits, before torch is imported."""
    from astolfo import numerics

    kept = (switch for switch in numerics.ENVIRONMENT if switch.name not in UNSET)
    numerics.ENVIRONMENT = tuple(dataclasses.replace(one, value=OF_ONE.get(one.name, one.value)) for one in kept)
    numerics.pin()
    from astolfo import operators

    operators.replace = lambda: None


def take_steps(run: str, bits: str) -> None:
    """Takes a step for each line that comes in, and says how long it took."""
    if bits == ONE:
        set_for_one()
    from train_step import prepare  # pins the numerics

    from astolfo.train.loop import Trainer
    from astolfo.train.ranks import Processes

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(*prepare(run, Path(folder)), Processes())
        for step, _ in enumerate(sys.stdin):
            begun = time.process_time()
            trainer.step(step)
            print(time.process_time() - begun, flush=True)


def report(run: str, times: dict[str, list[float]]) -> None:
    ratios = [every / one for every, one in zip(times[EVERY], times[ONE], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    one, every = (statistics.median(times[bits]) for bits in (ONE, EVERY))
    print(f"{run}: {one:.3f} s a step with one model's bits, {every:.3f} s with every processor's (medians of {len(ratios)})")
    print(f"{run}: ratio {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
