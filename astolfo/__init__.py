"""astolfo: rebuilds SDXL fine-tuning runs, bit for bit, from a ledger."""

__version__ = "0.2.0"
