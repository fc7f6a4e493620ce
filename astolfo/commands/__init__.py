"""The verbs of the command line, by subject, and what they share. Heavy libraries are imported inside the verbs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from astolfo.errors import CheckpointError, LedgerError

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


def named(given: tuple[str, ...]) -> dict[str, Path]:
    """("a=x.safetensors", ...) as a mapping. Raises click's BadParameter for anything else, and for a name given twice."""
    found: dict[str, Path] = {}
    for text in given:
        name, _, path = text.partition("=")
        if not name or not path or name in found:
            raise click.BadParameter(f"expected NAME=FILE, each name once, such as a=base.safetensors; found {text!r}.")
        found[name] = Path(path)
    return found


def ledger_of(context: click.Context) -> Any:
    """The ledger that the command line names, at its scale."""
    from astolfo.ledger import load

    return load(context.obj["config"], context.obj["scale"])


def reference_of(ledger: Any, name: str) -> Any:
    """The model of the ledger that `name` means. Raises LedgerError with near names for one that it does not know."""
    from astolfo.ledger import parse, step_of
    from astolfo.ledger.files import unknown

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


@contextlib.contextmanager
def naming_scale(ledger: Any, file: Path) -> Iterator[None]:
    """A CheckpointError within says first that `file` is a whole model of another scale, when it is one."""
    try:
        yield
    except CheckpointError as error:
        if found := _other_scale(ledger, file):
            other, family = found
            raise CheckpointError(
                f"{file} is an {family} model of the {other} scale, and the {ledger.scale_name} scale expects another size. "
                f"Name a file of that size, or say --scale {other}. {error}"
            ) from None
        raise


def _other_scale(ledger: Any, file: Path) -> tuple[str, str] | None:
    """The scale, not the ledger's, and the family of which `file` is a whole model; None for any other file."""
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.checkpoint.model import check
    from astolfo.ledger import load
    from astolfo.ledger.ledger import SCALES

    for scale in (one for one in SCALES if one != ledger.scale_name):
        for family, sizes in load(ledger.folder, scale).scale.architectures.items():
            with contextlib.suppress(CheckpointError):
                check(file, Architecture.from_mapping(sizes, family))
                return scale, family
    return None
