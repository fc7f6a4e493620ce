"""Segments of a run, and the checkpoints that are cut from their states."""

SEGMENT_LOG = "logs/train/{run}-{step}"


def state_path(run, step):
    return f"states/{run}/{step:08d}.safetensors"


def segment_of(wildcards):
    """The spec of the segment that ends at a state's step."""
    run, step = LEDGER.run(wildcards.run), int(wildcards.step)
    boundaries = plan_of(LEDGER, run).boundaries
    if step not in boundaries[1:]:
        raise run.error(f"run {run.id} saves no state at step {step} at this scale; it does at {', '.join(map(str, boundaries[1:]))}.")
    return SPECS.segment(run.id, step)


def start_of(run):
    """The model that a run's weights start from, as named inputs; empty for a run from nothing."""
    parent = LEDGER.parent(run)
    return model_inputs("base", parent) if parent else {"base": []}


def segment_inputs(wildcards):
    run, spec = LEDGER.run(wildcards.run), segment_of(wildcards)
    found = start_of(run) | {
        "dataset": f"datasets/{run.fields.dataset}/store.json",
        "vocabulary": "vocabulary/vocab.json",
        "state": [],
    }
    if spec["from"] > plan_of(LEDGER, run).start:
        before = state_path(run.id, spec["from"])
        found |= {"state": ancient(before), "state_digest": f"{before}.sha256"}
    return found


def processes(wildcards):
    """How many processes run the logical ranks here: the most that share them evenly and fit the cores. Decides no bit."""
    ranks = LEDGER.run(wildcards.run).fields.ranks
    return max(count for count in (1, 2, 4, 8) if ranks % count == 0 and count <= max(workflow.cores or 1, 1))


rule segment:
    input:
        unpack(asked(segment_inputs)),
    output:
        kept("states/{run}/{step}.safetensors"),
        digest="states/{run}/{step}.safetensors.sha256",
    log:
        SEGMENT_LOG + ".log",
    benchmark:
        SEGMENT_LOG + ".benchmark.jsonl"
    params:
        spec=spec_of(segment_of),
    threads: processes
    resources:
        gpu=1 if LEDGER.scale.device == "cuda" else 0,
    shell:
        "{ASTOLFO} train --spec {params.spec:q} --log {log}"
        " --base '{input.base}' --state '{input.state}'"
        " --dataset $(dirname {input.dataset}) --vocabulary $(dirname {input.vocabulary})"
        " --processes {threads} --device {LEDGER.scale.device} --tensorboard logs/tensorboard/{wildcards.run}"
        " --out {output[0]}"


def checkpoint_inputs(wildcards):
    wanted = reference(wildcards.checkpoint)
    run = LEDGER.run(wanted.run)
    state = state_path(run.id, step_of(LEDGER, wanted))
    found = start_of(run) | {"state": ancient(state), "state_digest": f"{state}.sha256"}
    found["autoencoder"] = []
    if not run.fields.base:
        found |= model_inputs("autoencoder", Reference(base=LEDGER.datasets[run.fields.dataset].autoencoder))
    return found


rule checkpoint:
    input:
        unpack(asked(checkpoint_inputs)),
    output:
        kept("results/{checkpoint}.safetensors"),
        digest="results/{checkpoint}.safetensors.sha256",
    log:
        "logs/checkpoint/{checkpoint}.log",
    params:
        spec=spec_of(lambda w: SPECS.model(reference(w.checkpoint))),
    shell:
        "{ASTOLFO} export --spec {params.spec:q} --log {log} --state {input.state}"
        " --base '{input.base}' --autoencoder '{input.autoencoder}' --out {output[0]}"
