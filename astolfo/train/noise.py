"""Noise as an objective asks for it: offset, of several resolutions, and perturbed where it is added to the input.

    noise offset         + strength times one normal number for each channel (crosslabs.org/blog/diffusion-with-offset-noise)
    several resolutions  + coarser noises, enlarged and ever weaker, scaled back to unit variance (Whitaker, "Multi-resolution
                         noise for diffusion model training", 2023)
    input perturbation   the input has noise + gamma times other noise, the target the noise alone (arXiv 2301.11706)

The formulas, and what is drawn once for a whole micro-batch, are sd-scripts' (`library/train_util.py:6071-6107`,
`custom_train_functions.py:458-484` at 48d368f). A block is what shares a position of the noise: a sample, or under
`noise: micro-step` a micro-batch. Everything is computed on the host in float32, from basic operations.
"""

import numpy as np

from astolfo import randomness
from astolfo.ledger.schema import MultiresNoise, Objective


def shaped(
    options: Objective, noise: np.ndarray, means: np.ndarray, *, seed: int, position: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """A block's noise, and what is added to its input where that is another (None where it is the same).

    `noise`: float32 (samples, channels, height, width), standard normal; `means`: (samples, channels), of the scaled latents.
    """
    if options.noise_offset:
        strength = _strength(options.noise_offset, options.noise_offset_random, "noise offset strength", seed, position)
        if options.adaptive_noise_scale is not None:
            strength = np.maximum(strength + options.adaptive_noise_scale * np.abs(means), 0.0)[..., None, None]
        drawn = randomness.normal(seed, "noise offset", position, (*noise.shape[:2], 1, 1))
        noise = noise + np.asarray(strength, np.float32) * drawn
    if options.multires_noise:
        noise = _of_resolutions(options.multires_noise, noise, seed, position)
    if not options.ip_noise_gamma:
        return noise, None
    gamma = _strength(options.ip_noise_gamma, options.ip_noise_gamma_random, "input perturbation strength", seed, position)
    return noise, noise + np.float32(gamma) * randomness.normal(seed, "input perturbation", position, noise.shape)


def changes(options: Objective) -> bool:
    """Whether an objective asks for anything but the noise as it is drawn."""
    return bool(options.noise_offset or options.multires_noise or options.ip_noise_gamma)


def _strength(most: float, random: bool | None, purpose: str, seed: int, position: int) -> float:
    return most * float(randomness.uniform(seed, purpose, position)[0]) if random else most


def _of_resolutions(options: MultiresNoise, noise: np.ndarray, seed: int, position: int) -> np.ndarray:
    height, width = noise.shape[2:]
    factors = randomness.uniform(seed, "multires noise factor", position, options.iterations) * 2.0 + 2.0
    for number, factor in enumerate(factors.tolist()):
        size = tuple(max(1, int(side / _times(factor, number))) for side in (height, width))
        coarse = randomness.normal(seed, f"multires noise {number}", position, (*noise.shape[:2], *size))
        noise = noise + enlarged(coarse, (height, width)) * np.float32(_times(options.discount, number))
        if 1 in size:
            break
    return noise / np.float32(noise.astype(np.float64).std(ddof=1))


def _times(factor: float, count: int) -> float:
    """`factor` multiplied by itself: libm's power has another last bit elsewhere."""
    result = 1.0
    for _ in range(count):
        result *= factor
    return result


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, half-pixel centres, edges repeated: torch's `Upsample(mode="bilinear")` on the last two axes, float32."""
    for axis, length in ((2, size[0]), (3, size[1])):
        have = values.shape[axis]
        at = np.maximum((np.arange(length) + 0.5) * (have / length) - 0.5, 0.0)
        low = at.astype(np.int64)
        share = (at - low).astype(np.float32).reshape([-1 if number == axis else 1 for number in range(4)])
        high = np.minimum(low + 1, have - 1)
        values = values.take(low, axis) * (np.float32(1) - share) + values.take(high, axis) * share
    return values
