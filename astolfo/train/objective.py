"""Objectives: what the UNet is asked to predict, at which timestep, with which weight.

eps and v follow the scaled-linear DDPM schedule of Stable Diffusion (Ho et al. 2020; Salimans and Ho 2022), v optionally
rescaled to zero terminal SNR (Lin et al., arXiv 2305.08891) and weighted by min-SNR (Hang et al., arXiv 2303.09556). rf is
rectified flow with logit-normal timesteps and shift (Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206),
optionally contrastive (Stoica et al., arXiv 2506.05350).
"""

import logging
from functools import reduce
from operator import mul
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch import Tensor

from astolfo import randomness
from astolfo.ledger import schema
from astolfo.ledger.recipe import Recipe
from astolfo.train.loss import TIMESTEPS, Task, thresholds

log = logging.getLogger(__name__)


def alphas_cumprod(zero_terminal_snr: bool) -> Tensor:
    """alpha-bar of the 1000 timesteps, float32; with `zero_terminal_snr` the last one is 0."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - (rescale_zero_terminal_snr(betas) if zero_terminal_snr else betas), dim=0)


def min_snr_weights(kind: str, alpha_bar: Tensor, gamma: float) -> Tensor:
    """min-SNR weights per timestep: min(SNR, gamma) / SNR for eps, min(SNR, gamma) / (SNR + 1) for v."""
    snr = alpha_bar / (1.0 - alpha_bar)
    return snr.clamp(max=gamma) / (snr if kind == "eps" else snr + 1.0)


def weights(options: schema.Objective, alpha_bar: Tensor) -> Tensor | None:
    """What a sample's error counts at each timestep, all that an objective asks for multiplied; None where it asks for none.

    min-SNR as above. `debiased_estimation_loss` (arXiv 2310.08442): 1 / sqrt(SNR) for eps, 1 / (SNR + 1) for v.
    `scale_v_pred_loss_like_noise_pred`: SNR / (SNR + 1). `v_pred_like_loss` w: 1 + w (SNR + 1) / SNR. In these SNR is at most
    1000 (sd-scripts' `library/custom_train_functions.py:79-111` at 48d368f).
    """
    snr = (alpha_bar / (1.0 - alpha_bar)).clamp(max=1000)
    found = []
    if options.min_snr_gamma:
        found.append(min_snr_weights(options.kind, alpha_bar, options.min_snr_gamma))
    if options.scale_v_pred_loss_like_noise_pred:
        found.append(snr / (snr + 1.0))
    if options.v_pred_like_loss:
        found.append(1.0 + options.v_pred_like_loss * (snr + 1.0) / snr)
    if options.debiased_estimation_loss:
        found.append(1.0 / snr.sqrt() if options.kind == "eps" else 1.0 / (snr + 1.0))
    return reduce(mul, found) if found else None


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
        found = weights(self.options, alphas_cumprod(False) if self.choices.snr_table == "original" else alpha_bar)
        self._weights = None if found is None else found.to(device)

    def task(self, latents: Tensor, noise: Tensor, draws: np.ndarray, added: Tensor | None = None) -> Task:
        """What to learn from `latents` (batch, channels, h, w; scaled) with `noise` and one uniform draw per sample.

        `added`: the noise that is added to the latents, where it is not the one of the target.
        """
        added = noise if added is None else added
        if self.options.kind == "rf":
            return self._flow(latents, noise, draws, added)
        steps = self._timesteps(draws)
        timestep = torch.from_numpy(steps).to(latents.device, non_blocking=True)
        signal, spread = self._rates(latents, timestep)
        noisy = (signal * latents + spread * added).to(latents.dtype)
        target = noise if self.options.kind == "eps" else (signal * noise - spread * latents).to(latents.dtype)
        weight = None if self._weights is None else self._weights[timestep]
        return Task(noisy, timestep, target, weight, **self._measure(steps, latents))

    def _timesteps(self, draws: np.ndarray) -> np.ndarray:
        """Timesteps from `min_timestep` on, below `max_timestep`; that one (999 for 1000) where both are the same."""
        first = self.options.min_timestep or 0
        last = TIMESTEPS if self.options.max_timestep is None else self.options.max_timestep
        if first == last:
            return np.full(len(draws), min(first, TIMESTEPS - 1), np.int64)
        return first + (draws * (last - first)).astype(np.int64)

    def _measure(self, timestep: np.ndarray, latents: Tensor) -> dict[str, Any]:
        """How errors at these timesteps count, as `Task` has it."""
        options = self.options.loss
        if options is None:
            return {}
        if options.c is None:
            return {"measure": options.kind}
        c = thresholds(options, timestep, getattr(self, "_alpha_bar", None))
        return {"measure": options.kind, "c": c.to(latents.device, non_blocking=True)}

    def _rates(self, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha-bar) and sqrt(1 - alpha-bar) at `timestep`, shaped to multiply latents."""
        alpha_bar = self._alpha_bar.to(latents.dtype) if self.choices.schedule_dtype == "compute" else self._alpha_bar
        alpha_bar = alpha_bar[timestep].reshape(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()

    def _flow(self, latents: Tensor, noise: Tensor, draws: np.ndarray, added: Tensor) -> Task:
        sigma = randomness.logistic(randomness.inverse_normal(draws))
        shift = self.options.shift or 1.0
        sigma = shift * sigma / (1.0 + (shift - 1.0) * sigma)
        timesteps = sigma * TIMESTEPS
        if self.choices.rf_timestep == "floor":
            timesteps = np.minimum(np.floor(timesteps), TIMESTEPS - 1.0)
        s = torch.from_numpy(sigma.astype(np.float32)).to(latents.device, non_blocking=True).reshape(-1, 1, 1, 1)
        noisy = ((1.0 - s) * latents + s * added).to(latents.dtype)
        timestep = torch.from_numpy(timesteps.astype(np.float32)).to(latents.device, non_blocking=True)
        return Task(noisy, timestep, noise - latents, contrastive=self.options.contrastive, **self._measure(timesteps, latents))
