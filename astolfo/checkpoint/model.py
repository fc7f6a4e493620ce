"""Loading and saving whole models: single files in the sgm layout, and diffusers folders.

    modules = load("base.safetensors", architecture)                    # {"unet": UNet2DConditionModel, ...}
    save("run.safetensors", {"unet": unet}, architecture, dtypes="fp16", copy_from="base.safetensors")

What is loaded is complete and of the right shapes, or nothing is. What is saved is finite: a NaN or an infinity stops it,
and what the dtype cannot hold is clamped to its largest number and reported. Saving what was loaded gives the same bytes.

The second text encoder's projection lies transposed in the file. `reference` turns it round, as inference programs do;
`kohya` takes it as it lies, as sd-scripts does (both when loading and when saving).
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from astolfo.checkpoint import folder, layout
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.extras import POSITIONS, Extras, extras, few
from astolfo.checkpoint.metadata import HASH_KEY, MARKERS
from astolfo.checkpoint.safefile import Pending, SafeFile, bytes_of, is_float, open_file, torch_dtype, write_file
from astolfo.errors import CheckpointError, NumericsError

log = logging.getLogger(__name__)
DTYPES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
POOLED = ("reference", "kohya")


@dataclass(frozen=True)
class Overflow:
    """What a dtype could not hold of one tensor: how many values were clamped, and the largest magnitude among them."""

    count: int
    largest: float


@dataclass(frozen=True)
class Saved:
    """A written checkpoint: its sha256, and by file key what its dtype could not hold."""

    path: Path
    digest: str
    overflows: dict[str, Overflow] = field(default_factory=dict)


def load(
    path: Path | str,
    architecture: Architecture,
    parts: Iterable[str] | None = None,
    dtype: Any = None,
    pooled_projection: str = "reference",
) -> dict[str, Any]:
    """The modules of a single file or a diffusers folder, on the CPU, in eval mode, with weights of their own.

    `parts` defaults to all of the architecture's. `dtype` is "fp16", "bf16", "fp32", a mapping from part to one of them, or
    None to keep the file's. Raises CheckpointError for a damaged file, a LoRA, another architecture, missing keys, wrong
    shapes.
    """
    import torch

    states = load_state_dicts(path, architecture, parts, dtype, pooled_projection)
    modules = {}
    for part, state in states.items():
        module = architecture.build(part)
        module.load_state_dict(state, assign=True)
        for name, buffer in list(module.named_buffers()):
            if buffer.is_meta:  # CLIP's position_ids are not part of its state
                owner, _, leaf = name.rpartition(".")
                assert leaf == "position_ids", name
                positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
                module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
        modules[part] = module.eval()
    return modules


def check(path: Path | str, architecture: Architecture) -> Extras:
    """Raises CheckpointError unless `path` is a whole model of `architecture`: the right keys in the right shapes, as floats.

    Returns what of the file is left out or written anew wherever it is used.
    """
    with open_file(path) as file:
        _check_family(file, architecture)
        more = extras(file)
        for part in architecture.parts:
            _checked_places(file, architecture, part, more)
        return more


def load_state_dicts(
    path: Path | str,
    architecture: Architecture,
    parts: Iterable[str] | None = None,
    dtype: Any = None,
    pooled_projection: str = "reference",
    copy: bool = True,
) -> dict[str, dict[str, Any]]:
    """As `load`, but state dicts under the modules' own names instead of modules.

    Without `copy` tensors that need no cast are views of the file's pages, which are read when they are used.
    """
    parts = _parts(architecture, parts)
    _check_pooled(pooled_projection)
    if os.path.isdir(path):
        states = {part: folder.read_part(Path(path), architecture, part) for part in parts}
        if "text_encoder_2" in states and pooled_projection == "kohya":
            projection = states["text_encoder_2"]["text_projection.weight"]
            states["text_encoder_2"]["text_projection.weight"] = projection.T.contiguous()
        return {part: _cast(state, _dtype_of(dtype, part), copy) for part, state in states.items()}
    with open_file(path) as file:
        _check_family(file, architecture)
        more = extras(file)
        checked = {part: _checked_places(file, architecture, part, more) for part in parts}
        return {
            part: _read(file, checked[part], _dtype_of(dtype, part), architecture.shapes(part), pooled_projection, copy)
            for part in parts
        }


def save(
    path: Path | str,
    models: Mapping[str, Any],
    architecture: Architecture,
    *,
    dtypes: str | Mapping[str, str] = "fp16",
    metadata: Mapping[str, str] | None = None,
    markers: Mapping[str, Any] | None = None,
    pooled_projection: str = "reference",
    copy_from: Path | str | None = None,
    positions: bool = True,
) -> Saved:
    """Writes a single file, whole or not at all, with its side-car.

    `models` maps parts to modules or state dicts; parts it lacks are copied byte for byte from `copy_from`, together with the
    optional keys of every part (CLIP's position ids only with `positions`). `dtypes` is "fp16", "bf16" or "fp32", for all parts
    or by part. `metadata` and `markers` come from `astolfo.checkpoint.metadata`. Raises CheckpointError when a part or weight is
    missing, NumericsError for a NaN or an infinity (the key is named), and leaves no file then.
    """
    _check_pooled(pooled_projection)
    absent = [part for part in architecture.parts if part not in models]
    if absent and copy_from is None:
        raise CheckpointError(
            f"Expected all parts of {architecture.family}, found no {', '.join(absent)}; give them or `copy_from`."
        )
    overflows: dict[str, Overflow] = {}
    tensors: dict[str, Any] = {}
    for part in _parts(architecture, models):
        tensors |= _pending(architecture, part, models[part], _dtype_of(dtypes, part) or "F16", pooled_projection, overflows)
    source = open_file(copy_from) if copy_from is not None else None
    if source is not None:
        _check_family(source, architecture)
        more = extras(source)
        for line in more.lines():
            log.info("%s: %s", source.path, line)
        if beside := [key for key in source if layout.part_of(key) is None and key not in (*more.dropped, *MARKERS)]:
            log.info("%s: not copied, as no weight: %s", source.path, few(beside))
        copied = _copied(source, architecture, absent, more)
        tensors |= {key: value for key, value in copied.items() if positions or key != POSITIONS}
    digest = write_file(
        path, tensors | dict(markers or {}), metadata, hash_key=HASH_KEY if HASH_KEY in (metadata or {}) else None
    )
    return Saved(Path(path), digest, overflows)


def _parts(architecture: Architecture, parts: Iterable[str] | None) -> list[str]:
    wanted = set(architecture.parts if parts is None else parts)
    if strange := wanted - set(architecture.parts):
        raise CheckpointError(
            f"{architecture.family} has the parts {', '.join(architecture.parts)}, not {', '.join(sorted(strange))}."
        )
    return [part for part in architecture.parts if part in wanted]


def _check_pooled(pooled_projection: str) -> None:
    if pooled_projection not in POOLED:
        raise CheckpointError(f"Expected one of {', '.join(POOLED)} as pooled_projection, found {pooled_projection!r}.")


def _dtype_of(dtype: Any, part: str) -> str | None:
    chosen = dtype.get(part) if isinstance(dtype, Mapping) else dtype
    if chosen is None:
        return None
    if chosen not in DTYPES:
        raise CheckpointError(f"Expected one of {', '.join(DTYPES)} as dtype of {part}, found {chosen!r}.")
    return DTYPES[chosen]


def _check_family(file: SafeFile, architecture: Architecture) -> None:
    kind = layout.identify(file.keys())
    if kind != architecture.family:
        raise CheckpointError(
            f"{file.path}: expected a whole {architecture.family} model in the single-file layout, found {kind} "
            f"({len(file.keys())} tensors, such as {', '.join(file.keys()[:2]) or 'none'}). Name the file that the recipe means."
        )


def _checked_places(file: SafeFile, architecture: Architecture, part: str, more: Extras) -> list[layout.Place]:
    """The part's places, after a check that the file has exactly those keys, in those shapes, but for what is left out."""
    places = layout.places(architecture, part)
    expected = {place.key: place for place in places}
    prefix = layout.PREFIXES[architecture.family][part]
    found = [key for key in file if key.startswith(prefix) and not layout.is_optional(architecture, part, key)]
    found = [key for key in found if key not in more.dropped]
    _refuse(file, part, "lacks", [key for key in expected if key not in file])
    _refuse(file, part, "has, beyond this architecture,", [key for key in found if key not in expected])
    wrong = [
        f"{key} {file.shape(key)} instead of {expected[key].shape}" for key in found if not _fits(file.shape(key), expected[key])
    ]
    _refuse(file, part, "has wrong shapes:", wrong)
    odd = [f"{key} {file.dtype(key)}" for key in found if not is_float(file.dtype(key))]
    _refuse(file, part, "has no floats as weights:", odd)
    return places


def _fits(shape: tuple[int, ...], place: layout.Place) -> bool:
    return shape == place.shape or (place.form == "pointwise" and layout.same_shape(shape, place.shape))


def _refuse(file: SafeFile, part: str, what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise CheckpointError(
            f"{file.path}: its {part} {what} {len(names)} keys: {', '.join(names[:10])}{more}. "
            "Is it a model of this architecture and scale?"
        )


def _read(
    file: SafeFile, places: list[layout.Place], dtype: str | None, shapes: Mapping[str, Any], pooled: str, copy: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in places:
        pieces = layout.to_module(place, file.tensor(place.key), pooled)
        found |= zip(place.names, pieces, strict=True)
    return _cast({name: found[name] for name in shapes}, dtype, copy)


def _cast(state: Mapping[str, Any], dtype: str | None, copy: bool) -> dict[str, Any]:
    """Contiguous tensors in `dtype`; with `copy` none of them shares memory with a file."""
    import torch

    return {
        name: tensor.to(torch_dtype(dtype) if dtype else tensor.dtype, copy=copy, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }


def _pending(
    architecture: Architecture, part: str, model: Any, dtype: str, pooled: str, overflows: dict[str, Overflow]
) -> dict[str, Pending]:
    """The part's tensors as they will be written; each is converted, and checked, when its turn comes."""
    state = model if isinstance(model, Mapping) else model.state_dict()
    shapes = architecture.shapes(part)
    wrong = [name for name in shapes if name not in state or tuple(state[name].shape) != shapes[name]]
    wrong += [name for name in state if name not in shapes]
    if wrong:
        raise CheckpointError(
            f"The {part} to save does not fit its config; first differences: {', '.join(wrong[:10])} ({len(wrong)} in all)."
        )

    def make(place: layout.Place) -> Any:
        tensor = layout.to_file(place, [state[name].detach() for name in place.names], pooled)
        return bytes_of(_narrow(place.key, tensor, dtype, overflows))

    return {p.key: Pending(dtype, p.shape, partial(make, p)) for p in layout.places(architecture, part)}


def _narrow(key: str, tensor: Any, dtype: str, overflows: dict[str, Overflow]) -> Any:
    """`tensor` in `dtype`; finite values beyond it are clamped and noted. Raises NumericsError for a NaN or infinity."""
    import torch

    narrow = tensor.to(torch_dtype(dtype))
    wrong = ~torch.isfinite(narrow)
    if not bool(wrong.any()):
        return narrow
    values = tensor[wrong]
    if not bool(torch.isfinite(values).all()):
        raise NumericsError(
            f"{key} holds {int((~torch.isfinite(tensor)).sum())} values that are NaN or infinite; nothing was written. "
            "Go back to the last good state."
        )
    overflows[key] = Overflow(values.numel(), float(values.abs().max()))
    limit = torch.finfo(torch_dtype(dtype)).max
    return tensor.clamp(-limit, limit).to(torch_dtype(dtype))


def _copied(source: SafeFile, architecture: Architecture, parts: list[str], more: Extras) -> dict[str, Any]:
    """The source's bytes for whole `parts`, and for the optional keys of all parts; what is written anew instead of its own."""
    keys = [place.key for part in parts for place in _checked_places(source, architecture, part, more)]
    keys += [key for key in source for part in architecture.parts if layout.is_optional(architecture, part, key)]
    copies = {key: Pending(source.dtype(key), source.shape(key), partial(source.raw, key)) for key in keys}
    return copies | {key: values for key, values in more.replaced.items() if key in copies}
