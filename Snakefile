"""The entry of the workflow in a checkout: `snakemake results/ID.safetensors`. It stands in workflow/Snakefile, which others import."""


include: "workflow/Snakefile"
