"""The command line: one verb per thing that the workflow does, each also usable by hand.

    astolfo init FOLDER                        a ledger of one's own
    astolfo ledger list                        what the ledger holds
    astolfo plan ID                            what a run costs on this machine (`hardware` prints it), or on --hardware 4x3090
    astolfo rehearse ID                        what becomes of it at the miniature, and how far to trust that
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

from astolfo import deferred_imports, program
from astolfo.commands import FOLDER, dataset, evidence, init, ledger, models, plan, site, staleness
from astolfo.commands.jobs import jobs
from astolfo.errors import AstolfoError


def _version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        given = context.params.get("config"), context.params.get("scale")
        click.echo(program.about(program.in_use(Path(), *given, strict=False)))
        context.exit()


class Sections(click.Group):
    """A group that lists its verbs by what they are for, each with one short line."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections of `VERBS`, in their order."""
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl([(str(verb.name), text) for verb, text in verbs.items()], col_max=12)


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
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


VERBS: dict[str, dict[click.Command, str]] = {
    "Ledger and plan": {
        init.init: "begin a ledger of your own",
        ledger.ledger: "show, compare, import and export runs",
        plan.plan: "say what runs cost: steps, memory, disk, days",
        plan.rehearse: "try a run at the miniature scale, and say how far to trust it",
        plan.hardware: "show this machine, or a known one, as plan sees it",
    },
    "Look": {
        models.inspect: "say what a checkpoint file is",
        evidence.lineage: "show what a model is made from",
        evidence.verdicts: "show verdicts beside the outcomes that the ledger names",
        site.site: "make a static site of everything that is built",
        site.losses: "draw the loss curves of an era",
        site.card: "write the model card of a run",
    },
    "Merge": {
        models.merge: "merge two checkpoints: A x (1 - alpha) + B x alpha",
        models.mecha: "merge checkpoints by a recipe of sd-mecha",
    },
    "Data and files that you bring": {
        dataset.dataset: "import, check, show and export datasets",
        models.pin: "use your file as a base, dataset or vocabulary",
        evidence.adopt: "use a model that you have, instead of training it",
    },
    "Evidence": {
        evidence.verify: "check a file and all that it comes from, or every result",
        evidence.reproduce: "rebuild a run in a fresh folder, and compare",
        evidence.compare: "say whether two models are identical, equivalent or different",
        staleness.stale: "list what older code or another lock made",
        staleness.accept: "keep what is stale, with a reason",
        staleness.numerics: "print this machine's numerics class and its switches",
    },
    "Publish": {
        evidence.sign: "sign a model and its attestation",
        evidence.crate: "pack a model as a Workflow Run RO-Crate",
        site.publish: "send a model to the Hugging Face Hub",
    },
    "Inside": {jobs: "what the rules of the workflow call"},
}
"""The sections of `astolfo -h`: their verbs, each with its line."""
for section in VERBS.values():
    for verb in section:
        cli.add_command(verb)


def main() -> None:
    """Entry point: errors meant for the user are printed without a traceback, with exit status 1."""
    deferred_imports.defer()
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
        if isinstance(error, click.NoSuchOption) and error.option_name in {name for one in cli.params for name in one.opts}:
            verb = error.ctx.command_path.removeprefix("astolfo ") if error.ctx else "VERB"
            hint = f"{error.option_name} is an option of astolfo itself: `astolfo {error.option_name} ... {verb}`."
            error = click.UsageError(hint, ctx=error.ctx)
        error.show()
        sys.exit(2)
    except AstolfoError as error:
        logging.getLogger("astolfo").error("astolfo: %s", error)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        log = logging.getLogger("astolfo")
        log.error("astolfo: %s cannot be used: %s.", error.filename, error.strerror)
        log.debug("where that happened", exc_info=True)
        sys.exit(1)
