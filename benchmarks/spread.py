"""How far apart one changed rounding drives two trainings: where the bounds of `astolfo compare` come from.

    python benchmarks/spread.py train RUN FOLDER -d WORK [--variant NAME ...]   trains variants of RUN, from its base
    python benchmarks/spread.py report FOLDER                                   distances of each from the reference

WORK is a working directory of the miniature in which the run's base, dataset and vocabulary are built. Variants of a rounding:
`ulp-N` changes the last bit of one weight before the first step; `threads-2`, `avx512` and `scalar` compute in other numerics
classes. Variants of substance: `seed` and `rate-FACTOR` are truly different runs.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from astolfo import numerics

ROOT = Path(__file__).parent.parent
ROUNDINGS = ("ulp-1", "ulp-2", "ulp-3", "ulp-4", "threads-2", "avx512", "scalar")
OTHERS = ("seed", "rate-1.1", "rate-1.5", "rate-2")
CLASSES = {"avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "ALL", "MKL_CBWR": "AUTO"},
           "scalar": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("train", "one"):
        verb = verbs.add_parser(name)
        verb.add_argument("run")
        verb.add_argument("folder", type=Path)
        verb.add_argument("-d", "--directory", type=Path, required=True)
        verb.add_argument("--variant", action="append")
        verb.add_argument("--accumulation", type=int, help="micro-batches per rank and step, for less time")
    verbs.add_parser("report").add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.verb == "report":
        report(options.folder)
    elif options.verb == "one":
        for variant in options.variant:
            one(options.run, options.folder, options.directory, variant, options.accumulation)
    else:
        wanted = options.variant or ["reference", *ROUNDINGS, *OTHERS]
        apart = [[variant] for variant in wanted if variant in CLASSES]
        for variants in ([variant for variant in wanted if variant not in CLASSES], *apart):
            command = [sys.executable, __file__, "one", options.run, str(options.folder), "-d", str(options.directory)]
            command += ["--accumulation", str(options.accumulation)] if options.accumulation else []
            subprocess.run([*command, *(f"--variant={variant}" for variant in variants)], check=True)


def one(run_id: str, folder: Path, directory: Path, variant: str, accumulation: int | None) -> None:
    """Trains one variant and writes `FOLDER/RUN/VARIANT/{state,result}.safetensors`."""
    numerics.pin()
    os.environ.update(CLASSES.get(variant, {}))
    import torch

    from astolfo.files import sha256_of
    from astolfo.ledger import Reference, load
    from astolfo.ledger.recipe import Recipe
    from astolfo.ledger.specs import Specs
    from astolfo.ledger.steps import plan_of
    from astolfo.train import ranks, state
    from astolfo.train.export import export
    from astolfo.train.loop import Inputs, Trainer

    numerics.make_deterministic()
    torch.set_num_threads(2 if variant == "threads-2" else numerics.THREADS)
    ledger = load(ROOT / "config")
    run, spec = ledger.run(run_id), Specs(ledger, sha256_of(ROOT / "envs/lock.txt")).model(Reference(run=run_id))
    recipe = changed(Recipe.model_validate(spec["recipe"]), variant)
    if accumulation:
        recipe = recipe.model_copy(update={"accumulation": accumulation, "steps_per_epoch": None})
    base = directory / ledger.parent(run).path
    inputs = Inputs(base=base, dataset=directory / "datasets" / run.fields.dataset, vocabulary=directory / "vocabulary")
    trainer, plan = Trainer(recipe, inputs, ranks.start(1)), plan_of(ledger, run)
    if variant.startswith("ulp-"):
        chosen = trainer.parameters[len(trainer.parameters) * int(variant[4:]) // 5]
        chosen.data.view(torch.int32 if chosen.dtype == torch.float32 else torch.int16).view(-1)[0] ^= 1
    for step in range(plan.start, plan.end):
        trainer.step(step)
    out = folder / run_id / variant
    state.save(out / "state.safetensors", trainer.state(plan.end), spec["parents"]["state"])
    export(spec | {"recipe": recipe.canonical()}, out / "state.safetensors", base, None, out / "result.safetensors")
    (out / "base.safetensors").unlink(missing_ok=True)
    (out / "base.safetensors").symlink_to(base.resolve())
    print(f"{run_id} {variant}: {sha256_of(out / 'result.safetensors')[:16]}", flush=True)


def changed(recipe, variant: str):
    """The recipe of a variant of substance; else the recipe itself."""
    if variant == "seed":
        return recipe.model_copy(update={"seed": recipe.seed + 1})
    if variant.startswith("rate-"):
        rates = {part: rate * float(variant[5:]) for part, rate in recipe.learning_rate.model_dump().items()}
        return recipe.model_copy(update={"learning_rate": type(recipe.learning_rate)(**rates)})
    return recipe


def report(folder: Path) -> None:
    """Prints each variant's distances from the reference: whole model, worst tensor, loss curve."""
    from astolfo.checkpoint.safefile import open_file
    from astolfo.provenance.compare import distances, loss_distance

    for reference in sorted(folder.glob("*/reference/result.safetensors")):
        for other in sorted(reference.parent.parent.glob("*/result.safetensors")):
            if other == reference:
                continue
            with open_file(reference) as a, open_file(other) as b, open_file(other.with_name("base.safetensors")) as base:
                found = list(distances(a, b, base))
            whole = (sum(tensor.apart for tensor in found) / sum(tensor.moved for tensor in found)) ** 0.5
            worst = max(found, key=lambda tensor: tensor.distance)
            losses = [open_file(path.with_name("state.safetensors")).array("loss") for path in (reference, other)]
            loss = loss_distance(*losses)
            name = f"{reference.parent.parent.name} {other.parent.name}"
            print(f"{name:24} weights {whole:.4f}  tensor {worst.distance:.4f} ({worst.key})  loss {loss:.2e}")


if __name__ == "__main__":
    main()
