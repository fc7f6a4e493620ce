"""What runs start from: vocabulary, autoencoder, datasets, bases."""


rule vocabulary:
    output:
        "vocabulary/vocab.json",
        "vocabulary/merges.txt",
        digest="vocabulary/vocab.json.sha256",
        attestation="vocabulary/vocab.json.attestation.json",
    log:
        "logs/vocabulary.log",
    params:
        spec=spec_of(lambda wildcards: SPECS.vocabulary(), "vocabulary/vocab.json"),
    shell:
        job("vocabulary --spec {params.spec:q} --log {log} --folder inputs --out vocabulary")


rule autoencoder:
    output:
        model="rebuilt/{base}.safetensors",
        digest="rebuilt/{base}.safetensors.sha256",
        attestation="rebuilt/{base}.safetensors.attestation.json",
    log:
        "logs/autoencoder-{base}.log",
    wildcard_constraints:
        base=one_of(name for name, base in LEDGER.bases.items() if base.kind == "autoencoder"),
    params:
        spec=spec_of(lambda wildcards: SPECS.autoencoder(wildcards.base), "rebuilt/{base}.safetensors"),
    shell:
        job("autoencoder --spec {params.spec:q} --log {log} --out {output.model}")


rule base_pinned:
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(PINNED_BASES),
    priority: 100
    resources:
        remade_by=remade_by,
        folder=lambda wildcards: str(LEDGER.pinned_folder(wildcards.base)),
    params:
        spec=spec_of(lambda wildcards: SPECS.base(wildcards.base), "bases/{base}.safetensors"),
    shell:
        job(
            "base --spec {params.spec:q} --log {log}"
            " --folder {resources.folder:q}"
            " --remade-by '{resources.remade_by}' --out {output.model}"
        )


rule adopted:
    output:
        model=kept("results/{model}.safetensors"),
        digest="results/{model}.safetensors.sha256",
        attestation="results/{model}.safetensors.attestation.json",
    log:
        "logs/adopted-{model}.log",
    wildcard_constraints:
        model=one_of(LEDGER.adopted),
    priority: 100
    params:
        spec=spec_of(lambda wildcards: SPECS.model(reference(wildcards.model)), "results/{model}.safetensors"),
    shell:
        job("base --spec {params.spec:q} --log {log} --folder inputs --remade-by {output.model} --out {output.model}")


# What was adopted is not built, whatever could build it.
ruleorder: adopted > checkpoint
ruleorder: adopted > merge


rule base_made:
    input:
        unpack(asked(lambda w: model_inputs("model", reference(LEDGER.origin(w.base).made_by)))),
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(bases_by("made_by")),
    params:
        spec=spec_of(lambda wildcards: SPECS.base(wildcards.base), "bases/{base}.safetensors"),
    shell:
        job("base --spec {params.spec:q} --log {log} --file {input.model} --out {output.model}")


rule base_stand_in:
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(bases_by("stand_in")),
    resources:
        folder=lambda wildcards: str(LEDGER.pinned_folder(wildcards.base)),
    params:
        spec=spec_of(lambda wildcards: SPECS.base(wildcards.base), "bases/{base}.safetensors"),
    shell:
        job("stand-in --spec {params.spec:q} --log {log} --folder {resources.folder:q} --out {output.model}")


rule base_merged:
    input:
        unpack(asked(base_merge_inputs)),
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(bases_by("merge")),
    params:
        spec=spec_of(lambda wildcards: SPECS.base(wildcards.base), "bases/{base}.safetensors"),
    shell:
        job("merge --spec {params.spec:q} --log {log}" " --base {input.base} --trained {input.trained} --out {output.model}")


rule base_mecha:
    input:
        unpack(asked(mecha_inputs)),
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(bases_by("mecha")),
    resources:
        models=mecha_models,
    params:
        spec=spec_of(lambda wildcards: SPECS.base(wildcards.base), "bases/{base}.safetensors"),
    shell:
        job("mecha --spec {params.spec:q} --log {log} {resources.models} --out {output.model}")


rule dataset_joined:
    input:
        unpack(asked(parts_of)),
    output:
        "datasets/{dataset}/store.json",
        digest="datasets/{dataset}/store.json.sha256",
        attestation="datasets/{dataset}/store.json.attestation.json",
    log:
        "logs/dataset-{dataset}.log",
    wildcard_constraints:
        dataset=one_of(datasets_by("parts")),
    resources:
        parts=lambda wildcards: " ".join(f"--part {name} datasets/{name}" for name in LEDGER.datasets[wildcards.dataset].parts),
    params:
        spec=spec_of(lambda wildcards: SPECS.dataset(wildcards.dataset), "datasets/{dataset}/store.json"),
    shell:
        job("joined-dataset --spec {params.spec:q} --log {log} {resources.parts} --out datasets/{wildcards.dataset}")


rule dataset_made:
    input:
        unpack(asked(autoencoder_inputs)),
    output:
        "datasets/{dataset}/store.json",
        digest="datasets/{dataset}/store.json.sha256",
        attestation="datasets/{dataset}/store.json.attestation.json",
    log:
        "logs/dataset-{dataset}.log",
    wildcard_constraints:
        dataset=one_of(datasets_by("drawn")),
    params:
        spec=spec_of(lambda wildcards: SPECS.dataset(wildcards.dataset), "datasets/{dataset}/store.json"),
    shell:
        job("dataset --spec {params.spec:q} --log {log}" " --autoencoder {input.autoencoder} --out datasets/{wildcards.dataset}")


rule dataset_imported:
    input:
        unpack(asked(autoencoder_inputs)),
    output:
        "datasets/{dataset}/store.json",
        digest="datasets/{dataset}/store.json.sha256",
        attestation="datasets/{dataset}/store.json.attestation.json",
    log:
        "logs/dataset-{dataset}.log",
    wildcard_constraints:
        dataset=one_of(datasets_by("folder")),
    resources:
        gpu=1 if LEDGER.scale.device == "cuda" else 0,
        folder=lambda wildcards: str(LEDGER.brought(wildcards.dataset)[1]),
    params:
        spec=spec_of(lambda wildcards: SPECS.dataset(wildcards.dataset), "datasets/{dataset}/store.json"),
    shell:
        job(
            "import --spec {params.spec:q} --log {log} --folder {resources.folder:q}"
            " --autoencoder {input.autoencoder} --out datasets/{wildcards.dataset}",
            device=True,
        )


rule dataset_given:
    output:
        "datasets/{dataset}/store.json",
        digest="datasets/{dataset}/store.json.sha256",
        attestation="datasets/{dataset}/store.json.attestation.json",
    log:
        "logs/dataset-{dataset}.log",
    wildcard_constraints:
        dataset=one_of(datasets_by("store")),
    priority: 100
    resources:
        folder=lambda wildcards: str(LEDGER.brought(wildcards.dataset)[1]),
    params:
        spec=spec_of(lambda wildcards: SPECS.dataset(wildcards.dataset), "datasets/{dataset}/store.json"),
    shell:
        job(
            "given-dataset --spec {params.spec:q} --log {log}"
            " --folder {resources.folder:q} --out datasets/{wildcards.dataset}"
        )
