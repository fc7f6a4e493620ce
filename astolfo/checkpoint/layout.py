"""Where each weight of a module lies in the single file that ComfyUI, A1111 and sd-scripts load (the sgm layout).

The map is derived from the architecture's configs: the pairs of module paths follow from block counts and layers, the names
from the module itself. It is a bijection per part. Four forms occur: most tensors are the `same`; the query, key and value
projections of an OpenCLIP text encoder are `stacked` into one; its text projection is `transposed`; the 1x1 convolutions of
the VAE's attention are linear layers (`pointwise`) in diffusers.

Keys that no module holds are optional: readers accept files with or without them, and `save` copies them from the file it is
told to copy from, or leaves them out. They are CLIP-L's position_ids, OpenCLIP's logit_scale, and for SD 2.1 the last,
unused layer of the text encoder and its text_projection.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from astolfo.checkpoint.architecture import Architecture
from astolfo.errors import CheckpointError

PREFIXES = {
    "sdxl": {
        "unet": "model.diffusion_model.",
        "text_encoder": "conditioner.embedders.0.transformer.",
        "text_encoder_2": "conditioner.embedders.1.model.",
        "vae": "first_stage_model.",
    },
    "sd2": {"unet": "model.diffusion_model.", "text_encoder": "cond_stage_model.model.", "vae": "first_stage_model."},
}
"""How the file's keys of each part begin."""

_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
           "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
_UNET = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
         "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
         "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
         "mid_block.attentions.0": "middle_block.1"}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPENCLIP = {"embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final",
             "embeddings.position_embedding.weight": "positional_embedding",
             "text_projection.weight": "text_projection"}  # fmt: skip
_OPENCLIP_LAYER = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
                   "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
_SCHEDULE = re.compile(
    r"(denoiser\.)?(betas|(log_)?sigmas|logvar|lvlb_weights|scale_factor|posterior_\w+|\w*alphas_cumprod\w*|edm_\w+)(\..*)?"
)
_QKV = re.compile(r"(encoder\.layers\.\d+)\.self_attn\.([qkv])_proj\.(weight|bias)")


@dataclass(frozen=True)
class Place:
    """One key of the file: the module's weights that it holds (three when stacked), in which form, and its shape there."""

    key: str
    names: tuple[str, ...]
    form: str  # same | stacked | transposed | pointwise
    shape: tuple[int, ...]


def places(architecture: Architecture, part: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> list[Place]:
    """All keys of one part, in the order of the module's weights.

    `shapes` are the module's names and shapes (default: built from the config). Raises CheckpointError for a weight that
    has no place in the layout.
    """
    shapes = architecture.shapes(part) if shapes is None else shapes
    grouped: dict[str, list[str]] = {}
    for name in shapes:
        grouped.setdefault(file_key(architecture, part, name), []).append(name)
    return [_place(part, key, names, shapes) for key, names in grouped.items()]


def file_key(architecture: Architecture, part: str, name: str) -> str:
    """The file's key of the module weight `name` ("down_blocks.1..." -> "model.diffusion_model.input_blocks.4...")."""
    prefix = PREFIXES[architecture.family][part]
    bare = name.removeprefix("text_model.") if part.startswith("text_encoder") else name
    if _is_openclip(architecture, part) and (fused := _QKV.fullmatch(bare)):
        return f"{prefix}{_resblock(fused[1])}.attn.in_proj_{fused[3]}"
    paths = _paths(architecture, part)
    for cut in _cuts(bare):
        if bare[:cut] in paths:
            return prefix + paths[bare[:cut]] + bare[cut:]
    raise CheckpointError(
        f"{part}.{name} has no place in the single-file layout of {architecture.family}; is the config of that family?"
    )


def is_optional(architecture: Architecture, part: str, key: str) -> bool:
    """Whether `key` belongs to the part but to no module: files may have it or not."""
    prefix = PREFIXES[architecture.family][part]
    if not key.startswith(prefix):
        return False
    rest = key.removeprefix(prefix)
    if architecture.family == "sd2" and part == "text_encoder":
        layers = architecture.config(part)["num_hidden_layers"]
        return rest in ("logit_scale", "text_projection") or rest.startswith(f"transformer.resblocks.{layers}.")
    return (part, rest) in {("text_encoder", "text_model.embeddings.position_ids"), ("text_encoder_2", "logit_scale")}


def to_file(place: Place, tensors: list[Any], pooled_projection: str = "reference") -> Any:
    """The tensor as the file has it, from the module's tensors in the order of `place.names`."""
    import torch

    if place.form == "stacked":
        return torch.cat(tensors)
    if place.form == "transposed" and pooled_projection == "reference":
        return tensors[0].T
    return tensors[0].reshape(place.shape) if place.form == "pointwise" else tensors[0]


def to_module(place: Place, tensor: Any, pooled_projection: str = "reference") -> list[Any]:
    """The module's tensors in the order of `place.names`, from the tensor as the file has it (views of it)."""
    if place.form == "stacked":
        return list(tensor.chunk(3))
    if place.form == "transposed" and pooled_projection == "reference":
        return [tensor.T]
    return [tensor.reshape(tensor.shape[:2]) if place.form == "pointwise" else tensor]


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes hold the same: equal, or a linear layer's (n, m) beside a 1x1 convolution's (n, m, 1, 1)."""
    short, long = sorted((one, other), key=len)
    return long == short or (len(short) == 2 and long == (*short, 1, 1))


def part_of(key: str) -> str | None:
    """The part a file's key belongs to, or None for markers, schedules and strangers. Looks at the key alone."""
    for family in PREFIXES.values():
        for part, prefix in family.items():
            if key.startswith(prefix):
                return part
    return None


def is_weight(key: str, kind: str) -> bool:
    """Whether a key of a model of that kind (`identify`) is a weight by its name, and no schedule or note beside them.

    In SDXL and SD 2 weights are what belongs to a part; of other kinds the names of schedules are known.
    """
    return part_of(key) is not None if kind in PREFIXES else not _SCHEDULE.fullmatch(key)


def block_of(key: str) -> str | None:
    """The block of a file's key, as merges and reports name it: "input_blocks.4", "middle_block", "layers.3", "encoder".

    UNet blocks are sgm's own; a text encoder has "layers.N" (both kinds) and "embeddings"; the VAE "encoder" and "decoder".
    """
    part = part_of(key)
    if part is None:
        return None
    rest = next(key.removeprefix(p) for f in PREFIXES.values() for p in f.values() if key.startswith(p))
    if part == "unet":
        return ".".join(rest.split(".")[: 2 if rest.startswith(("input_blocks.", "output_blocks.")) else 1])
    if part == "vae":
        return "encoder" if rest.startswith(("encoder.", "quant_conv.")) else "decoder"
    layer = re.search(r"\b(?:layers|resblocks)\.(\d+)\.", rest)
    return f"layers.{layer[1]}" if layer else "embeddings" if "embedding" in rest else "head"


def identify(keys: Iterable[str]) -> str:
    """What kind of model a set of keys is: "sdxl", "sd2", or what else it looks like. Looks at the names alone."""
    keys = set(keys)
    starts = [
        ("a LoRA or similar adapter", r"(lora_|lycoris_|.*\.(lora_(A|B|up|down)\b|hada_w|lokr_w))"),
        ("sdxl", r"conditioner\.embedders\.1\.model\."),
        ("sdxl-refiner", r"conditioner\.embedders\.0\.model\."),
        ("sd2", r"cond_stage_model\.model\."),
        ("sd1", r"cond_stage_model\.transformer\."),
        ("flux", r"(model\.diffusion_model\.)?double_blocks\."),
        ("sd3", r"(model\.diffusion_model\.)?joint_blocks\."),
        ("a part of a model in the single-file layout", r"(model\.diffusion_model|first_stage_model|conditioner)\."),
        ("a diffusers UNet", r"down_blocks\.\d+\.(resnets|attentions)\."),
    ]
    for name, pattern in starts:
        if any(re.match(pattern, key) for key in keys):
            return name
    return "unknown"


def _is_openclip(architecture: Architecture, part: str) -> bool:
    return part == "text_encoder_2" or (architecture.family == "sd2" and part == "text_encoder")


def _place(part: str, key: str, names: list[str], shapes: Mapping[str, tuple[int, ...]]) -> Place:
    shape = tuple(shapes[names[0]])
    if len(names) == 3:
        names = sorted(names, key=lambda name: "qkv".index(_QKV.search(name)[2]))  # type: ignore[index]
        return Place(key, tuple(names), "stacked", (3 * shape[0], *shape[1:]))
    if key.endswith(".text_projection"):
        return Place(key, tuple(names), "transposed", shape[::-1])
    if part == "vae" and re.search(r"\.attn_1\.(q|k|v|proj_out)\.weight$", key):
        return Place(key, tuple(names), "pointwise", (*shape, 1, 1))
    return Place(key, tuple(names), "same", shape)


def _cuts(name: str) -> Iterator[int]:
    """Where a module path within `name` can end, longest first."""
    yield len(name)
    yield from (match.start() for match in reversed(list(re.finditer(r"\.", name))))


def _paths(architecture: Architecture, part: str) -> Mapping[str, str]:
    """Module paths of the file by module paths of diffusers or transformers."""
    config = architecture.config(part)
    if part == "unet":
        return _unet_paths(tuple(config["down_block_types"]), tuple(config["up_block_types"]), _layers(config))
    if part == "vae":
        return _vae_paths(len(config["block_out_channels"]), config["layers_per_block"])
    if _is_openclip(architecture, part):
        return _openclip_paths(config["num_hidden_layers"])
    return {path: f"text_model.{path}" for path in ("embeddings", "encoder", "final_layer_norm")}


def _layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    layers, blocks = config.get("layers_per_block", 2), len(config["down_block_types"])
    return (layers,) * blocks if isinstance(layers, int) else tuple(layers)


@functools.lru_cache(maxsize=16)
def _unet_paths(down: tuple[str, ...], up: tuple[str, ...], layers: tuple[int, ...]) -> Mapping[str, str]:
    paths = dict(_UNET) | _resnet("mid_block.resnets.0", "middle_block.0") | _resnet("mid_block.resnets.1", "middle_block.2")
    position = 1  # input_blocks.0 is conv_in
    for block in range(len(down)):
        for layer in range(layers[block]):
            paths |= _resnet(f"down_blocks.{block}.resnets.{layer}", f"input_blocks.{position}.0")
            paths[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{position}.1"
            position += 1
        paths[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{position}.0.op"
        position += 1
    position = 0
    for block, kind in enumerate(up):
        for layer in range(layers[len(up) - 1 - block] + 1):
            paths |= _resnet(f"up_blocks.{block}.resnets.{layer}", f"output_blocks.{position}.0")
            paths[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{position}.1"
            position += 1
        paths[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{position - 1}.{2 if 'Attn' in kind else 1}.conv"
    return paths


def _resnet(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{ours_leaf}": f"{theirs}.{leaf}" for ours_leaf, leaf in _RESNET.items()}


@functools.lru_cache(maxsize=16)
def _vae_paths(levels: int, layers: int) -> Mapping[str, str]:
    paths = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        paths |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        paths[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        paths |= {f"{side}.mid_block.attentions.0.{a}": f"{side}.mid.attn_1.{b}" for a, b in _VAE_ATTENTION.items()}
        for index in (0, 1):
            paths |= _vae_resnet(f"{side}.mid_block.resnets.{index}", f"{side}.mid.block_{index + 1}")
    for level in range(levels):
        for layer in range(layers):
            paths |= _vae_resnet(f"encoder.down_blocks.{level}.resnets.{layer}", f"encoder.down.{level}.block.{layer}")
        for layer in range(layers + 1):
            paths |= _vae_resnet(f"decoder.up_blocks.{level}.resnets.{layer}", f"decoder.up.{levels - 1 - level}.block.{layer}")
        paths[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        paths[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"decoder.up.{levels - 1 - level}.upsample.conv"
    return paths


def _vae_resnet(ours: str, theirs: str) -> dict[str, str]:
    return {ours: theirs, f"{ours}.conv_shortcut": f"{theirs}.nin_shortcut"}


@functools.lru_cache(maxsize=16)
def _openclip_paths(layers: int) -> Mapping[str, str]:
    paths = dict(_OPENCLIP)
    for layer in range(layers):
        ours = f"encoder.layers.{layer}"
        paths |= {f"{ours}.{name}": f"{_resblock(ours)}.{leaf}" for name, leaf in _OPENCLIP_LAYER.items()}
    return paths


def _resblock(layer: str) -> str:
    return layer.replace("encoder.layers.", "transformer.resblocks.")
