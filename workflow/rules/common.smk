"""What all rules share: the ledger, the specs, the working directory's scale, and how a verb is called."""

import hashlib
import sys
from pathlib import Path

try:
    from astolfo.alive import hold_alive
    from astolfo.files import canonical_json
    from astolfo.ledger import Reference, load, plan_of, step_of
    from astolfo.ledger import parse as reference
    from astolfo.ledger.references import ALPHA_PATTERN, CHECKPOINT_PATTERN, RUN_PATTERN
    from astolfo.ledger.specs import Specs
    from astolfo.pins import INPUTS, read_pins
except ImportError as error:
    raise WorkflowError(
        f"The package astolfo cannot be imported ({error}). Make the environment with `make env` and use its snakemake "
        "(.venv/bin/snakemake), or call `make` with the target."
    )

# Chains of segments are longer than Python's default recursion limit allows.
sys.setrecursionlimit(100_000)

ROOT = Path(workflow.basedir)
CONFIG = Path(config.get("ledger", ROOT / "config"))
SCALE = config.get("scale", "miniature")
LOCK = hashlib.sha256((ROOT / "envs" / "lock.txt").read_bytes()).hexdigest()
# `exec`, so that a job is Snakemake's own child and notices when Snakemake is gone.
ASTOLFO = f"exec {sys.executable} -P -m astolfo job --tied"
SCALE_RECORD = Path(".astolfo/scale")


wildcard_constraints:
    run=RUN_PATTERN,
    checkpoint=CHECKPOINT_PATTERN,
    alpha=ALPHA_PATTERN,
    step=r"[0-9]{8}",
    base=r"[A-Za-z0-9.-]+",
    dataset=r"[A-Za-z0-9.-]+",


try:
    LEDGER = load(CONFIG, SCALE, pins=read_pins(Path(".")))
except ValueError as error:
    raise WorkflowError(str(error))

if SCALE_RECORD.exists() and SCALE_RECORD.read_text().strip() != SCALE:
    raise WorkflowError(
        f"This working directory holds the scale {SCALE_RECORD.read_text().strip()!r}, but the scale {SCALE!r} was asked for. "
        "One directory holds one scale: use another one (`snakemake --directory OTHER`, `make DIR=OTHER`)."
    )

SPECS = Specs(LEDGER, LOCK)
hold_alive()


onstart:
    SCALE_RECORD.parent.mkdir(exist_ok=True)
    SCALE_RECORD.write_text(SCALE + "\n")


def spec_of(make):
    """A params function: the canonical JSON of the spec that `make(wildcards)` gives. The only param of every rule."""

    def params(wildcards):
        try:
            return canonical_json(make(wildcards))
        except ValueError as error:
            raise WorkflowError(str(error))

    return params


def kept(path):
    """A result: write-protected at full scale, where it may have taken 45 days."""
    return protected(path) if LEDGER.scale.protect_results else path


def model_inputs(name, model):
    """Named inputs for a model: the file itself, whose time does not count, and its side-car, whose content does."""
    path = model.path
    return {name: ancient(path), f"{name}_digest": f"{path}.sha256"}


def record_runs():
    """The runs of the record: all but the foundations."""
    return [run for run in LEDGER.runs if run.isdigit()]


def evaluation_targets():
    """What `snakemake` without a target makes: the first command's result, its merge and its evaluation."""
    return [
        "results/25112201.safetensors",
        "results/25112201-0.50.safetensors",
        "evaluations/25112201/index.html",
    ]


def asked(function):
    """Input functions raise WorkflowError, with the ledger's message, for what the ledger does not know."""

    def inputs(wildcards):
        try:
            return function(wildcards)
        except ValueError as error:
            raise WorkflowError(str(error))

    return inputs
