"""diffusers folders: one sub-folder per part, its config.json, and its weights as safetensors (one file or shards).

The names in them are the modules' own, but for two older spellings that are read too: the `text_model.` that transformers
before 5.6 put before the first text encoder's names, and the VAE attention of early diffusers (query, key, value, proj_attn).
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.errors import CheckpointError
from astolfo.files import write_json

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def weights_name(part: str) -> str:
    """File name of one part's weights within its sub-folder."""
    return "model.safetensors" if part.startswith("text_encoder") else "diffusion_pytorch_model.safetensors"


def read_part(folder: Path, architecture: Architecture, part: str) -> dict[str, Any]:
    """One part's weights under its module's names, as views of the mapped files.

    Raises CheckpointError for missing files or weights, strangers, and wrong shapes.
    """
    shapes = architecture.shapes(part)
    found: dict[str, Any] = {}
    for path in _weight_files(folder, part):
        with open_file(path) as file:
            found |= {_modern(part, key, shapes): file.tensor(key) for key in file if not key.endswith("position_ids")}
    found = {name: _linear(tensor, shapes.get(name, ())) for name, tensor in found.items()}
    _check(folder / part, found, shapes)
    return {name: found[name] for name in shapes}


def write_folder(folder: Path | str, states: Mapping[str, Mapping[str, Any]], architecture: Architecture) -> dict[str, str]:
    """Writes state dicts as a diffusers folder (weights and configs of the given parts); returns each weight file's sha256."""
    digests = {}
    for part, state in states.items():
        place = Path(folder) / part
        name = type(architecture.build(part)).__name__
        about: dict[str, Any] = {"architectures": [name]} if part.startswith("text_encoder") else {"_class_name": name}
        if part.startswith("text_encoder"):
            about["model_type"] = "clip_text_model"
        write_json(place / "config.json", architecture.config(part) | about)
        digests[part] = write_file(place / weights_name(part), state, {"format": "pt"})
    return digests


def _weight_files(folder: Path, part: str) -> list[Path]:
    name = weights_name(part)
    index = folder / part / f"{name}.index.json"
    whole = [folder / part / name, folder / part / name.replace(".safetensors", ".fp16.safetensors")]
    for path in whole:
        if path.exists():
            return [path]
    if not index.exists():
        raise CheckpointError(f"{folder} is no diffusers folder with safetensors weights: expected {whole[0]}, found none.")
    try:
        shards = {str(shard) for shard in json.loads(index.read_text())["weight_map"].values()}
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards: {error!r}. Get the folder again.") from None
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise CheckpointError(f"{index} names a shard outside its folder: {outside[0]!r}. Refused.")
    return [folder / part / shard for shard in sorted(shards)]


def _modern(part: str, key: str, shapes: Mapping[str, Any]) -> str:
    if key not in shapes and key.startswith("text_model."):
        return key.removeprefix("text_model.")
    if key not in shapes and f"text_model.{key}" in shapes:
        return f"text_model.{key}"
    if part == "vae" and (old := re.search(r"\.attentions\.0\.(query|key|value|proj_attn)\.", key)):
        return key.replace(f".{old[1]}.", f".{_OLD_ATTENTION[old[1]]}.")
    return key


def _linear(tensor: Any, shape: tuple[int, ...]) -> Any:
    return tensor.reshape(shape) if tensor.ndim > len(shape) == 2 and tuple(tensor.shape[:2]) == shape else tensor


def _check(place: Path, found: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    problems = [f"no {name}" for name in shapes if name not in found]
    problems += [f"a strange {name}" for name in found if name not in shapes]
    problems += [
        f"{name} of shape {tuple(found[name].shape)} instead of {shapes[name]}"
        for name in shapes
        if name in found and tuple(found[name].shape) != shapes[name]
    ]
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(
            f"{place} does not fit its config: found {', '.join(problems[:10])}{more}. Is it of this architecture?"
        )
