"""What can go wrong, as one tree of exceptions.

    AstolfoError                  everything a user can cause or mend; the command line prints it without a traceback
    ├── LedgerError               the ledger says something impossible, unknown or contradictory
    ├── InputError                a file from outside is missing, damaged, or not what it should be
    │   ├── CheckpointError       … a model file
    │   └── StoreError            … a dataset store
    ├── StateError                a training state is damaged, in use, or belongs to another recipe
    ├── NumericsError             a wrong number: NaN, infinity, or an operator that cannot be deterministic
    └── PlacementError            this machine lacks what the job needs (GPU, memory, disk)
        └── Refusal               … as a plan finds out, with the reason in a few words

Every message says what was expected, what was found, and what to do.
"""


class AstolfoError(ValueError):
    """Base of all errors that are addressed to the user."""


class LedgerError(AstolfoError):
    """An entry of the ledger is unknown, misspelt, contradictory or cyclic."""


class InputError(AstolfoError):
    """A file from outside is missing, damaged, or not what it should be."""


class CheckpointError(InputError):
    """A model file is truncated, malformed, of another architecture, or not the pinned one."""


class StoreError(InputError):
    """A dataset store is missing, damaged, or does not fit the recipe."""


class StateError(AstolfoError):
    """A training state is damaged, in use by another process, or of another recipe."""


class NumericsError(AstolfoError):
    """A wrong number appeared (NaN, infinity), or determinism cannot be had."""


class PlacementError(AstolfoError):
    """This machine lacks a device, memory or disk space that the job needs."""


class Refusal(PlacementError):
    """A run cannot be done on a machine; `short` says why in a few words, for a table."""

    def __init__(self, short: str, message: str):
        super().__init__(message)
        self.short = short
