"""The verdict: works, kinda works, blur or broken, by stated thresholds, with its reason in one sentence.

- **broken**: a number was not finite; or sharpness is above `WILD` of the dataset's; or the pictures are no blur, and fewer than
  `SHOWN` of them show what was asked.
- **blur**: sharpness or contrast is below `KEPT` of the dataset's.
- **kinda works**: none of these, and from `SHOWN` to `SURE` of the pictures show all that was asked.
- **works**: none of these, and at least `SURE` of the pictures show all that was asked.

The pictures alone decide. 1.0 is the dataset's own pictures, seen through the model's autoencoder.

Where the thresholds come from (tests/evaluate/test_verdict.py and test_physics.py measure them):

`KEPT` lies half way, in logarithms, between the dataset's own pictures and what a wrong reading leaves at most, which is half of
them. Let an exact eps model of pictures whose components are normal with deviation s be sampled as v. Its output is the noise
e, which the v runtime takes for the slope of the trajectory x = cos(p) x0 + sin(p) e; so dx/dp = E[e | x] instead of E[v | x],
and of a component's amplitude exp(-artanh(k) / k) / s is left, k = sqrt(1 - s^2): under 0.50 for every s, 0.37 for s = 1, 0.15
for s = 5. Of pictures whose strength no prompt tells the model draws even less, tan(p / 2), told content or not.

`WILD` is the double: noise of 2 % of the range reaches it, a v model read as eps is beyond it, random latents decode to three
times the dataset's sharpness. Contrast has no such limit: a guided v model draws pictures of nearly full strength, whose
contrast is 1.9 times that of a dataset whose mean is half of it.

By chance hardly one picture in hundreds shows all that was asked: `SHOWN`, half of them, is far from chance. `SURE` is half
way from there to all. Where nobody knows the truth, looks decide alone; the reason says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

Word = Literal["works", "kinda works", "blur", "broken"]
KEPT, WILD = sqrt(0.5), 2.0
SHOWN, SURE = 0.5, 0.75
_LOOKS = f"sharpness and contrast from {KEPT:.2f} of the dataset's, sharpness up to {WILD}, and "
THRESHOLDS = {
    "works": f"{_LOOKS}at least {SURE:.0%} of the pictures show what was asked",
    "kinda works": f"{_LOOKS}at least {SHOWN:.0%} of the pictures show what was asked, but fewer than {SURE:.0%}",
    "blur": f"sharpness or contrast below {KEPT:.2f} of the dataset's",
    "broken": f"a number is not finite, sharpness is above {WILD} of the dataset's, or fewer than {SHOWN:.0%} of the pictures "
    "show what was asked, though they are no blur",
}


@dataclass(frozen=True)
class Verdict:
    """One of four words, and why."""

    word: Word
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured of `pictures` sampled one way, assuming `runtime`.

    `finite`: how many had finite numbers only; `sharpness`, `contrast`: relative to the dataset's; `shown`: how many show
    all that was asked; `reading`: at high noise, the model's loss over that of a guess, which decides nothing. All but the first
    three are None when nobody can tell.
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
        return Verdict("broken", f"{lost} of {found.pictures} pictures are not finite (NaN or infinity).")
    return Verdict(_word(found), _reason(found))


def _word(found: Evidence) -> Word:
    shown = 1.0 if found.shown is None else found.shown / found.pictures
    if found.sharpness is not None and found.sharpness > WILD:
        return "broken"
    if any(one is not None and one < KEPT for one in (found.sharpness, found.contrast)):
        return "blur"
    if shown < SHOWN:
        return "broken"
    return "works" if shown >= SURE else "kinda works"


def _reason(found: Evidence) -> str:
    shown = f"{found.shown} of {found.pictures} pictures show what was asked"
    parts = ["Nobody checked what the pictures show" if found.shown is None else shown]
    looks = {"sharpness": found.sharpness, "contrast": found.contrast}
    compared = " and ".join(f"{name} {value:.2f}" for name, value in looks.items() if value is not None)
    parts.append(f"{compared} of the dataset's" if compared else "nothing to compare their looks with")
    if found.reading is not None:
        parts.append(f"at high noise the model, read as {found.runtime}, loses {found.reading:.2f} times what a guess does")
    return f"{'; '.join(parts)}."


def over_alphas(verdicts: Mapping[float, Verdict], scores: Mapping[float, float]) -> dict[str, Any]:
    """What the verdicts at each alpha say together: {"verdict", "alpha", "best", "works_at", "sentence", "evidence"}.

    As trained is alpha 1.0, and where it works or kinda works, that is the verdict. Where it does not, a merge may: the verdict
    is "works after merge", or where none works quite, "kinda works" at the best alpha. Of the alphas that work (where none
    does, of those that kinda work) the best is the one of highest score, of equal ones the highest, which keeps most of the
    training.
    `works_at` has those that work. Alpha 0.0 is the base and proves nothing about the run.
    """
    top = max(verdicts)
    alphas = sorted(alpha for alpha in verdicts if alpha > 0.0 or alpha == top)
    works, kinda = ([alpha for alpha in alphas if verdicts[alpha].word == word] for word in ("works", "kinda works"))
    best = max(works or kinda, key=lambda alpha: (scores[alpha], alpha), default=None)
    evidence = None if best is None else f"Alpha {best:.2f}: {verdicts[best].reason}"
    found = {"best": best, "works_at": works, "evidence": evidence}
    trained = verdicts[top]
    if top in (*works, *kinda):
        return {"verdict": trained.word, "alpha": top, "sentence": f"{_begun(trained)} {_at(top)}. {trained.reason}", **found}
    if best is not None:
        word = "works after merge" if works else "kinda works"
        sentence = f"{_begun(verdicts[best])} after merge; {_at(top)} it is {_noun(trained)}. {evidence}"
        return {"verdict": word, "alpha": best, "sentence": sentence, **found}
    others = ", and no merge that was tried works" if any(0.0 < alpha < top for alpha in verdicts) else ""
    sentence = f"{_noun(trained).capitalize()} {_at(top)}{others}. {trained.reason}"
    return {"verdict": trained.word, "alpha": top, "sentence": sentence, **found}


def _begun(verdict: Verdict) -> str:
    return verdict.word.capitalize()


def _at(alpha: float) -> str:
    return "as trained" if alpha == 1.0 else f"at alpha {alpha:.2f}"


def _noun(verdict: Verdict) -> str:
    return "a blur" if verdict.word == "blur" else verdict.word
