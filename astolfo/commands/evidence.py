"""Verbs about what was built and how far it can be trusted: `astolfo lineage`, `astolfo verify`."""

from pathlib import Path

import click

from astolfo.commands import WHERE, ledger_of


@click.command()
@click.argument("target")
@WHERE
@click.pass_context
def lineage(context: click.Context, target: str, directory: Path) -> None:
    """Draws what a model is made from, up to its base, and marks what is built."""
    from astolfo.ledger import parse
    from astolfo.ledger.show import tree

    click.echo(tree(ledger_of(context), parse(target), directory))


@click.command()
@WHERE
@click.option("--record", is_flag=True, help="Write what the directory holds as the record of this numerics class.")
@click.pass_context
def verify(context: click.Context, directory: Path, record: bool) -> None:
    """Compares every model of the record with its recorded digest: identical, or differs.

    Exit status 1 when one differs or is damaged; what is not built is listed, no more.
    """
    from astolfo.numerics import numerics_class
    from astolfo.provenance import digests

    found, numerics = ledger_of(context), numerics_class()
    if record:
        click.echo(f"recorded in {digests.record(found, directory, numerics)}")
        return
    findings = digests.compare(found, directory, numerics)
    click.echo(digests.report(findings, numerics))
    if any(finding.verdict in (digests.DIFFERS, digests.DAMAGED) for finding in findings):
        context.exit(1)
