"""The verbs of the command line, by subject, and what they share. Heavy libraries are imported inside the verbs."""

import contextlib
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click

from astolfo import program
from astolfo.errors import CheckpointError, LedgerError
from astolfo.program import LOCK as LOCK

log = logging.getLogger(__name__)
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


def use_of(context: click.Context, directory: Path | None = None) -> program.Use:
    """The ledger and scale that the command line names, or that the working directory remembers.

    With `directory`, whose outputs are read or made: raises InputError where it remembers another than is named.
    """
    given = context.obj["config"], context.obj["scale"]
    use = program.in_use(directory or Path(), *given, Path(), strict=directory is not None)
    program.set_use(use)
    if given[0] is None and program.is_far_from_home(use, directory or Path()):
        _say_far_from_home(use.config)
    return use


@cache
def _say_far_from_home(config: Path) -> None:
    log.info("astolfo: no ledger is here (no config/), so the one that comes with the program is used: %s", config)


def ledger_of(context: click.Context, directory: Path | None = None, pins: bool = False) -> Any:
    """The ledger that is in use (`use_of`); with the pins and adoptions of `directory`, where they are asked for."""
    from astolfo.ledger import load
    from astolfo.ledger.ledger import read_pins

    use = use_of(context, directory)
    return load(use.config, use.scale, pins=read_pins(directory or Path()) if pins else None)


def reference_of(ledger: Any, name: str) -> Any:
    """The model of the ledger that `name` means. Raises LedgerError with near names for one that it does not know."""
    from astolfo.ledger import step_of

    if "/" in name or name.endswith(".safetensors"):
        raise LedgerError(
            f"Expected the name of a model, such as RUN, RUN-epoch000008, RUN-0.50 or a base, found the path {name!r}."
        )
    reference = ledger.known(name)
    if reference.run:
        step_of(ledger, reference)
    return reference


@contextlib.contextmanager
def naming_scale(ledger: Any, file: Path) -> Iterator[None]:
    """A CheckpointError within says first that `file` is a model or autoencoder of another scale, when it is one."""
    try:
        yield
    except CheckpointError as error:
        if found := _other_scale(ledger, file):
            other, family, kind = found
            raise CheckpointError(
                f"{file} is an {family} {kind} of the {other} scale, and the {ledger.scale_name} scale expects another size. "
                f"Name a file of that size, or say --scale {other}. {error}"
            ) from None
        raise


def _other_scale(ledger: Any, file: Path) -> tuple[str, str, str] | None:
    """The scale, not the ledger's, and the family of which `file` is a whole model or an autoencoder; None for any other file."""
    from astolfo.checkpoint import autoencoder, model
    from astolfo.checkpoint.architecture import Architecture
    from astolfo.ledger import load
    from astolfo.ledger.ledger import SCALES

    for scale in (one for one in SCALES if one != ledger.scale_name):
        for family, sizes in load(ledger.folder, scale).scale.architectures.items():
            for kind, check in (("model", model.check), ("autoencoder", autoencoder.check)):
                with contextlib.suppress(CheckpointError):
                    check(file, Architecture.from_mapping(sizes, family))
                    return scale, family, kind
    return None
