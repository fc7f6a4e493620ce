"""Wrong numbers: a NaN or an infinity in a loss, a gradient or a weight stops the run before it does harm.

Every process raises the same `WrongNumber` at the same step. By default the run fails with a report beside its state; with
`on_failure: keep` in the ledger it ends there instead, with the state after its last good step, labelled as stopped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astolfo.data.join import Repeated
from astolfo.data.order import Batch
from astolfo.data.store import Store
from astolfo.errors import NumericsError

_CHUNK = 1 << 24  # elements; a test of a whole model at once would need its size again in temporaries
_WINDOW = 64  # steps whose losses tell what is usual
_FEWEST = 16  # steps after which that is known
_WHAT = {
    "spike": "The loss jumped to {value}",
    "loss": "The loss is {value}",
    "gradient": "NaN or infinity in the gradient",
    "weight": "NaN or infinity in the weights after the update",
}
_HINT = (
    "Check these samples' latents, or lower the learning rate. For a run that is meant to end there, write "
    "`on_failure: keep` into its entry of the ledger: its result is then its last good state, labelled as stopped."
)


@dataclass(eq=False)
class WrongNumber(NumericsError):
    """What was not finite and where. `step` is the step that was not done; states before it are good."""

    what: str  # loss, spike, gradient or weight
    step: int
    position: int  # of the micro-batch, or of the step's first one
    samples: list[str] = field(default_factory=list)  # IDs
    parameters: list[str] = field(default_factory=list)
    value: str = ""

    def __str__(self) -> str:
        where = f"at step {self.step}"
        if self.parameters:
            where += f", first in {', '.join(self.parameters[:3])}"
        where += f", position {self.position}, samples {', '.join(self.samples[:16])}"
        if len(self.samples) > 16:
            where += f" and {len(self.samples) - 16} more"
        return f"{_WHAT[self.what].format(value=self.value)} {where}. Training stopped; the last good state stays. {_HINT}"

    def label(self) -> dict[str, Any]:
        """What a kept state and its checkpoint say of it."""
        return {"step": self.step, "why": self.what, "samples": self.samples, "parameters": self.parameters}

    def report(self) -> dict[str, Any]:
        """The failure report, as JSON has it."""
        return self.label() | {"position": self.position, "value": self.value or None, "message": str(self)}


def finite(values: Tensor) -> bool:
    """Whether no element is NaN or infinite, with little memory."""
    return all(_finite(chunk) for chunk in values.detach().reshape(-1).split(_CHUNK))


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether `finite` holds of each of many tensors. Where it does, the device is asked once, and not once for each."""
    return not tensors or finite(torch.stack([values.detach().sum() for values in tensors])) or all(map(finite, tensors))


def _finite(chunk: Tensor) -> bool:
    """A finite sum has finite terms only; a sum that is not may have overflowed, so then every element is looked at.

    It is asked for in the chunk's own dtype: for another one torch copies the chunk, which takes 1.1 s a GB of bf16 and not 0.05.
    """
    return math.isfinite(chunk.sum().item()) or bool(chunk.isfinite().all())


def spike(losses: list[float], loss: float, factor: float | None) -> str | None:
    """What is wrong with a step's loss that is over `factor` times the median of the steps before; None when nothing is.

    Losses count as float32, as states keep them, so that a resume decides alike.
    """
    if factor is None or len(losses) < _FEWEST:
        return None
    usual = float(np.median(np.array(losses[-_WINDOW:], np.float32)))
    if np.float32(loss) <= factor * usual:
        return None
    return f"{loss:.4g}, over {factor:g} times the median {usual:.4g} of the steps before,"


def sample_ids(store: Store | Repeated, batches: list[Batch]) -> list[str]:
    """The IDs of all samples of some micro-batches."""
    return [store.sample(int(row)).id for batch in batches for row in batch.rows]
