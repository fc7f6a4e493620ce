"""Segments of a run, and the checkpoints that are cut from their states."""


rule segment:
    input:
        unpack(inputs(GRAPH.segment_inputs)),
    output:
        state=kept("states/{run}/{step}.safetensors"),
        digest="states/{run}/{step}.safetensors.sha256",
        attestation="states/{run}/{step}.safetensors.attestation.json",
    log:
        "logs/train/{run}-{step}.log",
    threads: processes
    resources:
        gpu=gpus,
        placement=lambda wildcards: GRAPH.placement(wildcards.run),
    params:
        spec=spec_of(GRAPH.segment, "states/{run}/{step}.safetensors"),
    shell:
        job(
            "train --spec {params.spec:q} --log {log}"
            " --base '{input.base}' --state '{input.state}'"
            " --dataset $(dirname {input.dataset}) --vocabulary $(dirname {input.vocabulary})"
            " --processes {threads} --tensorboard logs/tensorboard/{wildcards.run}"
            " --heartbeat logs/heartbeat/{wildcards.run}.jsonl"
            " {resources.placement}"
            " --out {output.state}",
            device=True,
        )


rule checkpoint:
    input:
        unpack(inputs(GRAPH.checkpoint_inputs)),
    output:
        model=kept("results/{checkpoint}.safetensors"),
        digest="results/{checkpoint}.safetensors.sha256",
        attestation="results/{checkpoint}.safetensors.attestation.json",
    log:
        "logs/checkpoint/{checkpoint}.log",
    params:
        spec=spec_of(GRAPH.model, "results/{checkpoint}.safetensors"),
    shell:
        job(
            "export --spec {params.spec:q} --log {log} --state {input.state}"
            " --base '{input.base}' --autoencoder '{input.autoencoder}' --out {output.model}"
        )
