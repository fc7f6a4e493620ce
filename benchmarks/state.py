"""What it costs to save and restore a state, against the disk's own time for the same bytes.

    python benchmarks/state.py [--gb 2] [--rounds 3] [--folder .]

The state is random, in the shapes of SDXL's UNet: weights in bf16, two 8-bit moments. Printed, as medians: writing and flushing
the same bytes in one stream, and reading another such state, both past what is cached; saving the state, whole with its digest;
restoring it into tensors that exist, with its digest compared; how long a training waits for the save; and the memory that
each takes beyond the state.
"""

import argparse
import os
import resource
import statistics
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path

from astolfo import numerics

numerics.pin()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from astolfo.train import state  # noqa: E402
from astolfo.train.saving import Saver  # noqa: E402
from astolfo.train.state import State  # noqa: E402

BLOCK = 1 << 24
SHAPE = (10240, 1280)  # the UNet's largest matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="size of the state")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        for number in range(options.rounds + 1):
            training = random_state(options.gb)
            measure(number, training, place, times if number else {}, memory)
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, value in median.items():
        extra = f", {memory[name]:.2f} GB of memory" if name in memory else ""
        print(f"{name:24} {value:6.2f} s{extra}")
    print(f"save / disk's write      {median['save'] / median['write the same bytes']:.2f}")
    print(f"restore / disk's read    {median['restore'] / median['read the same bytes']:.2f}")


def measure(number: int, training: State, place: Path, times: dict[str, list[float]], memory: dict[str, float]) -> None:
    """One round: the first of memory, the others of times, since watching memory takes time from what is watched.

    What is read and what is restored are two files written in the same way: a disk, or a virtual one's host, reads a file
    more slowly the first time. They take turns to be the first.
    """

    def take(name, work):
        with nullcontext() if number else Peak() as peak:
            begun = time.perf_counter()
            result = work()
            times.setdefault(name, []).append(time.perf_counter() - begun)
        if peak:
            memory[name] = peak.extra / 1e9
        return result

    path, other, plain = place / "state.safetensors", place / "other.safetensors", place / "plain"
    take("save", lambda: state.save(path, training, "benchmark"))
    take("write the same bytes", lambda: write(plain, path.stat().st_size))
    state.save(other, training, "benchmark")
    forget(path), forget(other)
    readings = [("read the same bytes", lambda: read(other)), ("restore", lambda: restore(path, training))]
    for name, work in readings[:: -1 if number % 2 else 1]:
        take(name, work)
    saver = Saver()
    staged = [take("stage", training.staged)]  # on a card this is the copy to the host
    take("begin a save", lambda: saver.start(lambda: state.save(path, staged.pop(), "benchmark", give_back=True)))
    saver.wait()


def random_state(gb: float) -> State:
    count = max(1, round(gb * 1e9 / (4 * SHAPE[0] * SHAPE[1])))
    source = np.random.default_rng(1)
    found = State(position=1, weights={}, loss=[0.5])
    for n in range(count):
        found.weights[f"unet.{n}"] = torch.from_numpy(source.standard_normal(SHAPE, np.float32)).bfloat16()
        moments = [torch.from_numpy(source.integers(0, 256, SHAPE, np.uint8)) for _ in range(2)]
        found.optimizer[f"unet.{n}"] = {"state1": moments[0], "state2": moments[1]}
    return found


@torch.no_grad()
def restore(path: Path, training: State) -> None:
    with state.reading(path, "benchmark") as found:
        for name, value in training.weights.items():
            value.copy_(found.weights[name])
            for entry, moment in training.optimizer[name].items():
                moment.copy_(found.optimizer[name][entry])


def write(path: Path, size: int) -> None:
    block = np.random.default_rng(2).bytes(BLOCK)
    with open(path, "wb", buffering=0) as file:
        for start in range(0, size, BLOCK):
            file.write(block[: min(BLOCK, size - start)])
        os.fsync(file.fileno())


def read(path: Path) -> None:
    buffer = bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def forget(path: Path) -> None:
    """Drops a file from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Peak:
    """The most anonymous memory during the block, beyond what there was; pages of files are the system's to drop."""

    def __enter__(self) -> "Peak":
        self._stop, self._start = threading.Event(), anonymous()
        self.extra = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.extra = max(self.extra, anonymous() - self._start)


def anonymous() -> int:
    """Bytes of resident memory that belong to no file."""
    resident, shared = (int(field) for field in Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * resource.getpagesize()


if __name__ == "__main__":
    main()
