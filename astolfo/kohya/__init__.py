"""Command lines of sd-scripts, read into a ledger and written from one: `astolfo ledger import FILES...` and `export ID`.

    shell, posix, windows   scripts -> the commands in them, with their variables filled in
    launch                  a command that trains -> every option that it gives, and where
    options                 what becomes of each option: a table, options.yaml, from which docs/sd-scripts.md is made
    dataset                 dataset TOML and folders -> dataset entries, and the import that makes each
    read                    options -> a run of the ledger
    write                   runs -> one era's YAML, with what became of every option
    export                  a run of the ledger -> a command line, with a comment for each thing that it cannot say

Reads no picture and no model, and imports no torch.
"""
