"""The command line: one verb per thing that the workflow does, each also usable by hand.

    astolfo init FOLDER                        a ledger of one's own
    astolfo ledger list                        what the ledger holds
    astolfo plan ID                            what a run costs on this machine (`hardware` prints it), or on --hardware 4x3090
    astolfo lineage ID                         what a run is made from, and what of it is built
    astolfo inspect FILE                       what a checkpoint is
    astolfo verify FILE                        its bytes, and everything that it comes from
    astolfo reproduce ID                       rebuild it in a fresh folder, and compare; or FOLDER, a published one
    astolfo crate ID -o DIR                    pack it for journals and archives: a Workflow Run RO-Crate
    astolfo compare A B                        identical, equivalent or different
    astolfo adopt ID FILE                      take a file that you have instead of building the run
    astolfo merge BASE TRAINED --alpha 0.5 -o OUT
    astolfo mecha RECIPE a=FILE b=FILE -o OUT

The verbs that the rules call (`job ...`) take a spec: `astolfo ledger spec TARGET` prints the one of any target. Heavy
libraries are imported inside the verbs, so that the others start at once.
"""

import logging
import os
import sys
from pathlib import Path

import click

from astolfo import program, quiet
from astolfo.commands import FOLDER, bits, dataset, evidence, init, ledger, models, plan, site
from astolfo.commands.jobs import jobs
from astolfo.errors import AstolfoError


def _version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        given = context.params.get("config"), context.params.get("scale")
        click.echo(program.about(program.in_use(Path(), *given, strict=False)))
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--config",
    type=FOLDER,
    default=None,
    help="The ledger's folder. [default: what the directory remembers, its config/, else the program's]",
)
@click.option("--scale", default=None, help="miniature or full. [default: what the directory remembers, else miniature]")
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=False,
    help="Show the program's version and folder, the ledger and the scale.",
)
@click.pass_context
def cli(context: click.Context, config: Path | None, scale: str | None) -> None:
    """Rebuilds SDXL fine-tuning runs, bit for bit, from a ledger."""
    context.obj = {"config": config, "scale": scale}


VERBS = (
    init.init, ledger.ledger, plan.plan, plan.hardware, bits.numerics, bits.stale, bits.accept,
    evidence.lineage, evidence.verify, evidence.verdicts, evidence.compare, evidence.reproduce, evidence.adopt, evidence.sign,
    evidence.crate,
    models.inspect, models.pin, models.merge, models.mecha, dataset.dataset,
    site.site, site.losses, site.card, site.publish, jobs,
)  # fmt: skip
for verb in VERBS:
    cli.add_command(verb)


def main() -> None:
    """Entry point: errors meant for the user are printed without a traceback, with exit status 1."""
    quiet.hide()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[terminal])
    logging.getLogger("astolfo").setLevel(logging.DEBUG)  # a job's log file gets these, the terminal does not
    try:
        status = cli(prog_name="astolfo", standalone_mode=False)  # what `context.exit` was given, or a verb's nothing
        sys.exit(status if isinstance(status, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except AstolfoError as error:
        logging.getLogger("astolfo").error("astolfo: %s", error)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
