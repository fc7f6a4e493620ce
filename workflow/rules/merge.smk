"""Merges: a checkpoint's weighted sum with its base."""


def merge_inputs(wildcards):
    run = LEDGER.run(reference(wildcards.checkpoint).run)
    return model_inputs("trained", reference(wildcards.checkpoint)) | model_inputs("base", LEDGER.merge_base(run))


rule merge:
    input:
        unpack(asked(merge_inputs)),
    output:
        kept("results/{checkpoint}-{alpha}.safetensors"),
        digest="results/{checkpoint}-{alpha}.safetensors.sha256",
    log:
        "logs/merge/{checkpoint}-{alpha}.log",
    benchmark:
        "logs/merge/{checkpoint}-{alpha}.benchmark.jsonl"
    params:
        spec=spec_of(lambda w: SPECS.model(reference(f"{w.checkpoint}-{w.alpha}"))),
    shell:
        "{ASTOLFO} merge --spec {params.spec:q} --log {log}"
        " --base {input.base} --trained {input.trained} --out {output[0]}"
