"""Verbs about what decides the bits besides the recipe: `astolfo numerics`, `astolfo stale`, `astolfo accept`."""

from pathlib import Path

import click

from astolfo.commands import LOCK, WHERE, ledger_of
from astolfo.errors import LedgerError


@click.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def numerics(device: str) -> None:
    """Prints this machine's numerics class, and every switch and operator that is set for it, with the reason."""
    from astolfo.numerics import explain, numerics_class, pin

    pin()
    for name, value in numerics_class(device).items():
        click.echo(f"{name:18} {value}")
    click.echo()
    for line in explain():
        click.echo(line)


@click.command()
@WHERE
@click.option("--lock", type=click.Path(path_type=Path, dir_okay=False), default=LOCK, help="The environment's lock file.")
@click.pass_context
def stale(context: click.Context, directory: Path, lock: Path) -> None:
    """Lists what was made by code or a lock that has changed since. Exit status 1 when there is any."""
    from astolfo.files import sha256_of
    from astolfo.provenance import stale as stales

    found = stales.find(directory, sha256_of(lock))
    for line in stales.lines(found):
        click.echo(line)
    if found:
        context.exit(1)
    click.echo("Nothing is stale.")


@click.command()
@click.argument("id")
@WHERE
@click.option("--reason", required=True, help="Why the change decides no bit, or why its bits are wanted. It is attested.")
@click.option("--lock", type=click.Path(path_type=Path, dir_okay=False), default=LOCK, help="The environment's lock file.")
@click.pass_context
def accept(context: click.Context, id: str, directory: Path, reason: str, lock: Path) -> None:
    """Keeps what is stale of a run, base or dataset, and writes the reason beside each artifact."""
    from astolfo.files import sha256_of
    from astolfo.ledger.files import unknown
    from astolfo.provenance import stale as stales

    ledger, digest = ledger_of(context, directory), sha256_of(lock)
    known = {**ledger.runs, **ledger.bases, **ledger.datasets}
    if id not in known and id not in (owners := {one.owner for one in stales.find(directory, digest)}):
        raise LedgerError(unknown("run, base or dataset", id, [*owners, *known]) + " `astolfo stale` lists what is stale.")
    for line in stales.lines(stales.accept(directory, id, digest, reason)):
        click.echo(f"accepted: {line}")
