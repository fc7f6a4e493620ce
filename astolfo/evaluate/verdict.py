"""The verdict: works, blur or broken, by stated thresholds, with its reason in one sentence.

- **broken**: a number was not finite; or the pictures are noise (more than `NOISY` times as sharp as the dataset's); or
  they are sharp, and fewer than `SHOWN` of them show what was asked; or the runtime is not v and reads nothing.
- **blur**: sharpness or contrast is below `KEPT` of the dataset's; or the runtime is v and reads nothing.
- **works**: neither, and at least `SHOWN` of the pictures show all that was asked.

A runtime *reads nothing* of a model when the model, over held-out samples at timesteps 500 to 999, where sampling decides
what a picture is, loses at least `GUESS` times what a guess loses that knows the noise level and nothing of the picture.

Where the thresholds come from (tests/evaluate/test_verdict.py and test_physics.py measure them):

`KEPT` is what a wrong reading leaves at most. Let an exact eps model of pictures whose components are normal with deviation
s be sampled as v. Its output is the noise e, which the v runtime takes for the slope of the trajectory x = cos(p) x0 +
sin(p) e; so dx/dp = E[e | x] instead of E[v | x], and of a component's amplitude exp(-artanh(k) / k) / s is left, k =
sqrt(1 - s^2): under 0.50 for every s, 0.37 for s = 1, 0.15 for s = 5. Large structures, whose s is large, go first: a blur
without content. It agrees with the eye: softened as an autoencoder softens them, the dataset's pictures keep half to two
thirds of their sharpness under a box blur of 3 x 3 pixels, which a person may overlook, and at most 0.4 under 5 x 5, which
nobody does.

`GUESS` is 1, where a prediction stops being one. What the prompt tells completely survives even that, as the miniature's
pictures do; what it leaves open does not, and `seen` keeps what the pictures alone would say. Noise of 2% of the range more
than doubles sharpness, and random latents decode to three times: `NOISY`. By chance hardly one picture in hundreds shows all
that was asked: "half of them" is far from chance, and is what a person means by "works". Where nobody knows the truth, looks
and reading decide alone; the reason says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

KEPT = 0.5
NOISY = 2.0
SHOWN = 0.5
GUESS = 1.0
_READS_NOTHING = (
    "on held-out samples at timesteps 500 to 999 the loss of the runtime's objective is at least that of a guess which knows the "
    "noise level only"
)
THRESHOLDS = {
    "works": f"sharpness from {KEPT} to {NOISY} and contrast from {KEPT} of the dataset's, at least {SHOWN:.0%} of the pictures "
    "show what was asked, and the runtime reads more from the model than a guess knows",
    "blur": f"sharpness or contrast below {KEPT} of the dataset's; or, for the v runtime, {_READS_NOTHING}",
    "broken": f"a number is not finite, sharpness is above {NOISY} of the dataset's, or fewer pictures show what was asked; or, "
    f"for another runtime, {_READS_NOTHING}",
}


@dataclass(frozen=True)
class Verdict:
    """One of three words, and why. `seen` is the word that the pictures alone would give."""

    word: Literal["works", "blur", "broken"]
    reason: str
    seen: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured of `pictures` sampled one way, assuming `runtime`.

    `finite`: how many had finite numbers only; `sharpness`, `contrast`: relative to the dataset's; `shown`: how many show
    all that was asked; `reading`: the loss over a guess's. All but the first three are None when nobody can tell.
    """

    runtime: str
    pictures: int
    finite: int
    sharpness: float | None = None
    contrast: float | None = None
    shown: int | None = None
    reading: float | None = None


def judge(found: Evidence) -> Verdict:
    """The verdict over one way of sampling."""
    if found.finite < found.pictures:
        lost = found.pictures - found.finite
        return Verdict("broken", f"{lost} of {found.pictures} pictures are not finite (NaN or infinity).", "broken")
    seen, reason = _seen(found), _reason(found)
    if _reads_nothing(found) and seen != "broken":
        return Verdict("blur" if found.runtime == "v" else "broken", reason, seen)
    return Verdict(seen, reason, seen)


def _reads_nothing(found: Evidence) -> bool:
    return found.reading is not None and found.reading >= GUESS


def _seen(found: Evidence) -> Literal["works", "blur", "broken"]:
    """What the pictures alone say."""
    if any(kept is not None and kept < KEPT for kept in (found.sharpness, found.contrast)):
        return "blur"
    noise = found.sharpness is not None and found.sharpness > NOISY
    return "broken" if noise or (found.shown is not None and found.shown < SHOWN * found.pictures) else "works"


def _reason(found: Evidence) -> str:
    shown = f"{found.shown} of {found.pictures} pictures show what was asked"
    said = ["Nobody checked what the pictures show" if found.shown is None else shown]
    looks = {"sharpness": found.sharpness, "contrast": found.contrast}
    told = " and ".join(f"{name} {value:.2f}" for name, value in looks.items() if value is not None)
    said.append(f"{told} of the dataset's" if told else "nothing to compare their looks with")
    if found.reading is not None:
        but = "but " if _reads_nothing(found) else ""
        said.append(f"{but}at high noise the model, read as {found.runtime}, loses {found.reading:.2f} times what a guess does")
    return f"{'; '.join(said)}."


def over_alphas(verdicts: Mapping[float, Verdict], scores: Mapping[float, float]) -> dict[str, Any]:
    """What the verdicts at each alpha say together: {"verdict", "alpha", "best", "works_at", "sentence", "evidence"}.

    As trained is alpha 1.0. When that does not work, a merge may. The best alpha is the one of highest score among those that
    work, of equal ones the highest, which keeps most of the training. Alpha 0.0 is the base and proves nothing about the run.
    """
    top = max(verdicts)
    works = sorted(alpha for alpha, one in verdicts.items() if one.word == "works" and (alpha > 0.0 or alpha == top))
    best = max(works, key=lambda alpha: (scores[alpha], alpha), default=None)
    evidence = None if best is None else f"Alpha {best:.2f}: {verdicts[best].reason}"
    found = {"best": best, "works_at": works, "evidence": evidence}
    trained = verdicts[top]
    if top in works:
        return {"verdict": "works", "alpha": top, "sentence": f"Works {_at(top)}. {trained.reason}", **found}
    if best is not None:
        sentence = f"Works after merge at alpha {best:.2f}; {_at(top)} it is {_noun(trained)}. {verdicts[best].reason}"
        return {"verdict": "works after merge", "alpha": best, "sentence": sentence, **found}
    others = ", and no merge that was tried works" if any(0.0 < alpha < top for alpha in verdicts) else ""
    sentence = f"{_noun(trained).capitalize()} {_at(top)}{others}. {trained.reason}"
    return {"verdict": trained.word, "alpha": top, "sentence": sentence, **found}


def _at(alpha: float) -> str:
    return "as trained" if alpha == 1.0 else f"at alpha {alpha:.2f}"


def _noun(verdict: Verdict) -> str:
    return "a blur" if verdict.word == "blur" else verdict.word
