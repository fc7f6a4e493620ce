"""References: the names by which the ledger and the workflow speak of a model.

    AK-NIL-1.2                      a base of config/bases.yaml
    25112201                        the result of a run
    25111701-step00011274           a run's checkpoint at a step (counted at full scale, from the start of the epoch)
    26011101-epoch000008            a run's checkpoint at the end of an epoch
    25112201-0.50                   a merge: weighted sum of that result with the run's merge base, alpha 0.50
    25111701-step00011274-0.75      a merge of a checkpoint

The same name is the file's name below `bases/` or `results/`, followed by `.safetensors`.
"""

import re
from dataclasses import dataclass

from astolfo.errors import LedgerError

RUN_PATTERN = r"[0-9]{8}|foundation-[a-z0-9]+"
CHECKPOINT_PATTERN = rf"(?:{RUN_PATTERN})(?:-step[0-9]{{8}}|-epoch[0-9]{{6}})?"
ALPHA_PATTERN = r"[01]\.[0-9]{2}"
_REFERENCE = re.compile(
    rf"(?P<run>{RUN_PATTERN})(?:-step(?P<step>[0-9]{{8}})|-epoch(?P<epoch>[0-9]{{6}}))?(?:-(?P<alpha>{ALPHA_PATTERN}))?"
)


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


def parse(text: str) -> Reference:
    """Parses a reference; anything that does not look like a run's artifact is a base's name."""
    match = _REFERENCE.fullmatch(text)
    if not match:
        if re.match(r"[0-9]{8}(-|$)", text):
            raise LedgerError(
                f"{text!r} is no reference: expected RUN, RUN-step<8 digits>, RUN-epoch<6 digits>, each perhaps followed "
                "by an alpha with two decimals such as -0.50."
            )
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
