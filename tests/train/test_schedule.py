"""Schedules are those of the library that the original trainer takes them from, and its way of counting is a choice."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import optimization

from astolfo import elementary
from astolfo.ledger.schema import SEMANTICS, LearningRate, Schedule
from astolfo.train import schedule

STEPS, WARM = 40, 7
KINDS = [
    {"kind": "warmup"},
    {"kind": "linear"},
    {"kind": "cosine"},
    {"kind": "cosine-with-restarts", "cycles": 3},
    {"kind": "polynomial", "power": 2.0},
    {"kind": "polynomial", "power": 0.7, "end": 1e-6},
]


def recipe(warmup=None, ranks=1, first=0, rate=1e-5, **options):
    return SimpleNamespace(
        schedule=Schedule(**options), choices=SEMANTICS["kohya"].model_copy(update={"warmup": warmup}), ranks=ranks,
        first_step=first, last_step=first + STEPS, learning_rate=LearningRate(unet=rate),
    )  # fmt: skip


def theirs(total, warm, kind, cycles=None, power=None, end=1e-7):
    """The library's factor as a function of the scheduler's step, for a rate of 1e-5."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    made = {
        "warmup": lambda: optimization.get_constant_schedule_with_warmup(optimizer, warm),
        "linear": lambda: optimization.get_linear_schedule_with_warmup(optimizer, warm, total),
        "cosine": lambda: optimization.get_cosine_schedule_with_warmup(optimizer, warm, total),
        "cosine-with-restarts": lambda: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
            optimizer, warm, total, cycles
        ),
        "polynomial": lambda: optimization.get_polynomial_decay_schedule_with_warmup(optimizer, warm, total, end, power),
    }[kind]()
    return made.lr_lambdas[0]


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("options", KINDS, ids=lambda options: options["kind"])
def test_kohya_counts_as_the_trainer_does(options, ranks):
    """Under `warmup: kohya` step k of N ranks has the library's factor at N k of N times as many steps; the first rate is 0."""
    found = [schedule.factor(recipe("kohya", ranks, warmup_steps=WARM, **options), step) for step in range(STEPS)]
    factor = theirs(STEPS * ranks, WARM, **options)
    assert found == pytest.approx([factor(step * ranks) for step in range(STEPS)], rel=1e-12)
    assert found[0] == 0
    assert (found[-1] == 1) == (options["kind"] == "warmup")


@pytest.mark.parametrize("options", KINDS, ids=lambda options: options["kind"])
def test_the_first_step_counts_elsewhere(options):
    """Otherwise a warm-up's first step has 1 / w of the rate, its last one all of it, and what follows is the library's."""
    found = [schedule.factor(recipe(None, 4, first=100, warmup_steps=WARM, **options), 100 + step) for step in range(STEPS)]
    factor = theirs(STEPS, WARM, **options)
    assert found[:WARM] == pytest.approx([(step + 1) / WARM for step in range(WARM)])
    assert found[WARM:] == pytest.approx([factor(step) for step in range(WARM, STEPS)], rel=1e-12)
    named = recipe("reference", 4, first=100, warmup_steps=WARM, **options)
    assert found == [schedule.factor(named, 100 + step) for step in range(STEPS)]


def test_a_warm_up_ends_at_its_nth_part_under_kohya():
    """The record's quirk: 8 steps of warm-up on 4 ranks are over after 2 steps, which have 0 and half of the rate."""
    found = [schedule.factor(recipe("kohya", 4, kind="warmup", warmup_steps=8), step) for step in range(4)]
    assert found == [0, 0.5, 1, 1]


def test_warmup_linear_falls_from_the_first_step():
    """`warmup-linear` is the smaller of a rise over w steps and a fall over all of them."""
    found = [schedule.factor(recipe(kind="warmup-linear", warmup_steps=4), step) for step in range(STEPS)]
    assert found == [min((step + 1) / 4, (STEPS - step) / STEPS) for step in range(STEPS)]


def test_elementary_functions_are_the_functions():
    """Cosine and power from basic operations are libm's to 1e-14; the ends are exact enough to be 1, 0 and -1."""
    turns = np.linspace(0, 1, 1001)
    assert [elementary.cosine(turn) for turn in turns] == pytest.approx(np.cos(np.pi * turns), abs=2e-15)
    for exponent in (0.5, 1.0, 2.0, 3.7):
        assert [elementary.power(x, exponent) for x in turns] == pytest.approx([x**exponent for x in turns], rel=1e-14, abs=0)
    assert math.isclose(elementary.cosine(0.5), 0, abs_tol=1e-17)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "constant", "warmup_steps": 5}, "constant has no warm-up"),
     ({"kind": "cosine", "warmup_steps": 5, "warmup_ratio": 0.1}, "either warmup_steps or warmup_ratio"),
     ({"kind": "cosine", "cycles": 2}, "cosine has no cycles"), ({"kind": "linear", "power": 2.0}, "linear has no power")],
)  # fmt: skip
def test_what_a_schedule_does_not_have_is_refused(options, message):
    """An option that a schedule would leave without effect is an error."""
    with pytest.raises(ValueError, match=message):
        Schedule(**options)
