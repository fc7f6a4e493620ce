"""An autoencoder in a file of its own, under the names of the public `sdxl_vae.safetensors`: sgm names without prefix."""

from pathlib import Path
from typing import Any

from astolfo.checkpoint import layout
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.errors import CheckpointError


def save_autoencoder(path: Path | str, autoencoder: Any, architecture: Architecture) -> str:
    """Writes the autoencoder's weights in float32 and returns the file's sha256."""
    state, prefix = autoencoder.state_dict(), layout.PREFIXES[architecture.family]["vae"]
    tensors = {
        place.key.removeprefix(prefix): layout.to_file(place, [state[name] for name in place.names], "reference").contiguous()
        for place in layout.places(architecture, "vae")
    }
    return write_file(path, tensors)


def load_autoencoder(path: Path | str, architecture: Architecture) -> Any:
    """The AutoencoderKL of such a file, or of a whole model, in float32 and eval mode; CheckpointError when it does not fit."""
    import torch

    prefix = layout.PREFIXES[architecture.family]["vae"]
    with open_file(path) as file:
        inside = prefix if any(key.startswith(prefix) for key in file.keys()) else ""
        state: dict[str, torch.Tensor] = {}
        for place in layout.places(architecture, "vae"):
            key = inside + place.key.removeprefix(prefix)
            if key not in file or file.shape(key) not in (place.shape, place.shape[:2]):
                found = file.shape(key) if key in file else "nothing"
                raise CheckpointError(f"{path}: expected {key} with shape {place.shape} in an autoencoder, found {found}.")
            pieces = layout.to_module(place, file.tensor(key), "reference")
            state |= {name: piece.float().clone() for name, piece in zip(place.names, pieces, strict=True)}
    module = architecture.build("vae")
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)
