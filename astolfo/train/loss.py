"""The loss of a micro-batch: how far a prediction is from its target, and how much each sample counts.

    l2          (p - y)^2                                       l1      |p - y|
    huber       2 c (sqrt((p - y)^2 + c^2) - c)
    smooth_l1   2 (sqrt((p - y)^2 + c^2) - c)                   both are the pseudo-Huber loss of arXiv 2403.16728, scaled

`c` may follow the timestep t of 1000 (sd-scripts' `library/train_util.py:6110-6165` at 48d368f):

    constant      c scale
    exponential   c^(t / 1000) scale: 1 at t = 0, c at the end
    snr           (1 - c) / (1 + sigma)^2 + c, where sigma is noise over signal
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astolfo import elementary
from astolfo.ledger import schema

TIMESTEPS = 1000


@dataclass(frozen=True)
class Task:
    """One micro-batch as the UNet gets it: noisy latents and timestep in, `target` out, its error times `weight`.

    `contrastive`: the weight of rf's contrastive term. `measure`: how errors count, where not as squares; `c`: its parameter
    for each sample.
    """

    noisy: Tensor
    timestep: Tensor
    target: Tensor
    weight: Tensor | None = None
    contrastive: float | None = None
    measure: str | None = None
    c: Tensor | None = None


def loss(task: Task, prediction: Tensor) -> Tensor:
    """Mean over the batch of each sample's weighted mean error, in float32.

    The contrastive term takes away that weight times the mean squared distance to the target of the batch's previous
    sample (of the last, for the first); a batch of one sample has none.
    """
    error = _error(task, prediction)
    if task.weight is not None:
        return (error.mean(dim=(1, 2, 3)) * task.weight).mean()
    if task.contrastive is None or len(task.target) == 1:
        return error.mean()
    return error.mean() - task.contrastive * _squared(prediction, task.target.roll(1, dims=0)).mean()


def _error(task: Task, prediction: Tensor) -> Tensor:
    if task.measure is None:
        return _squared(prediction, task.target)
    if task.measure == "l1":
        return (prediction.float() - task.target.float()).abs()
    assert task.c is not None
    c = task.c.reshape(-1, 1, 1, 1)
    error = 2 * ((_squared(prediction, task.target) + c.square()).sqrt() - c)
    return c * error if task.measure == "huber" else error


def _squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.float() - target.float()).square()


def thresholds(options: schema.Loss, timestep: np.ndarray, alpha_bar: Tensor | None) -> Tensor:
    """`c` of samples at these timesteps, float32; `alpha_bar` of the schedule is read for `snr`."""
    assert options.c
    assert options.scale
    if options.schedule == "constant":
        found = np.full(len(timestep), options.c * options.scale)
    elif options.schedule == "exponential":
        slope = elementary.log(np.array([options.c]))[0] / TIMESTEPS
        found = elementary.exp(slope * timestep.astype(np.float64)) * options.scale
    else:
        assert alpha_bar is not None
        signal = alpha_bar.cpu().numpy().astype(np.float64)[timestep]
        with np.errstate(divide="ignore"):  # no signal at all: the ratio is infinite, and the result c
            sigma = np.sqrt((1.0 - signal) / signal)
        found = (1.0 - options.c) / (1.0 + sigma) ** 2 + options.c
    return torch.from_numpy(found.astype(np.float32))
