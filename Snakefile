"""The entry of the workflow in a checkout: `snakemake results/ID.safetensors`. It is workflow/Snakefile, which others import."""


include: "workflow/Snakefile"


# Snakemake looks for the rule that it makes without a target in the entry alone.
rule default:
    default_target: True
    input:
        rules.all.input,
