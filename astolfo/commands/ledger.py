"""Verbs that look things up in the ledger: `astolfo ledger ...`."""

import json

import click

from astolfo.commands import LOCK, ledger_of, reference_of


@click.group()
def ledger() -> None:
    """Looks things up in the ledger."""


@ledger.command("list")
@click.pass_context
def ledger_list(context: click.Context) -> None:
    """Lists every run, era by era."""
    from astolfo.ledger.show import listing

    click.echo(listing(ledger_of(context)))


@ledger.command("show")
@click.argument("name", metavar="RUN|ERA")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON: of a run, the effective entry and the recipe.")
@click.pass_context
def ledger_show(context: click.Context, name: str, as_json: bool) -> None:
    """Shows one run: its effective entry, where each value comes from, its steps and its recipe's digest. Or one era."""
    from astolfo.errors import LedgerError
    from astolfo.ledger import show
    from astolfo.ledger.files import unknown

    found = ledger_of(context)
    eras = {run.era.era: run.era for run in found.runs.values()}
    if name in eras:
        era = eras[name]
        click.echo(json.dumps(show.era_as_data(era), indent=2) if as_json else show.era_as_text(found, era))
    elif name not in found.runs:
        raise LedgerError(f"{unknown('run or era', name, [*found.runs, *eras])} `astolfo ledger list` shows them all.")
    else:
        run = found.run(name)
        click.echo(json.dumps(show.as_data(found, run), indent=2) if as_json else show.as_text(found, run))


@ledger.command("table")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print it as Markdown tables.")
@click.pass_context
def ledger_table(context: click.Context, as_markdown: bool) -> None:
    """Prints the record in its own form: era by era, what each run has that its era's defaults have not."""
    from astolfo.ledger import table
    from astolfo.provenance import digests, verdicts

    found = ledger_of(context)
    columns = table.COLUMNS | verdicts.columns(found) | digests.columns(found)
    click.echo(table.markdown(found, columns) if as_markdown else table.text(found))


@ledger.command("diff")
@click.argument("a")
@click.argument("b")
@click.pass_context
def ledger_diff(context: click.Context, a: str, b: str) -> None:
    """Shows what differs between two runs, and whether their recipes are the same."""
    from astolfo.ledger.show import difference

    found = ledger_of(context)
    click.echo(difference(found, found.run(a), found.run(b)))


@ledger.command("spec")
@click.argument("target")
@click.pass_context
def ledger_spec(context: click.Context, target: str) -> None:
    """Prints the spec of a model: a run, RUN-step..., RUN-epoch..., RUN-ALPHA, or a base."""
    from astolfo.files import canonical_json, sha256_of
    from astolfo.ledger.specs import Specs

    found = ledger_of(context)
    click.echo(canonical_json(Specs(found, sha256_of(LOCK)).model(reference_of(found, target))))
