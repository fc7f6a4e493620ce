"""Which model a checkpoint is of: its family, and the configs of its parts.

The configs are exactly diffusers' and transformers' own (`astolfo/library/scales/*.yaml`, section `architectures`), so the
modules, the names of their weights and the key map of the single file all follow from the same few numbers, at any scale.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from astolfo.errors import LedgerError
from astolfo.files import canonical_json, json_digest

PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")
_PARTS_OF = {"sdxl": PARTS, "sd2": ("unet", "text_encoder", "vae")}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model family ("sdxl" or "sd2") with the config of each part; `text_encoder_2` is None for sd2."""

    family: str
    unet: Mapping[str, Any]
    text_encoder: Mapping[str, Any]
    text_encoder_2: Mapping[str, Any] | None = None
    vae: Mapping[str, Any]

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], family: str | None = None) -> "Architecture":
        """From `{"family": ..., "unet": {...}, ...}`, or from one entry of a scale's `architectures` and its name.

        Raises LedgerError for an unknown family and for missing or superfluous parts.
        """
        found = {key: value for key, value in mapping.items() if key != "family" and value is not None}
        family = family or mapping.get("family")
        if family not in _PARTS_OF:
            raise LedgerError(f"Expected one of {', '.join(_PARTS_OF)} as architecture family, found {family!r}.")
        if set(found) != set(_PARTS_OF[family]):
            raise LedgerError(f"Expected the parts {', '.join(_PARTS_OF[family])} of {family}, found {', '.join(sorted(found))}.")
        return cls(family=family, **{part: dict(config) for part, config in found.items()})

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of this family's parts, in their fixed order."""
        return _PARTS_OF[self.family]

    @property
    def digest(self) -> str:
        """sha256 (hex) of the family and all configs."""
        return json_digest({"family": self.family, **{part: self.config(part) for part in self.parts}})

    def config(self, part: str) -> dict[str, Any]:
        """The config of one part as its class takes it. Raises LedgerError when this family has no such part."""
        if part not in self.parts:
            raise LedgerError(f"{self.family} has the parts {', '.join(self.parts)}, not {part!r}.")
        return dict(getattr(self, part))

    def build(self, part: str, device: str = "meta") -> Any:
        """The module of one part; on "meta" (default) it has shapes only, elsewhere its library's own initial values.

        Raises LedgerError for a config key that the class does not know.
        """
        import torch

        with torch.device(device):
            return _module(self.family, part, self.config(part))

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Names and shapes of one part's weights, as the module of that part has them."""
        return dict(_shapes(self.family, part, canonical_json(self.config(part))))


def _module(family: str, part: str, config: dict[str, Any]) -> Any:
    try:
        if part == "unet":
            from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

            return UNet2DConditionModel(**config)
        if part == "vae":
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

            return AutoencoderKL(**config)
        return _text_encoder(part, config)
    except TypeError as error:
        raise LedgerError(f"The config of {family}.{part} does not fit its class: {error}") from error


def _text_encoder(part: str, config: dict[str, Any]) -> Any:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    unknown = [key for key in config if not hasattr(CLIPTextConfig, key)]
    if unknown:
        raise TypeError(f"unknown keys {', '.join(unknown)}")
    return (CLIPTextModelWithProjection if part == "text_encoder_2" else CLIPTextModel)(CLIPTextConfig(**config))


@functools.lru_cache(maxsize=32)
def _shapes(family: str, part: str, config: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    import json

    import torch

    with torch.device("meta"):
        module = _module(family, part, json.loads(config))
    return tuple((name, tuple(value.shape)) for name, value in module.state_dict().items())
