"""What a training or an evaluation on a CPU takes of the host's memory, beside what is said before: each in its own process.

    python benchmarks/host_memory.py [CASE ...]

Models have SDXL's widths and fewer layers, so that a case takes some gigabytes and a minute; latents are 16x16. `resident` is
the most that the process had in memory, the libraries' pages included: over reading the base's file, two steps, a state
and going on from it, or over a picture made in one step.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import torch  # noqa: E402

from astolfo.ledger import load, recipe_of  # noqa: E402
from astolfo.ledger.schema import Optimizer  # noqa: E402
from astolfo.train import host_memory, state  # noqa: E402
from astolfo.train.loop import Trainer  # noqa: E402
from astolfo.train.ranks import Processes  # noqa: E402
from benchmarks.train_sdxl import CONFIG, prepare, write_base  # noqa: E402

SIDE = 16
DISK = "/var/tmp"  # where files take no memory, which they may in /tmp
EVALUATED = {"evaluation of 1024x1024": 1024, "evaluation of 512x512": 512}  # sides of pictures
CASES = {  # run, changes of its recipe
    "100 %, frozen encoders": ("26022301", {"unet": 100}),
    "71 %, frozen encoders": ("26022301", {"unet": 71}),
    "71 %, both encoders": ("25112201", {}),
    "100 %, stochastic": ("26022301", {"unet": 100, "update": "stochastic"}),
    "100 %, master": ("26022301", {"unet": 100, "update": "master"}),
    "100 %, AdamW": ("26022301", {"unet": 100, "optimizer": "AdamW"}),
    "100 %, AdaFactor": ("26022301", {"unet": 100, "optimizer": "AdaFactor"}),
    "100 %, Lion": ("26022301", {"unet": 100, "optimizer": "Lion"}),
    "100 %, two ranks": ("26022301", {"unet": 100, "ranks": 2}),
}


def reduced(case: str):
    """A case's recipe: the true widths, fewer layers."""
    run, changes = CASES[case]
    ledger = load(CONFIG, "full")
    recipe = recipe_of(ledger, ledger.run(run))
    shapes = {part: dict(about) for part, about in recipe.architecture.items()}
    shapes["unet"] |= {"transformer_layers_per_block": [1, 1, 1], "layers_per_block": 1, "sample_size": SIDE}
    for part in ("text_encoder", "text_encoder_2"):
        shapes[part]["num_hidden_layers"] = 2
    found = {"architecture": shapes, "steps_per_epoch": None, "ranks": 1, "accumulation": 1, **changes}
    if update := found.pop("update", None):
        found["precision"] = recipe.precision.model_copy(update={"update": update})
    if "optimizer" in found:
        found["optimizer"] = Optimizer(kind=found["optimizer"])
    return recipe.model_copy(update=found)


def measure(case: str) -> None:
    """Trains from a base's file, saves, goes on in this process, and prints both figures."""
    recipe = reduced(case)
    said = host_memory.needed_by_process(recipe, 1, False, (8 * SIDE, 8 * SIDE))
    with tempfile.TemporaryDirectory(dir=DISK) as name:
        base, file = Path(name, "base.safetensors"), Path(name, "state.safetensors")
        subprocess.run([sys.executable, __file__, "--here", case, "--base", base], check=True)
        trainer = Trainer(recipe, replace(prepare(recipe, Path(name), 2), base=base), Processes())
        trainer.step(0)
        state.save(file, trainer.state(1), "this")
        with state.reading(file, "this") as found:
            trainer.restore(found)
        trainer.step(1)
    report(case, said)


def evaluate(case: str) -> None:
    """Samples one picture in one step with random weights in this process, and prints both figures."""
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.evaluate.sample import Settings, sample
    from astolfo.train.conditioning import Text

    recipe, side = reduced("100 %, frozen encoders"), EVALUATED[case]
    architecture = Architecture.from_mapping(recipe.architecture, recipe.family)
    said = host_memory.needed_by_evaluation(architecture, 1, 1, (side, side))
    parts = {part: architecture.build(part, "cpu") for part in architecture.parts}
    encoders = [parts["text_encoder"], parts["text_encoder_2"]]

    def text(prompts, device):
        ids = torch.zeros((len(prompts), 1, 77), dtype=torch.int64)
        return Text(encoders, [None, None], tokens=75, context=recipe.choices.context).encode([ids, ids], device)

    sample(parts, text, ["anything"], Settings(runtime="eps", steps=1, height=side, width=side), seed=1)
    report(case, said)


def report(case: str, said: float) -> None:
    """Prints what was said beside what this process had in memory at most."""
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{case}: {said / 1e9:.2f} GB said, {taken / 1e9:.2f} GB resident: {taken / said - 1:+.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "case",
        nargs="*",
        choices=[[], *CASES, *EVALUATED],
        metavar="CASE",
        help=f"of {'; '.join([*CASES, *EVALUATED])}".replace("%", "%%"),
    )
    parser.add_argument("--here", choices=[*CASES, *EVALUATED], help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)  # only writes the case's base there
    options = parser.parse_args()
    host_memory.free_at_once()  # as the jobs of the program do
    if options.base:
        write_base(reduced(options.here), options.base)
        return
    if options.here:
        (measure if options.here in CASES else evaluate)(options.here)
        return
    for case in options.case or [*CASES, *EVALUATED]:
        subprocess.run([sys.executable, __file__, "--here", case], check=True)


if __name__ == "__main__":
    main()
