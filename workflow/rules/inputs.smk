"""What runs start from: vocabulary, autoencoder, datasets, bases."""

PINNED = CONFIG / "pinned" / SCALE if SCALE == "miniature" else Path(INPUTS)
PICTURES = LEDGER.scale.pictures is not None
PINNED_BASES = [name for name in LEDGER.bases if LEDGER.origin(name).file]
MADE_BASES = [name for name in LEDGER.bases if not LEDGER.origin(name).file and LEDGER.origin(name).made_by]


def one_of(names):
    """A wildcard pattern that matches just these names; one that matches nothing when there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


rule vocabulary:
    output:
        "vocabulary/vocab.json",
        "vocabulary/merges.txt",
        digest="vocabulary/vocab.json.sha256",
    log:
        "logs/vocabulary.log",
    params:
        spec=spec_of(lambda wildcards: SPECS.vocabulary()),
    shell:
        "{ASTOLFO} vocabulary --spec {params.spec:q} --log {log} --out vocabulary"


rule autoencoder:
    output:
        "rebuilt/{base}.safetensors",
        digest="rebuilt/{base}.safetensors.sha256",
    log:
        "logs/autoencoder-{base}.log",
    wildcard_constraints:
        base=one_of(name for name, base in LEDGER.bases.items() if base.kind == "autoencoder"),
    params:
        spec=spec_of(lambda wildcards: SPECS.autoencoder(wildcards.base)),
    shell:
        "{ASTOLFO} autoencoder --spec {params.spec:q} --log {log} --out {output[0]}"


rule base_pinned:
    output:
        "bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(PINNED_BASES),
    params:
        spec=spec_of(lambda wildcards: SPECS.base(wildcards.base)),
    priority: 100
    shell:
        "{ASTOLFO} base --spec {params.spec:q} --log {log} --folder {PINNED:q} --out {output[0]}"


rule base_made:
    input:
        unpack(asked(lambda w: model_inputs("model", reference(LEDGER.origin(w.base).made_by)))),
    output:
        "bases/{base}.safetensors",
        digest="bases/{base}.safetensors.sha256",
    log:
        "logs/base-{base}.log",
    wildcard_constraints:
        base=one_of(MADE_BASES),
    params:
        spec=spec_of(lambda wildcards: SPECS.base(wildcards.base)),
    shell:
        "{ASTOLFO} base --spec {params.spec:q} --log {log} --file {input.model} --out {output[0]}"


if PICTURES:

    rule dataset_made:
        input:
            unpack(
                asked(lambda w: model_inputs("autoencoder", Reference(base=LEDGER.datasets[w.dataset].autoencoder)))
            ),
        output:
            "datasets/{dataset}/store.json",
            digest="datasets/{dataset}/store.json.sha256",
        log:
            "logs/dataset-{dataset}.log",
        wildcard_constraints:
            dataset=one_of(LEDGER.datasets),
        params:
            spec=spec_of(lambda wildcards: SPECS.dataset(wildcards.dataset)),
        shell:
            "{ASTOLFO} dataset --spec {params.spec:q} --log {log}"
            " --autoencoder {input.autoencoder} --out datasets/{wildcards.dataset}"

else:

    rule dataset_given:
        output:
            "datasets/{dataset}/store.json",
            digest="datasets/{dataset}/store.json.sha256",
        log:
            "logs/dataset-{dataset}.log",
        wildcard_constraints:
            dataset=one_of(LEDGER.datasets),
        params:
            spec=spec_of(lambda wildcards: SPECS.dataset(wildcards.dataset)),
        priority: 100
        shell:
            "{ASTOLFO} given-dataset --spec {params.spec:q} --log {log}"
            " --folder {INPUTS}/{wildcards.dataset} --out datasets/{wildcards.dataset}"
