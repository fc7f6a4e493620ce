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


def reference_of(ledger: Any, name: str) -> Any:
    """The model of the ledger that `name` means. Raises LedgerError with near names for one that it does not know."""
    from astolfo.errors import LedgerError
    from astolfo.ledger import parse, step_of
    from astolfo.ledger.ledger import unknown

    if "/" in name or name.endswith(".safetensors"):
        raise LedgerError(
            f"Expected the name of a model, such as 25112201, 25112201-0.50 or AK-NIL-1.2, found the path {name!r}."
        )
    reference = parse(name)
    if reference.run:
        step_of(ledger, reference)
    elif name not in ledger.bases:  # what does not look like a run's model is parsed as a base
        hint = unknown("run or base", name, [*ledger.runs, *ledger.bases])
        raise LedgerError(f"{hint} `astolfo ledger list` shows every run.")
    return reference
