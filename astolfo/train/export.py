"""Turns a state into a checkpoint: the single file that inference programs load."""

import logging
from pathlib import Path
from typing import Any

import torch

from astolfo.checkpoint import metadata
from astolfo.checkpoint.autoencoder import load_autoencoder
from astolfo.checkpoint.model import load_state_dicts, save
from astolfo.errors import StateError
from astolfo.files import canonical_json, read_sidecar
from astolfo.ledger.recipe import Recipe
from astolfo.train import sdscripts, state
from astolfo.train.model import architecture_of, build_parts
from astolfo.train.optimizer import averaged

log = logging.getLogger(__name__)


def export(spec: dict[str, Any], trained: Path, base: Path | None, autoencoder: Path | None, out: Path) -> str:
    """Writes the checkpoint of the state `trained` at `out` and returns its sha256.

    A run that a wrong number stopped, or of which the spec says that it was `stopped`, gives a checkpoint that says so in its
    title and in `astolfo.stopped`.
    Weights that did not train, and the autoencoder, are the base's, byte for byte where the dtype stays; a run from nothing
    takes its `autoencoder` from that file. Under the choice `untrained: compute` parts that did not train are rounded to the
    dtype of the arithmetic, and position ids are left out, as sd-scripts does. Where the optimizer means an average of the
    weights, the checkpoint has that.
    """
    recipe = Recipe.model_validate(spec["recipe"])
    found = state.load(trained, spec["parents"]["state"])
    architecture = architecture_of(recipe)
    parts: dict[str, Any] = build_parts(recipe, base, torch.device("cpu"))
    for name, value in found.weights.items():
        part, _, parameter = name.partition(".")
        target = parts[part].get_parameter(parameter)
        if target.shape != value.shape:
            raise StateError(f"{trained}: {name} has shape {tuple(value.shape)}, the model has {tuple(target.shape)}.")
        target.data.copy_(averaged(recipe, value, found.optimizer.get(name, {})))
    if base is None:
        assert autoencoder is not None
        parts["vae"] = load_autoencoder(autoencoder, architecture)
    touched = {name.partition(".")[0] for name in found.weights} | ({*parts} if base is None else set())
    models: dict[str, Any] = {part: module for part, module in parts.items() if part in touched}
    rounded = base is not None and recipe.choices.untrained in ("compute", "compute-but-vae")
    if rounded:
        assert base
        kept = {*touched, *(["vae"] if recipe.choices.untrained == "compute-but-vae" else [])}
        absent = [part for part in architecture.parts if part not in kept]
        models |= load_state_dicts(base, architecture, absent, recipe.precision.compute, recipe.choices.pooled_projection)
    saved = save(
        out,
        models,
        architecture,
        dtypes=recipe.precision.save,
        metadata=_metadata(spec, recipe, found) | _for_viewers(spec, recipe, found, base),
        markers=metadata.markers(recipe.objective.kind, recipe.objective.zero_terminal_snr),
        pooled_projection=recipe.choices.pooled_projection,
        copy_from=base,
        positions=not rounded,
    )
    for key, overflow in saved.overflows.items():
        log.warning(
            "%s: %d values beyond %s were clamped, the largest %g", key, overflow.count, recipe.precision.save, overflow.largest
        )
    return saved.digest


def _metadata(spec: dict[str, Any], recipe: Recipe, found: state.State) -> dict[str, str]:
    title: str = spec["title"]
    about: dict[str, Any] = {}
    if found.stopped:
        title = f"{title} (stopped at step {found.stopped['step']}: {found.stopped['why']})"
        about["stopped"] = canonical_json(found.stopped | ({"record": spec["stopped"]} if "stopped" in spec else {}))
        log.warning("%s: the run stopped early; this is its last good state, after %d steps", title, found.position)
    elif "stopped" in spec:
        title, about["stopped"] = f"{title} (stopped)", spec["stopped"]
    if found.realised:
        about["realised"] = canonical_json(found.realised)
    return metadata.describe(
        family=recipe.family,
        title=title,
        objective=recipe.objective.kind,
        zero_terminal_snr=recipe.objective.zero_terminal_snr,
        resolution=_resolution(recipe),
        recipe=recipe.digest,
        semantics=spec["semantics"],
        scale=spec["scale"],
        **about,
    )


def _for_viewers(spec: dict[str, Any], recipe: Recipe, found: state.State, base: Path | None) -> dict[str, str]:
    """sd-scripts' own keys of a training, which viewers of models read."""
    return sdscripts.describe(
        recipe, name=spec["title"], steps=found.position, run_steps=spec.get("run_steps"), resolution=_resolution(recipe),
        images=spec["images"], base=(base.name, read_sidecar(base)) if base else None,
    )  # fmt: skip


def _resolution(recipe: Recipe) -> tuple[int, int]:
    """The model's own picture size in pixels: its UNet's latents times its autoencoder's factor."""
    vae = recipe.architecture["vae"]["block_out_channels"]
    side = recipe.architecture["unet"]["sample_size"] * 2 ** (len(vae) - 1)
    return side, side
