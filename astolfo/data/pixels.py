"""Pixels as an autoencoder takes and gives them, and latents of whole pictures."""

from typing import Any

import torch


def to_input(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 (n, height, width, 3) -> float32 (n, 3, height, width) in [-1, 1]."""
    return (pictures.permute(0, 3, 1, 2).float() / 127.5 - 1.0).contiguous()


def to_pictures(output: torch.Tensor) -> torch.Tensor:
    """float (n, 3, height, width) in [-1, 1] -> uint8 (n, height, width, 3), clipped and rounded."""
    return (output.permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def encode(autoencoder: Any, pictures: torch.Tensor, at_once: int = 64) -> torch.Tensor:
    """Mean latents, unscaled, of uint8 (n, height, width, 3) -> float32 (n, channels, height / factor, width / factor).

    `autoencoder`: diffusers' AutoencoderKL; `at_once`: pictures in one pass.
    """
    parts = [autoencoder.encode(to_input(part)).latent_dist.mean for part in pictures.split(at_once)]
    return torch.cat(parts)
