"""Norm, warm-up and Lion as sd-scripts computes them; every number was printed by the libraries that it names.

`numbers` makes the inputs on both sides. The norm is that of `accelerator.clip_grad_norm_` (accelerate 1.6.0), which is
`torch.nn.utils.clip_grad_norm_`. The rates are of `train_util.get_scheduler_fix` of kohya-ss/sd-scripts at 48d368f in accelerate's
`AcceleratedScheduler` with that many processes. Lion is lion-pytorch 0.2.3, which 48d368f names in its requirements.
"""

import pytest
import torch
from torch import nn

from astolfo.ledger import load, recipe_of
from astolfo.ledger.schema import SEMANTICS, LearningRate, Optimizer, Schedule
from astolfo.train import optimizer as optimizers
from astolfo.train import schedule
from astolfo.train.loop import Trainer
from astolfo.train.ranks import GradientTree, Processes
from tests.conftest import SMALL


def numbers(count, step, scale):
    return torch.tensor([((index * 37 + step * 101 + 7) % 211 - 105) / 105 * scale for index in range(count)])


def recipe(semantics="kohya", **changes):
    ledger = load(SMALL)
    return recipe_of(ledger, ledger.run("plain")).model_copy(update={"choices": SEMANTICS[semantics], **changes})


def clipped(dtype, semantics):
    """First and last gradient of four parameters after clipping at 1.0."""
    parameters = [nn.Parameter(torch.zeros(count, dtype=dtype)) for count in (2000, 300, 2304, 7)]
    trainer = Trainer.__new__(Trainer)  # of a trainer, what clips
    trainer.recipe, trainer.processes, trainer.device = recipe(semantics, max_grad_norm=1.0), Processes(), torch.device("cpu")
    trainer.parameters, trainer.gradient_tree = parameters, GradientTree(parameters, Processes())
    trainer.gradient_tree.begin(1)
    with trainer.gradient_tree.leaf():
        for index, (parameter, scale) in enumerate(zip(parameters, (0.03, 0.2, 0.05, 1.0), strict=True)):
            (parameter * numbers(parameter.numel(), index + 1, scale).to(dtype)).sum().backward()
    trainer._clip(trainer.gradient_tree.reduce())
    return [(parameter.grad[0].item(), parameter.grad[-1].item()) for parameter in parameters]


IN_BF16 = [
    (0.0002765655517578125, -0.00872802734375), (0.06396484375, -0.00982666015625), (-0.000919342041015625, -0.0059814453125),
    (0.29296875, -0.322265625),
]  # fmt: skip
IN_FP32 = [
    (0.00027570666861720383, -0.008730710484087467), (0.06371887028217316, -0.009802903980016708),
    (-0.0009190221899189055, -0.005973644554615021), (0.29102370142936707, -0.32165777683258057),
]  # fmt: skip


def test_the_norm_has_the_gradients_dtype():
    """kohya: in bf16 the norm is 3.109375 where it is 3.10951, and the factor a bf16 number."""
    assert clipped(torch.bfloat16, "kohya") == IN_BF16
    assert clipped(torch.float32, "kohya") == [pytest.approx(pair, rel=3e-7) for pair in IN_FP32]


def test_the_norm_of_the_reference():
    """In fp32 the same; in bf16 each gradient is within a last place, 0.4 %, of the original's."""
    assert clipped(torch.float32, "reference") == [pytest.approx(pair, rel=3e-7) for pair in IN_FP32]
    found = clipped(torch.bfloat16, "reference")
    assert found != IN_BF16
    assert found == [pytest.approx(pair, rel=2**-7) for pair in IN_BF16]


def test_the_fork_never_clips():
    """kohya-native: `train_native.py:1414` clips models that have `get_trainable_params`, which only networks have."""
    whole = clipped(torch.bfloat16, "kohya-native")
    assert whole[3] == tuple(numbers(7, 4, 1.0)[[0, -1]].bfloat16().tolist())


WARM = {  # schedule, processes: rates of a run's steps
    ("warmup", 10, 20, 1): [0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1, 1],
    ("warmup", 10, 20, 4): [0, .4, .8, 1, 1, 1],
    ("cosine", 10, 12, 1): [0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1, .5],
    ("cosine", 10, 12, 4): [0, .4, .8, .993181, .939737, .838641, .700848, .54129, .377257, .226526, .10543, .027091],
    ("linear", 8, 12, 1): [0, .125, .25, .375, .5, .625, .75, .875, 1, .75, .5, .25],
    ("linear", 8, 12, 4): [0, .5, 1, .9, .8, .7, .6, .5, .4, .3, .2, .1],
}  # fmt: skip


@pytest.mark.parametrize(("case", "rates"), WARM.items(), ids=str)
@pytest.mark.parametrize("semantics", ["kohya", "kohya-native"])
def test_rates_of_a_warm_up(semantics, case, rates):
    """A warm-up begins at 0 and moves by the number of processes."""
    kind, warm, steps, ranks = case
    wanted = recipe(
        semantics, schedule=Schedule(kind=kind, warmup_steps=warm), ranks=ranks, first_step=0, last_step=steps,
    )  # fmt: skip
    assert [schedule.factor(wanted, step) for step in range(len(rates))] == pytest.approx(rates, abs=1e-6)


LION = {  # after 40 steps, every 57th of 400 weights
    ("kohya", torch.bfloat16): [-0.0294189453125, -0.03076171875, -0.03076171875, -0.0306396484375, -0.0308837890625,
                                -0.030517578125, -0.030517578125, -0.0302734375],
    ("kohya-native", torch.bfloat16): [-0.0294189453125, -0.03076171875, -0.030517578125, -0.0306396484375, -0.0308837890625,
                                       -0.030517578125, -0.0302734375, -0.0302734375],
    ("kohya", torch.float32): [-0.02919883094727993, -0.030284523963928223, -0.030170230194926262, -0.03035593032836914,
                               -0.03054163046181202, -0.030627332627773285, -0.030513042584061623, -0.030598746612668037],
}  # fmt: skip


@pytest.mark.parametrize(("which", "weights"), LION.items(), ids=str)
def test_lion(which, weights):
    """lion-pytorch 0.2.3's weights, to the bit; the fork's 0.0.6 has pytorch_optimizer's, others in bf16."""
    semantics, dtype = which
    parameter = nn.Parameter(numbers(400, 0, 0.03).to(dtype))
    chosen = Optimizer(kind="Lion", weight_decay=0.01)
    optimizer = optimizers.build(
        recipe(semantics, optimizer=chosen, learning_rate=LearningRate(unet=1e-4)), [("unet", "weight", parameter)]
    )
    for step in range(1, 41):
        parameter.grad = numbers(400, step * step, 1e-3).to(dtype)
        optimizer.step()
    assert parameter[::57].tolist() == weights
    saved = optimizers.state_of(optimizer, parameter)
    assert saved["exp_avg"].dtype == dtype
