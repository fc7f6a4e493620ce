"""The entry of the workflow: `snakemake results/25112201.safetensors`.

The graph follows from the ledger (config/). Rules stand in workflow/rules/, by stage; each calls one verb of the package.
"""


include: "workflow/rules/common.smk"
include: "workflow/rules/stale.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        evaluation_targets(),


rule ledger:
    input:
        record_targets(),
