"""The verdict: its thresholds measured, its words and its reasons."""

from math import comb

import numpy as np
import pytest

from astolfo.data.procedural import COLOURS, POSITIONS, SHAPES
from astolfo.evaluate import metrics
from astolfo.evaluate.verdict import KEPT, SHOWN, WILD, Evidence, Verdict, judge, over_alphas


def test_where_the_thresholds_come_from(pictures, blurred):
    """Pictures as an autoencoder softens them are below KEPT under a further blur of 3 x 3, and above WILD with 2% noise."""
    soft = [blurred(picture, 3) for picture in pictures]
    reference = metrics.looks(soft)

    def level(changed):
        return metrics.relative(metrics.looks(changed), reference)["sharpness"]

    noise = np.random.default_rng(0).normal(0, 5, soft[0].shape)
    assert (
        level(soft) > KEPT > level([blurred(picture, 3) for picture in soft]) > level([blurred(picture, 5) for picture in soft])
    )
    assert level([np.clip(picture + noise, 0, 255).astype(np.uint8) for picture in soft]) > WILD


def test_half_the_pictures_are_far_from_chance():
    """A guess that knows all words shows all that was asked less than once in 200; 4 of 8 by chance is one in 10 million."""
    guess = 1 / (len(SHAPES) * len(COLOURS) * (len(COLOURS) - 1) * len(POSITIONS))
    assert guess < 1 / 200
    assert sum(comb(8, k) * guess**k * (1 - guess) ** (8 - k) for k in range(int(SHOWN * 8), 9)) < 1e-7


def judged(**numbers):
    return judge(Evidence(**{"runtime": "v", "pictures": 8, "finite": 8} | numbers))


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"sharpness": 0.9, "contrast": 1.1, "shown": 7}, "works"),
        ({"sharpness": 0.9, "contrast": 1.1, "shown": 6}, "works"),
        ({"sharpness": 0.9, "contrast": 1.1, "shown": 5}, "kinda works"),
        ({"sharpness": 0.9, "contrast": 1.1, "shown": 4}, "kinda works"),
        ({"sharpness": 0.9, "contrast": 1.1, "shown": 3}, "broken"),
        ({"sharpness": 1.5, "contrast": 1.1, "shown": 8}, "works"),
        ({"sharpness": 0.9, "contrast": 1.9, "shown": 8}, "works"),
        ({"sharpness": 0.9, "contrast": 0.7, "shown": 8}, "blur"),
        ({"sharpness": 0.72, "contrast": 0.72, "shown": 8}, "works"),
        ({"sharpness": 0.3, "shown": 8}, "blur"),
        ({"sharpness": 0.3, "shown": 0}, "blur"),
        ({"sharpness": 0.9, "contrast": 0.4, "shown": 8}, "blur"),
        ({"sharpness": 3.0, "shown": 8}, "broken"),
        ({"sharpness": 0.9, "contrast": 2.1, "shown": 8}, "works"),
        ({"sharpness": 2.1, "contrast": 0.4, "shown": 8}, "broken"),
        ({"sharpness": 0.9, "shown": 8, "finite": 7}, "broken"),
        ({"sharpness": 0.9, "shown": None}, "works"),
        ({"sharpness": None, "shown": None}, "works"),
        ({"sharpness": 0.9, "shown": 8, "reading": 9.0}, "works"),
    ],
)
def test_words(numbers, word):
    """Each rule gives its word; a number that is not finite comes before all others; a reading decides nothing."""
    assert judged(**numbers).word == word


def test_reasons_are_plain_sentences():
    """The reason states what was counted and measured, or that nobody could."""
    assert judged(sharpness=0.9, shown=7).reason == "7 of 8 pictures show what was asked; sharpness 0.90 of the dataset's."
    assert judged(finite=6, shown=7).reason == "2 of 8 pictures are not finite (NaN or infinity)."
    assert judged().reason == "Nobody checked what the pictures show; nothing to compare their looks with."
    assert judged(shown=8, reading=0.5).reason.endswith(
        "; at high noise the model, read as v, loses 0.50 times what a guess does."
    )


WORKS, KINDA = Verdict("works", "Fine."), Verdict("kinda works", "So so.")
BLUR, BROKEN = Verdict("blur", "Soft."), Verdict("broken", "Bad.")


@pytest.mark.parametrize(
    ("verdicts", "verdict", "alpha", "sentence"),
    [
        ({0.0: WORKS, 0.5: BLUR, 1.0: WORKS}, "works", 1.0, "Works as trained. Fine."),
        (
            {0.0: WORKS, 0.5: WORKS, 0.7: WORKS, 1.0: BLUR},
            "works after merge",
            0.7,
            "Works after merge; as trained it is a blur. Alpha 0.70: Fine.",
        ),
        ({0.0: WORKS, 0.5: WORKS, 1.0: KINDA}, "kinda works", 1.0, "Kinda works as trained. So so."),
        (
            {0.0: WORKS, 0.5: KINDA, 0.7: BLUR, 1.0: BLUR},
            "kinda works",
            0.5,
            "Kinda works after merge; as trained it is a blur. Alpha 0.50: So so.",
        ),
        ({0.0: WORKS, 0.5: BLUR, 1.0: BROKEN}, "broken", 1.0, "Broken as trained, and no merge that was tried works. Bad."),
        ({1.0: BLUR}, "blur", 1.0, "A blur as trained. Soft."),
    ],
)
def test_over_alphas(verdicts, verdict, alpha, sentence):
    """As trained where that works or kinda does, else the best merge, else what it is as trained; the base alone proves nothing."""
    found = over_alphas(verdicts, dict.fromkeys(verdicts, 8))
    assert (found["verdict"], found["alpha"], found["sentence"]) == (verdict, alpha, sentence)


def test_the_best_alpha():
    """The highest score among the alphas that work, of equal ones the highest alpha; else among those that kinda do; else none."""
    verdicts = {0.0: WORKS, 0.5: WORKS, 0.7: WORKS, 0.9: BLUR, 1.0: WORKS}
    found = over_alphas(verdicts, {0.0: 9, 0.5: 8, 0.7: 8, 0.9: 9, 1.0: 5})
    assert (found["verdict"], found["best"], found["works_at"]) == ("works", 0.7, [0.5, 0.7, 1.0])
    assert found["evidence"] == "Alpha 0.70: Fine."
    kinda = over_alphas({0.0: WORKS, 0.5: KINDA, 0.7: KINDA, 1.0: KINDA}, {0.0: 9, 0.5: 7, 0.7: 6, 1.0: 6})
    assert (kinda["best"], kinda["works_at"], kinda["evidence"]) == (0.5, [], "Alpha 0.50: So so.")
    nothing = over_alphas({0.0: WORKS, 1.0: BLUR}, {0.0: 8, 1.0: 8})
    assert (nothing["best"], nothing["works_at"], nothing["evidence"]) == (None, [], None)
