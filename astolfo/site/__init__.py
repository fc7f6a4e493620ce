"""What a person looks at: the static site of a ledger's outputs, loss curves, model cards, and their publication.

Everything here reads the ledger and what a working directory holds, and decides no bit of any model. No torch is imported.
"""
