"""The verbs of the command line, by subject, and what they share. Heavy libraries are imported inside the verbs."""

from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent.parent  # of the program: its config/, envs/ and workflow/
LOCK = ROOT / "envs" / "lock.txt"
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
WHOLE = click.Path(path_type=Path, dir_okay=False, exists=True)  # of a file that must be there
WHERE = click.option(
    "--directory",
    "-d",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("."),
    help="The working directory that holds the outputs.",
)


def ledger_of(context: click.Context) -> Any:
    """The ledger that the command line names, at its scale."""
    from astolfo.ledger import load

    return load(context.obj["config"], context.obj["scale"])
