"""What a checkpoint says about itself: ModelSpec, `astolfo.*`, and the marker keys that inference programs look for.

ModelSpec 1.0.1 keys (`modelspec.*`) tell other programs what the model is; its hash covers the data of all tensors. There is
no `modelspec.date`: two builds must be the same file. `astolfo.*` names recipe and parents by digest.

ComfyUI, A1111 and reForge read neither. They look for empty tensors: `v_pred` (v-prediction), and with it `ztsnr` (zero
terminal SNR). For rectified flow no marker exists; those programs need to be told (a ModelSamplingSD3-like node), so only
`astolfo.objective` says it.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from astolfo.errors import CheckpointError
from astolfo.files import canonical_json

HASH_KEY = "modelspec.hash_sha256"
MARKERS = ("v_pred", "ztsnr")
OBJECTIVES = ("eps", "v", "rf")
_OF_ONE_FILE = {HASH_KEY, "modelspec.date", "astolfo.parents", "astolfo.recipe", "astolfo.run", "astolfo.merge"}

_ARCHITECTURES = {"sdxl": "stable-diffusion-xl-v1-base", "sd2": "stable-diffusion-v2-768-v"}
_SD2_EPS = "stable-diffusion-v2-512"  # ModelSpec's name for what eps code loads
_IMPLEMENTATIONS = {
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "sd2": "https://github.com/Stability-AI/stablediffusion",
}
_PREDICTIONS = {"eps": "epsilon", "v": "v"}


def describe(
    *,
    family: str,
    title: str,
    objective: str,
    zero_terminal_snr: bool = False,
    resolution: tuple[int, int] = (1024, 1024),
    parents: Mapping[str, str] | None = None,
    **about: str,
) -> dict[str, str]:
    """Metadata of a checkpoint, all values text, ready for `save`.

    `resolution` is width and height in pixels; `parents` maps a role ("base", "merge") to a digest; `about` becomes
    `astolfo.<key>`: recipe, semantics, scale, run, lock, numerics ... Raises CheckpointError for an unknown objective.
    """
    _check(objective)
    spec = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _SD2_EPS if (family, objective) == ("sd2", "eps") else _ARCHITECTURES[family],
        "modelspec.implementation": _IMPLEMENTATIONS[family],
        "modelspec.title": title,
        "modelspec.resolution": f"{resolution[0]}x{resolution[1]}",
        HASH_KEY: "",
        "astolfo.objective": objective,
        "astolfo.zero_terminal_snr": "true" if zero_terminal_snr else "false",
    }
    if objective in _PREDICTIONS:
        spec["modelspec.prediction_type"] = _PREDICTIONS[objective]
    if parents:
        spec["astolfo.parents"] = canonical_json(dict(parents))
    return dict(sorted((spec | {f"astolfo.{key}": str(value) for key, value in about.items()}).items()))


def markers(objective: str, zero_terminal_snr: bool = False) -> dict[str, np.ndarray]:
    """The empty float32 tensors that tell inference programs the objective; none for eps and rf without zero terminal SNR."""
    _check(objective)
    names = [*(["v_pred"] if objective == "v" else []), *(["ztsnr"] if zero_terminal_snr else [])]
    return {name: np.empty(0, np.float32) for name in names}


def titled(title: str, scale: str) -> dict[str, str]:
    """What a model that is made of others says of itself, beside what it has `inherited` of them."""
    return {"modelspec.title": title, "astolfo.scale": scale}


def inherited(metadata: Mapping[str, str]) -> dict[str, str]:
    """What a model's metadata say that also holds of one made from it, by a merge or by noise.

    Not its hash, date, parents and recipe, and not what it was trained with (sd-scripts' `ss_*`).
    """
    return {key: value for key, value in metadata.items() if key not in _OF_ONE_FILE and not key.startswith("ss_")}


def objective_of(keys: Iterable[str], metadata: Mapping[str, str]) -> tuple[str, bool, str]:
    """Objective, zero terminal SNR, and what of the file says so: our metadata, else markers, else the programs' default."""
    keys = set(keys)
    if metadata.get("astolfo.objective") in OBJECTIVES:
        return metadata["astolfo.objective"], metadata.get("astolfo.zero_terminal_snr") == "true", "astolfo.objective"
    if "v_pred" in keys:
        return "v", "ztsnr" in keys, "marker v_pred"
    if metadata.get("modelspec.prediction_type") == "v":
        return "v", "ztsnr" in keys, "modelspec.prediction_type"
    return "eps", "ztsnr" in keys, "no marker, the programs' default"


def _check(objective: str) -> None:
    if objective not in OBJECTIVES:
        raise CheckpointError(f"Expected one of {', '.join(OBJECTIVES)} as objective, found {objective!r}.")
