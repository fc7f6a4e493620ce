"""What bits that every x86-64 processor shares cost: the miniature's training step with those switches, against one model's bits.

    python benchmarks/processors.py [--run 25112201 ...] [--steps 9]

Two processes train the same recipe on the same data, one with `astolfo.numerics.PROCESSORS` at 1, the other at 2 (other switches
of MKL and numpy, a correctly rounded square root). They take a step in turns, and which goes first alternates; counted is
processor time. The ratio is taken step by step; its median is printed with the quarters of the steps around it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", default=["25112201"], help="whose recipes are timed")
    parser.add_argument("--steps", type=int, default=9, help="timed steps of each kind")
    parser.add_argument("--processors", type=int, help=argparse.SUPPRESS)  # of a process that takes steps
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: expected 2 or more, for the quarters of the steps' ratios")
    if options.processors:
        take_steps(options.run[0], options.processors)
        return
    for run in options.run:
        report(run, timed(run, options.steps))


def timed(run: str, steps: int) -> dict[int, list[float]]:
    """Seconds of each step by the setting."""
    command = [sys.executable, __file__, "--run", run, "--processors"]
    children = {
        setting: subprocess.Popen([*command, str(setting)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for setting in (1, 2)
    }
    times: dict[int, list[float]] = {setting: [] for setting in children}
    for step in range(steps + 1):  # the first one warms up
        for setting in sorted(children, reverse=bool(step % 2)):
            child = children[setting]
            child.stdin.write("step\n")
            child.stdin.flush()
            times[setting].append(float(child.stdout.readline()))
    for child in children.values():
        child.stdin.close()
        child.wait()
    return {setting: values[1:] for setting, values in times.items()}


def take_steps(run: str, setting: int) -> None:
    """Takes a step for each line that comes in, and says how long it took."""
    from astolfo import numerics

    numerics.PROCESSORS = setting
    from train_step import prepare  # pins the numerics

    from astolfo.train.loop import Trainer
    from astolfo.train.ranks import Processes

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(*prepare(run, Path(folder)), Processes())
        for step, _ in enumerate(sys.stdin):
            begun = time.process_time()
            trainer.step(step)
            print(time.process_time() - begun, flush=True)


def report(run: str, times: dict[int, list[float]]) -> None:
    ratios = [two / one for one, two in zip(times[1], times[2], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    one, two = (statistics.median(times[setting]) for setting in (1, 2))
    print(f"{run}: {one:.3f} s a step with one model's bits, {two:.3f} s with every processor's (medians of {len(ratios)})")
    print(f"{run}: ratio {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
