"""The verbs that the workflow's rules call: `astolfo job VERB --spec JSON ...`.

Each reads a spec (or `@FILE` that holds one), writes its outputs whole or not at all, with their side-cars, and logs to
its own file besides the terminal. None knows which rule called it.
"""

import functools
import json
import logging
import os
from pathlib import Path
from typing import Any

import click

from astolfo import devices
from astolfo.alive import hold_alive, watch_parent
from astolfo.commands import LOCK
from astolfo.errors import InputError, LedgerError, PlacementError


class _Path(click.Path):
    """A path; the empty string, which a rule without that input gives, means none."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path | None:
        return Path(value) if str(value) else None


class _Blocks(click.ParamType):
    """Blocks of a model: all, none, or their names with commas between them."""

    name = "blocks"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> bool | tuple[str, ...]:
        from astolfo.plan.memory import blocks

        try:
            return blocks(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)


_PATH = _Path()
_NAMED = "astolfo.named"  # in a job's context: the code and lock that its spec named
_PATIENCE = 300.0  # seconds that a training whose Snakemake is gone may take to save its state


def _spec(context: click.Context, parameter: click.Parameter, value: str) -> dict[str, Any]:
    """The spec, with the code and the lock that are in use; those that it named are kept aside, for the record."""
    try:
        spec = json.loads(Path(value[1:]).read_text() if value.startswith("@") else value)
    except (OSError, json.JSONDecodeError) as error:
        raise click.BadParameter(f"expected a spec as JSON, or @FILE: {error}") from None
    from astolfo.files import sha256_of
    from astolfo.provenance import code, stale

    if spec.get("verb") in code.MODULES:
        assert context.parent
        now = stale.makers(spec["verb"], sha256_of(context.parent.params["lock"]))
        context.meta[_NAMED] = {key: spec.get(key, value) for key, value in now.items()}
        spec |= now
    return spec


def _shared(work: Any) -> Any:
    """The options that every job has, and the record of who made what, which it leaves when it succeeds."""

    @functools.wraps(work)
    def command(spec: dict[str, Any], out: Path, **options: Any) -> None:
        from astolfo.numerics import naming_operators
        from astolfo.provenance import stale

        with naming_operators(str(out)):
            work(spec=spec, out=out, **options)
        if named := click.get_current_context().meta.get(_NAMED):
            stale.record(_artifact(out), spec, named, options.get("state"))

    for option in (
        click.option("--spec", required=True, callback=_spec, help="What to make, as JSON, or @FILE."),
        click.option("--log", type=_PATH, default=None, help="Write the log here too."),
    ):
        command = option(command)
    return command


def _artifact(out: Path) -> Path:
    """The file that stands for what a job made: `out`, or the one in the folder `out` that has a side-car or is its page."""
    names = ("vocab.json", "store.json", "index.html")
    return next((out / name for name in names if (out / name).exists()), out) if out.is_dir() else out


@click.group("job")
@click.option("--tied", is_flag=True, help="Stop when the process that started this one is gone.")
@click.option("--lock", type=_PATH, default=LOCK, help="The environment's lock file.")
def jobs(tied: bool, lock: Path) -> None:
    """What the workflow's rules run."""
    hold_alive()
    if tied:
        watch_parent(patience=_PATIENCE)


def _begin(log: Path | None, *inputs: Path | None) -> "_Evidence":
    """Starts a job: its log, its numerics, and a look at whether its inputs are what their side-cars say.

    What it returns is called at the job's end.
    """
    from astolfo import numerics
    from astolfo.files import verified
    from astolfo.provenance.meter import Meter

    meter = Meter()

    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log, mode="a", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logging.getLogger().addHandler(handler)
    numerics.pin()
    for path in inputs:
        if path is not None:
            verified(path)
    return _Evidence(meter)


class _Evidence:
    """Called when a job's artifact and its side-car are written: writes its attestation, and what it cost."""

    def __init__(self, meter: Any):
        self.meter = meter

    def __call__(self, job: str, out: Path, spec: dict, parents: dict[str, Path | None], **more: Any) -> None:
        from astolfo.provenance import attestation

        attestation.write(job, out, spec, parents, **more)
        self.meter.write(out)


@jobs.command()
@_shared
@click.option("--folder", type=_PATH, default=None, help="Where pinned inputs lie.")
@click.option("--out", type=_PATH, required=True, help="Folder of the vocabulary.")
def vocabulary(spec: dict, log: Path | None, folder: Path | None, out: Path) -> None:
    """Makes the miniature's CLIP vocabulary, or puts a pinned one in its place."""
    done = _begin(log)
    from astolfo.files import write_sidecar

    if spec["verb"] == "pinned":
        from astolfo.pins import place_vocabulary

        place_vocabulary((folder or Path()) / spec["file"], spec["sha256"], out)
    else:
        from astolfo.data.vocabulary import write

        write(out)
    write_sidecar(out / "vocab.json")
    done("adopt" if spec["verb"] == "pinned" else "vocabulary", out / "vocab.json", spec, {}, also=[out / "merges.txt"])


@jobs.command()
@_shared
@click.option("--folder", type=_PATH, default=None, help="Where pinned files lie; the spec names the file.")
@click.option("--file", "source", type=_PATH, default=None, help="A model that the graph made.")
@click.option("--remade-by", default="", help="What in the graph would make the pinned file.")
@click.option("--out", type=_PATH, required=True)
def base(spec: dict, log: Path | None, folder: Path | None, source: Path | None, remade_by: str, out: Path) -> None:
    """Checks a pinned file, or one that the graph made, and puts it in its place."""
    done = _begin(log)
    from astolfo.files import read_sidecar
    from astolfo.pins import link, place

    if source is not None:
        link(source, out, read_sidecar(source))
        done("link", out, spec, {"model": source})
    elif folder is not None:
        place(folder / spec["file"], spec, out)
        done("adopt", out, spec, {}, remade_by=remade_by)
    else:
        raise click.UsageError("give --file or --folder.")


@jobs.command()
@_shared
@click.option("--out", type=_PATH, required=True)
def autoencoder(spec: dict, log: Path | None, out: Path) -> None:
    """Trains the miniature's autoencoder from nothing."""
    done = _begin(log)
    from astolfo import numerics

    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.autoencoder import save_autoencoder
    from astolfo.data import procedural
    from astolfo.data.make import scenes
    from astolfo.train.autoencoder import train_autoencoder

    architecture = Architecture.from_mapping(spec["architecture"], spec["family"])
    training = dict(spec["training"])
    images = [procedural.draw(scene) for scene in scenes(spec["pictures"], training["seed"], training.pop("images"))]
    save_autoencoder(out, train_autoencoder(architecture.config("vae"), images, **training), architecture)
    done("autoencoder", out, spec, {})


@jobs.command()
@_shared
@click.option("--autoencoder", "encoder", type=_PATH, required=True)
@click.option("--out", type=_PATH, required=True, help="Folder of the store.")
def dataset(spec: dict, log: Path | None, encoder: Path, out: Path) -> None:
    """Makes a procedural dataset: draws, encodes, stores."""
    done = _begin(log, encoder)
    from astolfo import numerics

    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.autoencoder import load_autoencoder
    from astolfo.data.make import make_dataset

    architecture = Architecture.from_mapping(spec["architecture"], spec["family"])
    about = {"made by": "astolfo job dataset", "pictures": spec["pictures"], "seed": spec["seed"]}
    found = load_autoencoder(encoder, architecture)
    make_dataset(out, found, spec["pictures"], seed=spec["seed"], images=spec["images"], about=about, encoded_by=encoder)
    done("dataset", out / "store.json", spec, {"autoencoder": encoder})


@jobs.command("given-dataset")
@_shared
@click.option("--folder", type=_PATH, required=True, help="The store that the user has.")
@click.option("--out", type=_PATH, required=True)
def given_dataset(spec: dict, log: Path | None, folder: Path, out: Path) -> None:
    """Checks a dataset store that the user brought, and links it to where the workflow looks."""
    done = _begin(log)
    from astolfo.data.store import Store
    from astolfo.files import write_sidecar, written

    if not folder.exists():
        raise InputError(
            f"{folder.absolute()} is missing: the dataset {out.name} is a store that you bring. Put it, or a link to it, there; "
            "docs/datasets.md says what is in one."
        )
    store = Store(folder)
    if len(store) != spec["images"]:
        raise InputError(f"{folder} has {len(store):,} images, the ledger expects {spec['images']:,}. Is it the whole dataset?")
    if spec["digest"] == "unknown":
        logging.getLogger("astolfo").warning(
            "%s is not pinned, so nobody says which %s it is: `astolfo --scale full pin %s FOLDER`", folder, out.name, out.name
        )
    elif spec["digest"] != store.digest:
        raise InputError(f"{folder} is not the pinned {out.name}: expected the digest {spec['digest']}, found {store.digest}.")
    if problems := list(store.verify("*.arrow")):  # the latents of a large store take hours: `astolfo dataset verify`
        raise InputError(f"{folder} is damaged: {'; '.join(problems)}. Get it again, or make it anew.")
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.iterdir()):
        target = out / file.name
        if file.name.startswith("store.json"):
            continue
        target.unlink(missing_ok=True)
        target.symlink_to(file.resolve())
    with written(out / "store.json") as beside:
        beside.write_bytes((folder / "store.json").read_bytes())
    write_sidecar(out / "store.json")
    done("adopt", out / "store.json", spec, {})


@jobs.command()
@_shared
@click.option("--base", type=_PATH, default=None, help="Where the weights start; none for a model from nothing.")
@click.option("--state", type=_PATH, default=None, help="The state of the segment before; none for the first.")
@click.option("--dataset", "store", type=_PATH, required=True)
@click.option("--vocabulary", "words", type=_PATH, required=True)
@click.option("--out", type=_PATH, required=True)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Decides no bit.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--keep-every", type=float, default=600.0, show_default=True, help="Seconds between saves of an unfinished segment."
)
@click.option("--tensorboard", type=_PATH, default=None, help="Folder for event files.")
@click.option("--heartbeat", type=_PATH, default=None, help="File to append a line of JSON to, every ten seconds.")
@click.option("--run-end", type=click.IntRange(1), default=None, help="The run's last step, for the time to it.")
@click.option("--samples", type=_PATH, default=None, help="Folder for sample pictures.")
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
@click.option("--ramdisk", is_flag=True, help="Read the dataset from a copy in memory. Decides no bit.")
def train(
    spec: dict, log: Path | None, base: Path | None, state: Path | None, store: Path, words: Path, out: Path, processes: int,
    device: str, **where: Any,
) -> None:  # fmt: skip
    """Trains one segment."""
    if where["sample_every"] and where["samples"] is None:
        raise click.UsageError("--sample-every needs --samples, the folder for the pictures.")
    done = _begin(log, base)
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
    where |= _fitting(spec["recipe"], processes, device, where)
    train_segment(spec, inputs, state, out, Placement(processes=processes, device=device, **where))
    if ranks.launched():  # of several processes that were started together the first one tells of what they made
        click.get_current_context().exit()
    done("train", out, spec, parents, device=device)


@jobs.command()
@_shared
@click.option("--state", type=_PATH, required=True)
@click.option("--base", type=_PATH, default=None)
@click.option("--autoencoder", "encoder", type=_PATH, default=None)
@click.option("--out", type=_PATH, required=True)
def export(spec: dict, log: Path | None, state: Path, base: Path | None, encoder: Path | None, out: Path) -> None:
    """Turns a state into a checkpoint."""
    done = _begin(log, base, encoder)
    _continues(state, spec)
    from astolfo.train.export import export as write

    write(spec, state, base, encoder, out)
    done("export", out, spec, {"state": state, "base": base, "autoencoder": encoder})


@jobs.command()
@_shared
@click.option("--base", type=_PATH, required=True)
@click.option("--trained", type=_PATH, required=True)
@click.option("--out", type=_PATH, required=True)
def merge(spec: dict, log: Path | None, base: Path, trained: Path, out: Path) -> None:
    """Merges a checkpoint with its base."""
    done = _begin(log, base, trained)
    from astolfo.merge.weighted_sum import merge as weighted_sum

    metadata = {"modelspec.title": spec["title"], "astolfo.scale": spec["scale"]}
    logging.getLogger("astolfo").info("%s", weighted_sum(base, trained, {float(spec["alpha"]): out}, metadata=metadata))
    done("merge", out, spec, {"base": base, "trained": trained})


@jobs.command()
@_shared
@click.option("--recipes", type=_PATH, required=True, help="Folder of the .mecha recipes.")
@click.option("--model", "models", multiple=True, required=True, metavar="NAME=PATH", help="A model, by its name in the recipe.")
@click.option("--out", type=_PATH, required=True)
def mecha(spec: dict, log: Path | None, recipes: Path, models: tuple[str, ...], out: Path) -> None:
    """Merges checkpoints by a recipe of sd-mecha."""
    given = named(models)
    done = _begin(log, *given.values())
    from astolfo.files import sha256_of
    from astolfo.merge.mecha import merge_mecha

    recipe = recipes / f"{spec['recipe']}.mecha"
    found = sha256_of(recipe) if recipe.is_file() else "no such file"
    if found != spec["recipe_sha256"]:
        raise LedgerError(
            f"{recipe}: expected sha256 {spec['recipe_sha256']}, found {found}. It changed since the graph was made; run again."
        )
    if set(given) != set(spec["models"]):
        raise LedgerError(f"{recipe}: expected models named {', '.join(spec['models'])}, found {', '.join(given)}.")
    metadata = {"modelspec.title": spec["title"], "astolfo.scale": spec["scale"]}
    logging.getLogger("astolfo").info("%s", merge_mecha(recipe, given, out, metadata=metadata))
    done("mecha", out, spec, dict(sorted(given.items())))


def named(given: tuple[str, ...]) -> dict[str, Path]:
    """("a=x.safetensors", ...) as a mapping. Raises click's BadParameter for anything else, and for a name given twice."""
    found: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path or name in found:
            raise click.BadParameter(f"expected NAME=FILE, each name once, such as a=base.safetensors; found {text!r}.")
        found[name] = Path(path)
    return found


@jobs.command()
@_shared
@click.option("--base", type=_PATH, default=None)
@click.option("--trained", type=_PATH, required=True)
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="NAME=PATH", help="An earlier checkpoint, by its name.")
@click.option("--vocabulary", "words", type=_PATH, required=True)
@click.option("--held-out", type=_PATH, default=None, help="A dataset store that no run trained on, to validate on.")
@click.option("--scorer", type=_PATH, default=None, help="Folder of a pinned CLIP model.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Decides no bit.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--out", type=_PATH, required=True, help="Folder of the evaluation.")
def evaluate(
    spec: dict, log: Path | None, base: Path | None, trained: Path, checkpoints: tuple[str, ...], words: Path,
    held_out: Path | None, scorer: Path | None, processes: int, device: str, out: Path,
) -> None:  # fmt: skip
    """Samples and judges a checkpoint."""
    earlier = named(checkpoints)
    _begin(log, base, trained, *earlier.values())
    from astolfo import numerics

    numerics.make_deterministic()
    from astolfo.evaluate.evaluate import Models
    from astolfo.evaluate.evaluate import evaluate as run

    models = Models(trained=trained, vocabulary=words, base=base, checkpoints=earlier, held_out=held_out, scorer=scorer)
    run(spec, out, models, device=device, processes=processes if device == "cpu" else 1)


def _continues(state: Path | None, spec: dict[str, Any]) -> None:
    """Raises StateError when other code or another lock made `state` and nobody has accepted that."""
    from astolfo.provenance import stale

    if state is not None and "code" in spec:
        stale.check(state, spec)


def _fitting(recipe: dict[str, Any], processes: int, device: str, given: dict[str, Any]) -> dict[str, Any]:
    """How a training saves memory: as it was `given`, or where nothing was, so that it fits the smallest of its GPUs."""
    from astolfo.ledger.recipe import Recipe
    from astolfo.plan import memory
    from astolfo.train import ranks

    said, nothing = memory.saving(given), dict.fromkeys(memory.SAVING, False)
    if said or device == "cpu":
        return said or nothing
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
            "A CUDA device is needed, and torch finds none: full-scale training does not fit a CPU. Run this on a machine with "
            "a GPU and its driver (check `nvidia-smi`), or stay at the miniature scale."
        )
    return max(count for count in range(1, min(processes, devices) + 1) if ranks % count == 0)
