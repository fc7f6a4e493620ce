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
        spec=spec_of(SPECS.vocabulary, "vocabulary/vocab.json"),
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
        base=one_of(GRAPH.autoencoders()),
    params:
        spec=spec_of(SPECS.autoencoder, "rebuilt/{base}.safetensors"),
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
        base=one_of(GRAPH.bases_by("file")),
    priority: 100
    resources:
        remade_by=of(GRAPH.remade_by),
        folder=lambda wildcards: str(LEDGER.pinned_folder(wildcards.base)),
    params:
        spec=spec_of(SPECS.base, "bases/{base}.safetensors"),
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
        spec=spec_of(GRAPH.model, "results/{model}.safetensors"),
    shell:
        job("base --spec {params.spec:q} --log {log} --folder inputs --remade-by {output.model} --out {output.model}")


# What was adopted is not built, whatever could build it.
ruleorder: adopted > checkpoint
ruleorder: adopted > merge


rule base_made:
    input:
        unpack(inputs(GRAPH.base_made_inputs)),
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(GRAPH.bases_by("made_by")),
    params:
        spec=spec_of(SPECS.base, "bases/{base}.safetensors"),
    shell:
        job("base --spec {params.spec:q} --log {log} --file {input.model} --out {output.model}")


rule base_stand_in:
    input:
        unpack(inputs(GRAPH.base_stand_in_inputs)),
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(GRAPH.bases_by("stand_in")),
    resources:
        folder=lambda wildcards: str(LEDGER.pinned_folder(wildcards.base)),
    params:
        spec=spec_of(SPECS.base, "bases/{base}.safetensors"),
    shell:
        job(
            "stand-in --spec {params.spec:q} --log {log}"
            " --folder {resources.folder:q} --file '{input.model}' --out {output.model}"
        )


rule base_merged:
    input:
        unpack(inputs(GRAPH.base_merged_inputs)),
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(GRAPH.bases_by("merge")),
    params:
        spec=spec_of(SPECS.base, "bases/{base}.safetensors"),
    shell:
        job("merge --spec {params.spec:q} --log {log}" " --base {input.base} --trained {input.trained} --out {output.model}")


rule base_mecha:
    input:
        unpack(inputs(GRAPH.base_mecha_inputs)),
    output:
        model="bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
        attestation="bases/{base}.safetensors.attestation.json",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(GRAPH.bases_by("mecha")),
    resources:
        models=of(GRAPH.mecha_options),
    params:
        spec=spec_of(SPECS.base, "bases/{base}.safetensors"),
    shell:
        job("mecha --spec {params.spec:q} --log {log} {resources.models} --out {output.model}")


rule dataset_joined:
    input:
        unpack(inputs(GRAPH.joined_inputs)),
    output:
        "datasets/{dataset}/store.json",
        digest="datasets/{dataset}/store.json.sha256",
        attestation="datasets/{dataset}/store.json.attestation.json",
    log:
        "logs/dataset-{dataset}.log",
    wildcard_constraints:
        dataset=one_of(GRAPH.datasets_by("parts")),
    resources:
        parts=of(GRAPH.joined_options),
    params:
        spec=spec_of(SPECS.dataset, "datasets/{dataset}/store.json"),
    shell:
        job("joined-dataset --spec {params.spec:q} --log {log} {resources.parts} --out datasets/{wildcards.dataset}")


rule dataset_made:
    input:
        unpack(inputs(GRAPH.autoencoder_inputs)),
    output:
        "datasets/{dataset}/store.json",
        digest="datasets/{dataset}/store.json.sha256",
        attestation="datasets/{dataset}/store.json.attestation.json",
    log:
        "logs/dataset-{dataset}.log",
    wildcard_constraints:
        dataset=one_of(GRAPH.datasets_by("drawn")),
    params:
        spec=spec_of(SPECS.dataset, "datasets/{dataset}/store.json"),
    shell:
        job("dataset --spec {params.spec:q} --log {log}" " --autoencoder {input.autoencoder} --out datasets/{wildcards.dataset}")


rule dataset_imported:
    input:
        unpack(inputs(GRAPH.autoencoder_inputs)),
    output:
        "datasets/{dataset}/store.json",
        digest="datasets/{dataset}/store.json.sha256",
        attestation="datasets/{dataset}/store.json.attestation.json",
    log:
        "logs/dataset-{dataset}.log",
    wildcard_constraints:
        dataset=one_of(GRAPH.datasets_by("folder")),
    resources:
        gpu=1 if LEDGER.scale.device == "cuda" else 0,
        folder=lambda wildcards: str(LEDGER.dataset_source(wildcards.dataset)[1]),
    params:
        spec=spec_of(SPECS.dataset, "datasets/{dataset}/store.json"),
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
        dataset=one_of(GRAPH.datasets_by("store")),
    priority: 100
    resources:
        folder=lambda wildcards: str(LEDGER.dataset_source(wildcards.dataset)[1]),
    params:
        spec=spec_of(SPECS.dataset, "datasets/{dataset}/store.json"),
    shell:
        job(
            "given-dataset --spec {params.spec:q} --log {log}"
            " --folder {resources.folder:q} --out datasets/{wildcards.dataset}"
        )
