"""Agreement with the prompt where nobody knows the truth: a scorer, when its pinned weights are there.

`scorer_of` gives CLIP score (Hessel et al., arXiv 2104.08718) through transformers for a folder with a CLIP model in the
Hub's form, checked against the digest that the user pinned (`astolfo --scale full pin clip-score FOLDER`); else one that
scores nothing and says why. It is 100 times the cosine of picture and text, and never below 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from astolfo.errors import InputError
from astolfo.pins import scorer_digest


class Scorer(Protocol):
    """What scores pictures: its `name`, or why it is `skipped`."""

    @property
    def name(self) -> str | None: ...

    @property
    def skipped(self) -> str | None: ...

    def score(self, pictures: np.ndarray, texts: Sequence[str]) -> dict[str, Any] | None:
        """The score of each picture, uint8 (n, height, width, 3), for its text: {"name", "mean", "each"}."""


@dataclass(frozen=True)
class NoScorer:
    """Scores nothing, and says why."""

    skipped: str | None
    name: str | None = None

    def score(self, pictures: np.ndarray, texts: Sequence[str]) -> None:
        """Nothing."""


class ClipScore:
    """CLIP score by the model in a folder."""

    name, skipped = "CLIP score", None

    def __init__(self, folder: Path):
        from transformers import CLIPModel, CLIPProcessor

        self._model = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
        self._processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)

    def score(self, pictures: np.ndarray, texts: Sequence[str]) -> dict[str, Any]:
        """One at a time, so that no picture's score depends on the others; texts are cut at the model's 77 tokens."""
        each = [self._one(picture, text) for picture, text in zip(pictures, texts, strict=True)]
        return {"name": self.name, "mean": round(float(np.mean(each)), 4), "each": each}

    def _one(self, picture: np.ndarray, text: str) -> float:
        import torch

        inputs = self._processor(text=[text], images=[picture], return_tensors="pt", truncation=True, padding=True)
        with torch.no_grad():
            found = self._model(**inputs)
        return round(100.0 * max(0.0, float((found.image_embeds * found.text_embeds).sum())), 4)


def scorer_of(folder: Path | None, expected: str | None, *, known: bool) -> Scorer:
    """The scorer in `folder`, whose digest must be `expected`; none where the truth is `known` or no folder was given.

    Raises InputError for a folder that is missing, incomplete, unpinned or not the pinned one.
    """
    if known:
        return NoScorer(None)
    if folder is None:
        return NoScorer(
            "No scorer: whether the pictures show what was asked was not measured. Pin a CLIP model's folder to have its score: "
            "`astolfo --scale full pin clip-score FOLDER`."
        )
    found = scorer_digest(folder)
    if expected is None:
        raise InputError(f"{folder} is not pinned. If it is the right one: `astolfo --scale full pin clip-score {folder}`.")
    if found != expected:
        raise InputError(f"{folder} is not the pinned scorer: expected sha256 {expected}, found {found}.")
    return ClipScore(folder)
