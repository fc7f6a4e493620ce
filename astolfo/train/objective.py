"""Objectives: what the UNet is asked to predict, at which timestep, with which weight.

eps and v follow the scaled-linear DDPM schedule of Stable Diffusion (Ho et al. 2020; Salimans and Ho 2022), v optionally
rescaled to zero terminal SNR (Lin et al., arXiv 2305.08891) and weighted by min-SNR (Hang et al., arXiv 2303.09556). rf is
rectified flow with logit-normal timesteps and shift (Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206),
optionally contrastive (Stoica et al., arXiv 2506.05350).
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch import Tensor

from astolfo import randomness
from astolfo.ledger.recipe import Recipe

TIMESTEPS = 1000
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One micro-batch as the UNet gets it: noisy latents and timestep in, `target` out, squared error times `weight`.

    `contrastive`: the weight of rf's contrastive term.
    """

    noisy: Tensor
    timestep: Tensor
    target: Tensor
    weight: Tensor | None = None
    contrastive: float | None = None


def alphas_cumprod(zero_terminal_snr: bool) -> Tensor:
    """alpha-bar of the 1000 timesteps, float32; with `zero_terminal_snr` the last one is 0."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - (rescale_zero_terminal_snr(betas) if zero_terminal_snr else betas), dim=0)


def min_snr_weights(kind: str, alpha_bar: Tensor, gamma: float) -> Tensor:
    """min-SNR weights per timestep: min(SNR, gamma) / SNR for eps, min(SNR, gamma) / (SNR + 1) for v."""
    snr = alpha_bar / (1.0 - alpha_bar)
    return snr.clamp(max=gamma) / (snr if kind == "eps" else snr + 1.0)


class Objective:
    """The objective of a recipe, with its tables on the `device` where it is computed."""

    def __init__(self, recipe: Recipe, device: torch.device | str = "cpu"):
        self.recipe, self.options, self.choices = recipe, recipe.objective, recipe.choices
        self._weights = None
        if self.options.contrastive and recipe.batch_size == 1:
            log.warning(
                f"objective.contrastive ({self.options.contrastive:g}) changes nothing at batch_size 1: a micro-batch of one "
                "sample has no other to contrast with. The original trainer skips it there too."
            )
        if self.options.kind == "rf":
            return
        alpha_bar = alphas_cumprod(self.options.zero_terminal_snr)
        self._alpha_bar = alpha_bar.to(device)
        if self.options.min_snr_gamma:
            original = self.choices.snr_table == "original"
            table = alphas_cumprod(False) if original else alpha_bar
            self._weights = min_snr_weights(self.options.kind, table, self.options.min_snr_gamma).to(device)

    def task(self, latents: Tensor, noise: Tensor, draws: np.ndarray) -> Task:
        """What to learn from `latents` (batch, channels, h, w; scaled) with `noise` and one uniform draw per sample."""
        if self.options.kind == "rf":
            return self._flow(latents, noise, draws)
        timestep = torch.from_numpy((draws * TIMESTEPS).astype(np.int64)).to(latents.device, non_blocking=True)
        signal, spread = self._rates(latents, timestep)
        noisy = (signal * latents + spread * noise).to(latents.dtype)
        target = noise if self.options.kind == "eps" else (signal * noise - spread * latents).to(latents.dtype)
        weight = None if self._weights is None else self._weights[timestep]
        return Task(noisy, timestep, target, weight)

    def _rates(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha-bar) and sqrt(1 - alpha-bar) at `timestep`, shaped to multiply latents."""
        alpha_bar = self._alpha_bar.to(latents.dtype) if self.choices.schedule_dtype == "compute" else self._alpha_bar
        alpha_bar = alpha_bar[timestep].reshape(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()

    def _flow(self, latents: Tensor, noise: Tensor, draws: np.ndarray) -> Task:
        sigma = randomness.logistic(randomness.inverse_normal(draws))
        shift = self.options.shift or 1.0
        sigma = shift * sigma / (1.0 + (shift - 1.0) * sigma)
        told = sigma * TIMESTEPS
        if self.choices.rf_timestep == "floor":
            told = np.minimum(np.floor(told), TIMESTEPS - 1.0)
        s = torch.from_numpy(sigma.astype(np.float32)).to(latents.device, non_blocking=True).reshape(-1, 1, 1, 1)
        noisy = ((1.0 - s) * latents + s * noise).to(latents.dtype)
        timestep = torch.from_numpy(told.astype(np.float32)).to(latents.device, non_blocking=True)
        return Task(noisy, timestep, noise - latents, contrastive=self.options.contrastive)


def loss(task: Task, prediction: Tensor) -> Tensor:
    """Mean over the batch of each sample's weighted mean squared error, in float32.

    The contrastive term takes away that weight times the mean squared distance to the target of the batch's previous
    sample (of the last, for the first); a batch of one sample has none.
    """
    error = _squared(prediction, task.target)
    if task.weight is not None:
        return (error.mean(dim=(1, 2, 3)) * task.weight).mean()
    if task.contrastive is None or len(task.target) == 1:
        return error.mean()
    return error.mean() - task.contrastive * _squared(prediction, task.target.roll(1, dims=0)).mean()


def _squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.float() - target.float()).square()
