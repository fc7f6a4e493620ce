"""What all rules share: the graph in use (`astolfo/graph.py`), and how its answers are given to Snakemake."""

import sys
from difflib import get_close_matches
from pathlib import Path

from snakemake.io import IOFile

try:
    from astolfo import program
    from astolfo.files import sha256_of
    from astolfo.liveness import hold_alive
    from astolfo.graph import Graph, one_of, with_side_cars
    from astolfo.ledger import load
    from astolfo.ledger.ledger import read_pins
    from astolfo.ledger.references import ALPHA_PATTERN, CHECKPOINT_PATTERN, NAME_PATTERN
except ImportError as error:
    raise WorkflowError(
        f"The package astolfo cannot be imported ({error}). Make the environment with `make env` in its checkout and use the "
        "snakemake of that environment (.venv/bin/snakemake), or call `make` with the target."
    )

# Chains of segments are longer than Python's default recursion limit allows.
sys.setrecursionlimit(100_000)

KEYS = ("scale", "ledger", "rebuild", "device")
MAIN = workflow.modifier.is_main_snakefile()
odd = sorted(set(config) - set(KEYS))
if not MAIN:  # as a module others' keys may stand beside ours, but none that is ours misspelt
    odd = [name for name in odd if get_close_matches(name, KEYS, cutoff=0.75)]
if odd:
    raise WorkflowError(f"unknown config {', '.join(odd)}: expected {', '.join(KEYS)}.")


wildcard_constraints:
    run=NAME_PATTERN,
    checkpoint=CHECKPOINT_PATTERN,
    alpha=ALPHA_PATTERN,
    evaluation=NAME_PATTERN,
    step=r"[0-9]{8}",
    base=NAME_PATTERN,
    dataset=NAME_PATTERN,


def in_use():
    """The ledger and the scale: those of the configuration, else those that the working directory remembers, else the nearest."""
    given = config.get("ledger")
    entry = Path(workflow.basedir)  # of the user's own Snakefile, where there is one
    return program.in_use(Path(), given and Path(given), config.get("scale"), entry, entry.parent)


try:
    USE = in_use()
    program.set_use(USE)
    GRAPH = Graph(
        load(USE.config, USE.scale, pins=read_pins(Path())),
        sha256_of(program.LOCK),
        USE.config,
        device=config.get("device"),
        rebuild=filter(None, str(config.get("rebuild", "")).split(",")),
    )
except ValueError as error:
    raise WorkflowError(str(error))

LEDGER, SPECS = GRAPH.ledger, GRAPH.specs
verb, job = GRAPH.verb, GRAPH.job
hold_alive()

if workflow.is_main_process:
    logger.info(program.about(USE))
    if GRAPH.proof:
        logger.warning(
            f"device=cpu at the scale {USE.scale}: a proof that the graph works, not a way to train. A step takes minutes."
        )
    checkout = Path(str(workflow.current_basedir)).parent.parent
    if (checkout / "astolfo" / "program.py").exists() and not checkout.samefile(program.ROOT):
        logger.warning(f"The workflow is that of {checkout}, but the environment's program is that of {program.ROOT}: make env.")


onstart:
    # While jobs per second are limited, every pass of Snakemake's scheduler that leaves a job waiting adds a timer, which brings on
    # such a pass each second: after some hundred jobs they take half a core. No option sets no limit. Where this is a module,
    # Snakemake does not run it, and the limit stays. (Snakemake 9.27)
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):  # the default
        workflow.scheduler.job_rate_limiter = None


def of(function):
    """A function of wildcards that asks `function` with their values, in the order in which they stand in the output's name.

    What the ledger does not know is a WorkflowError, with the ledger's message.
    """

    def answer(wildcards):
        try:
            return function(*wildcards)
        except ValueError as error:
            raise WorkflowError(str(error))

    return answer


def inputs(function):
    """The input function of a rule: the artifacts that `function` names by their roles, and their side-cars."""
    return of(lambda *values: with_side_cars(function(*values), ancient))


def recorded(path):
    """What Snakemake remembers of the params of the job that made `path`; None where it knows of none."""
    return workflow.persistence.params(IOFile(path))


def spec_of(make, artifact):
    """The params function of a rule, its only param: the canonical JSON of the spec that `make` gives for `artifact`, a path.

    The function must ask for nothing but wildcards, as Snakemake does not compare params that were derived from outputs or
    resources.
    """
    canonical = of(lambda *values: make(*values))

    def params(wildcards):
        check_triggers()
        path = artifact.format(**dict(wildcards.items()))
        return GRAPH.canonical(canonical(wildcards), path, recorded)

    return params


def kept(path):
    """A result: write-protected at full scale, where it may have taken 45 days."""
    return protected(path) if GRAPH.keeps_stale else path


def processes(wildcards):
    """How many processes run a run's logical ranks: as many as fit the cores, and the devices that a profile caps `gpu` at."""
    cap = workflow.global_resources.get("gpu")
    return GRAPH.processes(wildcards.run, workflow.cores or 1, cap.value if cap else 1)


def gpus(wildcards):
    """How many devices a segment takes: one per process. The job takes free ones itself (astolfo/devices.py)."""
    return processes(wildcards) if GRAPH.device == "cuda" else 0
