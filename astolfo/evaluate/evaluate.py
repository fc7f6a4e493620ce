"""The evaluation of a checkpoint: pictures over alpha, runtime and uncond, their numbers, a verdict, and a page.

    evaluate(spec, Path("evaluations/25112201"), base=base, trained=result, vocabulary=folder)

Everything follows from the models, the vocabulary and the spec; two evaluations are the same files, byte for byte. Threads
and deterministic algorithms are the caller's to pin (`astolfo.numerics`).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.data.procedural import draw
from astolfo.errors import InputError
from astolfo.evaluate import metrics
from astolfo.evaluate.candidate import Candidate
from astolfo.evaluate.outputs import Cell, write
from astolfo.evaluate.prompts import Prompt, procedural_prompts
from astolfo.evaluate.sample import SAMPLERS, Settings, sample
from astolfo.evaluate.verdict import THRESHOLDS, Verdict, judge, over_alphas
from astolfo.files import read_sidecar, sha256_of, sidecar
from astolfo.ledger.schema import EvaluationSet, Objective
from astolfo.train.autoencoder import encode, to_pictures

log = logging.getLogger(__name__)
Looks = dict[str, float]


def evaluate(
    spec: Mapping[str, Any], folder: Path, *, base: Path | None, trained: Path, vocabulary: Path,
    device: str = "cpu", prompts: Sequence[Prompt] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Samples and judges `trained`, alone (alpha 1.0) and merged with `base`; returns what `metrics.json` holds.

    `spec` has "run", "settings" (an EvaluationSet) and "recipe" (the run's: family, architecture, objective), and may have
    "scale" and "outcome" (what the record says) for the page. `prompts` default to procedural ones, whose truth is known.
    Raises InputError for an empty evaluation, CheckpointError for a model that does not fit.
    """
    wanted, recipe = EvaluationSet.model_validate(spec["settings"]), spec["recipe"]
    architecture = Architecture.from_mapping(recipe["architecture"], recipe["family"])
    objective = Objective.model_validate(recipe["objective"])
    shared = _shared(wanted, architecture, objective)
    if prompts is None:
        prompts = procedural_prompts(wanted.seed, wanted.prompts, width=shared.width, height=shared.height)
    cells = list(_cells(wanted, shared, objective, merges=base is not None))
    if not cells or not prompts:
        wants = "expected alphas, runtimes, unconds and prompts (config/evaluations.yaml)"
        raise InputError(f"The evaluation of {spec['run']} is empty: {wants}.")
    candidate = Candidate(architecture, base, trained, vocabulary, device)
    reference = _reference(candidate, prompts)
    pictures, columns = _sampled(candidate, cells, prompts, wanted.seed, reference["seen"])
    report = {
        "run": spec["run"], "scale": spec.get("scale"), "outcome": spec.get("outcome"),
        "objective": objective.model_dump(mode="json"),
        "settings": {"seed": wanted.seed} | {key: getattr(shared, key) for key in ("cfg", "steps", "width", "height")},
        "models": {role: _named(path) for role, path in (("base", base), ("trained", trained)) if path is not None},
        "prompts": [{"text": p.text, "scene": asdict(p.scene) if p.scene else None} for p in prompts],
        "reference": reference, "thresholds": THRESHOLDS, "columns": columns, "summary": _summary(columns),
    }  # fmt: skip
    write(folder, report, cells, pictures, prompts)
    return report


def _shared(wanted: EvaluationSet, architecture: Architecture, objective: Objective) -> Settings:
    """What all cells share; the size is the architecture's own."""
    factor = 2 ** (len(architecture.config("vae")["block_out_channels"]) - 1)
    side = (architecture.config("unet").get("sample_size") or 16) * factor
    return Settings(
        runtime="eps", steps=wanted.sampler_steps, cfg=wanted.cfg, height=side, width=side, shift=objective.shift or 1.0
    )


def _cells(wanted: EvaluationSet, shared: Settings, objective: Objective, *, merges: bool) -> Iterator[Cell]:
    """Runtime by uncond by alpha. Without a base there is alpha 1.0 only.

    The v runtime has zero terminal SNR as the run has it; for a run that is not of v, as the record's v runs do.
    """
    zero = objective.zero_terminal_snr if objective.kind == "v" else True
    alphas = sorted(set(wanted.alphas)) if merges else [1.0] if wanted.alphas else []
    for runtime in dict.fromkeys(wanted.runtimes):
        for uncond in dict.fromkeys(wanted.unconds):
            settings = replace(shared, runtime=runtime, uncond=uncond, zero_terminal_snr=zero and runtime == "v")
            yield from (Cell(alpha, settings) for alpha in alphas)


def _sampled(
    candidate: Candidate, cells: Sequence[Cell], prompts: Sequence[Prompt], seed: int, reference: Looks | None
) -> tuple[dict[Cell, np.ndarray], list[dict[str, Any]]]:
    """Pictures and judgement of every cell, in the order of `cells`; made alpha by alpha, so that each is merged once."""
    pictures, judged = {}, {}
    for cell in sorted(cells, key=lambda cell: cell.alpha):
        parts = candidate.at(cell.alpha)
        pictures[cell], finite = sample(parts, candidate.text, [p.text for p in prompts], cell.settings, seed=seed)
        judged[cell] = _judged(cell, pictures[cell], finite, prompts, reference)
        log.info("%s: %s. %s", cell.title, judged[cell]["verdict"], judged[cell]["reason"])
    return pictures, [judged[cell] for cell in cells]


@torch.no_grad()
def _reference(candidate: Candidate, prompts: Sequence[Prompt]) -> dict[str, Looks | None]:
    """The looks of the scenes that are asked for: as drawn, and as seen through the trained model's autoencoder.

    The autoencoder softens every picture and no model is sharper than it, so what is seen through it is what 1.0 means.
    """
    drawn = [draw(prompt.scene) for prompt in prompts if prompt.scene]
    if not drawn:
        return {"drawn": None, "seen": None}
    autoencoder = candidate.parts["vae"]
    latents = [encode(autoencoder, torch.from_numpy(picture)[None].to(candidate.device)) for picture in drawn]
    seen = [to_pictures(autoencoder.decode(z).sample)[0].cpu().numpy() for z in latents]
    return {"drawn": _rounded(metrics.looks(drawn)), "seen": _rounded(metrics.looks(seen))}


def _judged(
    cell: Cell, pictures: np.ndarray, finite: np.ndarray, prompts: Sequence[Prompt], reference: Looks | None
) -> dict[str, Any]:
    """One column of the report: how it was sampled, numbers and verdict."""
    settings, count = cell.settings, len(pictures)
    scenes = [prompt.scene for prompt in prompts]
    known = None if None in scenes else metrics.agreements(pictures, scenes)
    shows = None if known is None else [one["all"] == 1.0 for one in known]
    looks = None if reference is None else metrics.relative(metrics.looks(pictures), reference)
    shown, right = None if shows is None else sum(shows), int(finite.sum())
    verdict = judge(pictures=count, finite=right, sharpness=looks and looks["sharpness"], shown=shown)
    return {
        "alpha": cell.alpha, "runtime": settings.runtime, "uncond": settings.uncond, "sampler": SAMPLERS[settings.runtime],
        "zero_terminal_snr": settings.zero_terminal_snr, "shift": settings.shift if settings.runtime == "rf" else None,
        "verdict": verdict.word, "reason": verdict.reason, "pictures": count, "finite": right, "shown": shown, "shows": shows,
        "looks": looks, "agreement": known and {key: round(float(np.mean([one[key] for one in known])), 4) for key in known[0]},
        "files": [cell.file(i) for i in range(count)],
    }  # fmt: skip


def _summary(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each runtime and uncond comes to, over its alphas."""
    found: dict[tuple[str, str], dict[float, Verdict]] = {}
    for column in columns:
        found.setdefault((column["runtime"], column["uncond"]), {})[column["alpha"]] = Verdict(
            column["verdict"], column["reason"]
        )
    return [{"runtime": runtime, "uncond": uncond, **over_alphas(verdicts)} for (runtime, uncond), verdicts in found.items()]


def _named(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": read_sidecar(path) if sidecar(path).exists() else sha256_of(path)}


def _rounded(numbers: Looks) -> Looks:
    return {name: round(value, 6) for name, value in numbers.items()}
