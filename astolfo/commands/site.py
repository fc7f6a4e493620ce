"""Verbs that show and share what was built: `astolfo site`, `losses`, `card`, `publish`."""

import logging
from pathlib import Path

import click

from astolfo import program
from astolfo.commands import FILE, FOLDER, WHERE, ledger_of

log = logging.getLogger("astolfo")


@click.command()
@WHERE
@click.option("--output", "-o", type=FOLDER, default=None, help="The site's folder. [default: site/ in the working directory]")
@click.pass_context
def site(context: click.Context, directory: Path, output: Path | None) -> None:
    """Makes a static site of what a working directory holds: ledger, lineage, losses, pictures, digests."""
    from astolfo.site.build import build

    build(ledger_of(context, directory), directory, output or directory / "site")


@click.command()
@click.argument("era")
@WHERE
@click.option("--output", "-o", type=FILE, default=None, help="The PNG. [default: losses/ERA.png in the working directory]")
@click.pass_context
def losses(context: click.Context, era: str, directory: Path, output: Path | None) -> None:
    """Draws the loss curves of all runs of an era that are built into one PNG."""
    from astolfo.site.plots import era_plot

    out = output or directory / "losses" / f"{era}.png"
    era_plot(ledger_of(context, directory), directory, era, out)
    log.info("%s", out)


@click.command()
@click.argument("run")
@WHERE
@click.pass_context
def card(context: click.Context, run: str, directory: Path) -> None:
    """Writes the model card of a run's result: results/RUN.md."""
    from astolfo.site.card import write

    ledger = ledger_of(context, directory)
    log.info("%s", write(ledger, directory, ledger.run(run)))


@click.command()
@click.argument("run")
@click.option("--to", "repository", required=True, metavar="USER/NAME", help="The repository on the Hugging Face Hub.")
@WHERE
@click.option("--upload", "really", is_flag=True, help="Do it. Without this, only say what would be uploaded.")
@click.option("--public", is_flag=True, help="Make a new repository public. [default: private]")
@click.pass_context
def publish(context: click.Context, run: str, repository: str, directory: Path, really: bool, public: bool) -> None:
    """Publishes a run's result with its card, digests, attestation and pictures on the Hugging Face Hub.

    Says what would be uploaded, unless told to --upload. That needs your token: HF_TOKEN, or what `hf auth login` keeps.
    """
    from astolfo.site.publish import collect, plan, upload

    if repository.count("/") != 1 or not all(repository.split("/")):
        raise click.BadParameter(f"expected USER/NAME, found {repository!r}.", param_hint="--to")
    ledger = ledger_of(context, directory)
    items = collect(ledger, directory, ledger.run(run))
    if not really:
        click.echo(plan(items, repository))
        writes = program.command("card", run, directory=directory)
        click.echo(f"Nothing was uploaded. Read the card first (`{writes}` writes it), and say --upload to do it.")
        return
    click.echo(upload(items, repository, public=public))
