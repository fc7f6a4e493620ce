"""Which program, ledger and scale are in use, and how a command is spelt so that it works when it is typed.

    use = program.in_use(Path("."), config=None, scale=None)    # what a working directory remembers, else ./config, else ...
    program.remember(Path("."), use)                            # from its first job or pin on
    f"`{program.command('pin', 'my-base', 'FILE')}`"              # astolfo --config /my/config --scale full pin my-base FILE

A working directory holds one ledger at one scale: `.astolfo/ledger` and `.astolfo/scale` say which, and another is refused.
Imports nothing heavy.
"""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import astolfo
from astolfo.errors import InputError
from astolfo.files import read_text
from astolfo.ledger.files import is_ledger

ROOT = Path(__file__).parent.parent  # of the checkout: its config/, envs/ and workflow/
CONFIG = ROOT / "config"
LOCK = ROOT / "envs" / "lock.txt"
SNAKEFILE = ROOT / "workflow" / "Snakefile"
PROFILE = ROOT / "workflow" / "profiles" / "default"
SCALE = "miniature"  # where nothing says another
MEMORY = Path(".astolfo")
_SHIPPED = "the program's own"  # in place of the path of CONFIG, so that a checkout can move
_ELSEWHERE = " (`snakemake --directory OTHER`, `make DIR=OTHER`, `astolfo ... -d OTHER`)"


@dataclass(frozen=True, kw_only=True)
class Use:
    """A ledger's folder and a scale."""

    config: Path
    scale: str


_used = Use(config=CONFIG, scale=SCALE)


def in_use(directory: Path, config: Path | None = None, scale: str | None = None, *others: Path, strict: bool = True) -> Use:
    """What a working directory uses: what is asked for, what it remembers, its config/, that of `others`, or the program's.

    Raises InputError where the directory remembers another ledger or scale than is asked for, unless `strict` is false.
    """
    held, at = _held(directory, "ledger"), _held(directory, "scale")
    remembered = None if held is None else CONFIG if held == _SHIPPED else directory / held
    if strict and config is not None and remembered is not None and config.resolve() != remembered.resolve():
        raise InputError(
            f"This working directory holds the ledger {remembered.resolve()}, but {config.resolve()} was asked for. "
            f"One directory holds one ledger: use another one{_ELSEWHERE}."
        )
    if strict and scale is not None and at is not None and scale != at:
        raise InputError(
            f"This working directory holds the scale {at!r}, but the scale {scale!r} was asked for. "
            f"One directory holds one scale: use another one{_ELSEWHERE}."
        )
    near = next((place / "config" for place in (directory, *others) if is_ledger(place / "config")), CONFIG)
    return Use(config=config or remembered or near, scale=scale or at or SCALE)


def is_far_from_home(use: Use, directory: Path) -> bool:
    """Whether the program's own ledger is used outside of the program's checkout, by a directory that does not remember it."""
    at_home = directory.resolve().is_relative_to(CONFIG.resolve().parent)
    return use.config == CONFIG and not at_home and _held(directory, "ledger") is None


def remember(directory: Path, use: Use) -> None:
    """Notes what a working directory uses, where it remembers nothing yet."""
    folder = use.config.resolve()
    inside = folder.is_relative_to(directory.resolve())
    named = _SHIPPED if folder == CONFIG.resolve() else str(folder.relative_to(directory.resolve()) if inside else folder)
    (directory / MEMORY).mkdir(exist_ok=True)
    for name, value in (("ledger", named), ("scale", use.scale)):
        if _held(directory, name) is None:
            beside = directory / MEMORY / f".{name}.{os.getpid()}"
            beside.write_text(f"{value}\n", encoding="utf-8")
            beside.replace(directory / MEMORY / name)


def set_use(use: Use) -> None:
    """From now on hints name this ledger and scale."""
    global _used
    _used = use


def command(*words: object, scale: str | None = None, directory: Path | None = None, anywhere: bool = False) -> str:
    """The command `astolfo WORDS` for the ledger and scale in use, or for another scale; for `directory`, when it is given.

    `anywhere`: it names the ledger in any case, so that it can be typed in another folder than this one.
    """
    where = ["-d", str(directory.absolute())] if directory is not None and directory.resolve() != Path.cwd() else []
    named = ["--config", str(_used.config.resolve())] if anywhere else []
    options = _options(scale or _used.scale)
    return _quoted("astolfo", *(named if "--config" not in options else []), *options, *map(str, words), *where)


def build_command(*targets: str, directory: Path | None = None) -> str:
    """The command that builds targets of a working directory with the ledger and scale in use."""
    where = (directory or Path()).absolute()
    if where != ROOT and ((where / "Snakefile").is_file() or (where / "workflow" / "Snakefile").is_file()):
        scale = ["--config", f"scale={_used.scale}"] if _used.scale != SCALE else []
        return _quoted("snakemake", *(["-d", str(where)] if where != Path.cwd() else []), *targets, *scale)
    given = [f"SCALE={_used.scale}"] if _used.scale != SCALE else []
    given += [f"LEDGER={_used.config.resolve()}"] if _used.config.resolve() != CONFIG.resolve() else []
    return _quoted("make", "-C", str(ROOT), *targets, f"DIR={where}", *given)


def snakemake_command(directory: Path, use: Use, *targets: str) -> list[str]:
    """The command, as words, that builds targets in a working directory with the program's own Snakefile, a line per job."""
    return [
        sys.executable, "-m", "snakemake", *targets, "--snakefile", str(SNAKEFILE), "--workflow-profile", str(PROFILE),
        "--directory", str(directory.resolve()), "--logger", "astolfo",
        "--config", f"scale={use.scale}", f"ledger={use.config.resolve()}",
    ]  # fmt: skip


def run_snakemake(directory: Path, use: Use, *targets: str) -> bool:
    """Builds targets by `snakemake_command`; whether that succeeded."""
    found = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])  # where the logger is looked for
    words = snakemake_command(directory, use, *targets)
    return not subprocess.run(words, cwd=directory, env=os.environ | {"PYTHONPATH": found}).returncode


def about(use: Use) -> str:
    """One line: version and folder of the program, the ledger, the scale."""
    return f"astolfo {astolfo.__version__} in {ROOT}, ledger {use.config.resolve()}, scale {use.scale}"


def _options(scale: str) -> list[str]:
    folder = _used.config.resolve()
    config = [] if folder in (CONFIG.resolve(), Path("config").resolve()) else ["--config", str(folder)]
    if folder == CONFIG.resolve() and is_ledger(Path("config")) and Path("config").resolve() != folder:
        config = ["--config", str(folder)]
    return config + (["--scale", scale] if scale != SCALE else [])


def _quoted(*words: str) -> str:
    """Words as they are typed; a word in capitals is a place to fill in."""
    return " ".join(shlex.quote(word) for word in words)


def _held(directory: Path, name: str) -> str | None:
    path = directory / MEMORY / name
    return read_text(path).strip() if path.exists() else None
