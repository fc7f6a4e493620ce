"""`astolfo plan ID --hardware NAME`: what a run needs on a machine, before anything is run."""

import click

from astolfo.errors import PlacementError


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--hardware", required=True, metavar="NAME", help="A machine of config/hardware/, such as 4x3090.")
@click.pass_context
def plan(context: click.Context, run_id: str, hardware: str) -> None:
    """Prints steps, images, segments, memory, disk, days and kWh of a run, and where each figure comes from.

    The scale is the one that the machine is for, unless --scale names it. Exit status 1 when the run cannot be done there.
    """
    from click.core import ParameterSource

    from astolfo.ledger import load
    from astolfo.plan import plan as planner
    from astolfo.plan import show

    ledger = load(context.obj["config"], context.obj["scale"])
    machine = planner.machine_of(ledger, hardware)
    assert context.parent
    if context.parent.get_parameter_source("scale") == ParameterSource.DEFAULT and machine.device == "cuda":
        ledger = load(context.obj["config"], "full")
    run = ledger.run(run_id)
    click.echo(show.as_text(ledger, planner.plan(ledger, run, machine), machine))
    rows: list = []
    for before in planner.lineage(ledger, run):
        try:
            rows.append((before.id, planner.plan(ledger, before, machine)))
        except PlacementError as error:
            rows.append((before.id, str(error).split(": ")[0] + "; plan it by itself for the reason"))
    if len(rows) > 1:
        click.echo(show.summary(rows))
