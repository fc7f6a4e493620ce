"""The model under evaluation: its modules with the weights of any alpha, and its way from prompts to conditioning."""

from pathlib import Path

import torch
from torch import nn

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.model import load, load_state_dicts
from astolfo.evaluate.merged import weighted
from astolfo.train.conditioning import Text

TOKENS = 75  # one chunk of 77 positions, which is what inference programs read of a prompt this short


class Candidate:
    """`trained` alone, or with a `base` to merge it with; read as inference programs read it.

    fp32 on the CPU; bf16 on another device, where the autoencoder stays fp32. Raises CheckpointError for a model that
    does not fit the architecture.
    """

    def __init__(self, architecture: Architecture, base: Path | None, trained: Path, vocabulary: Path, device: str = "cpu"):
        compute = "fp32" if device == "cpu" else "bf16"
        modules = load(trained, architecture, dtype={part: "fp32" if part == "vae" else compute for part in architecture.parts})
        self.parts = {part: module.to(device).requires_grad_(False) for part, module in modules.items()}
        self.text = Text.of(self.parts, vocabulary, tokens=TOKENS, context="inference")
        self._states = None if base is None else (load_state_dicts(base, architecture), load_state_dicts(trained, architecture))
        self._alpha = 1.0

    def at(self, alpha: float) -> dict[str, nn.Module]:
        """The modules with the weights of `alpha`; those that an earlier call returned change with them."""
        if alpha != self._alpha:
            assert self._states is not None, "without a base there is alpha 1.0 only"
            for part, state in weighted(*self._states, alpha).items():
                self.parts[part].load_state_dict(state)
            self._alpha = alpha
        return self.parts

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        return self.parts["unet"].device
