"""The verdict: its thresholds measured, its words and its reasons."""

from math import comb

import numpy as np
import pytest

from astolfo.data.procedural import COLOURS, POSITIONS, SHAPES
from astolfo.evaluate import metrics
from astolfo.evaluate.verdict import NOISY, SHARP, SHOWN, Verdict, judge, over_alphas


def test_where_the_thresholds_come_from(pictures, blurred):
    """Softened pictures are above SHARP under a mild blur, below it under a plain one, and above NOISY with 2% noise."""
    soft = [blurred(picture, 3) for picture in pictures]
    reference = metrics.looks(soft)

    def level(changed):
        return metrics.relative(metrics.looks(changed), reference)["sharpness"]

    noise = np.random.default_rng(0).normal(0, 5, soft[0].shape)
    assert level([blurred(picture, 3) for picture in soft]) > SHARP > level([blurred(picture, 5) for picture in soft])
    assert level([np.clip(picture + noise, 0, 255).astype(np.uint8) for picture in soft]) > NOISY


def test_half_the_pictures_are_far_from_chance():
    """A guess that knows all words shows all that was asked less than once in 200; 4 of 8 by chance is one in 10 million."""
    guess = 1 / (len(SHAPES) * len(COLOURS) * (len(COLOURS) - 1) * len(POSITIONS))
    assert guess < 1 / 200
    assert sum(comb(8, k) * guess**k * (1 - guess) ** (8 - k) for k in range(int(SHOWN * 8), 9)) < 1e-7


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"sharpness": 0.9, "shown": 7}, "works"),
        ({"sharpness": 0.9, "shown": 4}, "works"),
        ({"sharpness": 0.9, "shown": 3}, "broken"),
        ({"sharpness": 0.3, "shown": 8}, "blur"),
        ({"sharpness": 0.3, "shown": 0}, "blur"),
        ({"sharpness": 3.0, "shown": 8}, "broken"),
        ({"sharpness": 0.9, "shown": 8, "finite": 7}, "broken"),
        ({"sharpness": 0.9, "shown": None}, "works"),
        ({"sharpness": None, "shown": None}, "works"),
    ],
)
def test_words(numbers, word):
    """Each rule gives its word, and a number that is not finite comes before all others."""
    assert judge(**{"pictures": 8, "finite": 8} | numbers).word == word


def test_reasons_are_plain_sentences():
    """The reason states what was counted and measured, or that nobody could."""
    assert (
        judge(pictures=8, finite=8, sharpness=0.9, shown=7).reason
        == "7 of 8 pictures show what was asked; sharpness is 0.90 of the dataset's."
    )
    assert judge(pictures=8, finite=6, sharpness=0.9, shown=7).reason == "2 of 8 pictures are not finite (NaN or infinity)."
    assert judge(pictures=8, finite=8, sharpness=0.9, shown=None).reason.startswith("Nobody checked")


WORKS, BLUR, BROKEN = Verdict("works", "Fine."), Verdict("blur", "Soft."), Verdict("broken", "Bad.")


@pytest.mark.parametrize(
    ("verdicts", "verdict", "alpha", "sentence"),
    [
        ({0.0: WORKS, 0.5: BLUR, 1.0: WORKS}, "works", 1.0, "Works as trained. Fine."),
        (
            {0.0: WORKS, 0.5: WORKS, 0.7: WORKS, 1.0: BLUR},
            "works after merge",
            0.7,
            "Works after merge at alpha 0.70; as trained it is a blur. Fine.",
        ),
        ({0.0: WORKS, 0.5: BLUR, 1.0: BROKEN}, "broken", 1.0, "Broken as trained, and no merge that was tried works. Bad."),
        ({1.0: BLUR}, "blur", 1.0, "A blur as trained. Soft."),
    ],
)
def test_over_alphas(verdicts, verdict, alpha, sentence):
    """As trained, else the highest merge that works, else what it is as trained; the base alone proves nothing."""
    assert over_alphas(verdicts) == {"verdict": verdict, "alpha": alpha, "sentence": sentence}
