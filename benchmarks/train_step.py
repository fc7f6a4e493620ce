"""What the trainer adds to a training step: its step against a bare loop of the same work, in one process.

    python benchmarks/train_step.py [--run 25112201] [--steps 15]

Both do the same forward and backward passes of the same model on the same latents, tokens, noise and timesteps (kept from a
dry pass), with the same optimizer, batch, thread, precision and deterministic flags; the bare loop has everything ready in
memory and neither order, store, captions, random numbers, guards, tree nor saving. Steps alternate between the two, and which
goes first; counted is processor time, on which other work on the machine has little influence. The ratio is taken step by step,
since a shared machine's clock wanders, and its median is printed with the quarters of the steps around it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import torch  # noqa: E402

from astolfo.checkpoint.architecture import Architecture  # noqa: E402
from astolfo.data import vocabulary  # noqa: E402
from astolfo.data.make import make_dataset  # noqa: E402
from astolfo.ledger import load, recipe_of  # noqa: E402
from astolfo.train import optimizer as optimizers  # noqa: E402
from astolfo.train.conditioning import join_chunks  # noqa: E402
from astolfo.train.initialise import initialise  # noqa: E402
from astolfo.train.loop import Inputs, Trainer  # noqa: E402
from astolfo.train.loss import loss  # noqa: E402
from astolfo.train.model import build_parts, latent_scale  # noqa: E402
from astolfo.train.ranks import Processes  # noqa: E402
from astolfo.train.trainable import trainable_parameters  # noqa: E402

CONFIG = Path(__file__).parent.parent / "config"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="25112201", help="whose recipe is timed")
    parser.add_argument("--steps", type=int, default=15, help="timed steps of each kind")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps: expected 2 or more, for the quarters of the steps' ratios")
    with tempfile.TemporaryDirectory() as folder:
        recipe, inputs = prepare(options.run, Path(folder))
        subjects = {"trainer": Trainer(recipe, inputs, Processes()), "bare loop": BareLoop(recipe, inputs)}
        times: dict[str, list[float]] = {name: [] for name in subjects}
        for step in range(options.steps + 1):  # the first one warms up
            for name in sorted(subjects, reverse=bool(step % 2)):
                if name == "bare loop":
                    subjects[name].prepare(step)
                begun = time.process_time()
                subjects[name].step(step)
                times[name].append(time.process_time() - begun)
    report(recipe, times)


def prepare(run: str, folder: Path):
    """The run's recipe, and a dataset, a vocabulary and no base to train it on."""
    ledger = load(CONFIG)
    recipe = recipe_of(ledger, ledger.run(run)).model_copy(update={"steps_per_epoch": None})
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    autoencoder = initialise(architecture.build("vae", "cpu"), 1).eval()
    with torch.no_grad():
        make_dataset(folder / "dataset", autoencoder, ledger.scale.pictures, seed=5, images=256, about={})
    vocabulary.write(folder / "vocabulary")
    return recipe, Inputs(base=None, dataset=folder / "dataset", vocabulary=folder / "vocabulary")


class BareLoop:
    """The same work with nothing around it."""

    def __init__(self, recipe, inputs):
        self.recipe, self.source = recipe, Trainer(recipe, inputs, Processes())
        self.parts = build_parts(recipe, None, torch.device("cpu"))
        for part in self.parts.values():
            part.requires_grad_(False)
        rows = list(trainable_parameters(recipe, self.parts))
        for _, _, parameter in rows:
            parameter.requires_grad_(True)
        self.optimizer = optimizers.build(recipe, rows)
        self.prepare(0)

    def prepare(self, step):
        """Everything the step reads, made beforehand."""
        source, self.ready = self.source, []
        for rank in range(self.recipe.ranks):
            for batch in (row[rank] for row in source.order.step(step)):
                given = source.reader.batch(batch)
                task = source.objective.task(given.latents * latent_scale(self.recipe), given.noise, given.uniform)
                self.ready.append((task, given.tokens, given.time_ids))

    def step(self, _):
        """Forward, backward, update."""
        self.optimizer.zero_grad(set_to_none=True)
        for task, ids, sizes in self.ready:
            hidden, pooled = [], None
            for part, tokens in zip(("text_encoder", "text_encoder_2"), ids, strict=True):
                output = self.parts[part](tokens[0], output_hidden_states=True)
                hidden.append(join_chunks(output.hidden_states[-2][None], self.recipe.choices.context))
                pooled = getattr(output, "text_embeds", pooled)
            added = {"text_embeds": pooled[:1], "time_ids": sizes}
            predicted = self.parts["unet"](
                task.noisy, task.timestep, torch.cat(hidden, -1), added_cond_kwargs=added, return_dict=False
            )[0]
            (loss(task, predicted) / len(self.ready)).backward()
        self.optimizer.step()


def report(recipe, times) -> None:
    times = {name: values[1:] for name, values in times.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = [own / other for own, other in zip(times["trainer"], times["bare loop"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    images = recipe.ranks * recipe.batch_size * recipe.accumulation
    print(f"{images} images a step in micro-batches of {recipe.batch_size}, {recipe.optimizer.kind}, one thread, one process")
    for name, value in medians.items():
        print(f"{name:10} {value:.3f} s a step (median of {len(times[name])}), {images / value:.1f} images/s")
    print(f"ratio      {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
