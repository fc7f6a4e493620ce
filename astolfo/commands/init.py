"""`astolfo init FOLDER`: a ledger of one's own, with a Snakefile and a README beside it."""

import shlex
from pathlib import Path

import click

from astolfo import library, program
from astolfo.commands import FOLDER
from astolfo.errors import InputError

_START = library.FOLDER / "start"


@click.command()
@click.argument("folder", type=FOLDER)
def init(folder: Path) -> None:
    """Makes FOLDER with a ledger in config/ that has one base, one dataset and one run, for you to change.

    Beside it stand a Snakefile, so that `snakemake TARGET` builds there, its profile, and a README. No file is overwritten.
    """
    files = {path.relative_to(_START): path.read_text(encoding="utf-8") for path in sorted(_START.rglob("*")) if path.is_file()}
    files[Path("profiles/default/config.yaml")] = (program.PROFILE / "config.yaml").read_text(encoding="utf-8")
    if there := [name for name in files if (folder / name).exists()]:
        raise InputError(
            f"{folder} has {', '.join(map(str, there))} already; nothing was changed. Choose another folder, or go on there."
        )
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        click.echo(folder / name)
    click.echo(f"A ledger of your own: `cd {shlex.quote(str(folder))}` and read README.md.")
