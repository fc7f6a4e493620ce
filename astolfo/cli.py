"""The command line: one verb per thing that the workflow does, each also usable by hand.

    astolfo ledger list                        what the record holds
    astolfo lineage 25112201                   what a run is made from, and what of it is built
    astolfo inspect FILE                       what a checkpoint is
    astolfo merge BASE TRAINED --alpha 0.5 -o OUT
    astolfo mecha RECIPE a=FILE b=FILE -o OUT

The verbs that the rules call (`job ...`) take a spec: `astolfo ledger spec TARGET` prints the one of any target. Heavy
libraries are imported inside the verbs, so that the others start at once.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from astolfo import quiet
from astolfo.errors import AstolfoError
from astolfo.jobs import jobs, named

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--config", type=_FOLDER, default=None, help="The ledger's folder. [default: config/ here, else the program's]")
@click.option("--scale", default="miniature", show_default=True, help="miniature or full.")
@click.version_option(package_name="astolfo")
@click.pass_context
def cli(context: click.Context, config: Path | None, scale: str) -> None:
    """Rebuilds SDXL fine-tuning runs, bit for bit, from a ledger."""
    here, own = Path("config"), Path(__file__).parent.parent / "config"
    context.obj = {"config": config or (here if (here / "bases.yaml").exists() else own), "scale": scale}


cli.add_command(jobs)


@cli.group()
def ledger() -> None:
    """Looks things up in the ledger."""


def _ledger(context: click.Context) -> Any:
    from astolfo.ledger import load

    return load(context.obj["config"], context.obj["scale"])


@ledger.command("list")
@click.pass_context
def ledger_list(context: click.Context) -> None:
    """Lists every run, era by era."""
    from astolfo.ledger.show import listing

    click.echo(listing(_ledger(context)))


@ledger.command("show")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print the effective entry and the recipe as JSON.")
@click.pass_context
def ledger_show(context: click.Context, run: str, as_json: bool) -> None:
    """Shows one run: its effective entry, where each value comes from, its steps and its recipe's digest."""
    from astolfo.ledger.show import as_data, as_text

    found = _ledger(context)
    click.echo(json.dumps(as_data(found, found.run(run)), indent=2) if as_json else as_text(found, found.run(run)))


@ledger.command("table")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print it as Markdown tables.")
@click.pass_context
def ledger_table(context: click.Context, as_markdown: bool) -> None:
    """Prints the record in its own form: era by era, what each run has that its era's defaults have not."""
    from astolfo.ledger import table
    from astolfo.provenance.digests import columns

    found = _ledger(context)
    click.echo(table.markdown(found, table.COLUMNS | columns(found)) if as_markdown else table.text(found))


@ledger.command("diff")
@click.argument("a")
@click.argument("b")
@click.pass_context
def ledger_diff(context: click.Context, a: str, b: str) -> None:
    """Shows what differs between two runs, and whether their recipes are the same."""
    from astolfo.ledger.show import difference

    found = _ledger(context)
    click.echo(difference(found, found.run(a), found.run(b)))


@ledger.command("spec")
@click.argument("target")
@click.pass_context
def ledger_spec(context: click.Context, target: str) -> None:
    """Prints the spec of a model: a run, RUN-step..., RUN-epoch..., RUN-ALPHA, or a base."""
    from astolfo.files import canonical_json, sha256_of
    from astolfo.ledger import parse
    from astolfo.ledger.specs import Specs

    lock = sha256_of(Path(__file__).parent.parent / "envs" / "lock.txt")
    click.echo(canonical_json(Specs(_ledger(context), lock).model(parse(target))))


@cli.command()
@click.argument("target")
@click.option("--directory", "-d", type=_FOLDER, default=Path("."), help="The working directory that holds the outputs.")
@click.pass_context
def lineage(context: click.Context, target: str, directory: Path) -> None:
    """Draws what a model is made from, up to its base, and marks what is built."""
    from astolfo.ledger import parse
    from astolfo.ledger.show import tree

    click.echo(tree(_ledger(context), parse(target), directory))


@cli.command()
@click.option("--directory", "-d", type=_FOLDER, default=Path("."), help="The working directory that holds the outputs.")
@click.option("--record", is_flag=True, help="Write what the directory holds as the record of this numerics class.")
@click.pass_context
def verify(context: click.Context, directory: Path, record: bool) -> None:
    """Compares every model of the record with its recorded digest: identical, or differs.

    Exit status 1 when one differs or is damaged; what is not built is listed, no more.
    """
    from astolfo.numerics import numerics_class
    from astolfo.provenance import digests

    found, numerics = _ledger(context), numerics_class()
    if record:
        click.echo(f"recorded in {digests.record(found, directory, numerics)}")
        return
    findings = digests.compare(found, directory, numerics)
    click.echo(digests.report(findings, numerics))
    if any(finding.verdict in (digests.DIFFERS, digests.DAMAGED) for finding in findings):
        context.exit(1)


@cli.command()
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--scan", is_flag=True, help="Read the values too, and count NaN and infinity.")
def inspect(file: Path, as_json: bool, scan: bool) -> None:
    """Says what a checkpoint is: architecture, parts, dtypes, metadata, digest."""
    from astolfo.checkpoint.inspect import inspect as look
    from astolfo.checkpoint.inspect import report

    found = look(file, scan=scan)
    click.echo(json.dumps(found, indent=2) if as_json else report(found))


@cli.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--directory", "-d", type=_FOLDER, default=Path("."), help="The working directory that uses it.")
@click.pass_context
def pin(context: click.Context, name: str, file: Path, directory: Path) -> None:
    """Pins FILE as the base NAME of a working directory: hashes it and links it to where the workflow looks.

    NAME `vocabulary` takes the folder of a CLIP vocabulary.
    """
    from astolfo.pins import pin as record

    click.echo(record(_ledger(context), name, file, directory))


@cli.command()
@click.argument("base", type=_FILE)
@click.argument("trained", type=_FILE)
@click.option("--alpha", type=click.FloatRange(0, 1), required=True, multiple=True, help="Weight of TRAINED; may be repeated.")
@click.option("--output", "-o", type=_FILE, required=True, multiple=True, help="Where to write; one per alpha.")
@click.option(
    "--dtype", type=click.Choice(["fp16", "bf16", "fp32"]), default=None, help="Dtype of the result. [default: the base's]"
)
@click.option("--part", multiple=True, metavar="NAME=ALPHA", help="Another alpha for a part: unet, text_encoder, vae ...")
@click.option("--block", multiple=True, metavar="NAME=ALPHA", help="Another alpha for a block: unet.input_blocks.4 ...")
def merge(
    base: Path, trained: Path, alpha: tuple[float, ...], output: tuple[Path, ...], dtype: str | None,
    part: tuple[str, ...], block: tuple[str, ...],
) -> None:  # fmt: skip
    """Merges two checkpoints: BASE x (1 - alpha) + TRAINED x alpha, streamed. Several alphas read the inputs once."""
    from astolfo.merge.weighted_sum import merge as weighted_sum

    if len(alpha) != len(output):
        raise AstolfoError(f"Expected one --output per --alpha, found {len(output)} for {len(alpha)}.")
    outputs = dict(zip(alpha, output, strict=True))
    click.echo(weighted_sum(base, trained, outputs, dtype=dtype, per_part=_weights(part), per_block=_weights(block)))


@cli.command()
@click.argument("recipe", type=_FILE)
@click.argument("models", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option("--output", "-o", type=_FILE, required=True, help="Where to write.")
@click.option(
    "--dtype", type=click.Choice(["fp16", "bf16", "fp32"]), default=None, help="Dtype of the result. [default: the first model's]"
)
def mecha(recipe: Path, models: tuple[str, ...], output: Path, dtype: str | None) -> None:
    """Merges checkpoints by a .mecha RECIPE of sd-mecha; NAME=FILE says what each model of the recipe stands for."""
    from astolfo.merge.mecha import merge_mecha

    click.echo(merge_mecha(recipe, named(models), output, dtype=dtype))


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


def main() -> None:
    """Entry point: errors meant for the user are printed without a traceback, with exit status 1."""
    quiet.hide()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[terminal])
    logging.getLogger("astolfo").setLevel(logging.DEBUG)  # a job's log file gets these, the terminal does not
    try:
        status = cli(prog_name="astolfo", standalone_mode=False)  # what `context.exit` was given, or a verb's nothing
        sys.exit(status if isinstance(status, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except AstolfoError as error:
        logging.getLogger("astolfo").error("astolfo: %s", error)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
