"""What a model file may hold beyond the weights of its parts: one list, for every verb that reads a model.

position ids    CLIP's 0 to 76. Programs that save a whole model in half precision, or merge it, leave 0, 0.58, 1.17 ...: whole
                numbers are written instead
copies          ComfyUI writes some keys under a second name. One that says the same is left out; another is refused
unread          what no program reads of an SDXL or SD 2.1 checkpoint: averages of training, CLIP-L's projection. Left out

Everything is said by name. Keys that are neither here nor a part's are refused where the architecture is known, and passed on
by a merge, which lists what only one side has.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from astolfo.checkpoint.safefile import SafeFile
from astolfo.errors import CheckpointError

_CONTEXT = 77  # tokens that CLIP reads
POSITIONS = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"
_COPIES = {
    "conditioner.embedders.1.model.text_projection.weight": "conditioner.embedders.1.model.text_projection",
    "cond_stage_model.model.text_projection.weight": "cond_stage_model.model.text_projection",
}
_OTHER_POSITIONS = {
    "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.model.transformer.text_model.embeddings.position_ids",
}
_UNREAD = {
    re.compile(r"model_ema\..*"): "averages of training, which no program loads",
    re.compile(r"first_stage_model\.(loss|model_ema)\..*"): "left of the autoencoder's training",
    re.compile(r"conditioner\.embedders\.0\.transformer\.text_projection\.weight"): "CLIP-L's projection, not used by SDXL",
    re.compile(r"conditioner\.embedders\.0\.(transformer\.)?logit_scale"): "CLIP-L's scale, not used by SDXL",
}


@dataclass(frozen=True)
class Extras:
    """What is left out of a file (key -> why), and what is written instead of what it holds (key -> int64 array)."""

    dropped: dict[str, str] = field(default_factory=dict)
    replaced: dict[str, np.ndarray] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Everything in words, keys of one kind together."""
        kinds: dict[str, list[str]] = {}
        for key, why in self.dropped.items():
            kinds.setdefault(why, []).append(key)
        for why, keys in kinds.items():
            yield f"left out: {few(keys)} ({why})"
        for key, values in self.replaced.items():
            yield f"0 to {values.size - 1} is written for {key}, which holds no such numbers in int64"


def few(keys: list[str]) -> str:
    """The first three of some keys, and how many more there are."""
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3:,} more" if len(keys) > 3 else "")


def extras(file: SafeFile) -> Extras:
    """What of a file is left out or written anew. Raises CheckpointError for a copy that says something else, by name."""
    found = Extras()
    for key in file:
        if key == POSITIONS:
            if (ids := _mended(file, key)) is not None:
                found.replaced[key] = ids
        elif key in _OTHER_POSITIONS:
            _mended(file, key)
            found.dropped[key] = "positions that every program counts itself"
        elif key in _COPIES:
            _check_copy(file, key, _COPIES[key])
            found.dropped[key] = f"a copy of {_COPIES[key]}"
        elif why := next((why for pattern, why in _UNREAD.items() if pattern.fullmatch(key)), None):
            found.dropped[key] = why
    return found


def values_of(file: SafeFile, key: str) -> np.ndarray:
    """A small tensor's values as float64, whatever its dtype. Raises CheckpointError for fp8 and complex ones."""
    array, dtype = file.array(key), file.dtype(key)
    if dtype == "BF16":
        return (array.astype("<u4") << 16).view("<f4").astype(np.float64)
    if dtype.startswith("F8") or dtype == "C64":
        raise CheckpointError(f"{file.path}: {key} is {dtype}, which it never is. Get the file again.")
    return array.astype(np.float64)


def _mended(file: SafeFile, key: str) -> np.ndarray | None:
    """Position ids as they should be, where they are not; None where they are. CheckpointError for another order or shape."""
    values, wanted = values_of(file, key), np.arange(_CONTEXT)
    if values.shape not in ((_CONTEXT,), (1, _CONTEXT)):
        found = list(values.shape)
        raise CheckpointError(f"{file.path}: {key} has the shape {found}, expected {[1, _CONTEXT]}. Get the file again.")
    if file.dtype(key) == "I64" and np.array_equal(values.reshape(-1), wanted):
        return None
    flat = values.reshape(-1)
    rising = bool((np.diff(flat) >= 0).all()) and flat.min(initial=0) >= 0 and flat.max(initial=0) <= flat.size
    if not rising and np.isfinite(flat).all():
        raise CheckpointError(
            f"{file.path}: {key} is {np.array2string(flat[:5], precision=3)} ..., expected 0 to {_CONTEXT - 1}. No program "
            "writes that: get the file again."
        )
    return wanted.astype(np.int64).reshape(file.shape(key))


def _check_copy(file: SafeFile, key: str, original: str) -> None:
    if original not in file:
        raise CheckpointError(f"{file.path}: {key} is there without {original}, of which it is a copy. Save it once more.")
    one, other = values_of(file, key), values_of(file, original)
    if one.shape != other.T.shape or not np.allclose(one, other.T, rtol=2**-7, atol=1e-6, equal_nan=True):
        raise CheckpointError(
            f"{file.path}: {key} says something else than {original}, of which it should be the transposed copy. Which of both "
            "is meant nobody can tell: get the file again, or save it once more from the program that made it."
        )
