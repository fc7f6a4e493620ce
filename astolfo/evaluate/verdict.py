"""The verdict: works, blur or broken, by stated thresholds, with its reason in one sentence.

- **broken**: a number was not finite; or the pictures are noise (more than `NOISY` times as sharp as the dataset's); or
  they are sharp, and fewer than `SHOWN` of them show what was asked.
- **blur**: less than `SHARP` of the dataset's sharpness, whatever it may show.
- **works**: as sharp as it should be, and at least `SHOWN` of the pictures show all that was asked.

Where the thresholds come from (tests/evaluate/test_verdict.py measures them): the dataset's own pictures, softened as an
autoencoder softens them, keep half to two thirds of their sharpness under a box blur of 3 x 3 pixels, which a person may
overlook, and at most 0.4 under 5 x 5, which nobody does; noise of 2% of the range more than doubles it, and random latents
decode to three times. By chance hardly one picture in hundreds shows all that was asked: "half of them" is far from
chance, and is what a person means by "works". Where nobody knows the truth, sharpness decides alone; the reason says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SHARP = 0.5
NOISY = 2.0
SHOWN = 0.5
THRESHOLDS = {
    "works": f"sharpness from {SHARP} to {NOISY} of the dataset's, and at least {SHOWN:.0%} of the pictures show what was asked",
    "blur": f"sharpness below {SHARP} of the dataset's",
    "broken": f"a number is not finite, sharpness is above {NOISY} of the dataset's, or fewer pictures show what was asked",
}


@dataclass(frozen=True)
class Verdict:
    """One of three words, and why."""

    word: Literal["works", "blur", "broken"]
    reason: str


def judge(*, pictures: int, finite: int, sharpness: float | None, shown: int | None) -> Verdict:
    """The verdict over `pictures` sampled one way.

    `finite`: how many had finite numbers only; `sharpness`: relative to the dataset's; `shown`: how many show all that
    was asked. Both are None when nobody can tell.
    """
    if finite < pictures:
        return Verdict("broken", f"{pictures - finite} of {pictures} pictures are not finite (NaN or infinity).")
    seen = "Nobody checked what the pictures show" if shown is None else f"{shown} of {pictures} pictures show what was asked"
    level = "nothing to compare their sharpness with" if sharpness is None else f"sharpness is {sharpness:.2f} of the dataset's"
    reason = f"{seen}; {level}."
    if sharpness is not None and sharpness < SHARP:
        return Verdict("blur", reason)
    if (sharpness is not None and sharpness > NOISY) or (shown is not None and shown < SHOWN * pictures):
        return Verdict("broken", reason)
    return Verdict("works", reason)


def over_alphas(verdicts: Mapping[float, Verdict]) -> dict[str, object]:
    """What the verdicts at each alpha say together: {"verdict", "alpha", "sentence"}.

    As trained is alpha 1.0. When that does not work, a merge may: the highest alpha below it that works, which keeps most
    of the training. Alpha 0.0 is the base itself and proves nothing about the run.
    """
    top = max(verdicts)
    trained = verdicts[top]
    if trained.word == "works":
        return {"verdict": "works", "alpha": top, "sentence": f"Works {_at(top)}. {trained.reason}"}
    merged = [alpha for alpha, verdict in verdicts.items() if 0.0 < alpha < top and verdict.word == "works"]
    if merged:
        best = max(merged)
        sentence = f"Works after merge at alpha {best:.2f}; {_at(top)} it is {_noun(trained)}. {verdicts[best].reason}"
        return {"verdict": "works after merge", "alpha": best, "sentence": sentence}
    others = ", and no merge that was tried works" if any(0.0 < alpha < top for alpha in verdicts) else ""
    return {
        "verdict": trained.word,
        "alpha": top,
        "sentence": f"{_noun(trained).capitalize()} {_at(top)}{others}. {trained.reason}",
    }


def _at(alpha: float) -> str:
    return "as trained" if alpha == 1.0 else f"at alpha {alpha:.2f}"


def _noun(verdict: Verdict) -> str:
    return "a blur" if verdict.word == "blur" else verdict.word
