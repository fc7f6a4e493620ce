"""Schedules: what the learning rates are multiplied by at each step of a run.

A run of T steps warms up over w of them, and then stays (`warmup`) or falls. At step x, with p = (x - w) / (T - w):

    warm-up                (x + 1) / w
    linear                 1 - p
    cosine                 (1 + cos(pi p)) / 2
    cosine-with-restarts   the same of the fraction of p times `cycles`
    polynomial             e + (1 - e) (1 - p)^power, where e is `end` by the run's rate
    warmup-linear          the smaller of the warm-up and 1 - x / T

The choice `warmup: kohya` counts as sd-scripts does under accelerate: N ranks move x by N at every step, T is N times as
long, w (an integer of the command line) is not, and the warm-up is x / w, so that the first step's rate is 0.
"""

from astolfo import elementary
from astolfo.ledger.recipe import Recipe


def factor(recipe: Recipe, step: int) -> float:
    """The schedule's factor at optimizer step `step`, counted from the start of the run's data order."""
    schedule, warm = recipe.schedule, recipe.schedule.warmup_steps
    if schedule.kind == "constant":
        return 1.0
    kohya = recipe.choices.warmup == "kohya"
    each = recipe.ranks if kohya else 1
    at = (step - recipe.first_step) * each
    rising = (at + (not kohya)) / warm if at < warm else 1.0
    if schedule.kind == "warmup":
        return rising
    assert recipe.last_step is not None
    length = (recipe.last_step - recipe.first_step) * each
    if schedule.kind == "warmup-linear":
        return min(rising, (length - at) / length)
    return rising if at < warm else _falling(recipe, (at - warm) / max(1, length - warm))


def _falling(recipe: Recipe, progress: float) -> float:
    """The factor after so much of what follows the warm-up: `progress` is 0 at its begin and 1 at the run's end."""
    schedule = recipe.schedule
    if progress >= 1.0:
        progress = 1.0
    if schedule.kind == "cosine-with-restarts":
        assert schedule.cycles
        return 0.0 if progress == 1.0 else (1.0 + elementary.cosine(progress * schedule.cycles % 1.0)) / 2
    if schedule.kind == "cosine":
        return (1.0 + elementary.cosine(progress)) / 2
    if schedule.kind == "linear":
        return 1.0 - progress
    assert schedule.kind == "polynomial"
    assert schedule.power
    assert schedule.end is not None
    end = schedule.end / main_rate(recipe)
    return end + (1.0 - end) * elementary.power(1.0 - progress, schedule.power)


def main_rate(recipe: Recipe) -> float:
    """The rate that `end` is measured by: the UNet's, or the first part's that has one."""
    return next(rate for rate in recipe.learning_rate.largest.values() if rate)
