"""Before a run: `astolfo plan ID`, what it needs on a machine; `astolfo rehearse ID`, what becomes of it at the miniature;
`astolfo hardware`, what a machine is."""

from pathlib import Path
from typing import Any

import click

from astolfo.commands import WHERE, WHOLE
from astolfo.errors import Refusal


@click.command()
@click.argument("run_id", metavar="[ID]", required=False)
@click.option("--all", "whole", is_flag=True, help="Every run of the ledger, a line each, and their sum.")
@click.option(
    "--hardware", metavar="NAME", help="A machine, such as 4x3090 or H100 (`astolfo hardware --list`). [default: this one]"
)
@click.option(
    "--accelerate", type=WHOLE, metavar="FILE", help="Its processes on that machine, as this configuration starts them."
)
@click.pass_context
def plan(context: click.Context, run_id: str | None, whole: bool, hardware: str | None, accelerate: Path | None) -> None:
    """Prints steps, images, segments, memory, disk, days and kWh of a run, and where each figure comes from.

    The scale is the one that the machine is for, unless --scale names it. Exit status 1 when the run cannot be done there; the
    message says what of it would have to change.
    """
    from astolfo.plan import plan as planner
    from astolfo.plan import show
    from astolfo.plan.accelerate import configured

    if whole == bool(run_id):
        raise click.UsageError("Expected the ID of one run, or --all for every run of the ledger.")
    ledger, machine = _placed(context, hardware)
    if accelerate:
        machine = configured(accelerate, machine)
    exact = accelerate is not None and machine.device == "cuda"
    if not run_id:
        rows = _rows(ledger, planner.every(ledger), machine, exact)
        click.echo(
            show.summary(f"{len(rows)} run{'s' * (len(rows) != 1)} on {machine.title}, at the {ledger.scale_name} scale:", rows)
        )
        _remark(show.remarks(ledger, planner.every(ledger)))
        return
    run = ledger.run(run_id)
    click.echo(show.as_text(ledger, planner.plan(ledger, run, machine, exact=exact), machine))
    if len(rows := _rows(ledger, planner.lineage(ledger, run), machine, exact)) > 1:
        click.echo("\n" + show.summary("with the runs that it is made from:", rows))
    _remark(show.remarks(ledger, planner.lineage(ledger, run)))


def _remark(remarks: list[str]) -> None:
    if remarks:
        click.echo("\n" + "\n".join(remarks))


@click.command()
@click.argument("run_id", metavar="ID")
@WHERE
@click.pass_context
def rehearse(context: click.Context, run_id: str, directory: Path) -> None:
    """Builds and judges a run at the miniature scale, and says how far its verdict can be trusted.

    It takes minutes, and no file of full size. In a working directory of full size it makes a folder rehearsal/.
    """
    from astolfo.commands import use_of
    from astolfo.ledger import load
    from astolfo.ledger.ledger import read_pins
    from astolfo.provenance import rehearsal

    use = use_of(context, directory)
    place = rehearsal.place(directory, use.scale)
    ledger = load(use.config, rehearsal.SCALE, pins=read_pins(place))
    run = ledger.run(run_id)
    rehearsal.rehearse(ledger, run, place)
    click.echo(rehearsal.report(ledger, run, place))


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--cpu", is_flag=True, help="This machine's cores, although it has a CUDA device.")
@click.option("--list", "known", is_flag=True, help="The ledger's machines, and every card that a machine can be named after.")
@click.pass_context
def hardware(context: click.Context, name: str | None, cpu: bool, known: bool) -> None:
    """Prints this machine, or the machine NAME, as an entry for the ledger's hardware/.

    Kept as hardware/NAME.yaml of a ledger, with the speeds that you measured, it is a machine for `astolfo plan --hardware NAME`.
    """
    from astolfo import devices
    from astolfo.commands import ledger_of
    from astolfo.plan import machine, show
    from astolfo.plan import plan as planner

    if bool(name) + cpu + known > 1:
        raise click.UsageError("Expected a NAME, --cpu or --list: one of the three.")
    if known:
        click.echo(show.machines(ledger_of(context)))
    elif name:
        click.echo(machine.as_yaml(planner.machine_of(ledger_of(context), name)), nl=False)
    else:
        click.echo(machine.as_yaml(machine.this_machine("cuda" if devices.cards() and not cpu else "cpu")), nl=False)


def _placed(context: click.Context, name: str | None) -> tuple[Any, Any]:
    """The ledger at the scale that is meant, and the machine of that name, else this one: its cards, if the scale wants them."""
    from astolfo import devices
    from astolfo.commands import ledger_of
    from astolfo.ledger import load
    from astolfo.plan import machine
    from astolfo.plan import plan as planner

    ledger = ledger_of(context)
    free = context.obj["scale"] is None
    device = ("cuda" if devices.cards() else "cpu") if free else ledger.scale.device
    found = planner.machine_of(ledger, name) if name else machine.this_machine(device)
    if free and found.device != ledger.scale.device:
        ledger = load(ledger.folder, "full" if found.device == "cuda" else "miniature")
    return ledger, found


def _rows(ledger: Any, runs: list[Any], machine: Any, exact: bool) -> list[tuple[str, Any]]:
    """What each run needs there, or in a few words why it cannot run there."""
    from astolfo.plan import plan as planner

    rows: list[tuple[str, Any]] = []
    for run in runs:
        try:
            rows.append((run.id, planner.plan(ledger, run, machine, exact=exact)))
        except Refusal as error:
            rows.append((run.id, error.short))
    return rows
