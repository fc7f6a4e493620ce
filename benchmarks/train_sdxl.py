"""How fast a recipe trains at true size: N steps on random weights of the true shapes and synthetic latents.

    python benchmarks/train_sdxl.py --device cuda [--run 25112201] [--unet 100] [--micro-batch 4] [--steps 5] [--plain]
    python benchmarks/train_sdxl.py --scale miniature                 the same program at toy size, on a CPU

Nothing is downloaded. Printed: images per second, TFLOP/s and their share of the bf16 matrix peak that is measured in the same
run, peak memory beside what was predicted, and the split of a step (timed in steps of their own, with the device waited for
after each part). `--plain` adds a loop in the manner of diffusers' text-to-image example, with the same batch, precision,
optimizer and checkpointing, and the ratio; `--no-determinism` adds the same trainer without deterministic algorithms. `--lever`
adds the trainer with something that it leaves out as long as nobody has measured that it is worth other bits:

    channels-last   the UNet's convolutions and what goes through them in that layout
    compile         its repeated blocks compiled by torch's inductor, as the engine of 25022301 has it

    python benchmarks/train_sdxl.py --device cuda --unet 100 --processes 4 --memory 23.5          what four cards of 24 GB need
    python benchmarks/train_sdxl.py --device cuda --unet 71 --fit --json FILE                     as the program would place it

`--json` writes every number to a file as soon as it is known, so that those before a failure stay.

With `--processes` it is one of so many processes, the one that holds most, with the true sizes of its share; what the others
would send, it makes up. `--memory` lets torch have so many GB (10^9 bytes) of the card, whatever its size: more is an error.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from astolfo import randomness  # noqa: E402
from astolfo.checkpoint import model  # noqa: E402
from astolfo.data import vocabulary  # noqa: E402
from astolfo.data.ingest.run import run  # noqa: E402
from astolfo.data.ingest.source import Loaded, Row, Source  # noqa: E402
from astolfo.ledger import load, recipe_of  # noqa: E402
from astolfo.plan import memory as plan_memory  # noqa: E402
from astolfo.plan.memory import blocks  # noqa: E402
from astolfo.train.conditioning import time_ids  # noqa: E402
from astolfo.train.initialise import initialise  # noqa: E402
from astolfo.train.loop import Inputs, Trainer  # noqa: E402
from astolfo.train.loss import loss  # noqa: E402
from astolfo.train.memory import flops, predict  # noqa: E402
from astolfo.train.model import DTYPES, architecture_of, held_dtype  # noqa: E402
from astolfo.train.optimizer import build  # noqa: E402
from astolfo.train.placement import Placement  # noqa: E402
from astolfo.train.ranks import GradientTree, Processes  # noqa: E402
from astolfo.train.trainable import trainable_parameters  # noqa: E402

CONFIG = Path(__file__).parent.parent / "config"
CLOCK = time.perf_counter if torch.cuda.is_available() else time.process_time  # on a CPU, processor time of all threads
PART_CLOCK = time.perf_counter if torch.cuda.is_available() else time.thread_time  # ... of the one that trains


@dataclass
class Alone(Processes):
    """One of several processes, whose others do not exist: what they would send is what it has itself."""

    def gather(self, values):
        return torch.stack([values] * self.count)

    def gather_objects(self, value):
        return [value] * self.count

    def exchange(self, received, sent, parts, sizes):
        mine = sent.split(sizes)[self.index]
        for place in received.split(parts):
            place.copy_(mine)

    def broadcast(self, values, owner):
        pass


class Subject(Trainer):
    """The trainer, on a model of random weights that are made where they are used."""

    def _parts(self, base):
        return random_parts(self.recipe, self.device)


def main() -> None:
    options = arguments()
    ledger = load(CONFIG, options.scale)
    recipe = recipe_of(ledger, ledger.run(options.run)).model_copy(update={"steps_per_epoch": None})
    changes = {"unet": options.unet, "batch_size": options.micro_batch, "accumulation": options.accumulation}
    recipe = recipe.model_copy(update={key: value for key, value in changes.items() if value})
    placement = placed(recipe, options)
    if options.memory and options.device == "cuda":
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, options.memory * 1e9 / whole))
    with tempfile.TemporaryDirectory() as folder:
        inputs = prepare(recipe, Path(folder), options.steps)
        report(recipe, options, placement, inputs)


def placed(recipe, options) -> Placement:
    """Where and how it runs: as asked, or with `--fit` so that it fits the card."""
    saving = {"gradient_checkpointing": options.checkpointing, "offload_gradients": options.offload}
    if options.fit and options.device == "cuda":
        usable = torch.cuda.get_device_properties(0).total_memory * plan_memory.USABLE
        saving, _ = plan_memory.fitting(recipe, options.processes, usable)
    return Placement(device=options.device, **saving)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="25112201", help="whose recipe is trained")
    parser.add_argument("--scale", default="full")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each kind; one more warms up")
    parser.add_argument("--unet", type=int, help="percent of the UNet that trains, instead of the run's")
    parser.add_argument("--micro-batch", type=int, help="samples of a micro-batch, instead of the run's")
    parser.add_argument("--accumulation", type=int, help="micro-batches of a rank and step, instead of the run's")
    parser.add_argument(
        "--checkpointing", nargs="?", type=blocks, const=True, default=False, metavar="BLOCKS",
        help="compute activations again in the backward pass: all, or those of blocks such as text_encoders,mid_block",
    )  # fmt: skip
    parser.add_argument("--offload", action="store_true", help="partial sums of gradients wait in the host's memory")
    parser.add_argument("--fit", action="store_true", help="choose both as the program does for this card")
    parser.add_argument("--json", type=Path, help="write the numbers here, each as soon as it is known")
    parser.add_argument("--processes", type=int, default=1, help="be one of so many, the others made up")
    parser.add_argument("--memory", type=float, help="GB of the card that may be used")
    parser.add_argument("--plain", action="store_true", help="time a plain loop too")
    parser.add_argument("--no-determinism", action="store_true", help="time the trainer without determinism too")
    parser.add_argument("--lever", action="append", default=[], choices=LEVERS, help="time the trainer with it too")
    options = parser.parse_args()
    if options.plain and options.processes > 1:
        parser.error("--plain: the plain loop is one process, so there is nothing to compare with --processes")
    return options


class Numbers(dict):
    """What was measured, by name; every number is in the file as soon as it is known."""

    def __init__(self, file: Path | None):
        super().__init__()
        self.file = file

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        if self.file:
            self.file.write_text(json.dumps(self, indent=2))


def report(recipe, options, placement, inputs) -> None:
    images = recipe.ranks // options.processes * recipe.batch_size * recipe.accumulation
    per_image = flops(recipe) / recipe.batch_size
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, one thread"
    print(f"{device}: {recipe.unet} % of the UNet, {images} images a step in micro-batches of {recipe.batch_size}, "
          f"{recipe.optimizer.kind}, {per_image / 1e12:.4g} TFLOP an image forward and backward")  # fmt: skip
    found = Numbers(options.json)
    found["device"], found["images"], found["flop_per_image"] = device, images, per_image
    saving = {key: getattr(placement, key) for key in plan_memory.SAVING}
    found["placement"] = plan_memory.named(saving) or "nothing saved"
    found["peak_flops"] = peak = matrix_peak(options.device, DTYPES[recipe.precision.compute])
    print(f"matrix peak, {recipe.precision.compute}: {peak / 1e12:.3g} TFLOP/s; {found['placement']}")
    process = Alone(options.processes, largest(recipe, options.processes))

    def told(name, subject):
        seconds = tell(name, timed(subject, options), images, per_image, peak)
        found[f"{name}: images a second"], found[f"{name}: share of peak"] = images / seconds, images / seconds * per_image / peak
        return seconds

    trainer = Subject(recipe, inputs, process, placement)
    own = told("trainer", trainer)
    if options.device == "cuda":
        expected = predict(recipe, processes=options.processes, checkpointing=placement.gradient_checkpointing,
                           offload=placement.offload_gradients)  # fmt: skip
        found["peak memory"], found["predicted memory"] = torch.cuda.max_memory_allocated(), expected.peak
        print(f"peak memory {torch.cuda.max_memory_allocated() / 1e9:.2f} GB, predicted: {expected}")
    found["split"] = split(trainer, options.steps)
    print("split: " + ", ".join(f"{part} {share:.1%}" for part, share in found["split"].items()))
    for lever in options.lever:
        trainer.close()
        del trainer  # a card may hold no two
        trainer = Subject(recipe, inputs, process, placement)
        LEVERS[lever](trainer)
        found[f"{lever}: times the trainer's speed"] = times = own / told(lever, trainer)
        print(f"{times:.2f} times the trainer's speed")
    if options.lever and (options.no_determinism or options.plain):
        trainer.close()
        del trainer
        trainer = Subject(recipe, inputs, process, placement)
    if options.no_determinism:
        free()
        found["cost of determinism"] = cost = own / told("not deterministic", trainer) - 1
        print(f"determinism costs {cost:.1%}")
    if options.plain:
        free()
        plain = PlainLoop(trainer)
        del trainer
        found["times the plain loop's speed"] = times = told("plain loop", plain) / own
        print(f"{times:.2f} times the plain loop's speed")


def channels_last(trainer: Trainer) -> None:
    """Weights of convolutions, and the sums of their gradients, in that layout within the flat buffers where they lie."""
    gradient_tree = trainer.gradient_tree
    gradient_tree.begin(1)  # makes the sums
    for index, (parameter, place) in enumerate(zip(gradient_tree.parameters, gradient_tree._places, strict=True)):
        if parameter.dim() == 4:
            layout = torch.empty(parameter.shape, device="meta").to(memory_format=torch.channels_last).stride()
            values = parameter.data.clone()
            parameter.data = gradient_tree.weights[place].as_strided(parameter.shape, layout)
            parameter.data.copy_(values)
            gradient_tree._sums[index] = gradient_tree._total[place].as_strided(parameter.shape, layout)


LEVERS = {"channels-last": channels_last, "compile": lambda trainer: trainer.parts["unet"].compile_repeated_blocks()}


def largest(recipe, processes: int) -> int:
    """The process that owns most weights."""
    architecture = architecture_of(recipe)
    parts = {part: architecture.build(part) for part in architecture.parts if part != "vae"}
    parameters = [parameter for *_, parameter in trainable_parameters(recipe, parts)]
    return max(range(processes), key=lambda index: len(GradientTree(parameters, Processes(processes, index)).owned_weights()))


def tell(name: str, seconds: float, images: int, per_image: float, peak: float) -> float:
    rate = images / seconds
    print(f"{name}: {rate:.3f} images/s, {rate * per_image / 1e12:.3g} TFLOP/s, {rate * per_image / peak:.1%} of the matrix peak")
    return seconds


def timed(subject, options) -> float:
    """The median seconds of a step."""
    times = []
    for step in range(options.steps + 1):
        wait()
        begun = CLOCK()
        subject.step(step)
        wait()
        times.append(CLOCK() - begun)
    return statistics.median(times[1:])


def split(trainer, steps: int) -> dict[str, float]:
    """The share of each part in a step, and of the rest: what waits for data, what goes to the device, the objective.

    A process's own ranks are summed in the backward pass; the reduction is what processes exchange.
    """
    seconds, undo = defaultdict(float), []

    def clock(owner, name, part):
        original = getattr(owner, name)

        def call(*given, **named):
            wait()
            begun = PART_CLOCK()
            result = original(*given, **named)
            wait()
            seconds[part] += PART_CLOCK() - begun
            return result

        setattr(owner, name, call)
        undo.append((owner, name, original))

    clock(trainer.text, "encode", "text encoders")
    clock(trainer.parts["unet"], "forward", "UNet forward")
    clock(torch.Tensor, "backward", "backward")
    clock(trainer.gradient_tree, "reduce", "reduction")
    clock(trainer.update, "step", "optimizer")
    clock(trainer, "_check", "guards")
    begun = PART_CLOCK()
    for step in range(steps):
        trainer.step(step)
    whole = PART_CLOCK() - begun
    for owner, name, original in undo:
        if isinstance(owner, type):
            setattr(owner, name, original)
        else:
            delattr(owner, name)  # what the class has is there again
    return {part: value / whole for part, value in seconds.items()} | {"the rest": 1 - sum(seconds.values()) / whole}


class PlainLoop:
    """The manner of diffusers' example: encode, add noise, predict, mean squared error, accumulate, step. No ranks, no guards.

    It takes the trainer's model, objective, text encoders and data, and the same micro-batches one after another.
    """

    def __init__(self, source: Trainer):
        self.recipe, self.device, self.text, self.parts = source.recipe, source.device, source.text, source.parts
        self.store, self.order, self.objective, self.scale = source.store, source.order, source.objective, source.scale
        rows = [(name.split(".")[0], name, parameter) for name, parameter in zip(source.names, source.parameters, strict=True)]
        for _, _, parameter in rows:
            parameter.data, parameter.grad = parameter.data.clone(), None
        source.close()
        source.gradient_tree = source.update = None
        self.optimizer = build(self.recipe, rows)

    def step(self, step: int) -> None:
        batches = [batch for row in self.order.step(step) for batch in row if batch is not None]
        for batch in batches:
            samples = [self.store.sample(int(row)) for row in batch.rows]
            dtype = DTYPES[self.recipe.precision.weights]
            latents = torch.stack([torch.from_numpy(one.latents) for one in samples]).to(self.device, dtype) * self.scale
            task = self.objective.task(latents, torch.randn_like(latents), torch.rand(len(samples), dtype=torch.float64).numpy())
            with torch.autocast(self.device.type, DTYPES[self.recipe.precision.compute],
                                enabled=self.recipe.precision.compute != self.recipe.precision.weights):  # fmt: skip
                context, pooled = self.text([f"{one.tags}, {one.sentence}" for one in samples], self.device)
                added = {"text_embeds": pooled, "time_ids": time_ids(samples).to(self.device)} if pooled is not None else None
                predicted = self.parts["unet"](
                    task.noisy, task.timestep, context.to(dtype), added_cond_kwargs=added, return_dict=False
                )[0]
            (loss(task, predicted) / len(batches)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Synthetic(Source):
    """Samples of one size, of random latents."""

    about: ClassVar = {"made by": "benchmarks/train_sdxl.py"}

    def __init__(self, count: int, side: int, pixels: int):
        self.count, self.side, self.size = count, side, (pixels, pixels)
        self.identity = {"kind": "synthetic", "count": count, "side": side}

    def rows(self, workers):
        for n in range(self.count):
            sentence = f"A red star on a blue ground, number {n}."
            yield Row(id=f"{n}", tags="red star, blue ground, left", sentence=sentence, where=str(n), bucket=self.size)

    def load(self, row):
        latents = randomness.normal(0, "latents", int(row.where), (4, self.side, self.side))
        return Loaded(latents=latents, original_size=self.size, crop=(0, 0))

    def shape(self, bucket):
        return 4, self.side, self.side


def prepare(recipe, folder: Path, steps: int) -> Inputs:
    """A store of synthetic latents of the model's own size, and a vocabulary."""
    factor = 2 ** (len(recipe.architecture["vae"]["block_out_channels"]) - 1)
    side, count = recipe.architecture["unet"]["sample_size"], recipe.ranks * recipe.batch_size * recipe.accumulation
    run(Synthetic(count * (steps + 1), side, side * factor), folder / "store", replace=True)
    vocabulary.write(folder / "vocabulary")
    return Inputs(base=None, dataset=folder / "store", vocabulary=folder / "vocabulary")


def random_parts(recipe, device) -> dict[str, nn.Module]:
    """Parts of the true shapes: matrices N(0, 0.02), norms and biases as their layers begin with."""
    architecture, parts = architecture_of(recipe), {}
    for part in (part for part in architecture.parts if part != "vae"):
        module = nn.Module.to(architecture.build(part), DTYPES[held_dtype(recipe)]).to_empty(device=device)
        generator = torch.Generator(device).manual_seed(1)
        with torch.no_grad():
            for name, value in [*module.named_parameters(), *module.named_buffers()]:
                if name.endswith("position_ids"):
                    value.copy_(torch.arange(value.numel(), device=device).view(value.shape))
                elif value.dim() > 1:
                    value.normal_(0, 0.02, generator=generator)
                else:
                    value.fill_(float(name.endswith("weight")))
        parts[part] = module.train()
    return parts


def write_base(recipe, file: Path) -> None:
    """A whole model of random weights in a file, as a run starts from it."""
    architecture = architecture_of(recipe)
    model.save(file, random_parts(recipe, "cpu") | {"vae": initialise(architecture.build("vae", "cpu"), 1)}, architecture)


def matrix_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of large matrix products, the best of several."""
    side = 8192 if device == "cuda" else 512
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        wait()
        begun = CLOCK()
        a @ b
        wait()
        best = max(best, 2 * side**3 / (CLOCK() - begun))
    return best


def free() -> None:
    """Lets torch choose kernels without regard to determinism."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
