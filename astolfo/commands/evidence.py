"""Verbs about what was built and how far it can be trusted: `astolfo lineage`, `astolfo verify`, `astolfo verdicts`."""

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


@click.command("verdicts")
@WHERE
@click.option("--record", is_flag=True, help="Add them to the record of this numerics class.")
@click.pass_context
def verdicts(context: click.Context, directory: Path, record: bool) -> None:
    """Says what the evaluations of a directory found, beside what the record says."""
    from astolfo.numerics import numerics_class
    from astolfo.provenance import verdicts as judged

    found = ledger_of(context)
    if record:
        path, count = judged.record(found, directory, numerics_class())
        click.echo(f"{count} recorded in {path}")
        return
    click.echo(judged.report(found, directory))
