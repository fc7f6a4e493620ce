"""Everything that only a card can show, in one command: for the day there is one.

    python benchmarks/card.py --wheels FOLDER --out card.json      a bare machine: Python 3.12, torch with CUDA 13, no network
    python benchmarks/card.py --out card.json                      with the environment that runs this
    python benchmarks/card.py --rehearse --out card.json           all of it at toy size, on a CPU
    python benchmarks/card.py --table card.json                    the rows of docs/performance.md

`python benchmarks/carry.py FOLDER` collects the wheels beforehand. Each step is a process with a limit of its own, and what it
measured is in the file as soon as it is known: a step that fails, or that runs past its limit, takes nothing from the others.
Steps that would not end within `--minutes` are left out, and the file says so. The exit status is 1 when one failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN = "25112201"  # whose recipe is trained
MEMORY = 23.5  # GB of the card that one of four processes may use
Found = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One measurement: its name, the seconds it may take, and the command; `{found}` in it is the file for its numbers."""

    name: str
    limit: float
    command: tuple[str, ...]


def steps(rehearse: bool) -> list[Step]:
    """What is measured, the most important first."""
    here, device = str(ROOT / "benchmarks"), "cpu" if rehearse else "cuda"
    small = ("--rehearse",) if rehearse else ()

    def training(name: str, limit: float, *options: str) -> Step:
        toy = ("--scale", "miniature", "--steps", "1", "--accumulation", "1") if rehearse else ()
        command = (f"{here}/train_sdxl.py", "--device", device, "--run", RUN, "--json", "{found}", *options, *toy)
        return Step(name, limit, command)

    one = ("--accumulation", "1", "--fit")
    sizes = (1, 2) if rehearse else (1, 2, 4, 8)
    found = [
        Step("GPU tests", 240, ("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/train/test_gpu.py")),
        *(Step(f"miniature, {which} build", 180, (f"{here}/card.py", "--build", "{found}", *small))
          for which in ("first", "second")),
        training("71 %, micro-batch 1", 180, "--unet", "71", "--micro-batch", "1", *one, "--plain", "--no-determinism"),
        training("23.5 GB", 150, "--unet", "100", "--checkpointing", "--processes", "4", "--memory", str(MEMORY)),
        *(training(f"{unet} %, micro-batch {size}", 120, "--unet", str(unet), "--micro-batch", str(size), *one)
          for size in sizes for unet in (100, 71) if (unet, size) != (71, 1)),
        training("100 %, levers", 240, "--unet", "100", "--micro-batch", str(sizes[-2]), *one,
                 "--plain", "--no-determinism", "--lever", "channels-last", "--lever", "compile"),
    ]  # fmt: skip
    return found


def measure(wanted: Iterable[Step], out: Path, minutes: float, python: str = sys.executable) -> bool:
    """Runs the steps and writes what each found; returns whether all of them ended well."""
    end = time.monotonic() + 60 * minutes
    report: dict[str, Found] = {}
    for step in wanted:
        left = end - time.monotonic()
        report[step.name] = _ran(step, python, left) if left > step.limit / 4 else {"ended": f"left out: {left:.0f} s were left"}
        print(f"{step.name}: {report[step.name]['ended']}", flush=True)
        out.write_text(json.dumps(report, indent=2))
    builds = [report[name].get("digest") for name in report if name.startswith("miniature") and "digest" in report[name]]
    if len(builds) == 2:
        same = builds[0] == builds[1]
        report["miniature"] = {"ended": "well" if same else "failed: the two builds differ", "same": same}
        out.write_text(json.dumps(report, indent=2))
    return all(one["ended"] == "well" for one in report.values())


def _ran(step: Step, python: str, left: float) -> Found:
    """One step: how it ended, its seconds, the last lines of what it said, and its numbers, as far as it came."""
    limit, begun = min(step.limit, left), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "found.json")
        command = [python, *(word.replace("{found}", str(file)) for word in step.command)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                said, ended = process.communicate(timeout=limit)[0], "well"
                if process.returncode:
                    ended = f"failed: exit status {process.returncode}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)  # what it started goes with it
                said, ended = process.communicate()[0], f"failed: not done after {limit:.0f} s"
        numbers = json.loads(file.read_text()) if file.exists() else {}
    return {"ended": ended, "seconds": round(time.monotonic() - begun, 1), "said": said.splitlines()[-20:], **numbers}


def environment(wheels: Path, folder: Path) -> str:
    """A virtual environment over this machine's torch, of the carried wheels alone; returns its python.

    Raises SystemExit for a wheel that is not the recorded one.
    """
    import hashlib

    recorded = json.loads((wheels / "wheels.json").read_text())
    for name, digest in recorded.items():
        if (found := hashlib.sha256((wheels / name).read_bytes()).hexdigest()) != digest:
            raise SystemExit(f"{wheels / name}: expected sha256 {digest}, found {found}. Collect the wheels again.")
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", folder], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, *(str(wheels / name) for name in recorded)], check=True)
    return python


def build(out: Path, rehearse: bool) -> None:
    """Trains the miniature's run and exports it; writes the result's digest and the class that it was computed in."""
    from astolfo import library, numerics

    numerics.pin()
    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.model import load as load_model
    from astolfo.data import vocabulary
    from astolfo.data.make import make_dataset
    from astolfo.files import read_sidecar
    from astolfo.ledger import load, recipe_of
    from astolfo.train.loop import Inputs
    from astolfo.train.placement import Placement
    from astolfo.train.segment import train_segment

    ledger = load(ROOT / "config", "miniature")
    recipe = recipe_of(ledger, ledger.run(RUN)).model_copy(update={"steps_per_epoch": None})
    architecture = Architecture.from_mapping(recipe.architecture, recipe.family)
    images, device = (32, "cpu") if rehearse else (ledger.datasets["12.4M"].miniature.images, "cuda")
    steps = images // (recipe.ranks * recipe.batch_size * recipe.accumulation)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = library.STAND_INS / "sdxl-eps.safetensors"
        autoencoder = load_model(base, architecture, ["vae"], "fp32")["vae"].requires_grad_(False)
        make_dataset(folder / "dataset", autoencoder, ledger.scale.pictures, seed=12446670, images=images, about={})
        vocabulary.write(folder / "vocabulary")
        spec = {"verb": "train", "parents": {}, "recipe": recipe.canonical(), "from": 0, "to": steps}
        inputs = Inputs(base=base, dataset=folder / "dataset", vocabulary=folder / "vocabulary")
        state = folder / "states" / f"{steps:08d}.safetensors"
        train_segment(spec, inputs, None, state, Placement(device=device))
        out.write_text(json.dumps({"steps": steps, "digest": read_sidecar(state), "class": numerics.numerics_class(device)}))


NOTHING = "not yet measured"


def table(report: Found) -> str:
    """The rows of docs/performance.md that a card's report gives, in Markdown; what it lacks is "not yet measured"."""
    trainings = {name: one for name, one in report.items() if "trainer: share of peak" in one}
    best = max(trainings, key=lambda name: trainings[name]["trainer: share of peak"], default="")
    of = trainings.get(best, {})
    apart = [abs(one["peak memory"] / one["predicted memory"] - 1) for one in trainings.values() if "peak memory" in one]
    proof, twice = report.get("23.5 GB", {}), report.get("miniature", {})
    levers = {
        key.partition(":")[0]: one[key] for one in report.values() for key in one if key.endswith(": times the trainer's speed")
    }
    costs = [one["cost of determinism"] for one in report.values() if "cost of determinism" in one]
    plain = [one["times the plain loop's speed"] for one in report.values() if "times the plain loop's speed" in one]
    rows = {
        "device": of.get("device"),
        "share of the measured bf16 matrix peak on one GPU":
            of and f"{of['trainer: share of peak']:.1%} of {of['peak_flops'] / 1e12:.0f} TFLOP/s ({best}; {of['placement']})",
        "cost of determinism on one GPU": costs and " and ".join(f"{one:.1%}" for one in costs),
        "times a plain loop's speed on one GPU": plain and " and ".join(f"{one:.2f}" for one in plain),
        "predicted against measured peak memory": apart and f"at most {max(apart):.1%} apart in {len(apart)} trainings",
        f"one of four processes within {MEMORY} GB, 100 % of the UNet":
            proof and (f"{proof['peak memory'] / 1e9:.2f} GB" if "peak memory" in proof else proof["ended"]),
        "the miniature built twice": twice and ("the same bytes" if twice["same"] else "other bytes"),
        "channels-last, times the trainer's speed": "channels-last" in levers and f"{levers['channels-last']:.2f}",
        "compiled blocks, times the trainer's speed": "compile" in levers and f"{levers['compile']:.2f}",
    }  # fmt: skip
    return "".join(f"| {name} | {value or NOTHING} |\n" for name, value in rows.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("card.json"))
    parser.add_argument("--wheels", type=Path, help="make the environment from these")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--rehearse", action="store_true", help="at toy size, on a CPU")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the rows that a report gives")
    parser.add_argument("--build", type=Path, metavar="FILE", help=argparse.SUPPRESS)  # a step calls it
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())), end="")
        return 0
    if options.build:
        build(options.build, options.rehearse)
        return 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        python = environment(options.wheels, Path(folder)) if options.wheels else sys.executable
        left = options.minutes - (time.monotonic() - begun) / 60
        return 0 if measure(steps(options.rehearse), options.out, left, python) else 1


if __name__ == "__main__":
    sys.exit(main())
