"""Pictures, numbers and a verdict."""

from pathlib import Path

import click

from astolfo.commands import named
from astolfo.commands.jobs.job import PATH, PATIENCE, begin, job, jobs


@jobs.command()
@job
@click.option("--base", type=PATH, default=None)
@click.option("--trained", type=PATH, required=True)
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="NAME=PATH", help="An earlier checkpoint, by its name.")
@click.option("--vocabulary", "words", type=PATH, required=True)
@click.option("--held-out", type=PATH, default=None, help="A dataset store that no run trained on, to validate on.")
@click.option("--scorer", type=PATH, default=None, help="Folder of a pinned CLIP model.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Decides no bit.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--out", type=PATH, required=True, help="Folder of the evaluation.")
def evaluate(
    spec: dict, log: Path | None, base: Path | None, trained: Path, checkpoints: tuple[str, ...], words: Path,
    held_out: Path | None, scorer: Path | None, processes: int, device: str, out: Path,
) -> None:  # fmt: skip
    """Samples and judges a checkpoint."""
    earlier = named(checkpoints)
    begin(log, base, trained, *earlier.values())
    from astolfo import numerics

    numerics.make_deterministic()
    from astolfo.evaluate.evaluate import Models
    from astolfo.evaluate.evaluate import evaluate as run
    from astolfo.train import host_memory

    models = Models(trained=trained, vocabulary=words, base=base, checkpoints=earlier, held_out=held_out, scorer=scorer)
    if device != "cpu":
        run(spec, out, models, device=device)
        return
    processes, wanted = _fitting(spec, processes)
    if wanted is None:
        run(spec, out, models, processes=processes)
    else:
        host_memory.supervised(
            lambda: run(spec, out, models, processes=processes), wanted, patience=PATIENCE, helps=host_memory.SAMPLING
        )


def _fitting(spec: dict, processes: int) -> tuple[int, float | None]:
    """How many processes have room, at least one, and the bytes that they need; None for a small model.

    Raises PlacementError where one has no room.
    """
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.evaluate.plan import Plan
    from astolfo.ledger.schema import Objective
    from astolfo.train import host_memory

    recipe = spec["recipe"]
    architecture = Architecture.from_mapping(recipe["architecture"], recipe["family"])
    settings = Plan(spec["settings"], architecture, Objective.model_validate(recipe["objective"]), merges=True).shared

    def needed(processes: int) -> float | None:
        return host_memory.needed_by_evaluation(architecture, processes, settings.batch, (settings.height, settings.width))

    there = host_memory.available()
    while processes > 1 and there is not None and (needed(processes) or 0.0) > there:
        processes -= 1
    wanted = needed(processes)
    if wanted is not None:
        host_memory.check(wanted, there, host_memory.available_swap(), host_memory.SAMPLING)
    return processes, wanted
