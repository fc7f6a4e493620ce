"""The weighted sum of two models in memory, so that a sweep over alphas writes no files.

`weighted(base, trained, alpha)`, tensor by tensor, has the bits of `astolfo merge` and of loading its result:
base * (1 - alpha) + trained * alpha in fp32, rounded once to the base's dtype. The names are the modules' own; a module's
tensor is a piece of a file's, so it makes no difference on which side of the key map the sum is taken.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

States = Mapping[str, Mapping[str, Tensor]]


def weighted(base: States, trained: States, alpha: float) -> Iterator[tuple[str, str, Tensor]]:
    """Part, name and tensor, one after the other; `alpha` 0.0 is `base` and 1.0 is `trained`, both untouched."""
    for part, state in base.items():
        for name, value in state.items():
            other = trained[part][name]
            yield part, name, (other if alpha else value) if alpha in (0.0, 1.0) else _sum(value, other, alpha)


def _sum(base: Tensor, trained: Tensor, alpha: float) -> Tensor:
    limit = torch.finfo(base.dtype).max
    return (base.float() * (1.0 - alpha) + trained.float() * alpha).clamp(-limit, limit).to(base.dtype)
