"""Measures merges of two full-size checkpoints against copying them, and prints the ratios of the targets.

    python benchmarks/merge.py FOLDER [--full-yaml astolfo/library/scales/full.yaml] [--skip-cold]

Makes its own files in FOLDER (two random fp16 SDXL models of 6.9 GB, once, kept for the next time), needs 50 GB there for the
sweep, and removes the merges. Each line gives seconds and peak resident memory of the merging process. "Cold" drops the
inputs from the page cache (posix_fadvise); the yardstick `cat a b >/dev/null; cp a c` runs in between, on the same disk. Run
it on an idle machine: a merge uses all cores, the yardstick hardly any, so company raises the ratios.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)


def main() -> None:
    """Makes the files, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full-yaml", type=Path, default=ROOT / "astolfo/library/scales/full.yaml")
    parser.add_argument("--skip-cold", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    files = [options.folder / "a.safetensors", options.folder / "b.safetensors"]
    for seed, path in enumerate(files):
        if not path.exists():
            run(["make", str(path), str(seed), str(options.full_yaml)])
    for cold in (False,) if options.skip_cold else (False, True):
        measure(options.folder, files, cold)


def measure(folder: Path, files: list[Path], cold: bool) -> None:
    """One table: the yardstick before and after one merge with and without digests and buffered; with a warm cache, a sweep."""
    print(f"{'cold' if cold else 'warm'} cache, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    before = yardstick(folder, files, cold)
    single = merge(folder, files, cold, (0.5,), digests=False)
    hashed = merge(folder, files, cold, (0.5,), digests=True)
    buffered = merge(folder, files, cold, (0.5,), digests=False, direct=False)
    after = yardstick(folder, files, cold)
    copy = (before + after) / 2
    row("cat + cp, before and after", copy, f"{before:.1f} and {after:.1f}")
    for name, (seconds, memory) in {
        "one merge, direct": single,
        "  with its own digest": hashed,
        "one merge, buffered": buffered,
    }.items():
        row(name, seconds, f"{memory} MB   {seconds / copy:.2f} x cat + cp")
    for name, digests, one in (("five alphas, direct", False, single), ("  with their own digests", True, hashed)):
        if not cold:
            seconds, memory = merge(folder, files, cold, ALPHAS, digests)
            row(name, seconds, f"{memory} MB   {seconds / one[0]:.2f} x one merge")


def row(name: str, seconds: float, text: str) -> None:
    """Prints one line of the table."""
    print(f"  {name:<28}{seconds:7.1f} s   {text}", flush=True)


def yardstick(folder: Path, files: list[Path], cold: bool) -> float:
    """Seconds of `cat a b >/dev/null; cp a c`."""
    prepare(files, cold)
    start = time.monotonic()
    subprocess.run(["sh", "-c", 'cat "$1" "$2" >/dev/null; cp "$1" "$3"', "sh", *map(str, files), str(folder / "c")], check=True)
    seconds = time.monotonic() - start
    (folder / "c").unlink()
    return seconds


def merge(
    folder: Path, files: list[Path], cold: bool, alphas: tuple[float, ...], digests: bool, direct: bool = True
) -> tuple[float, int]:
    """Seconds of a whole process that merges, interpreter start included, and its peak memory in MB."""
    prepare(files, cold)
    start = time.monotonic()
    memory = run(["merge", str(folder), *map(str, files), str(int(digests)), str(int(direct)), *map(str, alphas)])
    seconds = time.monotonic() - start
    for path in folder.glob("out-*"):
        path.unlink()
    return seconds, memory


def prepare(files: list[Path], cold: bool) -> None:
    """Waits for the disk, then fills or empties the page cache of the inputs."""
    os.sync()
    for path in files:
        with open(path, "rb", buffering=0) as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass


def run(arguments: list[str]) -> int:
    """Runs this file's worker in a process of its own; returns its peak memory in MB."""
    process = subprocess.Popen([sys.executable, __file__, "--worker", *arguments], env={**os.environ, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{arguments[0]} failed")
    return usage.ru_maxrss // 1024


def worker(verb: str, *rest: str) -> None:
    """What runs in the measured process."""
    if verb == "merge":
        from astolfo.merging.weighted_sum import merge

        folder, first, second, digests, direct, *alphas = rest
        merge(first, second, {float(a): f"{folder}/out-{a}" for a in alphas}, digests=digests == "1", direct=direct == "1")
    else:
        make(*rest)


def make(path: str, seed: str, full: str) -> None:
    """Writes a random fp16 model with the real names and shapes, its side-car included."""
    import numpy as np
    import yaml

    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.layout import places
    from astolfo.checkpoint.safefile import Pending, write_file

    architecture = Architecture.from_mapping(yaml.safe_load(Path(full).read_text())["architectures"]["sdxl"], "sdxl")
    random = np.random.Generator(np.random.SFC64(int(seed)))

    def weights(count: int) -> np.ndarray:
        result = np.empty(count, "<f2")
        for start in range(0, count, 1 << 22):
            result[start : start + (1 << 22)] = random.standard_normal(min(1 << 22, count - start), np.float32) * np.float32(0.03)
        return result

    found = [place for part in architecture.parts for place in places(architecture, part)]
    tensors = {p.key: Pending("F16", p.shape, lambda p=p: weights(int(np.prod(p.shape)))) for p in found}
    write_file(path, tensors, {"modelspec.title": f"random {seed}"})


if __name__ == "__main__":
    worker(*sys.argv[2:]) if sys.argv[1:2] == ["--worker"] else main()
