"""Verbs that look things up in the ledger: `astolfo ledger ...`."""

import json
from pathlib import Path

import click

from astolfo import program
from astolfo.commands import LOCK, WHOLE, ledger_of, reference_of, use_of
from astolfo.errors import LedgerError


@click.group()
def ledger() -> None:
    """Lists, shows, imports and exports runs of the ledger."""


@ledger.command("list", short_help="list every run, era by era")
@click.pass_context
def ledger_list(context: click.Context) -> None:
    """Lists every run, era by era."""
    from astolfo.ledger.show import listing

    click.echo(listing(ledger_of(context)))


@ledger.command("show", short_help="show one run with all its values, or an era")
@click.argument("name", metavar="RUN|ERA")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON: of a run, the effective entry and the recipe.")
@click.pass_context
def ledger_show(context: click.Context, name: str, as_json: bool) -> None:
    """Shows one run: its effective entry, where each value comes from, its steps and its recipe's digest; or an era; or both."""
    from astolfo.ledger import show
    from astolfo.ledger.files import unknown

    found = ledger_of(context)
    eras = {run.era.era: run.era for run in found.runs.values()}
    run, era = found.runs.get(name), eras.get(name)  # both: an import names them after the script
    if run is None and era is None:
        problem = f"{unknown('run or era', name, [*found.runs, *eras])} `astolfo ledger list` shows them all."
        raise LedgerError(found.of_the_library(name) or problem)
    if as_json:
        click.echo(json.dumps(show.as_data(found, run) if run else show.era_as_data(found, eras[name]), indent=2))
        return
    texts = [show.as_text(found, run)] if run else []
    click.echo("\n\n".join([*texts, show.era_as_text(found, era)] if era else texts))


@ledger.command("table", short_help="print a table per era: how runs differ, and what became of them")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print it as Markdown tables.")
@click.pass_context
def ledger_table(context: click.Context, as_markdown: bool) -> None:
    """Prints a table per era: how each run differs from its era's defaults, and what became of it."""
    from astolfo.ledger import table
    from astolfo.provenance import digests, verdicts

    found = ledger_of(context)
    columns = table.COLUMNS | verdicts.columns(found) | digests.columns(found)
    click.echo(table.markdown(found, columns) if as_markdown else table.text(found))


@ledger.command("diff", short_help="show what differs between two runs")
@click.argument("a")
@click.argument("b")
@click.pass_context
def ledger_diff(context: click.Context, a: str, b: str) -> None:
    """Shows what differs between two runs, and whether their recipes are the same."""
    from astolfo.ledger.show import difference

    found = ledger_of(context)
    click.echo(difference(found, found.run(a), found.run(b)))


@ledger.command("spec", short_help="print the spec of a model: what its job is given")
@click.argument("target")
@click.pass_context
def ledger_spec(context: click.Context, target: str) -> None:
    """Prints the spec of a model: a run, RUN-step..., RUN-epoch..., RUN-ALPHA, or a base."""
    from astolfo.files import canonical_json, sha256_of
    from astolfo.ledger.specs import Specs

    found = ledger_of(context)
    click.echo(canonical_json(Specs(found, sha256_of(LOCK)).model(reference_of(found, target))))


@ledger.command("import", short_help="write runs from sd-scripts' command lines and TOML files")
@click.argument("files", type=WHOLE, nargs=-1, required=True)
@click.option("--era", default=None, help="Its name. [default: the first file's]")
@click.option("--ranks", type=click.IntRange(1), default=None, help="How many cards trained, where the files do not say.")
@click.option("--lossy", is_flag=True, help="Take runs without what has no counterpart; their notes say what that is.")
@click.option("--print", "only_print", is_flag=True, help="Print the YAML, and write nothing.")
@click.pass_context
def ledger_import(
    context: click.Context, files: tuple[Path, ...], era: str | None, ranks: int | None, lossy: bool, only_print: bool
) -> None:
    """Writes runs from sd-scripts' command lines: scripts, --config_file TOML, dataset TOML, accelerate's configuration.

    docs/sd-scripts.md says what becomes of every option.
    """
    from astolfo.kohya import importing

    folder = use_of(context).config
    if context.obj["config"] is None and folder.resolve() == program.CONFIG.resolve():
        raise LedgerError(
            "No ledger of your own is here, and the program's is not written to. `astolfo init FOLDER` makes one, and so does "
            "`astolfo --config FOLDER ledger import ...`."
        )
    text = importing.import_files(folder, files, era=era, ranks=ranks, lossy=lossy, write=not only_print)
    click.echo(text)


@ledger.command("export", short_help="print a run as a command line for sd-scripts")
@click.argument("name", metavar="RUN")
@click.pass_context
def ledger_export(context: click.Context, name: str) -> None:
    """Prints a run as a command line for kohya-ss/sd-scripts, with a comment for each thing that it cannot say.

    It is for upstream's trainer whatever the run's semantics are; docs/sd-scripts.md says what that means for a kohya-native run.
    """
    from astolfo.kohya.export import exported

    found = ledger_of(context)
    click.echo(exported(found, found.run(name)))


@ledger.command(
    "options", context_settings={"ignore_unknown_options": True}, short_help="say what becomes of an option of sd-scripts"
)
@click.argument("name", required=False, type=click.UNPROCESSED)
def ledger_options(name: str | None) -> None:
    """Prints what becomes of an option of sd-scripts; without NAME, the page docs/sd-scripts.md, which has them all."""
    from astolfo.kohya import page

    click.echo(page.one(name.lstrip("-").partition("=")[0]) if name else page.page(), nl=bool(name))
