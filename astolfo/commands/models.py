"""Verbs on model files: `astolfo inspect`, `pin`, `merge`, `mecha`."""

import contextlib
import json
from pathlib import Path

import click

from astolfo import program
from astolfo.commands import FILE, FOLDER, ledger_of, named, naming_scale, use_of
from astolfo.errors import AstolfoError


@click.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--scan", is_flag=True, help="Read the values too, and count NaN and infinity.")
def inspect(file: Path, as_json: bool, scan: bool) -> None:
    """Says what a checkpoint is: architecture, parts, dtypes, metadata, digest."""
    from astolfo.checkpoint.inspect import inspect as look
    from astolfo.checkpoint.inspect import report

    found = look(file, scan=scan)
    click.echo(json.dumps(found, indent=2) if as_json else report(found))


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--directory", "-d", type=FOLDER, default=Path("."), help="The working directory that uses it.")
@click.pass_context
def pin(context: click.Context, name: str, file: Path, directory: Path) -> None:
    """Pins FILE as the base or dataset NAME of a working directory: hashes it and links it to where the workflow looks.

    Of a dataset FILE is the folder of its store (`astolfo dataset import` makes one), of NAME `vocabulary` the folder of a CLIP
    vocabulary, of `clip-score` the folder of a CLIP model.
    """
    from astolfo.pins import pin as record

    use = use_of(context, directory)
    ledger = ledger_of(context, directory)
    model = name in ledger.bases and ledger.base(name).kind == "model"
    with naming_scale(ledger, file) if model else contextlib.nullcontext():
        click.echo(record(ledger, name, file, directory))
    program.remember(directory, use)


@click.command()
@click.argument("base", type=FILE)
@click.argument("trained", type=FILE)
@click.option("--alpha", type=click.FloatRange(0, 1), required=True, multiple=True, help="Weight of TRAINED; may be repeated.")
@click.option("--output", "-o", type=FILE, required=True, multiple=True, help="Where to write; one per alpha.")
@click.option(
    "--dtype", type=click.Choice(["fp16", "bf16", "fp32"]), default=None, help="Dtype of the result. [default: the base's]"
)
@click.option("--part", multiple=True, metavar="NAME=ALPHA", help="Another alpha for a part: unet, text_encoder, vae ...")
@click.option("--block", multiple=True, metavar="NAME=ALPHA", help="Another alpha for a block: unet.input_blocks.4 ...")
def merge(
    base: Path, trained: Path, alpha: tuple[float, ...], output: tuple[Path, ...], dtype: str | None,
    part: tuple[str, ...], block: tuple[str, ...],
) -> None:  # fmt: skip
    """Merges two checkpoints: BASE x (1 - alpha) + TRAINED x alpha. Several alphas read the inputs once."""
    from astolfo.merging.weighted_sum import merge as weighted_sum

    if len(alpha) != len(output):
        raise AstolfoError(f"Expected one --output per --alpha, found {len(output)} for {len(alpha)}.")
    if twice := {one for one in alpha if alpha.count(one) > 1}:
        raise AstolfoError(f"Expected each --alpha once, found {min(twice):g} more than once. One --output of it is enough.")
    _nothing_in_the_way(output)
    outputs = dict(zip(alpha, output, strict=True))
    click.echo(weighted_sum(base, trained, outputs, dtype=dtype, per_part=_weights(part), per_block=_weights(block)))


@click.command()
@click.argument("recipe", type=FILE)
@click.argument("models", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option("--output", "-o", type=FILE, required=True, help="Where to write.")
@click.option(
    "--dtype", type=click.Choice(["fp16", "bf16", "fp32"]), default=None, help="Dtype of the result. [default: the first model's]"
)
def mecha(recipe: Path, models: tuple[str, ...], output: Path, dtype: str | None) -> None:
    """Merges checkpoints by a .mecha RECIPE of sd-mecha; NAME=FILE says what each model of the recipe stands for."""
    from astolfo import numerics

    numerics.pin()
    from astolfo.merging.mecha import merge_mecha

    _nothing_in_the_way((output,))
    click.echo(merge_mecha(recipe, named(models), output, dtype=dtype))


def _nothing_in_the_way(outputs: tuple[Path, ...]) -> None:
    """Raises AstolfoError for an output that is an artifact of the graph, or any other file than what a merge by hand made."""
    from astolfo.checkpoint.safefile import open_file
    from astolfo.errors import CheckpointError
    from astolfo.files import sidecar
    from astolfo.provenance.attestation import attestation_path

    for path in outputs:
        if attestation_path(path).exists():
            raise AstolfoError(f"{path} was made by the graph, and a merge by hand would pass for it. Write it somewhere else.")
        if path.exists():
            made = False
            with contextlib.suppress(CheckpointError), open_file(path) as file:
                made = "astolfo.merge" in file.metadata
            if not made:
                raise AstolfoError(f"{path} is there already, and is no merge by this program. Name another, or move it away.")
        elif sidecar(path).exists() and path.name not in sidecar(path).read_text(errors="replace").split():
            raise AstolfoError(f"{sidecar(path)} is there already, and is of another file. Name another output, or move it away.")


def _weights(given: tuple[str, ...]) -> dict[str, float]:
    """("unet=0.3", ...) as a mapping."""
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise click.BadParameter(f"expected NAME=ALPHA such as unet=0.3, found {text!r}.") from None
    return found
