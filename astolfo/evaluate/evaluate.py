"""The evaluation of a checkpoint: pictures over alpha, runtime and uncond, their numbers, a verdict, and a page.

    evaluate(spec, Path("evaluations/25112201"), base=base, trained=result, vocabulary=folder)

writes `pictures/*.png`, `grid.png`, `index.html` and `metrics.json` (last: where it lies, the rest is complete). All follow
from the models, the vocabulary and the spec; two evaluations are the same files.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.model import load, load_state_dicts
from astolfo.data.procedural import draw
from astolfo.data.vocabulary import tokenizer, tokenizers
from astolfo.errors import InputError
from astolfo.evaluate import metrics
from astolfo.evaluate.grid import Column, draw_grid, save_png
from astolfo.evaluate.merged import weighted
from astolfo.evaluate.page import page
from astolfo.evaluate.prompts import Prompt, procedural_prompts
from astolfo.evaluate.sample import SAMPLERS, Settings, sample
from astolfo.evaluate.verdict import THRESHOLDS, Verdict, judge, over_alphas
from astolfo.files import read_sidecar, sha256_of, sidecar, write_json, write_text
from astolfo.ledger.schema import EvaluationSet, Objective
from astolfo.train.autoencoder import encode, to_pictures
from astolfo.train.conditioning import Text

log = logging.getLogger(__name__)
TOKENS = 75  # one chunk of 77 positions, which is what inference programs read of a prompt this short


@dataclass(frozen=True)
class Cell:
    """One way of sampling: these settings at this alpha."""

    alpha: float
    settings: Settings

    @property
    def name(self) -> str:
        """How its files begin: "eps-null-0.50"."""
        return f"{self.settings.runtime}-{self.settings.uncond}-{self.alpha:.2f}"


def evaluate(
    spec: Mapping[str, Any], folder: Path, *, base: Path | None, trained: Path, vocabulary: Path,
    device: str = "cpu", prompts: Sequence[Prompt] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Samples and judges `trained`, alone (alpha 1.0) and merged with `base`; returns what `metrics.json` holds.

    `spec` has "run", "settings" (an EvaluationSet), "recipe" (of the run: family, architecture, objective), and may have
    "scale" and "outcome" (what the record says) for the page. `prompts` default to procedural ones, whose truth is known.
    Raises InputError for an empty evaluation, and CheckpointError for a model that does not fit.
    """
    wanted = EvaluationSet.model_validate(spec["settings"])
    architecture = Architecture.from_mapping(spec["recipe"]["architecture"], spec["recipe"]["family"])
    objective = Objective.model_validate(spec["recipe"]["objective"])
    first = _settings(wanted, architecture, objective)
    prompts = procedural_prompts(wanted.seed, wanted.prompts, width=first.width, height=first.height) if prompts is None else prompts
    cells = list(_cells(wanted, first, objective, merges=base is not None))
    if not cells or not prompts:
        raise InputError(f"The evaluation of {spec['run']} is empty: expected alphas, runtimes, unconds and prompts; see config/evaluations.yaml.")
    model = _Model(architecture, base, trained, vocabulary, device)
    reference = _reference(model, prompts)
    columns, pictures = [], {}
    for cell in cells:
        pictures[cell], finite = sample(model.at(cell.alpha), model.text, [p.text for p in prompts], cell.settings, seed=wanted.seed)
        columns.append(_judged(cell, pictures[cell], finite, prompts, reference["looks"]))
        log.info("%s at alpha %.2f: %s. %s", cell.settings.runtime, cell.alpha, columns[-1]["verdict"], columns[-1]["reason"])
    report = {
        "run": spec["run"], "scale": spec.get("scale"), "outcome": spec.get("outcome"), "objective": objective.model_dump(mode="json"),
        "settings": {"seed": wanted.seed, "cfg": first.cfg, "steps": first.steps, "width": first.width, "height": first.height},
        "models": {role: _named(path) for role, path in (("base", base), ("trained", trained)) if path is not None},
        "prompts": [{"text": p.text, "scene": asdict(p.scene) if p.scene else None} for p in prompts],
        "reference": reference, "thresholds": THRESHOLDS, "columns": columns, "summary": _summary(columns),
    }  # fmt: skip
    _write(folder, report, cells, pictures, prompts)
    return report


class _Model:
    """The modules of the evaluated model at any alpha, and the way from prompts to conditioning."""

    def __init__(self, architecture: Architecture, base: Path | None, trained: Path, vocabulary: Path, device: str):
        compute = "fp32" if device == "cpu" else "bf16"
        self.parts = load(trained, architecture, dtype={part: "fp32" if part == "vae" else compute for part in architecture.parts})
        self.parts = {part: module.to(device).requires_grad_(False) for part, module in self.parts.items()}
        self._base = load_state_dicts(base, architecture) if base is not None else None
        self._trained = load_state_dicts(trained, architecture) if base is not None else None
        self._alpha = 1.0
        encoders = [self.parts[part] for part in ("text_encoder", "text_encoder_2") if part in self.parts]
        both = list(tokenizers(vocabulary)) if len(encoders) == 2 else [tokenizer(vocabulary, "!")]
        self.text = Text(encoders, both, tokens=TOKENS, context="inference")

    def at(self, alpha: float) -> dict[str, Any]:
        """The modules with the weights of `alpha`; those of an earlier call change with them."""
        if alpha != self._alpha and self._base is not None and self._trained is not None:
            for part, state in weighted(self._base, self._trained, alpha).items():
                self.parts[part].load_state_dict(state)
            self._alpha = alpha
        return self.parts


def _settings(wanted: EvaluationSet, architecture: Architecture, objective: Objective) -> Settings:
    """What all cells share; the size is the architecture's own."""
    side = (architecture.config("unet").get("sample_size") or 16) * 2 ** (len(architecture.config("vae")["block_out_channels"]) - 1)
    return Settings(runtime="eps", steps=wanted.sampler_steps, cfg=wanted.cfg, height=side, width=side, shift=objective.shift or 1.0)


def _cells(wanted: EvaluationSet, first: Settings, objective: Objective, *, merges: bool) -> Iterator[Cell]:
    """Runtime by uncond by alpha. Without a base there is alpha 1.0 only.

    The v runtime has zero terminal SNR as the run has it; for a run that is not of v, as the record's v runs do.
    """
    zero = objective.zero_terminal_snr if objective.kind == "v" else True
    for runtime in dict.fromkeys(wanted.runtimes):
        for uncond in dict.fromkeys(wanted.unconds):
            settings = replace(first, runtime=runtime, uncond=uncond, zero_terminal_snr=zero and runtime == "v")
            for alpha in sorted(set(wanted.alphas)) if merges else ([1.0] if wanted.alphas else []):
                yield Cell(alpha, settings)


@torch.no_grad()
def _reference(model: _Model, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The looks of the scenes asked for, drawn, and seen through the trained model's autoencoder.

    The autoencoder softens every picture; a model cannot be sharper than it, so its pictures are what 1.0 means.
    """
    drawn = [draw(prompt.scene) for prompt in prompts if prompt.scene]
    if not drawn:
        return {"looks": None, "drawn": None}
    autoencoder = model.parts["vae"]
    through = [autoencoder.decode(encode(autoencoder, torch.from_numpy(picture)[None].to(autoencoder.device))).sample for picture in drawn]
    seen = [to_pictures(output)[0].cpu().numpy() for output in through]
    return {"looks": _rounded(metrics.looks(seen)), "drawn": _rounded(metrics.looks(drawn))}


def _judged(cell: Cell, pictures: np.ndarray, finite: np.ndarray, prompts: Sequence[Prompt], reference: Mapping[str, float] | None) -> dict[str, Any]:
    """One column of the report: numbers and verdict of the pictures of one cell."""
    scenes = [prompt.scene for prompt in prompts]
    known = None if None in scenes else metrics.agreements(pictures, scenes)
    shows = None if known is None else [one["all"] == 1.0 for one in known]
    looks = _rounded(metrics.looks(pictures))
    relative = metrics.relative(looks, reference) if reference else looks
    verdict = judge(
        pictures=len(pictures), finite=int(finite.sum()), sharpness=relative["sharpness"] if reference else None,
        shown=None if shows is None else sum(shows),
    )  # fmt: skip
    return {
        "alpha": cell.alpha, "runtime": cell.settings.runtime, "uncond": cell.settings.uncond, "sampler": SAMPLERS[cell.settings.runtime],
        "zero_terminal_snr": cell.settings.zero_terminal_snr, "shift": cell.settings.shift if cell.settings.runtime == "rf" else None,
        "verdict": verdict.word, "reason": verdict.reason, "pictures": len(pictures), "finite": int(finite.sum()),
        "shown": None if shows is None else sum(shows), "shows": shows, **relative,
        "agreement": None if known is None else {key: round(float(np.mean([one[key] for one in known])), 4) for key in known[0]},
        "files": [f"pictures/{cell.name}-{i + 1:02d}.png" for i in range(len(pictures))],
    }  # fmt: skip


def _summary(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each runtime and uncond comes to, over its alphas."""
    found: dict[tuple[str, str], dict[float, Verdict]] = {}
    for column in columns:
        found.setdefault((column["runtime"], column["uncond"]), {})[column["alpha"]] = Verdict(column["verdict"], column["reason"])
    return [{"runtime": runtime, "uncond": uncond, **over_alphas(verdicts)} for (runtime, uncond), verdicts in found.items()]


def _write(folder: Path, report: dict[str, Any], cells: Sequence[Cell], pictures: Mapping[Cell, np.ndarray], prompts: Sequence[Prompt]) -> None:
    (folder / "metrics.json").unlink(missing_ok=True)
    for old in sorted((folder / "pictures").glob("*.png")):
        old.unlink()
    for cell, column in zip(cells, report["columns"], strict=True):
        for i, (prompt, picture, file) in enumerate(zip(prompts, pictures[cell], column["files"], strict=True)):
            save_png(folder / file, picture, {"parameters": parameters(prompt.text, cell, report, i)})
    save_png(folder / "grid.png", _grid(report, cells, pictures, prompts), {"parameters": _note(report)})
    write_text(folder / "index.html", page(report))
    write_json(folder / "metrics.json", report)


def _grid(report: Mapping[str, Any], cells: Sequence[Cell], pictures: Mapping[Cell, np.ndarray], prompts: Sequence[Prompt]) -> Any:
    several = len({cell.settings.uncond for cell in cells}) > 1
    columns = [
        Column(
            group=f"{cell.settings.runtime} runtime" + (f", {cell.settings.uncond} uncond" if several else ""),
            heading=f"alpha {cell.alpha:.2f}", word=column["verdict"],
            count="" if column["shown"] is None else f"{column['shown']}/{column['pictures']}", pictures=pictures[cell],
        )
        for cell, column in zip(cells, report["columns"], strict=True)
    ]  # fmt: skip
    asked = [draw(prompt.scene) for prompt in prompts if prompt.scene]
    labels = [prompt.label for prompt in prompts]
    return draw_grid(labels, columns, asked if len(asked) == len(prompts) else None, title=str(report["run"]), note=_note(report))


def _note(report: Mapping[str, Any]) -> str:
    settings = report["settings"]
    return f"Steps: {settings['steps']}, CFG scale: {settings['cfg']:g}, Seed: {settings['seed']}, Size: {settings['width']}x{settings['height']}"


def parameters(prompt: str, cell: Cell, report: Mapping[str, Any], number: int) -> str:
    """A picture's parameters as A1111 writes them into its PNGs: prompt, negative prompt, one line of key: value."""
    settings = cell.settings
    more = {
        "Steps": settings.steps, "Sampler": SAMPLERS[settings.runtime], "CFG scale": f"{settings.cfg:g}", "Seed": report["settings"]["seed"],
        "Size": f"{settings.width}x{settings.height}", "Model hash": report["models"]["trained"]["sha256"][:10], "Model": report["run"],
        "Alpha": f"{cell.alpha:.2f}", "Runtime": settings.runtime, "Uncond": settings.uncond,
        "Zero terminal SNR": settings.zero_terminal_snr, "Noise": f"astolfo {number}",
    }  # fmt: skip
    return f"{prompt}\nNegative prompt: \n" + ", ".join(f"{key}: {value}" for key, value in more.items())


def _named(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": read_sidecar(path) if sidecar(path).exists() else sha256_of(path)}


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in numbers.items()}
