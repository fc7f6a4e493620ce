"""An autoencoder in a file of its own, under the names of the public `sdxl_vae.safetensors`: sgm names without prefix."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astolfo.checkpoint import layout
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.safefile import SafeFile, is_float, open_file, write_file
from astolfo.errors import CheckpointError


def save_autoencoder(path: Path | str, autoencoder: Any, architecture: Architecture) -> str:
    """Writes the autoencoder's weights in float16, as the models of the miniature keep theirs; returns the file's sha256."""
    state, prefix = autoencoder.state_dict(), layout.PREFIXES[architecture.family]["vae"]
    tensors = {}
    for place in layout.places(architecture, "vae"):
        pieces = [state[name].half() for name in place.names]
        tensors[place.key.removeprefix(prefix)] = layout.to_file(place, pieces, "reference").contiguous()
    return write_file(path, tensors)


def load_autoencoder(path: Path | str, architecture: Architecture) -> Any:
    """The AutoencoderKL of such a file, or of a whole model, in float32 and eval mode; CheckpointError when it does not fit."""
    import torch

    with open_file(path) as file:
        state: dict[str, torch.Tensor] = {}
        for key, place in _keys(file, architecture):
            pieces = layout.to_module(place, file.tensor(key), "reference")
            state |= {name: piece.float().clone() for name, piece in zip(place.names, pieces, strict=True)}
    module = architecture.build("vae")
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def check(path: Path | str, architecture: Architecture) -> None:
    """Raises CheckpointError unless `path` holds a whole autoencoder of `architecture`: the right keys in the right shapes."""
    with open_file(path) as file:
        for _ in _keys(file, architecture):
            pass


def _keys(file: SafeFile, architecture: Architecture) -> Iterator[tuple[str, layout.Place]]:
    """The keys of an autoencoder, by itself or in a whole model, each with its place."""
    prefix = layout.PREFIXES[architecture.family]["vae"]
    inside = prefix if any(key.startswith(prefix) for key in file.keys()) else ""
    for place in layout.places(architecture, "vae"):
        key = inside + place.key.removeprefix(prefix)
        if key not in file or not layout.same_shape(file.shape(key), place.shape):
            found = file.shape(key) if key in file else "nothing"
            raise CheckpointError(f"{file.path}: expected {key} with shape {place.shape} in an autoencoder, found {found}.")
        if not is_float(file.dtype(key)):
            raise CheckpointError(
                f"{file.path}: expected floats as {key}, found {file.dtype(key)}. Get the file as fp16 or fp32."
            )
        yield key, place
