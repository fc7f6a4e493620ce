"""A run's segments, and the checkpoints that their states become."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from astolfo import devices
from astolfo.commands.jobs.job import PATH, PATIENCE, begin, job, jobs
from astolfo.errors import PlacementError
from astolfo.plan import memory


class _Blocks(click.ParamType):
    """Blocks of a model: all, none, or their names with commas between them."""

    name = "blocks"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> bool | tuple[str, ...]:
        try:
            return memory.blocks(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)


@jobs.command()
@job
@click.option("--base", type=PATH, default=None, help="Where the weights start; none for a model from nothing.")
@click.option("--state", type=PATH, default=None, help="The state of the segment before; none for the first.")
@click.option("--dataset", "store", type=PATH, required=True)
@click.option("--vocabulary", "words", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Decides no bit.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--keep-every", type=float, default=600.0, show_default=True, help="Seconds between saves of an unfinished segment."
)
@click.option("--tensorboard", type=PATH, default=None, help="Folder for event files.")
@click.option("--heartbeat", type=PATH, default=None, help="File to append a line of JSON to, every ten seconds.")
@click.option("--run-end", type=click.IntRange(1), default=None, help="The run's last step, for the time to it.")
@click.option("--samples", type=PATH, default=None, help="Folder for sample pictures.")
@click.option("--sample-every", type=click.IntRange(1), default=None, help="Steps between them. Decides no bit.")
@click.option("--keep-states", type=click.IntRange(1), default=None, help="Delete the run's states but the last so many.")
@click.option("--named", type=int, multiple=True, metavar="STEP", help="A step whose state stays nevertheless.")
@click.option(
    "--gradient-checkpointing",
    type=_Blocks(),
    default=None,
    help="Blocks whose activations are computed again: all, none, or their names. Decides no bit; by default what a GPU needs.",
)
@click.option(
    "--offload-gradients/--keep-gradients", default=None, help="Where partial sums wait. Decides no bit; by default as above."
)
@click.option("--numa", type=click.IntRange(0), default=None, help="Use the CPUs of this NUMA node. Decides no bit.")
@click.option(
    "--loader-workers", type=click.IntRange(1), default=1, show_default=True, help="Threads that read samples. Decides no bit."
)
@click.option("--ramdisk", is_flag=True, help="Read the dataset from a copy in memory. Decides no bit.")
def train(
    spec: dict, log: Path | None, base: Path | None, state: Path | None, store: Path, words: Path, out: Path, processes: int,
    device: str, **where: Any,
) -> None:  # fmt: skip
    """Trains one segment."""
    if where["sample_every"] and where["samples"] is None:
        raise click.UsageError("--sample-every needs --samples, the folder for the pictures.")
    done = begin(log, base)
    from astolfo import numerics

    numerics.make_deterministic()
    _continues(state, spec)
    from astolfo.train import ranks

    if device == "cuda" and ranks.launched() is None:
        devices.claim(processes)
        processes = _on_gpus(processes, spec["recipe"]["ranks"])
    from astolfo.files import read_sidecar
    from astolfo.train.loop import Inputs
    from astolfo.train.placement import Placement
    from astolfo.train.segment import train_segment

    parents = {"state": state, "base": base, "dataset": store / "store.json", "vocabulary": words / "vocab.json"}
    for parent in filter(None, parents.values()):
        read_sidecar(parent)  # a missing one is an error now, not after the training
    inputs = Inputs(base=base, dataset=store, vocabulary=words)
    where |= _fitting(spec["recipe"], processes, device, where) | {"draw": _draw}
    _train(train_segment, (spec, inputs, state, out, Placement(processes=processes, device=device, **where)))
    if ranks.launched():  # of several processes that were started together the first one tells of what they made
        click.get_current_context().exit()
    done("train", out, spec, parents, device=device)


@jobs.command()
@job
@click.option("--state", type=PATH, required=True)
@click.option("--base", type=PATH, default=None)
@click.option("--autoencoder", "encoder", type=PATH, default=None)
@click.option("--out", type=PATH, required=True)
def export(spec: dict, log: Path | None, state: Path, base: Path | None, encoder: Path | None, out: Path) -> None:
    """Turns a state into a checkpoint."""
    done = begin(log, base, encoder)
    _continues(state, spec)
    from astolfo.train.export import export as write

    write(spec, state, base, encoder, out)
    done("export", out, spec, {"state": state, "base": base, "autoencoder": encoder})


def _draw(trainer: Any, base: Path | None, out: Path) -> None:
    from astolfo.evaluate.preview import draw

    draw(trainer, base, out)


def _train(work: Callable[..., None], given: tuple[Any, ...]) -> None:
    """Trains; on a CPU a model of true size in a process of its own, whose end for want of memory is told."""
    from astolfo.ledger.recipe import Recipe
    from astolfo.train import host_memory, ranks

    spec, inputs, placement = given[0], given[1], given[-1]
    if placement.device != "cpu" or ranks.launched() is not None:
        work(*given)
        return
    recipe, largest = Recipe.model_validate(spec["recipe"]), _largest(inputs.dataset)
    wanted = host_memory.needed_by_training(recipe, placement.processes, placement.gradient_checkpointing, largest)
    if wanted is None:
        work(*given)
        return
    host_memory.check(wanted, host_memory.available(), host_memory.available_swap())
    host_memory.supervised(lambda: work(*given), wanted, patience=PATIENCE)


def _largest(store: Path) -> tuple[int, int]:
    """Height and width in pixels of a store's largest pictures."""
    from astolfo.data.store import Store

    sizes = [(bucket["height"], bucket["width"]) for bucket in Store(store).buckets]
    return max(sizes, key=lambda size: size[0] * size[1])


def _continues(state: Path | None, spec: dict[str, Any]) -> None:
    """Raises StateError when other code or another lock made `state` and nobody has accepted that."""
    from astolfo.provenance import stale

    if state is not None and "code" in spec:
        stale.check(state, spec)


def _fitting(recipe: dict[str, Any], processes: int, device: str, given: dict[str, Any]) -> dict[str, Any]:
    """How a training saves memory: as it was `given`, or where nothing was, so that it fits the smallest of its GPUs."""
    from astolfo.ledger.recipe import Recipe
    from astolfo.train import ranks

    chosen, nothing = memory.saving(given), dict.fromkeys(memory.SAVING, False)
    if chosen or device == "cpu":
        return chosen or nothing
    log, has = logging.getLogger("astolfo"), devices.memory()
    if has is None:
        log.warning("nothing tells this machine's GPU memory, so nothing is done to save it")
        return nothing
    processes = int(os.environ["WORLD_SIZE"]) if ranks.launched() is not None else processes
    usable = has * memory.USABLE
    placement, needed = memory.fitting(Recipe.model_validate(recipe), processes, usable)
    how = f" with {memory.named(placement)}" if memory.named(placement) else ""
    level = logging.INFO if needed.total <= usable else logging.WARNING
    log.log(level, f"about {needed.total / 1e9:.1f} of {has / 1e9:.1f} GB a device{how}: {needed}")
    return placement


def _on_gpus(processes: int, ranks: int) -> int:
    """How many processes run the logical ranks: at most one per device. Raises PlacementError without a device."""
    import torch

    devices = torch.cuda.device_count()
    if not devices:
        raise PlacementError(
            "A CUDA device is needed, and torch finds none. Use a machine with a GPU and its driver (check `nvidia-smi`), "
            "or stay at the miniature scale. `--config device=cpu` trains on the CPU: a proof that the graph works, not a way to "
            "train."
        )
    return max(count for count in range(1, min(processes, devices) + 1) if ranks % count == 0)
