"""What all rules share: the ledger, the specs, the working directory's use of them, and how a verb is called."""

import hashlib
import re
import shlex
import sys
from pathlib import Path

try:
    from astolfo import program
    from astolfo.alive import hold_alive
    from astolfo.files import canonical_json
    from astolfo.ledger import Reference, load, plan_of, step_of
    from astolfo.ledger.ledger import INPUTS, SCORER, read_pins
    from astolfo.ledger.references import ALPHA_PATTERN, CHECKPOINT_PATTERN, NAME_PATTERN
    from astolfo.ledger.specs import MECHA, Specs
    from astolfo.ledger.steps import from_scale, named_steps, restart_before, span_of
    from astolfo.ledger.table import eras
    from astolfo.provenance import stale
    from astolfo.ledger.code import code_digest
    from astolfo.provenance.digests import models
except ImportError as error:
    raise WorkflowError(
        f"The package astolfo cannot be imported ({error}). Make the environment with `make env` in its checkout and use the "
        "snakemake of that environment (.venv/bin/snakemake), or call `make` with the target."
    )

# Chains of segments are longer than Python's default recursion limit allows.
sys.setrecursionlimit(100_000)

KEYS = ("scale", "ledger", "rebuild", "device")
MAIN = workflow.modifier.is_main_snakefile()
if MAIN and (odd := sorted(set(config) - set(KEYS))):  # as a module, others' keys may stand beside ours
    raise WorkflowError(f"unknown config {', '.join(odd)}: expected {', '.join(KEYS)}.")

LOCKED = program.LOCK
LOCK = hashlib.sha256(LOCKED.read_bytes()).hexdigest()


wildcard_constraints:
    run=NAME_PATTERN,
    checkpoint=CHECKPOINT_PATTERN,
    alpha=ALPHA_PATTERN,
    evaluation=NAME_PATTERN,
    step=r"[0-9]{8}",
    base=NAME_PATTERN,
    dataset=NAME_PATTERN,


def used():
    """The ledger and the scale: those of the configuration, else those that the working directory remembers, else the nearest."""
    given = {"config": config.get("ledger"), "scale": config.get("scale")}
    entry = Path(workflow.basedir)  # of the user's own Snakefile, where there is one
    return program.in_use(Path(), given["config"] and Path(given["config"]), given["scale"], entry, entry.parent)


try:
    USE = used()
    program.say_use(USE)
    LEDGER = load(USE.config, USE.scale, pins=read_pins(Path()))
except ValueError as error:
    raise WorkflowError(str(error))

CONFIG, SCALE = USE.config, USE.scale
DEVICE = config.get("device", LEDGER.scale.device)
if DEVICE not in ("cpu", "cuda"):
    raise WorkflowError(f"device={DEVICE}: expected cpu or cuda.")
PROOF = DEVICE == "cpu" and LEDGER.scale.device == "cuda"
SPECS = Specs(LEDGER, LOCK)
reference = LEDGER.reference
hold_alive()

if workflow.is_main_process:
    logger.info(program.about(USE))
    if PROOF:
        logger.warning(
            f"device=cpu at the scale {SCALE}: a proof that the graph works, not a way to train. A step takes minutes."
        )
    checkout = Path(str(workflow.current_basedir)).parent.parent
    if (checkout / "astolfo" / "program.py").exists() and not checkout.samefile(program.ROOT):
        logger.warning(f"The workflow is that of {checkout}, but the environment's program is that of {program.ROOT}: make env.")


def called(*words):
    """The beginning of a shell line that calls the program. `exec` makes a job Snakemake's own child, so that it notices when
    Snakemake is gone. Braces are doubled, as Snakemake formats the line. The ledger's path is whole, so that the line is the
    same however the ledger was named; else Snakemake reports every rule as changed."""
    line = (sys.executable, "-P", "-m", "astolfo", "--config", CONFIG.resolve(), "--scale", SCALE, *words)
    escaped = shlex.join(map(str, line)).replace("{", "{{").replace("}", "}}")
    return f"exec {escaped} "


def verb(text):
    """A shell line that calls a verb of the program."""
    return f"{called()}{text}"


def job(text, device=False):
    """A shell line that calls a job, on the device in use where it has one to choose."""
    where = f" --device {DEVICE}" if device else ""
    return f"{called('job', '--tied', '--lock', LOCKED)}{text}{where}"


onstart:
    # While jobs per second are limited, every pass of Snakemake's scheduler that leaves a job waiting adds a timer, which brings on
    # such a pass each second: after some hundred jobs they take half a core. No option sets no limit. Where this is a module,
    # Snakemake does not run it, and the limit stays. (Snakemake 9.27)
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):  # the default
        workflow.scheduler.job_rate_limiter = None


def spec_of(make, artifact):
    """A params function: the canonical JSON of the spec that `make(wildcards)` gives. The only param of every rule.

    `artifact` is the path of what is made. The function must ask for nothing but wildcards, as Snakemake does not compare
    params that were derived from outputs or resources.
    """

    def params(wildcards):
        try:
            return canonical_json(as_made(make(wildcards), Path(artifact.format(**dict(wildcards.items())))))
        except ValueError as error:
            raise WorkflowError(str(error))

    return params


def kept(path):
    """A result: write-protected at full scale, where it may have taken 45 days."""
    return protected(path) if LEDGER.scale.protect_results else path


def file_inputs(name, path):
    """Named inputs for an artifact: the file itself, whose time does not count, and its side-car, whose content does.

    Snakemake compares content up to 1 MB only; of larger files, such as CLIP's vocabulary, it would look at the time.
    """
    return {name: ancient(path), f"{name}_digest": f"{path}.sha256"}


def model_inputs(name, model):
    """Named inputs for a model."""
    return file_inputs(name, model.path)


def parts_of(wildcards):
    """The stores of a dataset's parts, as named inputs."""
    found = {}
    for number, part in enumerate(LEDGER.datasets[wildcards.dataset].parts):
        found |= file_inputs(f"part{number}", f"datasets/{part}/store.json")
    return found


def all_targets():
    """Every model that the ledger is about: results, the merges that outcomes name, and the bases that the graph makes."""
    return [model.path for model in models(LEDGER)]


def default_targets():
    """What `snakemake` without a target makes: what the ledger names, else its newest run and that run's evaluation."""
    newest = LEDGER.newest()
    named = LEDGER.about.targets or ((newest.id, f"evaluations/{newest.id}") if newest else ())
    return [f"{one}/index.html" if one.startswith("evaluations/") else reference(one).path for one in named]


def asked(function):
    """Input functions raise WorkflowError, with the ledger's message, for what the ledger does not know."""

    def inputs(wildcards):
        try:
            return function(wildcards)
        except ValueError as error:
            raise WorkflowError(str(error))

    return inputs


VOCABULARY = "vocabulary/vocab.json"
PICTURES = LEDGER.scale.pictures is not None
PINNED_BASES = [name for name in LEDGER.bases if LEDGER.origin(name).file]


def remade_by(wildcards):
    """The target that makes the file which is shipped or brought for a base; empty when nothing in the graph does."""
    base, origin = LEDGER.base(wildcards.base), LEDGER.origin(wildcards.base)
    if base.kind == "autoencoder":
        return f"rebuilt/{wildcards.base}.safetensors" if LEDGER.scale.autoencoder_training else ""
    return reference(origin.made_by).path if origin.made_by else ""


def bases_by(maker):
    """The bases that the graph makes in one way: `made_by`, `merge` or `mecha`."""
    origins = {name: LEDGER.origin(name) for name in LEDGER.bases}
    return [name for name, origin in origins.items() if not origin.file and getattr(origin, maker)]


def datasets_by(way):
    """The datasets that come to be in one way at this scale: "drawn", "folder", "store" or "parts"."""
    return [name for name in LEDGER.datasets if LEDGER.brought(name)[0] == way]


def autoencoder_inputs(wildcards):
    return model_inputs("autoencoder", Reference(base=LEDGER.datasets[wildcards.dataset].autoencoder))


def one_of(names):
    """A wildcard pattern that matches just these names; one that matches nothing when there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def state_path(run, step):
    return f"states/{run}/{step:08d}.safetensors"


ERAS = {era.era: members for era, members in eras(LEDGER)}


def last_states(wildcards):
    """The last state of each run of an era, which has its whole loss curve, and what decides whether it changed."""
    ends = [state_path(run.id, plan_of(LEDGER, run).end) for run in ERAS[wildcards.era]]
    return {"states": ancient(ends), "digests": [f"{state}.sha256" for state in ends]}


def spec_of_losses(wildcards):
    runs = [run.id for run in ERAS[wildcards.era]]
    return {"verb": "losses", "era": wildcards.era, "runs": runs, "code": code_digest("losses")}


def spec_of_card(wildcards):
    run = LEDGER.run(wildcards.run)
    outcome = run.entry.outcome.model_dump(mode="json")
    return {"verb": "card", "run": run.id, "outcome": outcome, "note": run.entry.note, "code": code_digest("card")}


def segment_of(wildcards):
    """The spec of the segment that ends at a state's step."""
    run, step = LEDGER.run(wildcards.run), int(wildcards.step)
    boundaries = plan_of(LEDGER, run).boundaries
    if step not in boundaries[1:]:
        saved = ", ".join(f"{run.id}-step{from_scale(LEDGER, run, at):08d}" for at in boundaries[1:])
        raise run.error(
            f"run {run.id} saves no state at step {step} at this scale; it does at {', '.join(map(str, boundaries[1:]))}, "
            f"so there are {saved}."
        )
    return SPECS.segment(run.id, step)


def start_of(run, end):
    """The model that the weights of a run's segment before `end` start from, as named inputs; empty for one from nothing."""
    parent = restart_before(LEDGER, run, end) or LEDGER.parent(run)
    return model_inputs("base", parent) if parent else {"base": []}


def segment_inputs(wildcards):
    run, spec = LEDGER.run(wildcards.run), segment_of(wildcards)
    found = start_of(run, spec["to"]) | {"state": []}
    found |= file_inputs("dataset", f"datasets/{run.fields.dataset}/store.json") | file_inputs("vocabulary", VOCABULARY)
    if spec["from"] > spec["recipe"]["first_step"]:
        found |= file_inputs("state", state_path(run.id, spec["from"]))
    return found


def processes(wildcards):
    """How many processes run the logical ranks here: the most that share them evenly and fit the cores, and the devices
    that a profile caps `gpu` at. Decides no bit."""
    ranks, most = LEDGER.run(wildcards.run).fields.ranks, max(workflow.cores or 1, 1)
    if PROOF:
        most = 1  # each process would hold a model of true size
    if DEVICE == "cuda":
        cap = workflow.global_resources.get("gpu")
        most = min(most, cap.value if cap else 1)
    return max(count for count in (1, 2, 4, 8) if ranks % count == 0 and count <= max(most, 1))


def gpus(wildcards):
    """How many devices a segment takes: one per process. The job takes free ones itself (astolfo/devices.py)."""
    return processes(wildcards) if DEVICE == "cuda" else 0


def placement(wildcards):
    """The options of a run's placement: what a job is told that decides no bit."""
    run = LEDGER.run(wildcards.run)
    given, said = run.fields.placement, [f"--run-end {plan_of(LEDGER, run).end}"]
    if given is None:
        return said[0]
    if given.ramdisk:
        said.append("--ramdisk")
    if given.offload_gradients is not None:
        said.append("--offload-gradients" if given.offload_gradients else "--keep-gradients")
    values = {
        "numa": given.numa,
        "loader-workers": given.loader_workers,
        "sample-every": given.sample_every and span_of(LEDGER, run, given.sample_every),
        "keep-states": given.keep_states,
    }
    if (blocks := given.gradient_checkpointing) is not None:
        values["gradient-checkpointing"] = {True: "all", False: "none"}.get(blocks) or ",".join(blocks)
    said += [f"--{name} {value}" for name, value in values.items() if value is not None]
    if given.sample_every:
        said.append(f"--samples logs/samples/{run.id}")
    if given.keep_states:
        said += [f"--named {step}" for step in named_steps(LEDGER, run)]
    return " ".join(said)


def checkpoint_inputs(wildcards):
    wanted = reference(wildcards.checkpoint)
    run = LEDGER.run(wanted.run)
    step = step_of(LEDGER, wanted)
    found = start_of(run, step) | file_inputs("state", state_path(run.id, step))
    found["autoencoder"] = []
    if not run.fields.base:
        found |= model_inputs("autoencoder", Reference(base=LEDGER.datasets[run.fields.dataset].autoencoder))
    return found


def base_merge_inputs(wildcards):
    merge = LEDGER.origin(wildcards.base).merge
    return model_inputs("trained", reference(merge.trained)) | model_inputs("base", reference(merge.base))


def mecha_inputs(wildcards):
    """The models of an sd-mecha recipe in the order of its names, and their digests."""
    paths = [reference(model).path for model in LEDGER.origin(wildcards.base).mecha.models.values()]
    return {"models": ancient(paths), "digests": [f"{path}.sha256" for path in paths]}


def mecha_models(wildcards, input):
    """`--recipes FOLDER`, and `--model NAME=PATH` for every model of an sd-mecha recipe."""
    names = LEDGER.origin(wildcards.base).mecha.models
    given = [("--model", f"{name}={path}") for name, path in zip(names, input.models)]
    return shlex.join(["--recipes", str(CONFIG / MECHA), *(word for pair in given for word in pair)])


def merge_inputs(wildcards):
    run = LEDGER.run(reference(wildcards.checkpoint).run)
    return model_inputs("trained", reference(wildcards.checkpoint)) | model_inputs("base", LEDGER.merge_base(run))


def evaluated(wildcards):
    """The run and the evaluation set that an evaluation's folder names: "my-first", "my-first-course"."""
    return LEDGER.evaluated(wildcards.evaluation)


def evaluation_inputs(wildcards):
    run_id, name = evaluated(wildcards)
    run = LEDGER.run(run_id)
    found = model_inputs("trained", Reference(run=run.id)) | file_inputs("vocabulary", VOCABULARY)
    earlier = [one.path for one in SPECS.sampled(run.id, name)]
    found |= {"checkpoints": ancient(earlier), "digests": [f"{path}.sha256" for path in earlier]}
    return found | (model_inputs("base", LEDGER.merge_base(run)) if run.fields.base else {"base": []})


def evaluation_options(wildcards, input):
    """What an evaluation is given besides its models: earlier checkpoints, and what of the user's own lies below inputs/."""
    names = SPECS.sampled(*evaluated(wildcards))
    given = [f"--checkpoint {str(one).removeprefix(f'{one.run}-')}={path}" for one, path in zip(names, input.checkpoints)]
    own = {"--held-out": Path(INPUTS, "held-out"), "--scorer": Path(INPUTS, SCORER)}
    given += [f"{option} {path}" for option, path in own.items() if not PICTURES and path.exists()]
    return " ".join(given)
