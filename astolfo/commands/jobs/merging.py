"""Merges: a weighted sum with the base, or a recipe of sd-mecha."""

import logging
from pathlib import Path

import click

from astolfo.commands import named
from astolfo.commands.jobs.job import PATH, begin, job, jobs
from astolfo.errors import LedgerError


@jobs.command()
@job
@click.option("--base", type=PATH, required=True)
@click.option("--trained", type=PATH, required=True)
@click.option("--out", type=PATH, required=True)
def merge(spec: dict, log: Path | None, base: Path, trained: Path, out: Path) -> None:
    """Merges a checkpoint with its base."""
    done = begin(log, base, trained)
    from astolfo.checkpoint.metadata import titled
    from astolfo.merging.weighted_sum import merge as weighted_sum

    metadata = titled(spec["title"], spec["scale"])
    logging.getLogger("astolfo").info("%s", weighted_sum(base, trained, {float(spec["alpha"]): out}, metadata=metadata))
    done("merge", out, spec, {"base": base, "trained": trained})


@jobs.command()
@job
@click.option("--recipes", type=PATH, required=True, help="Folder of the .mecha recipes.")
@click.option("--model", "models", multiple=True, required=True, metavar="NAME=PATH", help="A model, by its name in the recipe.")
@click.option("--out", type=PATH, required=True)
def mecha(spec: dict, log: Path | None, recipes: Path, models: tuple[str, ...], out: Path) -> None:
    """Merges checkpoints by a recipe of sd-mecha."""
    given = named(models)
    done = begin(log, *given.values())
    from astolfo.checkpoint.metadata import titled
    from astolfo.files import sha256_of
    from astolfo.merging.mecha import merge_mecha

    recipe = recipes / f"{spec['recipe']}.mecha"
    found = sha256_of(recipe) if recipe.is_file() else "no such file"
    if found != spec["recipe_sha256"]:
        raise LedgerError(
            f"{recipe}: expected sha256 {spec['recipe_sha256']}, found {found}. It changed since the graph was made; run again."
        )
    if set(given) != set(spec["models"]):
        raise LedgerError(f"{recipe}: expected models named {', '.join(spec['models'])}, found {', '.join(given)}.")
    metadata = titled(spec["title"], spec["scale"])
    logging.getLogger("astolfo").info("%s", merge_mecha(recipe, given, out, metadata=metadata))
    done("mecha", out, spec, dict(sorted(given.items())))
