"""The evaluation of a checkpoint: pictures over alpha, runtime and uncond, their numbers, a verdict, and a page.

    evaluate(spec, Path("evaluations/my-first"), Models(base=base, trained=result, vocabulary=folder))

Everything follows from the models, the vocabulary and the spec; two evaluations are the same files, byte for byte, with any
number of processes. Threads and deterministic algorithms are the caller's to pin (`astolfo.numerics`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.data.pixels import to_pictures
from astolfo.digest_cache import digest_of
from astolfo.evaluate import metrics, validate
from astolfo.evaluate.candidate import Candidate
from astolfo.evaluate.outputs import write
from astolfo.evaluate.parallel import parallel_map
from astolfo.evaluate.plan import Cell, Plan
from astolfo.evaluate.prompts import Prompt, prompts_of
from astolfo.evaluate.sample import sample
from astolfo.evaluate.scorer import scorer_of
from astolfo.evaluate.verdict import THRESHOLDS, Evidence, Verdict, judge, over_alphas
from astolfo.ledger.schema import Objective

log = logging.getLogger(__name__)
Looks = dict[str, float]
HELD_OUT = 8  # samples that validation takes
DRAWN = 192  # procedural samples to compare looks with, of which validation takes the first; a picture's contrast is open


@dataclass(frozen=True, kw_only=True)
class Models:
    """The files of an evaluation: the model, its base (none: alpha 1.0 alone), and what an evaluation may use besides.

    `checkpoints`: earlier ones of the run, by name; `held_out`: a dataset store to validate on; `scorer`: a CLIP model's folder.
    """

    trained: Path
    vocabulary: Path
    base: Path | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    held_out: Path | None = None
    scorer: Path | None = None


def evaluate(
    spec: Mapping[str, Any], folder: Path, models: Models, *, device: str = "cpu", processes: int = 1
) -> dict[str, Any]:  # fmt: skip
    """Samples and judges the trained model, alone (alpha 1.0) and merged with its base; returns what `metrics.json` holds.

    `spec` has "run", "settings" (an `astolfo.ledger.evaluations.Sampling`) and "recipe" (the run's: family, architecture,
    objective), and may have "scale", "outcome" (what the record says) and "scorer" (its pinned digest). Raises InputError for an
    empty or unknown setting, CheckpointError for a model that does not fit.
    """
    recipe = spec["recipe"]
    architecture = Architecture.from_mapping(recipe["architecture"], recipe["family"])
    objective = Objective.model_validate(recipe["objective"])
    plan = Plan(spec["settings"], architecture, objective, merges=models.base is not None)
    prompts = prompts_of(plan.sampling.prompts, plan.sampling.seed, width=plan.shared.width, height=plan.shared.height)
    scorer = scorer_of(models.scorer, spec.get("scorer"), known=all(prompt.scene for prompt in prompts))
    candidate = Candidate(architecture, models.base, models.trained, models.vocabulary, device, models.checkpoints)
    held_out = _held_out(candidate, plan, models.held_out)
    reference = _reference(candidate, held_out)
    held_out = held_out and held_out.first(HELD_OUT)
    done = _sampled(candidate, plan, prompts, held_out, processes)
    pictures = {cell: one.pictures for cell, one in done.items()}
    cells = [_judged(plan, cell, done[cell], prompts, reference, scorer) for cell in plan.cells]
    for cell, one in zip(plan.cells, cells, strict=True):
        log.info("%s: %s. %s", cell.title, one["verdict"], one["reason"])
    report = {
        "format": 3, "run": spec["run"], "set": plan.sampling.set, "scale": spec.get("scale"), "outcome": spec.get("outcome"),
        "objective": objective.model_dump(mode="json", exclude_none=True),
        "settings": {"seed": plan.sampling.seed} | {key: getattr(plan.shared, key) for key in _SETTINGS},
        "models": {role: _named(path) for role, path in (("base", models.base), ("trained", models.trained)) if path is not None},
        "prompts": [{"text": p.text, "label": p.label, "scene": asdict(p.scene) if p.scene else None} for p in prompts],
        "reference": reference and reference.rounded(), "thresholds": THRESHOLDS,
        "cells": cells, "summary": _summary(cells, objective.kind),
        "validation": _validation(candidate, held_out, plan.sampling.seed, models),
        "scorer": {"name": scorer.name, "skipped": scorer.skipped},
        "skipped": [why for why in (scorer.skipped, _SKIPPED if held_out is None else None) if why],
    }  # fmt: skip
    return write(folder, report, plan, pictures, prompts)


_SETTINGS = ("runtime", "uncond", "sampler", "cfg", "steps", "width", "height")
_SKIPPED = (
    "Validation was skipped: no held-out samples were given. Put a dataset store that no run trained on at inputs/held-out "
    "(docs/evaluations.md), or give --held-out."
)


@dataclass(frozen=True)
class Done:
    """What came of a cell: its pictures, which were finite, and its reading (None where nothing is held out)."""

    pictures: np.ndarray
    finite: np.ndarray
    reading: float | None


def _sampled(
    candidate: Candidate, plan: Plan, prompts: Sequence[Prompt], held_out: validate.HeldOut | None, processes: int
) -> dict[Cell, Done]:
    """Every cell, made weights by weights, so that each merge is made once; shared out over `processes`, which decides no bit."""
    weights = sorted({(cell.checkpoint, cell.alpha) for cell in plan.cells})
    texts, seed = [prompt.text for prompt in prompts], plan.sampling.seed

    def one(at: tuple[str, float]) -> list[tuple[Cell, Done]]:
        parts, readings, found = candidate.at(at[1], at[0]), {}, []
        for cell in (cell for cell in plan.cells if (cell.checkpoint, cell.alpha) == at):
            pictures, finite = sample(parts, candidate.text, texts, cell.settings, seed=seed)
            way = (cell.settings.runtime, cell.settings.zero_terminal_snr)
            if way not in readings:
                readings[way] = _reading(candidate, held_out, *way, seed)
            found.append((cell, Done(pictures, finite, readings[way])))
        return found

    return dict(pair for found in parallel_map(one, weights, processes) for pair in found)


def _reading(candidate: Candidate, held_out: validate.HeldOut | None, runtime: str, terminal: bool, seed: int) -> float | None:
    """The candidate's loss over a guess's at high noise, as `runtime` reads it; None without samples or where it is no number."""
    if held_out is None:
        return None
    found = validate.losses(candidate, held_out, runtime, validate.NOISY, seed=seed, terminal=terminal)["relative"]
    numbers = [one for one in found if one is not None]
    return None if len(numbers) < len(found) else round(float(np.mean(numbers)), 4)


@dataclass(frozen=True)
class Reference:
    """The dataset's own pictures in numbers: what 1.0 means. `looks` by name, and contrast `by_scale` where all have one size."""

    looks: Looks
    by_scale: list[float]

    def rounded(self) -> dict[str, Any]:
        """As `metrics.json` has it, with six decimals."""
        looks = {name: round(value, 6) for name, value in self.looks.items()}
        return {"looks": looks, "by_scale": [round(value, 6) for value in self.by_scale]}


@torch.no_grad()
def _reference(candidate: Candidate, held_out: validate.HeldOut | None) -> Reference | None:
    """The looks of held-out samples as the trained model's autoencoder decodes them; None where there are none.

    The autoencoder softens every picture and no model is sharper than it, so what is seen through it is what 1.0 means.
    """
    if held_out is None:
        return None
    autoencoder, pictures = candidate.parts["vae"], []
    for latents in held_out.latents.split(1):
        z = (latents.to(candidate.device) / autoencoder.config.scaling_factor).to(autoencoder.dtype)
        pictures += [*to_pictures(autoencoder.decode(z).sample).cpu().numpy()]
    return Reference(metrics.looks(pictures), metrics.by_scale(pictures))


def _held_out(candidate: Candidate, plan: Plan, store: Path | None) -> validate.HeldOut | None:
    """Samples to validate on: those of the store, or where prompts are procedural, scenes of the evaluation's own seed."""
    if store is not None:
        return validate.stored(store, candidate.parts["vae"].config.scaling_factor, count=HELD_OUT)
    if plan.sampling.prompts.procedural is None:
        return None
    return validate.procedural(candidate.parts["vae"], seed=plan.sampling.seed, count=DRAWN, side=plan.shared.height)


def _judged(
    plan: Plan, cell: Cell, done: Done, prompts: Sequence[Prompt], reference: Reference | None, scorer: Any
) -> dict[str, Any]:  # fmt: skip
    """One cell of the report: how it was sampled, numbers and verdict."""
    settings, count, scenes = cell.settings, len(done.pictures), [prompt.scene for prompt in prompts]
    known = [scene for scene in scenes if scene is not None]
    agreements = None if len(known) < len(scenes) else metrics.agreements([*done.pictures], known)
    shows = None if agreements is None else [one["all"] == 1.0 for one in agreements]
    looks = reference and metrics.relative(metrics.looks([*done.pictures]), reference.looks)
    found = Evidence(
        runtime=settings.runtime, pictures=count, finite=int(done.finite.sum()), sharpness=looks["sharpness"] if looks else None,
        contrast=looks["contrast"] if looks else None,
        shown=None if shows is None else sum(shows), reading=done.reading,
    )  # fmt: skip
    verdict = judge(found)
    return {
        "alpha": cell.alpha, "checkpoint": cell.checkpoint, "runtime": settings.runtime, "uncond": settings.uncond,
        "sampler": settings.sampler, "cfg": settings.cfg, "steps": settings.steps,
        "zero_terminal_snr": settings.zero_terminal_snr, "shift": settings.shift if settings.runtime == "rf" else None,
        "verdict": verdict.word, "reason": verdict.reason, "pictures": count, "finite": found.finite,
        "shown": found.shown, "shows": shows, "reading": found.reading, "looks": looks,
        "by_scale": reference and _over(metrics.by_scale([*done.pictures]), reference.by_scale),
        "agreement": agreements and {key: round(float(np.mean([one[key] for one in agreements])), 4) for key in agreements[0]},
        "score": scorer.score(done.pictures, [prompt.text for prompt in prompts]),
        "files": [plan.file(cell, i) for i in range(count)],
    }  # fmt: skip


def _over(numbers: Sequence[float], reference: Sequence[float]) -> list[float] | None:
    """Each of `numbers` over the same of `reference`, to four decimals; None where sizes differ, so that scales do."""
    if len(numbers) != len(reference):
        return None
    return [round(one / other, 4) if other else 0.0 for one, other in zip(numbers, reference, strict=True)]


def _summary(cells: Sequence[Mapping[str, Any]], own: str) -> list[dict[str, Any]]:
    """What each runtime and uncond comes to, over the alphas of the run's result; the run's own runtime first."""
    ways: dict[tuple[str, str], dict[float, int]] = {}  # numbers of cells
    for number, cell in enumerate(cells):
        if cell["checkpoint"] == "result":  # settings that an axis varies come after those of the set: the first cell stands
            ways.setdefault((cell["runtime"], cell["uncond"]), {}).setdefault(cell["alpha"], number)
    found = []
    for (runtime, uncond), numbers in sorted(ways.items(), key=lambda way: way[0][0] != own):
        at = {alpha: cells[number] for alpha, number in sorted(numbers.items())}
        verdicts = {alpha: Verdict(one["verdict"], one["reason"]) for alpha, one in at.items()}
        scores = {alpha: _rank(one) for alpha, one in at.items()}
        way = {"runtime": runtime, "uncond": uncond, "own": runtime == own, "cells": [numbers[alpha] for alpha in at]}
        judged = over_alphas(verdicts, scores)
        if judged["best"] is not None and (agreement := at[judged["best"]]["agreement"]):
            judged["evidence"] += f" What was asked explains {agreement['explained']:.0%} of them."
        found.append(way | judged)
    return found


def _rank(cell: Mapping[str, Any]) -> float:
    """What orders alphas that work: how many pictures show what was asked, then how much of them it explains; or a score."""
    if cell["agreement"] is not None:
        return cell["shown"] + round(cell["agreement"]["explained"], 2) / 2
    return cell["score"]["mean"] if cell["score"] else 0.0


def _validation(candidate: Candidate, held_out: validate.HeldOut | None, seed: int, models: Models) -> dict[str, Any] | None:
    """Losses of the base and of the trained model by band, under every objective."""
    if held_out is None:
        return None
    found: dict[str, Any] = {}
    for role, alpha in (("base", 0.0), ("trained", 1.0)):
        if role == "trained" or models.base is not None:
            candidate.at(alpha)
            found[role] = {
                kind: validate.losses(candidate, held_out, kind, range(len(validate.BANDS)), seed=seed, terminal=kind == "v")
                for kind in ("eps", "v", "rf")
            }
    return {"samples": len(held_out), "seed": seed, "bands": [list(band) for band in validate.BANDS], "models": found}


def _named(path: Path) -> dict[str, str]:
    return {"name": path.stem, "file": path.name, "sha256": digest_of(path)}
