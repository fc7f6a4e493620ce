"""What the user brings, checked and put in its place, and what the miniature makes instead."""

import logging
from pathlib import Path
from typing import Any

import click

from astolfo import program
from astolfo.commands.jobs.job import PATH, begin, job, jobs
from astolfo.errors import InputError

_WHERE = "`images` of its entry; at the miniature, `miniature.images`"


@jobs.command()
@job
@click.option("--folder", type=PATH, default=None, help="Where pinned inputs lie.")
@click.option("--out", type=PATH, required=True, help="Folder of the vocabulary.")
def vocabulary(spec: dict, log: Path | None, folder: Path | None, out: Path) -> None:
    """Makes the CLIP vocabulary, the miniature's or OpenAI's own, or puts a pinned one in its place."""
    done = begin(log)
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
@job
@click.option("--folder", type=PATH, default=None, help="Where pinned files lie; the spec names the file.")
@click.option("--file", "source", type=PATH, default=None, help="A model that the graph made.")
@click.option("--remade-by", default="", help="What in the graph would make the pinned file.")
@click.option("--out", type=PATH, required=True)
def base(spec: dict, log: Path | None, folder: Path | None, source: Path | None, remade_by: str, out: Path) -> None:
    """Checks a pinned file, or one that the graph made, and puts it in its place."""
    done = begin(log)
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


@jobs.command("stand-in")
@job
@click.option("--folder", type=PATH, required=True, help="Where the shipped models lie.")
@click.option("--file", "made", type=PATH, default=None, help="A model that the graph made, instead of a shipped one.")
@click.option("--out", type=PATH, required=True)
def stand_in(spec: dict, log: Path | None, folder: Path, made: Path | None, out: Path) -> None:
    """Makes the miniature's model of a base: a shipped one, or one that the graph made, changed by the base's name."""
    done = begin(log, made)
    from astolfo.checkpoint.metadata import titled
    from astolfo.checkpoint.standin import vary
    from astolfo.files import sha256_of

    source = made or folder / f"{spec['of']}.safetensors"
    if made is None:
        found = sha256_of(source) if source.is_file() else "no such file"
        if found != spec["sha256"]:
            raise InputError(
                f"{source} belongs to the program: expected sha256 {spec['sha256']}, found {found}. Install it again."
            )
    vary(source, out, name=spec["name"], amount=spec["amount"], metadata=titled(spec["name"], spec["scale"]))
    done("stand-in", out, spec, {"model": made} if made else {})


@jobs.command()
@job
@click.option("--out", type=PATH, required=True)
def autoencoder(spec: dict, log: Path | None, out: Path) -> None:
    """Trains the miniature's autoencoder from nothing."""
    done = begin(log)
    from astolfo import numerics

    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.autoencoder import save_autoencoder
    from astolfo.data.make import scenes
    from astolfo.data.photograph import photographs
    from astolfo.train.autoencoder import train_autoencoder

    architecture = Architecture.from_mapping(spec["architecture"], spec["family"])
    training = dict(spec["training"])
    images = photographs(training["seed"], scenes(spec["pictures"], training["seed"], training.pop("images")))
    save_autoencoder(out, train_autoencoder(architecture.config("vae"), images, **training), architecture)
    done("autoencoder", out, spec, {})


@jobs.command()
@job
@click.option("--autoencoder", "encoder", type=PATH, required=True)
@click.option("--out", type=PATH, required=True, help="Folder of the store.")
def dataset(spec: dict, log: Path | None, encoder: Path, out: Path) -> None:
    """Makes a procedural dataset: draws, encodes, stores."""
    done = begin(log, encoder)
    from astolfo import numerics

    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.autoencoder import load_autoencoder
    from astolfo.data.make import make_dataset

    architecture = Architecture.from_mapping(spec["architecture"], spec["family"])
    about = {"made by": "astolfo job dataset", "pictures": spec["pictures"], "seed": spec["seed"]}
    found = load_autoencoder(encoder, architecture)
    make_dataset(
        out, found, spec["pictures"], seed=spec["seed"], images=spec["images"], about=about, encoded_by=encoder,
        flip=spec.get("flip", False),
    )  # fmt: skip
    done("dataset", out / "store.json", spec, {"autoencoder": encoder})


@jobs.command("joined-dataset")
@job
@click.option("--part", "folders", type=(str, PATH), multiple=True, required=True, help="A part's name and its store.")
@click.option("--out", type=PATH, required=True, help="Folder of the store.")
def joined_dataset(spec: dict, log: Path | None, folders: tuple[tuple[str, Path], ...], out: Path) -> None:
    """Joins datasets into one, which shares their latents."""
    done = begin(log)
    from astolfo.data.join import Part, join

    parts = [Part(name=name, folder=folder, repeats=spec["repeats"][name]) for name, folder in folders]
    join(out, parts, {"made by": "astolfo job joined-dataset"})
    done("joined", out / "store.json", spec, {part.name: part.folder / "store.json" for part in parts})


def _check_latents(store: Any, folder: Path, expected: dict[str, int] | None) -> None:
    """Raises InputError for a store whose latents are of another scale's autoencoder."""
    for bucket in store.manifest["buckets"] if expected else ():
        (channels, height, _), factor = bucket["latents"], expected["factor"]  # type: ignore[index]
        if (channels, height * factor) != (expected["channels"], bucket["height"]):  # type: ignore[index]
            raise InputError(
                f"{folder} has {bucket['latents']} latents for {bucket['width']}x{bucket['height']} pixels, and the scale's "
                f"autoencoder makes one of {factor} pixels: it was imported for another scale. Import it again for this one."
            )


@jobs.command("import")
@job
@click.option("--folder", type=PATH, required=True, help="The pictures, with their captions beside them.")
@click.option("--autoencoder", "encoder", type=PATH, required=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--out", type=PATH, required=True, help="Folder of the store.")
def import_(spec: dict, log: Path | None, folder: Path, encoder: Path, device: str, out: Path) -> None:
    """Imports a folder of pictures: brings them to the scale's sizes, encodes, stores."""
    done = begin(log, encoder)
    from astolfo import devices, numerics
    from astolfo.ledger.content import content

    _check_pictures(out.name, folder, content(folder), spec)
    if device == "cuda":
        devices.claim(1)
    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.autoencoder import load_autoencoder
    from astolfo.data.ingest.folder import Folder
    from astolfo.data.ingest.importing import import_pictures

    found = load_autoencoder(encoder, Architecture.from_mapping(spec["architecture"], spec["family"]))
    about = import_pictures(
        Folder, [folder], out, found, sizes=spec["sizes"], seed=spec["seed"], file=encoder, device=device, replace=True,
        flip=spec.get("flip", False),
    )  # fmt: skip
    logging.getLogger("astolfo").info("%s", about)
    if about.images != spec["images"]:
        raise InputError(
            f"{folder} gives {about.images:,} pictures, and the ledger says images: {spec['images']:,} for {out.name}. Mend what "
            f"was left out, or say images: {about.images:,} ({_WHERE}).\n{about}"
        )
    done("import", out / "store.json", spec, {"autoencoder": encoder}, device=device)


def _check_pictures(name: str, folder: Path, held: Any, spec: dict) -> None:
    """Raises InputError when the folder is not there, is not what the graph was made for, or holds too few pictures."""
    if held is None:
        raise InputError(
            f"Expected the pictures of {name} in the folder {folder.absolute()}, found none. Check the ledger's entry of it."
        )
    if held.digest != spec["content"]:
        raise InputError(f"{folder} changed since the graph was made. Call the command again.")
    if held.pictures < spec["images"]:
        raise InputError(
            f"{folder} holds {held.pictures:,} pictures, and the ledger says images: {spec['images']:,} for {name}. Correct the "
            f"one or the other ({_WHERE}): the length of a run follows from it."
        )


@jobs.command("given-dataset")
@job
@click.option("--folder", type=PATH, required=True, help="The store that the user has.")
@click.option("--out", type=PATH, required=True)
def given_dataset(spec: dict, log: Path | None, folder: Path, out: Path) -> None:
    """Checks a dataset store that the user brought, and links it to where the workflow looks."""
    done = begin(log)
    from astolfo.data.join import Repeated
    from astolfo.data.store import Store
    from astolfo.files import write_sidecar, written

    if not folder.exists():
        raise InputError(
            f"{folder.absolute()} is missing: the dataset {out.name} is a store that you bring. Put it, or a link to it, there; "
            "docs/datasets.md says what is in one."
        )
    store = Store(folder)
    counted = Repeated(store)
    if len(counted) != spec["images"]:
        raise InputError(f"{folder} has {len(counted):,} images, the ledger expects {spec['images']:,}. Is it the whole dataset?")
    if counted.mirrored != spec.get("flip", False):
        have, want = ("has", "no flip") if counted.mirrored else ("has no", "flip: true")
        raise InputError(
            f"{folder} {have} mirrored pictures, the ledger says {want} of {out.name}. Import it accordingly (--flip)."
        )
    _check_latents(store, folder, spec.get("latents"))
    if spec["digest"] == "unknown":
        logging.getLogger("astolfo").warning(
            "%s is not pinned, so nobody says which %s it is: `%s`",
            folder,
            out.name,
            program.command("pin", out.name, "FOLDER", "-d", Path.cwd()),
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
