"""What every job has: its group and options, its beginning, and the evidence that it leaves at its end."""

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from astolfo import program
from astolfo.commands import LOCK, use_of
from astolfo.liveness import hold_alive, watch_parent


class _Path(click.Path):
    """A path; the empty string, which a rule without that input gives, means none."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        return Path(value) if str(value) else None


PATH = _Path()
_NAMED = "astolfo.named"  # in a job's context: the code and lock that its spec named
PATIENCE = 300.0  # seconds that a training whose Snakemake is gone may take to save its state


@click.group("job")
@click.option("--tied", is_flag=True, help="Stop when the process that started this one is gone.")
@click.option("--lock", type=PATH, default=LOCK, help="The environment's lock file.")
@click.pass_context
def jobs(context: click.Context, tied: bool, lock: Path) -> None:
    """What the workflow's rules run."""
    hold_alive()
    use = use_of(context)
    if tied:
        program.remember(Path(), use)
        watch_parent(patience=PATIENCE)


def job(work: Any) -> Any:
    """The options that every job has, and the record that it leaves when it succeeds."""

    @functools.wraps(work)
    def command(spec: dict[str, Any], out: Path, **options: Any) -> None:
        from astolfo.numerics import naming_operators
        from astolfo.provenance import stale
        from astolfo.provenance.meter import Meter

        meter = Meter()
        with naming_operators(str(out)):
            work(spec=spec, out=out, **options)
        stale.record(_artifact(out), spec, click.get_current_context().meta.get(_NAMED, {}), meter.cost())

    for option in (
        click.option("--spec", required=True, callback=_spec, help="What to make, as JSON, or @FILE."),
        click.option("--log", type=PATH, default=None, help="Write the log here too."),
    ):
        command = option(command)
    return command


def _spec(context: click.Context, parameter: click.Parameter, value: str) -> dict[str, Any]:
    """The spec, with the code and the lock that are in use; those that it named are kept aside, for the record."""
    try:
        spec = json.loads(Path(value[1:]).read_text() if value.startswith("@") else value)
    except (OSError, json.JSONDecodeError) as error:
        raise click.BadParameter(f"expected a spec as JSON, or @FILE: {error}") from None
    from astolfo.files import sha256_of
    from astolfo.ledger import code
    from astolfo.provenance import stale

    if spec.get("verb") in code.VERBS:
        assert context.parent
        now = stale.makers(spec["verb"], sha256_of(context.parent.params["lock"]))
        context.meta[_NAMED] = {key: spec.get(key, value) for key, value in now.items()}
        spec |= now
    return spec


def _artifact(out: Path) -> Path:
    """The file that stands for what a job made: `out`, or the one in the folder `out` that has a side-car or is its page."""
    names = ("vocab.json", "store.json", "index.html")
    return next((out / name for name in names if (out / name).exists()), out) if out.is_dir() else out


def begin(log: Path | None, *inputs: Path | None) -> Callable[..., Path]:
    """Starts a job: its log, its numerics, and a look at whether its inputs are what their side-cars say.

    What it returns writes the attestation at the job's end, when the artifact and its side-car are written.
    """
    from astolfo import numerics
    from astolfo.digest_cache import checked
    from astolfo.provenance import attestation

    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log, mode="a", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logging.getLogger().addHandler(handler)
    numerics.pin()
    for path in inputs:
        if path is not None:
            checked(path)
    return attestation.write
