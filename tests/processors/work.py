"""What the miniature does with the record, as small as it can be: every kind of work in one process, and artifacts as files.

    for done in work.everything(folder): ...                    every recipe of the record, optimizer and key, and what is not training
    python -m tests.processors.work training FOLDER             a dataset, and a state and a result of 25112201
    python -m tests.processors.work chain FOLDER --steps 3      the same, and a merge, an evaluation and an autoencoder
    python -m tests.processors.work compiled-optimizer FOLDER   a state and a result of an update that a compiler makes
    python -m tests.processors.work compiled-blocks FOLDER      the same of a UNet whose blocks are compiled (DeepSpeed's engine)

The last four print the digests of their files. What is compiled is compiled anew, beside FOLDER. Recipes are the record's with one
rank and one micro-batch a step, on two dozen pictures; as files, on four.
"""

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

from astolfo.checkpoint.architecture import Architecture  # noqa: E402
from astolfo.checkpoint.autoencoder import load_autoencoder, save_autoencoder  # noqa: E402
from astolfo.data import vocabulary  # noqa: E402
from astolfo.data.make import make_dataset, scenes  # noqa: E402
from astolfo.data.photograph import photographs  # noqa: E402
from astolfo.evaluate import evaluate as evaluation  # noqa: E402
from astolfo.files import sha256_of, write_sidecar  # noqa: E402
from astolfo.ledger import Ledger, load, recipe_of  # noqa: E402
from astolfo.ledger.recipe import Recipe  # noqa: E402
from astolfo.ledger.schema import SEMANTICS, LearningRate, Objective, Optimizer, Precision  # noqa: E402
from astolfo.ledger.specs import identity  # noqa: E402
from astolfo.merging.weighted_sum import merge  # noqa: E402
from astolfo.train.autoencoder import train_autoencoder  # noqa: E402
from astolfo.train.export import export  # noqa: E402
from astolfo.train.loop import Inputs, Trainer  # noqa: E402
from astolfo.train.placement import Placement  # noqa: E402
from astolfo.train.ranks import Processes  # noqa: E402
from astolfo.train.segment import train_segment  # noqa: E402
from tests.conftest import CONFIG, STAND_INS  # noqa: E402
from tests.train.test_keys import KEYS  # noqa: E402

RUNS = {"sdxl": "25112201", "sd2": "24122001"}
COMPILED = "25022301"  # whose engine has torch compile the UNet's blocks
BASES = {"sdxl": STAND_INS / "sdxl-eps.safetensors", "sd2": STAND_INS / "sd2-v.safetensors"}
PICTURES = 24
SHORT = {"ranks": 1, "accumulation": 1, "steps_per_epoch": None, "first_step": 0, "last_step": None}
SAMPLED = (
    ("sdxl", "eps", "DDIM"),
    ("sdxl", "eps", "Euler"),
    ("sdxl", "v", "DDIM"),
    ("sdxl", "rf", "Euler"),
    ("sd2", "v", "DDIM"),
)


def everything(folder: Path) -> Iterator[str]:
    """Does each kind of work once, in `folder`; yields the name of what is done."""
    ledger, inputs = load(CONFIG), {}
    for family in BASES:
        inputs[family] = _inputs(ledger, folder / family, family, PICTURES)
        yield f"{family}: pictures and their latents"
    for name, recipe in recipes(ledger).items():
        trainer = Trainer(recipe, inputs[recipe.family], Processes())
        for step in range(2):
            trainer.step(step)
        trainer.close()
        yield f"training: {name}"
    _autoencoder(ledger, folder / "autoencoder.safetensors", steps=2)
    yield "training: autoencoder"
    for family, runtime, sampler in SAMPLED:
        recipe = recipe_of(ledger, ledger.run(RUNS[family]))
        out = folder / f"{family}-{runtime}-{sampler}"
        _evaluate(recipe, out, evaluation.Models(trained=BASES[family], vocabulary=inputs[family].vocabulary), runtime, sampler)
        yield f"{family}: sampling and validation, {runtime} by {sampler}"


def recipes(ledger: Ledger) -> dict[str, Recipe]:
    """Every recipe of the record, then 25112201's with each optimizer, in bf16, and with each further key, all of them short.

    Left out are DeepSpeed's engine and AdamW4bit, which run what a compiler makes: their files are compared instead of their calls.
    """
    runs = [run for run in ledger.runs.values() if not run.era.support and not run.fields.engine]
    found = {run.id: recipe_of(ledger, run).model_copy(update=SHORT) for run in runs}
    first, bf16 = found[RUNS["sdxl"]], {"weights": "bf16", "compute": "bf16"}
    for kind in get_args(Optimizer.model_fields["kind"].annotation):
        rates = {"learning_rate": LearningRate(unet=1, text_encoders=1)} if kind == "Prodigy" else {}
        found[kind] = first.model_copy(
            update={"optimizer": Optimizer(kind=kind), "max_grad_norm": 0.01, "batch_size": 2, **rates}
        )
    relative = Optimizer(kind="AdaFactor", relative_step=True)
    found["AdaFactor, relative"] = first.model_copy(update={"optimizer": relative})
    for update in (None, "stochastic", "master"):
        found[f"bf16, {update}"] = first.model_copy(update={"precision": Precision(**bf16, update=update)})
    for semantics, choices in SEMANTICS.items():
        found[f"keys, {semantics}"] = first.model_copy(update=KEYS | SHORT | {"choices": choices, "last_step": 2})
    for loss in ("l1", "smooth_l1"):
        found[loss] = first.model_copy(update={"objective": Objective(kind="v", loss=loss)})
    return {name: recipe for name, recipe in found.items() if recipe.optimizer.kind != "AdamW4bit"}


def training(folder: Path, steps: int, recipe: Recipe) -> Inputs:
    """A dataset, a state and a result below `folder`; returns what the training read."""
    inputs = _inputs(load(CONFIG), folder, "sdxl", 4)
    spec = {"verb": "train", "parents": {}, "recipe": recipe.canonical(), "from": 0, "to": steps}
    state = folder / "states" / f"{steps:08d}.safetensors"
    train_segment(spec, inputs, None, state, Placement())
    about = {"title": "short", "semantics": "kohya", "scale": "miniature", "images": 4, "recipe": spec["recipe"]}
    parents = {"state": identity(spec)}
    export({"verb": "export", "parents": parents, **about}, state, inputs.base, None, folder / "result.safetensors")
    return inputs


def chain(folder: Path, steps: int, recipe: Recipe) -> None:
    """A training and all that follows from it: merge, evaluation and autoencoder.

    An evaluation compares with 192 drawn pictures, each of which takes an emulated autoencoder over ten seconds; here it draws one.
    """
    evaluation.DRAWN = 1
    inputs, result = training(folder, steps, recipe), folder / "result.safetensors"
    merge(inputs.base, result, {0.5: folder / "merged.safetensors"})
    models = evaluation.Models(trained=result, vocabulary=inputs.vocabulary, base=inputs.base)
    _evaluate(recipe, folder / "evaluation", models, "eps", "DDIM", alphas=[0.5, 1.0], steps=steps)
    _autoencoder(load(CONFIG), folder / "autoencoder.safetensors", steps=steps)


def _inputs(ledger: Ledger, folder: Path, family: str, pictures: int) -> Inputs:
    architecture = Architecture.from_mapping(ledger.scale.architectures[family], family)
    encoder = load_autoencoder(STAND_INS / f"{family}-vae.safetensors", architecture)
    make_dataset(folder / "dataset", encoder, ledger.scale.pictures, seed=5, images=pictures, about={})
    vocabulary.write(folder / "vocabulary")
    base = folder / "base.safetensors"
    shutil.copyfile(BASES[family], base)
    write_sidecar(base)  # an export reads it
    return Inputs(base=base, dataset=folder / "dataset", vocabulary=folder / "vocabulary")


def _autoencoder(ledger: Ledger, out: Path, steps: int) -> None:
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    drawn = photographs(1, scenes(ledger.scale.pictures, 1, 8))
    save_autoencoder(out, train_autoencoder(architecture.config("vae"), drawn, seed=1, steps=steps), architecture)


def _evaluate(
    recipe: Recipe, out: Path, models: evaluation.Models, runtime: str, sampler: str, *, alphas: list[float] | None = None, steps: int = 1
) -> None:  # fmt: skip
    grid = {"name": "sweep", "x": {"alpha": alphas or [1.0]}, "z": {"uncond": ["null"]}}
    settings: dict[str, Any] = {
        "prompts": {"procedural": 2}, "seed": 7, "sampler": sampler, "steps": steps, "cfg": 4.0, "runtime": runtime, "grids": [grid],
    }  # fmt: skip
    evaluation.evaluate({"run": "short", "settings": settings, "recipe": recipe.canonical()}, out, models)


def _recipe(kind: str) -> Recipe:
    """What is trained: of what is compiled, with no more than a few shapes, since each is compiled by itself."""
    ledger = load(CONFIG)
    recipe = recipe_of(ledger, ledger.run(COMPILED if kind == "compiled-blocks" else RUNS["sdxl"])).model_copy(update=SHORT)
    if kind == "compiled-optimizer":
        rates = LearningRate(unet=0, text_encoders=1e-5)
        return recipe.model_copy(update={"optimizer": Optimizer(kind="AdamW4bit"), "learning_rate": rates})
    return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("training", "chain", "compiled-optimizer", "compiled-blocks"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1)
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    compiled = folder.with_name(f"{folder.name}-compiled")
    compiled.mkdir()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compiled)
    os.chdir(compiled)  # below which the engine keeps what it compiles
    make = chain if options.kind == "chain" else training
    make(folder, options.steps, _recipe(options.kind))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{sha256_of(path)}  {path.relative_to(folder)}")


if __name__ == "__main__":
    main()
