"""The model under evaluation: its modules with the weights of any alpha, and its way from prompts to conditioning."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.model import load, load_state_dicts
from astolfo.errors import InputError
from astolfo.evaluate.merged import States, weighted
from astolfo.ledger.evaluations import RESULT
from astolfo.train.conditioning import Text

TOKENS = 75  # one chunk of 77 positions, which is what inference programs read of a prompt this short


class Candidate:
    """`trained` alone, or with a `base` to merge it with, or in its earlier `checkpoints`; read as inference programs read it.

    fp32 on the CPU; bf16 on another device, where the autoencoder stays fp32. No other copy of the weights is held: merges are
    made tensor by tensor from the files' pages. Raises CheckpointError for a model that
    does not fit the architecture.
    """

    def __init__(
        self, architecture: Architecture, base: Path | None, trained: Path, vocabulary: Path, device: str = "cpu",
        checkpoints: Mapping[str, Path] | None = None,
    ):  # fmt: skip
        compute = "fp32" if device == "cpu" else "bf16"
        modules = load(trained, architecture, dtype={part: "fp32" if part == "vae" else compute for part in architecture.parts})
        self.parts = {part: module.to(device).requires_grad_(False) for part, module in modules.items()}
        self.text = Text.of(self.parts, vocabulary, tokens=TOKENS, context="inference")
        self._architecture, self._files = architecture, {RESULT: trained, **(checkpoints or {})}
        self._base = None if base is None else load_state_dicts(base, architecture, copy=False)
        self._read: tuple[str, States] = ("", {})  # the checkpoint that was read last: one beside the base is held at a time
        self._at = (RESULT, 1.0)

    def at(self, alpha: float, checkpoint: str = RESULT) -> dict[str, nn.Module]:
        """The modules with the weights of `checkpoint` at `alpha`; those that an earlier call returned change with them.

        Raises InputError for a checkpoint that was not given.
        """
        if (checkpoint, alpha) != self._at:
            trained = self._states(checkpoint)
            assert self._base is not None or alpha == 1.0, "without a base there is alpha 1.0 only"
            own = {part: module.state_dict() for part, module in self.parts.items()}
            for part, name, value in weighted(trained if self._base is None else self._base, trained, alpha):
                own[part][name].copy_(value)
            self._at = (checkpoint, alpha)
        return self.parts

    def _states(self, checkpoint: str) -> States:
        if checkpoint not in self._files:
            raise InputError(f"Unknown checkpoint {checkpoint!r}: this evaluation was given {', '.join(self._files)}.")
        if self._read[0] != checkpoint:
            self._read = (checkpoint, load_state_dicts(self._files[checkpoint], self._architecture, copy=False))
        return self._read[1]

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        return self.parts["unet"].device
