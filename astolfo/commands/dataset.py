"""Verbs on datasets: `astolfo dataset import | export | table | captions | info | verify | sample | sheet`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from astolfo.commands import FILE, FOLDER, ledger_of, naming_scale
from astolfo.errors import InputError

_VOCABULARY = click.option("--vocabulary", type=FOLDER, default=None, help="A CLIP vocabulary: show captions in tokens.")
_KIND = click.option("--captions", "kind", type=click.Choice(["tags", "pick", "concat"]), default="concat", show_default=True)
_TOKENS = click.option("--tokens", type=click.Choice(["75", "150", "225"]), default="225", show_default=True)
_SEMANTICS = click.option(
    "--semantics", type=click.Choice(["reference", "kohya", "kohya-native"]), default="reference", show_default=True,
    help="Whose way to join tags and sentence and to read their tokens.",
)  # fmt: skip
_AUTOENCODER = click.option(
    "--autoencoder", "encoder", type=FILE, default=None, help="Its file, or a whole model's. [default: the scale's]"
)
_FAMILY = click.option("--family", type=click.Choice(["sdxl", "sd2"]), default="sdxl", show_default=True)


def _together(*options: Callable) -> Callable:
    """Options that several verbs have."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _area(context: click.Context, parameter: click.Parameter, given: str | None) -> int | tuple[int, int] | None:
    """ "1024" as a side, "832x1216" as two."""
    sides = [] if given is None else [int(one) if one.isdecimal() else 0 for one in given.split("x")]
    if len(sides) > 2 or 0 in sides:
        raise click.BadParameter(f"expected a side, or two such as 832x1216; found {given!r}.")
    return None if not sides else sides[0] if len(sides) == 1 else (sides[0], sides[1])


_EVERY = _together(
    click.option("--output", "-o", type=FOLDER, required=True, help="The store to make."),
    click.option(
        "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Of the latents."
    ),
    click.option("--workers", type=click.IntRange(1), default=4, show_default=True, help="Threads that read. Decides no bit."),
    click.option("--strict", is_flag=True, help="Stop when something would be left out."),
)
_PICTURES = _together(
    _AUTOENCODER,
    _FAMILY,
    click.option("--resolution", metavar="SIDE|WIDTHxHEIGHT", callback=_area,
                 help="The most pixels of a bucket: a square's side, or two sides. [default: the scale's]"),
    click.option("--smallest", type=click.IntRange(1), help="Shortest side of a bucket. [default: the scale's]"),
    click.option("--largest", type=click.IntRange(1), help="Longest side of a bucket. [default: the scale's]"),
    click.option("--step", type=click.IntRange(1), help="Between sides of buckets. [default: the scale's]"),
    click.option("--no-upscale", is_flag=True, help="Enlarge no picture, as sd-scripts' --bucket_no_upscale: the size of each is "
                 "its own, or smaller, and cut to a bucket of that size. --smallest and --largest have no effect then."),
    click.option("--crop", type=click.Choice(["kohya", "reference"]), default="kohya", show_default=True,
                 help="How crops are recorded: as sd-scripts does, or where the pixels were cropped."),
    click.option("--latents", "draw", type=click.Choice(["sample", "mean"]), default="sample", show_default=True,
                 help="A draw from the autoencoder's posterior, or its mean."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the draws."),
    click.option("--exif", type=click.Choice(["ignore", "apply"]), default="ignore", show_default=True,
                 help="A picture that a camera held on its side: as it is stored, as sd-scripts reads it, or turned."),
    click.option("--alpha", default="stored", show_default=True, metavar="stored|COLOUR",
                 help="Under transparency: the colours that are stored there, as sd-scripts reads them, or one such as white."),
    click.option("--flip", is_flag=True, help="Encode each picture mirrored too; a training then takes either, at random."),
    click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Pictures encoded together."),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True),
)  # fmt: skip


def _prefixes(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """("C:\\set=/data", ...) as pairs."""
    for text in given:
        if "=" not in text or text.startswith("="):
            raise click.BadParameter(f"expected OLD=NEW, such as C:\\set=/data/set; found {text!r}.")
    return tuple((old, new) for old, _, new in (text.partition("=") for text in given))


_PREFIXES = click.option(
    "--prefix", "prefixes", multiple=True, metavar="OLD=NEW", callback=_prefixes,
    help="Paths that begin with OLD, on another machine, lie in NEW here; NEW may be empty. May be repeated.",
)  # fmt: skip


@click.group()
def dataset() -> None:
    """Makes, checks and shows dataset stores."""


@dataset.group("import", short_help="make a store of pictures, or of latents that you have")
def import_() -> None:
    """Makes a store, and reports what was left out. The same command goes on with an import that was killed."""
    from astolfo import numerics

    numerics.pin()  # before any road loads numpy


@import_.command(short_help="from sd-scripts' layout: an index and .npz files")
@click.argument("index", type=FILE)
@click.argument("folder", type=FOLDER)
@click.option("--factor", type=click.IntRange(1), default=None, help="Pixels per latent. [default: as the samples have it]")
@_PREFIXES
@_EVERY
def kohya(index: Path, folder: Path, factor: int | None, prefixes: Any, output: Path, **options: Any) -> None:
    """From sd-scripts' own layout: an INDEX (meta_lat.json, or a .jsonl) and the FOLDER of its .npz files."""
    from astolfo.data.ingest.kohya import Kohya

    _run(Kohya(index, folder, factor, prefixes), output, **options)


@import_.command(short_help="from a folder of pictures with captions beside them")
@click.argument("folder", type=FOLDER)
@click.option(
    "--caption-extension",
    "extension",
    type=click.Choice([".txt", ".caption"]),
    default=None,
    help="Read these captions alone, as sd-scripts does. [default: both]",
)
@_PICTURES
@_EVERY
@click.pass_context
def folder(context: click.Context, folder: Path, extension: str | None, **options: Any) -> None:
    """From a FOLDER of pictures with .txt (tags) and .caption (sentences) beside them."""
    from functools import partial

    from astolfo.data.ingest.folder import Folder

    _pictures(context, partial(Folder, extension=extension), (folder,), **options)


@import_.command(short_help="from WebDataset tars")
@click.argument("tars", type=FILE, nargs=-1, required=True)
@_PICTURES
@_EVERY
@click.pass_context
def tars(context: click.Context, tars: tuple[Path, ...], **options: Any) -> None:
    """From WebDataset TARS: pictures with .txt, .caption or .json members of the same name."""
    from astolfo.data.ingest.tars import Tars

    _pictures(context, Tars, tars, **options)


@import_.command(short_help="from Parquet tables")
@click.argument("tables", type=FILE, nargs=-1, required=True)
@_PICTURES
@_PREFIXES
@_EVERY
@click.pass_context
def table(context: click.Context, tables: tuple[Path, ...], prefixes: Any, **options: Any) -> None:
    """From Parquet TABLES with columns id, image (bytes or a path), tags, sentence."""
    from functools import partial

    from astolfo.data.ingest.table import Table

    _pictures(context, partial(Table, prefixes=prefixes), tables, **options)


def _pictures(
    context: click.Context, kind: Callable, places: tuple[Path, ...], *, encoder: Path | None, family: str,
    resolution: int | tuple[int, int] | None, smallest: int | None, largest: int | None, step: int | None, no_upscale: bool,
    output: Path, exif: str, alpha: str, **options: Any,
) -> None:  # fmt: skip
    """An import of pictures: buckets, an autoencoder, the road."""
    from astolfo.data.ingest.colours import Reading

    file, autoencoder = _autoencoder(context, encoder, family)
    from astolfo.data.ingest.importing import import_pictures

    given = {"resolution": resolution, "smallest": smallest, "largest": largest, "step": step}
    sizes = ledger_of(context).scale.buckets[family].model_dump() | {key: value for key, value in given.items() if value}
    sizes |= {"upscale": False} if no_upscale else {}
    reading = Reading(exif=exif, alpha=alpha)
    click.echo(import_pictures(kind, places, output, autoencoder, sizes=sizes, file=file, reading=reading, **options))


def _autoencoder(context: click.Context, file: Path | None, family: str) -> tuple[Path, Any]:
    """The autoencoder in `file`, or the scale's own, with its file and the numerics of a job."""
    from astolfo import numerics

    numerics.pin()
    numerics.make_deterministic()
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.autoencoder import load_autoencoder

    ledger = ledger_of(context)
    file = file or _own_autoencoder(ledger, family)
    with naming_scale(ledger, file):
        return file, load_autoencoder(file, Architecture.from_mapping(ledger.scale.architectures[family], family))


def _own_autoencoder(ledger: Any, family: str) -> Path:
    """The file of the family's autoencoder at the ledger's scale. Raises InputError where it is not there."""
    name = next(name for name, base in ledger.bases.items() if (base.kind, base.family) == ("autoencoder", family))
    file = ledger.pinned_folder(name) / str(ledger.origin(name).file)
    if not file.exists():
        raise InputError(
            f"Expected the autoencoder {name} at {file.absolute()}, found none. Name one with --autoencoder FILE (a whole "
            f"model's file does too), or pin it in this working directory: `astolfo --scale {ledger.scale_name} pin {name} FILE`."
        )
    return file


def _run(source: Any, output: Path, **options: Any) -> None:
    from astolfo.data.ingest.run import run

    click.echo(run(source, output, **options))


@dataset.command(short_help="write a store as sd-scripts reads it")
@click.argument("store", type=FOLDER)
@click.argument("folder", type=FOLDER)
@click.option("--sized", is_flag=True, help="Name files as newer versions of sd-scripts name their caches.")
@click.option("--workers", type=click.IntRange(1), default=4, show_default=True, help="Threads that write.")
def export(store: Path, folder: Path, sized: bool, workers: int) -> None:
    """Writes a store as sd-scripts reads it: meta_lat.json and a .npz per sample in FOLDER."""
    from astolfo.data.export import export_kohya
    from astolfo.data.store import Store

    export_kohya(Store(store), folder, sized=sized, workers=workers)


@dataset.command("table", short_help="write captions as a Parquet file, to edit them")
@click.argument("store", type=FOLDER)
@click.argument("file", type=FILE)
def table_(store: Path, file: Path) -> None:
    """Writes index and captions as a Parquet FILE, in which captions can be edited."""
    from astolfo.data.export import export_table
    from astolfo.data.store import Store

    export_table(Store(store), file)


@dataset.command(short_help="make a store with edited captions")
@click.argument("store", type=FOLDER)
@click.argument("file", type=FILE)
@click.option("--output", "-o", type=FOLDER, required=True, help="The store to make; it shares the latents.")
def captions(store: Path, file: Path, output: Path) -> None:
    """Makes a store with the captions of a Parquet FILE (columns id, tags, sentence; rows in the store's order)."""
    from astolfo.data.export import recaptioned
    from astolfo.data.store import Store

    click.echo(recaptioned(Store(store), file, output))


@dataset.command(short_help="say what is in a store")
@click.argument("store", type=FOLDER)
@_VOCABULARY
@_KIND
@_TOKENS
@_SEMANTICS
def info(store: Path, vocabulary: Path | None, kind: str, tokens: str, semantics: str) -> None:
    """Says what is in a store: buckets, captions, duplicates by content; with a vocabulary, lengths in tokens."""
    from astolfo.data.store import Store
    from astolfo.data.summary import summary

    click.echo(summary(Store(store), _reading(vocabulary, kind, tokens, semantics)))


@dataset.command(short_help="compare a store with its digest")
@click.argument("store", type=FOLDER)
@click.option("--only", default="*", metavar="PATTERN", help="Files to hash, such as 'index.arrow' or 'latents-1024x*'.")
@click.pass_context
def verify(context: click.Context, store: Path, only: str) -> None:
    """Compares the bytes of a store, or of a part of it, with its digest. Exit status 1 when they differ."""
    from astolfo.data.store import Store

    found = Store(store)
    problems = list(found.verify(only))
    click.echo("\n".join(problems) if problems else f"{store} is what its digest says: {found.digest}")
    context.exit(1 if problems else 0)


@dataset.command(short_help="show one sample, and how its caption is read")
@click.argument("store", type=FOLDER)
@click.argument("name", metavar="ID")
@_VOCABULARY
@_KIND
@_TOKENS
@_SEMANTICS
def sample(store: Path, name: str, vocabulary: Path | None, kind: str, tokens: str, semantics: str) -> None:
    """Shows the sample ID; with a vocabulary, its caption as a trainer of those semantics reads it, chunk by chunk."""
    from astolfo.data.store import Store
    from astolfo.data.summary import described

    found = Store(store)
    click.echo(described(found, found.find(name), _reading(vocabulary, kind, tokens, semantics)))


@dataset.command(short_help="draw some samples with their captions")
@click.argument("store", type=FOLDER)
@click.option("--output", "-o", type=FILE, required=True, help="A PNG file.")
@_AUTOENCODER
@_FAMILY
@click.option("--count", type=click.IntRange(1), default=16, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Which samples.")
@click.pass_context
def sheet(context: click.Context, store: Path, output: Path, encoder: Path | None, family: str, count: int, seed: int) -> None:
    """Draws a contact sheet: some samples decoded, with their captions."""
    encoder, autoencoder = _autoencoder(context, encoder, family)
    from astolfo.data.store import Store
    from astolfo.data.summary import sheet as draw
    from astolfo.evaluate.grid import save_png

    found = Store(store)
    save_png(output, draw(found, autoencoder, count=count, seed=seed), {"astolfo.dataset": found.digest})


def _reading(vocabulary: Path | None, kind: str, tokens: str, semantics: str) -> Any:
    """How captions are read, where there is a vocabulary."""
    if vocabulary is None:
        return None
    from astolfo.data.summary import Reading
    from astolfo.data.vocabulary import tokenizers
    from astolfo.ledger.schema import Captions

    return Reading(tokenizers(vocabulary)[0], Captions.model_validate({"kind": kind, "tokens": int(tokens)}), semantics)
