"""Trains the miniature scale's autoencoder from nothing, reproducibly.

    autoencoder = train_autoencoder(config, pictures, seed=1, steps=1000)

fp32 on the CPU; first weights, order and noise come from `astolfo.randomness`. Threads and deterministic algorithms
are the caller's to pin (`astolfo.numerics`): given those, two calls return the same bytes. Afterwards each latent
channel is moved to mean 0 and standard deviation 1 / scaling_factor over the pictures by changing the two 1 x 1
convolutions around the latents, so that SDXL's factor of 0.13025 is the right one for this autoencoder too.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from astolfo import randomness
from astolfo.data.pixels import encode, to_input, to_pictures
from astolfo.errors import NumericsError
from astolfo.train.initialise import initialise

log = logging.getLogger(__name__)
FIRST_LOG_VARIANCE = -6.0  # with 0, the noise on the latents hides the pictures for the first hundreds of steps
CROP = 32
Groups = list[torch.Tensor]


def train_autoencoder(
    config: Mapping[str, Any],
    pictures: Sequence[np.ndarray],
    *,
    seed: int,
    steps: int,
    batch: int = 4,
    learning_rate: float = 3e-3,
    kl_weight: float = 1e-4,
) -> AutoencoderKL:
    """The autoencoder of diffusers' `config`, trained on `pictures`: uint8 (height, width, 3), of any few sizes.

    Each step sees pictures of one size: three steps in four, 2 `batch` crops of CROP pixels, which cost half as much
    and teach as much; then `batch` whole ones. The loss is L1 plus mean squared error (pictures in [-1, 1]) plus
    `kl_weight` times the mean KL divergence; AdamW, 50 steps of warm-up, linear decay to 0. Raises NumericsError when
    the loss is not finite.
    """
    autoencoder: Any = initialise(AutoencoderKL.from_config(dict(config)), seed).train()
    autoencoder.quant_conv.bias.data[autoencoder.config.latent_channels :] = FIRST_LOG_VARIANCE
    optimizer = torch.optim.AdamW(autoencoder.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    groups = _by_size(pictures)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min((step + 1) / 50, 1 - step / steps)
        cropped = 4 * step < 3 * steps
        x = _crop(_batch(groups, seed, step, 2 * batch), seed, step) if cropped else _batch(groups, seed, step, batch)
        loss = _loss(autoencoder, x, seed, step, kl_weight)
        if not math.isfinite(loss.item()):
            raise NumericsError(f"The autoencoder's loss is {loss.item()} at step {step}; lower its learning rate.")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step + 1 == steps:
            log.info("autoencoder: step %d of %d, loss %.5f", step, steps, loss.item())
    autoencoder.eval().requires_grad_(False)
    standardise(autoencoder, pictures)
    return autoencoder


@torch.no_grad()
def standardise(autoencoder: AutoencoderKL, pictures: Sequence[np.ndarray]) -> None:
    """Gives each latent channel mean 0 and deviation 1 / scaling_factor over `pictures`; what is decoded stays."""
    latents = [encode(autoencoder, group) for group in _by_size(pictures)]
    values = torch.cat([z.transpose(0, 1).flatten(1) for z in latents], 1).double()
    mean = values.mean(1)
    gain = 1.0 / (autoencoder.config.scaling_factor * values.std(1))
    before, after, channels = autoencoder.quant_conv, autoencoder.post_quant_conv, len(mean)
    w, b = before.weight.double(), before.bias.double()
    w[:channels] *= gain[:, None, None, None]
    b[:channels] = (b[:channels] - mean) * gain
    b[channels:] += 2.0 * gain.log()  # the second half is the logarithm of the variance
    before.weight.copy_(w), before.bias.copy_(b)
    w, b = after.weight.double(), after.bias.double()
    after.bias.copy_(b + w[:, :, 0, 0] @ mean)
    after.weight.copy_(w / gain[None, :, None, None])


@torch.no_grad()
def psnr(autoencoder: AutoencoderKL, pictures: Sequence[np.ndarray]) -> float:
    """Peak signal-to-noise ratio, in dB over all pixels of `pictures`, of encoding and decoding to 8 bits."""
    errors = []
    for group in _by_size(pictures):
        decoded = to_pictures(autoencoder.decode(encode(autoencoder, group)).sample)
        errors.append((decoded.double() - group.double()).square().flatten())
    return 10.0 * math.log10(255.0**2 / max(torch.cat(errors).mean().item(), 1e-9))


def _by_size(pictures: Sequence[np.ndarray]) -> Groups:
    """The pictures stacked by size, sizes in ascending order, pictures in the order given."""
    shapes = sorted({picture.shape for picture in pictures})
    return [torch.from_numpy(np.stack([p for p in pictures if p.shape == shape])) for shape in shapes]


def _batch(groups: Groups, seed: int, step: int, batch: int) -> torch.Tensor:
    """Pictures of one size, which is drawn in proportion to how many have it."""
    chosen = int(randomness.integers(seed, "autoencoder-size", step, sum(map(len, groups)))[0])
    number = 0
    while chosen >= len(groups[number]):
        chosen, number = chosen - len(groups[number]), number + 1
    indices = randomness.integers(seed, "autoencoder-order", step, len(groups[number]), batch)
    return to_input(groups[number][torch.from_numpy(indices)])


def _crop(x: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """The same random square of CROP pixels (or what there is) of each picture of the batch."""
    height, width = (min(CROP, length) for length in x.shape[2:])
    u, v = randomness.uniform(seed, "autoencoder-crop", step, 2)
    top, left = int(u * (x.shape[2] - height + 1)), int(v * (x.shape[3] - width + 1))
    return x[:, :, top : top + height, left : left + width].contiguous()


def _loss(autoencoder: AutoencoderKL, x: torch.Tensor, seed: int, step: int, kl_weight: float) -> torch.Tensor:
    posterior = autoencoder.encode(x).latent_dist
    noise = torch.from_numpy(randomness.normal(seed, "autoencoder-noise", step, tuple(posterior.mean.shape)))
    y = autoencoder.decode(posterior.mean + posterior.std * noise).sample
    return F.l1_loss(y, x) + F.mse_loss(y, x) + kl_weight * posterior.kl().mean() / posterior.mean[0].numel()
