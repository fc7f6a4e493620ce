"""References: the names by which the ledger and the workflow speak of a model.

    my-base                         a base of the ledger
    my-first                        the result of a run
    my-first-step00011274           a run's checkpoint at a step (counted at full scale, from the start of the epoch)
    my-first-epoch000008            a run's checkpoint at the end of an epoch
    my-first-0.50                   a merge: weighted sum of that result with the run's merge base, alpha 0.50
    my-first-step00011274-0.75      a merge of a checkpoint

The same name is the file's name below `bases/` or `results/`, followed by `.safetensors`.
"""

import re
from collections.abc import Container
from dataclasses import dataclass

from astolfo.errors import LedgerError

ALPHA_PATTERN = r"[01]\.[0-9]{2}"
NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
CHECKPOINT_PATTERN = rf"{NAME_PATTERN}(?<!-0\.[0-9]{{2}})(?<!-1\.[0-9]{{2}})"  # what a merge begins with
_REFERENCE = re.compile(
    rf"(?P<run>.+?)(?:-step(?P<step>[0-9]{{8}})|-epoch(?P<epoch>[0-9]{{6}}))?(?:-(?P<alpha>{ALPHA_PATTERN}))?", re.DOTALL
)
_LETTERS = re.compile(NAME_PATTERN)
FOLDERS = ("states", "results", "bases", "datasets", "evaluations", "vocabulary", "rebuilt")
"""Where artifacts lie in a working directory: an artifact's name is its path from the last of these on."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A parsed reference: either `base`, or `run` with at most one of `step` and `epoch`, and `alpha` for a merge."""

    base: str | None = None
    run: str | None = None
    step: int | None = None
    epoch: int | None = None
    alpha: str | None = None

    def __str__(self) -> str:
        return self.base or self.checkpoint + (f"-{self.alpha}" if self.alpha else "")

    @property
    def checkpoint(self) -> str:
        """The reference without its alpha."""
        if self.step is not None:
            return f"{self.run}-step{self.step:08d}"
        return f"{self.run}-epoch{self.epoch:06d}" if self.epoch is not None else str(self.run)

    @property
    def path(self) -> str:
        """The file that the reference names, relative to the working directory."""
        return f"bases/{self.base}.safetensors" if self.base else f"results/{self}.safetensors"


def parse(text: str, bases: Container[str] = ()) -> Reference:
    """Parses a reference: a name of `bases` is a base, anything else a run's model, whether or not there is such a run.

    Raises LedgerError for an alpha beyond 1.00. `Ledger.reference` is this with the ledger's bases.
    """
    match = None if text in bases else _REFERENCE.fullmatch(text)
    if not match:
        return Reference(base=text)
    alpha = match["alpha"]
    if alpha and float(alpha) > 1:
        raise LedgerError(f"{text!r}: alpha must lie between 0.00 (the base) and 1.00 (the trained weights).")
    return Reference(
        run=match["run"],
        step=int(match["step"]) if match["step"] else None,
        epoch=int(match["epoch"]) if match["epoch"] else None,
        alpha=alpha,
    )


def problem_of(name: str) -> str | None:
    """What is wrong with a name of a run, a base or a dataset, as the end of a sentence; None where nothing is."""
    if not name:
        return "is empty"
    if not _LETTERS.fullmatch(name):
        odd = sorted({letter for letter in name if not re.fullmatch("[A-Za-z0-9_.-]", letter)})
        what = f"has {', '.join(map(repr, odd))} in it" if odd else f"begins with {name[0]!r}"
        return f"{what}: expected letters, digits, '_', '.' and '-', and a letter, a digit or '_' at its beginning"
    if name.endswith((".safetensors", ".sha256", ".json", ".md")):
        return f"ends like the file {name!r}: leave the ending out"
    return None


def mistaken_for(name: str) -> str | None:
    """What a run of that name would be mistaken for, as the end of a sentence; None where it is a run's name and no more."""
    found = parse(name) if not re.search("-1[.](?!00)[0-9]{2}$", name) else Reference(run=name[:-5], alpha=name[-4:])
    if found.alpha:
        return f"the merge of {found.checkpoint} at alpha {found.alpha}"
    return f"a checkpoint of the run {found.run}" if found.checkpoint != found.run else None
