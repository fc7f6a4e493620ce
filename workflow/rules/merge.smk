"""Merges: a checkpoint's weighted sum with its base."""


rule merge:
    input:
        unpack(inputs(GRAPH.merge_inputs)),
    output:
        model=kept("results/{checkpoint}-{alpha}.safetensors"),
        digest="results/{checkpoint}-{alpha}.safetensors.sha256",
        attestation="results/{checkpoint}-{alpha}.safetensors.attestation.json",
    log:
        "logs/merge/{checkpoint}-{alpha}.log",
    benchmark:
        "logs/merge/{checkpoint}-{alpha}.benchmark.jsonl"
    params:
        spec=spec_of(lambda checkpoint, alpha: GRAPH.model(f"{checkpoint}-{alpha}"), "results/{checkpoint}-{alpha}.safetensors"),
    shell:
        job("merge --spec {params.spec:q} --log {log}" " --base {input.base} --trained {input.trained} --out {output.model}")
