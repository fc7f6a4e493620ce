"""How far apart one changed rounding drives two trainings: where the bounds of `astolfo compare` come from.

    python benchmarks/spread.py train RUN FOLDER -d WORK [--variant NAME ...]   trains variants of RUN, from its base
    python benchmarks/spread.py draw FOLDER -d WORK                             what each variant draws, as it was trained
    python benchmarks/spread.py report FOLDER                                   distances of each from the reference

WORK is a working directory of the miniature in which the run's base, dataset and vocabulary are built. Variants of a rounding:
`ulp-N` changes the last bit of one weight before the first step; `threads-2`, `avx512` and `scalar` compute in other numerics
classes. Variants of substance: `seed` and `rate-FACTOR` are truly different runs.
"""

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path

from astolfo import numerics

ROOT = Path(__file__).parent.parent
SIDE = 48  # pixels of the miniature's pictures
PROMPTS, SEED, STEPS, CFG = 8, 25112201, 20, 4.0  # the pictures by which the bound was set
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
    verb = verbs.add_parser("draw")
    verb.add_argument("folder", type=Path)
    verb.add_argument("-d", "--directory", type=Path, required=True)
    options = parser.parse_args()
    if options.verb == "report":
        report(options.folder)
    elif options.verb == "draw":
        draw(options.folder, options.directory)
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
    saved, result = out / "state.safetensors", out / "result.safetensors"
    state.save(saved, trainer.state(plan.end), spec["parents"]["state"])
    spec |= {"recipe": recipe.canonical()}
    export(spec, saved, base, None, result)
    attest(spec, saved, result, base)
    print(f"{run_id} {variant}: {sha256_of(result)[:16]}", flush=True)


def attest(spec: dict, saved: Path, result: Path, base: Path) -> None:
    """Puts the base beside a variant and writes the attestations by which `astolfo compare` finds it and the losses."""
    from astolfo.files import read_sidecar, write_sidecar
    from astolfo.provenance import attestation

    link = result.with_name("base.safetensors")
    link.unlink(missing_ok=True)
    link.symlink_to(base.resolve())
    write_sidecar(link, read_sidecar(base))
    attestation.write(attestation.TRAIN, saved, spec, {"base": link})
    attestation.write(attestation.EXPORT, result, spec, {"state": saved, "base": link})


def changed(recipe, variant: str):
    """The recipe of a variant of substance; else the recipe itself."""
    if variant == "seed":
        return recipe.model_copy(update={"seed": recipe.seed + 1})
    if variant.startswith("rate-"):
        from astolfo.ledger.schema import six_digits

        return recipe.model_copy(
            update={"learning_rate": recipe.learning_rate.changed(lambda rate: six_digits(rate * float(variant[5:])))}
        )
    return recipe


def draw(folder: Path, directory: Path) -> None:
    """Samples the evaluation's pictures from every result below `folder`, under its run's own objective."""
    numerics.pin()
    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.evaluate.candidate import Candidate
    from astolfo.evaluate.grid import save_png
    from astolfo.evaluate.prompts import procedural_prompts
    from astolfo.evaluate.sample import Settings, sample
    from astolfo.files import read_sidecar, write_json
    from astolfo.ledger import load

    ledger = load(ROOT / "config")
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    prompts = [prompt.text for prompt in procedural_prompts(SEED, PROMPTS, width=SIDE, height=SIDE)]
    for result in sorted(folder.glob("*/*/result.safetensors")):
        out = result.parent / "evaluations" / "result"
        if (out / "metrics.json").exists():
            continue
        objective = ledger.run(result.parent.parent.name).objective
        settings = Settings(
            runtime=objective.kind, zero_terminal_snr=objective.zero_terminal_snr, steps=STEPS, cfg=CFG, height=SIDE, width=SIDE
        )
        candidate = Candidate(architecture, None, result, directory / "vocabulary")
        pictures, _ = sample(candidate.at(1.0), candidate.text, prompts, settings, seed=SEED)
        files = [f"pictures/{number}.png" for number in range(len(pictures))]
        for name, picture in zip(files, pictures, strict=True):
            save_png(out / name, picture, {})
        cell = {"runtime": objective.kind, "alpha": 1.0, "files": files}
        metrics = {
            "models": {"trained": {"sha256": read_sidecar(result)}},
            "objective": {"kind": objective.kind},
            "cells": [cell],
        }
        write_json(out / "metrics.json", metrics)
        print(result, flush=True)


def report(folder: Path) -> None:
    """Prints each variant's distances from the reference: whole model, worst tensor, loss curve, pictures."""
    from astolfo.provenance.compare import Bounds, compare

    no_bounds = Bounds(measured="", weights=math.inf, tensor=math.inf, loss=math.inf, pictures=math.inf)
    for reference in sorted(folder.glob("*/reference/result.safetensors")):
        for other in sorted(reference.parent.parent.glob("*/result.safetensors")):
            if other != reference:
                found = compare(reference, other, no_bounds)
                told = {name: getattr(found, name) for name in ("weights", "tensor", "loss", "pictures", "first_step")}
                shown = "  ".join(f"{name} {value:.3g}" for name, value in told.items() if value is not None)
                print(f"{reference.parent.parent.name} {other.parent.name:10} {shown}")


if __name__ == "__main__":
    main()
