"""Validation: what a model loses on held-out samples, by timestep band and objective, beside what a guess loses.

    held_out = procedural(autoencoder, seed=1, count=16, side=48)
    losses(candidate, held_out, "v", range(10), seed=1)     # -> {"loss": [...], "guess": [...], "relative": [...]}

Noise and timesteps are functions of (seed, sample), the same for every model and objective. The guess knows the noise level
and the variance of the latents, nothing else: the best linear estimate. Rotating (latents, noise) into (input, target) keeps
areas, so its loss is, for latents of variance S: S / var(input) for v and rf, alpha-bar S / var(input) for eps. A model whose
`relative` loss reaches 1.0 under a runtime is, read that way, no better than knowing nothing of the picture.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astolfo import randomness
from astolfo.data.photograph import photographs
from astolfo.data.pixels import encode
from astolfo.data.procedural import scene
from astolfo.data.store import Store
from astolfo.evaluate.candidate import Candidate
from astolfo.evaluate.prompts import prompt_of
from astolfo.evaluate.sample import SMALL, TOGETHER
from astolfo.train.objective import TIMESTEPS, alphas_cumprod

BANDS = [(first, first + 99) for first in range(0, TIMESTEPS, 100)]
NOISY = range(5, 10)  # the bands in which, sampling, a picture's composition is decided
SMALL_LATENTS = SMALL // 16  # latents of at most so many places go through the UNet together, as in sampling


@dataclass(frozen=True)
class HeldOut:
    """Samples that no run trained on. `latents`: float32 (n, channels, h, w), scaled; `sizes`: SDXL's six numbers each."""

    latents: Tensor
    captions: tuple[str, ...]
    sizes: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def first(self, count: int) -> "HeldOut":
        """The first so many of them."""
        return HeldOut(self.latents[:count], self.captions[:count], self.sizes[:count])


@torch.no_grad()
def procedural(autoencoder: Any, *, seed: int, count: int, side: int) -> HeldOut:
    """`count` scenes of a dataset seed of their own, seen by the model's own autoencoder; square, `side` pixels."""
    scenes = [scene(seed, index, ((side, side),)) for index in range(count)]
    drawn = torch.from_numpy(np.stack(photographs(seed, scenes))).to(autoencoder.device)
    latents = encode(autoencoder, drawn) * autoencoder.config.scaling_factor
    sizes = torch.tensor([[side, side, 0, 0, side, side]] * count).float()
    return HeldOut(latents.cpu(), tuple(prompt_of(one) for one in scenes), sizes)


def stored(folder: Path, scaling_factor: float, *, count: int) -> HeldOut:
    """The first `count` samples of the fullest bucket of a store that the user keeps for validation.

    Raises StoreError for a damaged store.
    """
    store = Store(folder)
    fullest = int(np.argmax(store.counts))
    first = sum(store.counts[:fullest])
    samples = [store.sample(first + i) for i in range(min(count, store.counts[fullest]))]
    latents = torch.from_numpy(np.stack([one.latents for one in samples])).float() * scaling_factor
    sizes = torch.tensor([[*one.original_size, *one.crop, *one.target_size] for one in samples]).float()
    return HeldOut(latents, tuple(", ".join(filter(None, (one.tags, one.sentence))) for one in samples), sizes)


@torch.no_grad()
def losses(
    candidate: Candidate, held_out: HeldOut, kind: str, bands: Sequence[int], *, seed: int, terminal: bool = False
) -> dict[str, list[float | None]]:
    """Mean squared error of the candidate's modules, as they are, against the target of `kind`, for each of `bands`.

    `terminal`: v's schedule has zero terminal SNR. One timestep per sample and band, spread evenly over the band.
    None stands for what is not finite.
    """
    noisy_at = _flow if kind == "rf" else _diffusion(kind, terminal)
    variance, found = held_out.latents.square().mean().item(), []
    for band in bands:
        at = BANDS[band][0] + 100 * (torch.arange(len(held_out)) + 0.5) / len(held_out)
        rates, targets, timesteps = noisy_at(at)
        noise = _noise(held_out, seed, band)
        x, target = (_mixed(pair, held_out.latents, noise) for pair in (rates, targets))
        error = (_predicted(candidate, held_out, x, timesteps) - target).square().mean().item()
        spread = rates[0].square() * variance + rates[1].square()
        determinant = rates[0] * targets[1] - rates[1] * targets[0]
        found.append((error, (variance * determinant.square() / spread).mean().item()))
    return {
        "loss": [_number(error) for error, _ in found], "guess": [_number(guess) for _, guess in found],
        "relative": [_number(error / guess) for error, guess in found],
    }  # fmt: skip


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


Rates = tuple[Tensor, Tensor]  # of the latents and of the noise


def _diffusion(kind: str, terminal: bool) -> Callable[[Tensor], tuple[Rates, Rates, Tensor]]:
    """Rates of the input, of the target, and the timestep that the model is given, at a timestep of eps or v."""
    alpha_bar = alphas_cumprod(terminal)

    def at(timestep: Tensor) -> tuple[Rates, Rates, Tensor]:
        whole = timestep.long()
        signal, spread = alpha_bar[whole].sqrt(), (1.0 - alpha_bar[whole]).sqrt()
        return (signal, spread), ((0.0 * signal, 0.0 * signal + 1.0) if kind == "eps" else (-spread, signal)), whole.float()

    return at


def _flow(timestep: Tensor) -> tuple[Rates, Rates, Tensor]:
    """The same for rectified flow, at sigma = timestep / 1000."""
    sigma = (timestep + 0.5) / TIMESTEPS
    one = torch.ones_like(sigma)
    return (1.0 - sigma, sigma), (-one, one), sigma * TIMESTEPS


def _mixed(rates: Rates, latents: Tensor, noise: Tensor) -> Tensor:
    a, b = (rate.reshape(-1, 1, 1, 1) for rate in rates)
    return a * latents + b * noise


def _noise(held_out: HeldOut, seed: int, band: int) -> Tensor:
    shape, count = tuple(held_out.latents.shape[1:]), len(held_out)
    return torch.from_numpy(np.stack([randomness.normal(seed, "validation", band * count + i, shape) for i in range(count)]))


def _predicted(candidate: Candidate, held_out: HeldOut, x: Tensor, timesteps: Tensor) -> Tensor:
    """The UNet's outputs for noisy latents `x`, some at a time; float32 on the CPU."""
    unet, out = candidate.parts["unet"], []
    together = TOGETHER if x.shape[-1] * x.shape[-2] <= SMALL_LATENTS else 1
    for start in range(0, len(x), together):
        part = slice(start, start + together)
        context, pooled = candidate.text(held_out.captions[part], candidate.device)
        further: Mapping[str, Any] = {}
        if pooled is not None:
            sizes = held_out.sizes[part].to(candidate.device, unet.dtype)
            further = {"added_cond_kwargs": {"text_embeds": pooled.to(unet.dtype), "time_ids": sizes}}
        inputs, times = x[part].to(candidate.device, unet.dtype), timesteps[part].to(candidate.device)
        out.append(unet(inputs, times, context.to(unet.dtype), **further).sample.float().cpu())
    return torch.cat(out)
