"""Sampling as a function: the picture of (model, prompt, seed, number, settings), always the same bytes.

    pictures, finite = sample(parts, text, ["1star, red star"], Settings(runtime="eps"), seed=1)

Schedulers are diffusers': DDIM or Euler for eps and v as SDXL publishes them, with zero terminal SNR and trailing spacing
where the model was trained so (Lin et al., arXiv 2305.08891), and flow-match Euler for rf. First noise comes from
`astolfo.randomness`, keyed by the seed and the picture's number.

Kernels may sum in another order when the batch has another size or a row another place in it, so the batch shape is fixed:
small pictures are made eight at a time, large ones alone, and picture number n has always the same place. An incomplete
batch is filled up. What else is sampled beside a picture changes nothing. Threads and deterministic algorithms are the
caller's to pin (`astolfo.numerics`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from astolfo import randomness
from astolfo.data.pixels import to_pictures
from astolfo.errors import InputError
from astolfo.train.conditioning import Text
from astolfo.train.objective import TIMESTEPS

RUNTIMES = ("eps", "v", "rf")
TOGETHER, SMALL = 8, 128 * 128  # pictures of at most so many pixels are made so many at a time
_SCHEDULE = {"num_train_timesteps": TIMESTEPS, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What besides model, prompt and seed decides a picture.

    `runtime`: the objective that the model is assumed to have; `sampler`: rf has Euler alone; `uncond`: what the
    unconditional row is told, all zeros (A1111, reForge) or the encoding of "" (ComfyUI); `height`, `width`: pixels;
    `shift`: rf's, as in SD3.
    Raises InputError for an unknown runtime, sampler or uncond, and for zero terminal SNR in another runtime than v.
    """

    runtime: Literal["eps", "v", "rf"]
    sampler: Literal["DDIM", "Euler"] = "DDIM"
    zero_terminal_snr: bool = False
    uncond: Literal["null", "zero"] = "null"
    steps: int = 20
    cfg: float = 4.0
    height: int = 64
    width: int = 64
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise InputError(f"Expected one of {', '.join(RUNTIMES)} as runtime, found {self.runtime!r}.")
        if self.sampler not in ("DDIM", "Euler"):
            raise InputError(f"Expected DDIM or Euler as sampler, found {self.sampler!r}.")
        if self.uncond not in ("null", "zero"):
            raise InputError(f"Expected null or zero as uncond, found {self.uncond!r}.")
        if self.zero_terminal_snr and self.runtime != "v":
            raise InputError(f"Zero terminal SNR belongs to the v runtime, not to {self.runtime}: leave it out.")

    @property
    def batch(self) -> int:
        """How many pictures are made at a time."""
        return TOGETHER if self.height * self.width <= SMALL else 1


def sampler_of(runtime: str, wanted: Literal["DDIM", "Euler"]) -> Literal["DDIM", "Euler"]:
    """The sampler that a runtime has when `wanted` is asked for: rectified flow has Euler alone."""
    return "Euler" if runtime == "rf" else wanted


@torch.no_grad()
def sample(
    parts: Mapping[str, nn.Module], text: Text, prompts: Sequence[str], settings: Settings, *, seed: int, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """One picture per prompt: uint8 (prompts, height, width, 3); and which had finite numbers only: bool (prompts,).

    `parts` holds "unet" and "vae" on one device; `text` encodes with the model's text encoders. The noise of prompt i is
    that of number `first + i`. A picture that is not finite is black. Raises InputError when the size does not divide.
    """
    pictures = np.zeros((len(prompts), settings.height, settings.width, 3), np.uint8)
    finite = np.zeros(len(prompts), bool)
    texts = dict(enumerate(prompts, first))
    for start in range(first - first % settings.batch, first + len(prompts), settings.batch):
        numbers = range(start, start + settings.batch)
        noise = _noise(parts, settings, seed, numbers)
        conditioning = _conditioning(text, [texts.get(number, "") for number in numbers], settings, parts["unet"])
        decoded = _decode(parts["vae"], _denoise(parts["unet"], conditioning, noise, settings))
        for number, one in zip(numbers, decoded.split(1), strict=True):
            if number in texts and torch.isfinite(one).all():
                pictures[number - first], finite[number - first] = to_pictures(one)[0].cpu().numpy(), True
    return pictures, finite


def scheduler_of(settings: Settings) -> Any:
    """A fresh scheduler of diffusers with its timesteps set.

    DDIM and Euler with SDXL's published values (leading spacing, offset 1) or, under zero terminal SNR, rescaled betas and
    trailing spacing, which alone visits the last timestep. Flow matching goes from sigma 1 to 0 in equal steps before the shift.
    """
    from diffusers import schedulers

    if settings.runtime == "rf":
        flow: Any = schedulers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=settings.shift)
        flow.set_timesteps(sigmas=np.linspace(1.0, 1.0 / settings.steps, settings.steps))
        return flow
    zero = settings.zero_terminal_snr
    common = _SCHEDULE | {
        "steps_offset": 1, "rescale_betas_zero_snr": zero, "timestep_spacing": "trailing" if zero else "leading",
        "prediction_type": {"eps": "epsilon", "v": "v_prediction"}[settings.runtime],
    }  # fmt: skip
    scheduler: Any
    if settings.sampler == "Euler":
        scheduler = schedulers.EulerDiscreteScheduler(**common)
    else:
        scheduler = schedulers.DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(settings.steps)
    return scheduler


def _noise(parts: Mapping[str, nn.Module], settings: Settings, seed: int, numbers: Sequence[int]) -> Tensor:
    """The first latents of these pictures: float32 (pictures, channels, height / factor, width / factor)."""
    unet: Any = parts["unet"]
    vae: Any = parts["vae"]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if settings.height % factor or settings.width % factor:  # the UNet takes any latents, as it does in training
        raise InputError(
            f"Expected a height and width in multiples of {factor} pixels, found {settings.height} and {settings.width}."
        )
    shape = (unet.config.in_channels, settings.height // factor, settings.width // factor)
    noise = np.stack([randomness.normal(seed, "evaluation noise", number, shape) for number in numbers])
    return torch.from_numpy(noise).to(unet.device)


def _conditioning(text: Text, prompts: Sequence[str], settings: Settings, unet: Any) -> tuple[Tensor, dict[str, Any]]:
    """Context (2 * prompts, positions, channels) and the UNet's further arguments, the unconditional rows first."""
    context, pooled = text(["", *prompts], unet.device)
    context = _rows(context, settings).to(unet.dtype)
    if pooled is None:
        return context, {}
    size = [settings.height, settings.width]
    time_ids = torch.tensor([[*size, 0, 0, *size]] * len(context), dtype=unet.dtype, device=unet.device)
    return context, {"added_cond_kwargs": {"text_embeds": _rows(pooled, settings).to(unet.dtype), "time_ids": time_ids}}


def _rows(encoded: Tensor, settings: Settings) -> Tensor:
    """The encoding of "" or zeros, once per prompt, before the encodings of the prompts; `encoded` has "" first."""
    uncond = encoded[:1] if settings.uncond == "null" else torch.zeros_like(encoded[:1])
    return torch.cat([uncond.expand(len(encoded) - 1, *encoded.shape[1:]), encoded[1:]])


def _denoise(unet: Any, conditioning: tuple[Tensor, dict[str, Any]], noise: Tensor, settings: Settings) -> Tensor:
    """Guided latents (Ho and Salimans, arXiv 2207.12598): uncond + cfg (cond - uncond), float32 between the steps."""
    scheduler, (context, further) = scheduler_of(settings), conditioning
    latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scaled = getattr(scheduler, "scale_model_input", lambda latents, timestep: latents)  # flow matching scales nothing
    for timestep in scheduler.timesteps:  # on the host: schedulers look it up, which on a device would be waited for
        x = scaled(latents, timestep).to(unet.dtype)
        at = timestep.to(unet.device, non_blocking=True)
        uncond, cond = unet(torch.cat([x, x]), at, context, **further).sample.float().chunk(2)
        latents = scheduler.step(uncond + settings.cfg * (cond - uncond), timestep, latents).prev_sample
    return latents


def _decode(autoencoder: Any, latents: Tensor) -> Tensor:
    """Latents, scaled -> float32 (pictures, 3, height, width) in [-1, 1] or a little beyond."""
    return autoencoder.decode((latents / autoencoder.config.scaling_factor).to(autoencoder.dtype)).sample.float()
