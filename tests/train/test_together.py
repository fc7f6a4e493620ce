"""Optimizers that are more than a rule for one weight: Prodigy, whose step size is of all weights, and schedule-free AdamW."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import pytorch_optimizer
import torch

from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import LearningRate, Optimizer
from astolfo.train import optimizer as optimizers
from tests.train.test_optimizer import SHAPES, loaded, saved, weights

KINDS = ["Prodigy", "AdamWScheduleFree"]


@pytest.fixture
def build(spec_of):
    """A function that gives an optimizer over parameters of one part, all with one rate."""
    plain = spec_of()["recipe"]

    def make(kind, parameters, rate, gather=lambda parts: [parts], **options):
        given = {"optimizer": Optimizer(kind=kind, **options), "learning_rate": LearningRate(unet=rate)}
        recipe = Recipe.model_validate(plain | {name: entry.model_dump(exclude_none=True) for name, entry in given.items()})
        return optimizers.build(recipe, [("unet", str(index), p) for index, p in enumerate(parameters)], gather)

    return make


def gradients(parameters, number):
    """Gradients that lead downhill from where the weights began: towards 1, with some noise."""
    noise = np.random.Generator(np.random.Philox(number + 1))
    for p in parameters:
        p.grad = (p.detach() - 1.0) + torch.from_numpy(noise.standard_normal(p.shape).astype(np.float32) * 0.1).to(p.dtype)


def steps(optimizer, parameters, numbers, factor=None):
    for number in numbers:
        gradients(parameters, number)
        optimizers.set_rate(optimizer, factor(number) if factor else 1.0)
        optimizer.step()


PRODIGY = [
    {}, {"weight_decay": 0.1, "d_coef": 2.0}, {"bias_correction": True, "safeguard_warmup": True}, {"growth_rate": 1.5},
    {"betas": (0.9, 0.99), "beta3": 0.99, "d0": 1e-4},
]  # fmt: skip


@pytest.mark.parametrize("options", PRODIGY, ids=lambda options: "+".join(options) or "plain")
def test_prodigy_is_the_librarys(build, options):
    """Forty steps, in which d grows a thousandfold, are pytorch_optimizer's: the weights and the estimate."""
    ours, theirs = weights(), weights()
    optimizer = build("Prodigy", ours, 1.0, **options)
    library = pytorch_optimizer.Prodigy(theirs, lr=1.0, foreach=False, **{k: v for k, v in options.items() if v is not None})
    for number in range(40):
        steps(optimizer, ours, [number])
        gradients(theirs, number)
        library.step()
    assert optimizer.param_groups[0]["d"] == pytest.approx(library.param_groups[0]["d"], rel=1e-4)
    assert optimizer.param_groups[0]["d"] > 10 * (options.get("d0") or 1e-6)
    for p, q in zip(ours, theirs, strict=True):
        assert (p - q).abs().mean() < 1e-5 * q.abs().mean()


def test_coupled_decay_is_part_of_the_gradient(build):
    """With coupled_decay the weights times the decay are added to the gradient, as its authors' decouple=False has it."""
    ours, by_hand = weights(), weights()
    optimizer, plain = build("Prodigy", ours, 1.0, weight_decay=0.3, coupled_decay=True), build("Prodigy", by_hand, 1.0)
    for number in range(3):
        steps(optimizer, ours, [number])
        gradients(by_hand, number)
        for p in by_hand:
            p.grad.add_(p.detach(), alpha=0.3)
        plain.step()
    assert [p.tolist() for p in ours] == [p.tolist() for p in by_hand]


@pytest.mark.parametrize("cut", [1, 2])
def test_processes_share_one_estimate(build, cut):
    """Parameters that two processes hold get the bits that one process gives them, for each way to share them out."""
    whole, apart = weights(), weights()
    optimizer = build("Prodigy", whole, 1.0)
    steps(optimizer, whole, range(6))
    meeting, sent = threading.Barrier(2), [[], []]

    def gather(index):
        def exchange(parts):
            sent[index] = parts
            meeting.wait()
            both = list(sent)
            meeting.wait()
            return both

        return exchange

    halves = [apart[:cut], apart[cut:]]
    made = [build("Prodigy", half, 1.0, gather(index)) for index, half in enumerate(halves)]
    for number in range(6):
        gradients(apart, number)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: one.step(), made))
    assert [p.tolist() for p in apart] == [p.tolist() for p in whole]


def test_schedule_free_is_the_librarys(build):
    """The weights in training and the averages are those of the library's own train and eval mode, under a warm-up too."""
    ours, theirs = weights(), weights()
    optimizer = build("AdamWScheduleFree", ours, 1e-2, weight_decay=0.1)
    library = pytorch_optimizer.ScheduleFreeAdamW(theirs, lr=1e-2, weight_decay=0.1, warmup_steps=4, foreach=False)
    library.train()
    for number in range(12):
        steps(optimizer, ours, [number], lambda step: min(1.0, (step + 1) / 4))
        gradients(theirs, number)
        library.step()
    assert [p.tolist() for p in ours] == [p.tolist() for p in theirs]
    library.eval()
    recipe = type("Recipe", (), {"optimizer": Optimizer(kind="AdamWScheduleFree")})
    for p, q in zip(ours, theirs, strict=True):
        average = optimizers.averaged(recipe, p.detach(), optimizers.state_of(optimizer, p))
        assert torch.equal(average, q.detach())
        assert not torch.equal(average, p.detach())


def test_the_average_is_of_the_iterates(build):
    """At a constant rate x is the mean of all z: the published definition, in float64 from the z of each step."""
    parameters = weights(((8, 8),))
    optimizer, iterates = build("AdamWScheduleFree", parameters, 1e-2), []
    for number in range(20):
        steps(optimizer, parameters, [number])
        iterates.append(optimizer.state[parameters[0]]["z"].double().clone())
    recipe = type("Recipe", (), {"optimizer": Optimizer(kind="AdamWScheduleFree")})
    average = optimizers.averaged(recipe, parameters[0].detach(), optimizers.state_of(optimizer, parameters[0]))
    torch.testing.assert_close(average.double(), torch.stack(iterates).mean(dim=0), rtol=1e-4, atol=1e-6)


def test_others_have_no_average(build):
    """Any other optimizer's weight is its result."""
    recipe, weight = type("Recipe", (), {"optimizer": Optimizer(kind="AdamW")}), torch.ones(3)
    assert optimizers.averaged(recipe, weight, {}) is weight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_interrupted_run_is_the_uninterrupted_one(build, kind, dtype):
    """Saved as plain tensors and restored elsewhere, it goes on to the bit, its estimate or its averages with it."""
    parameters = weights(SHAPES, dtype)
    optimizer = build(kind, parameters, 1.0 if kind == "Prodigy" else 1e-3)
    assert optimizers.state_of(optimizer, parameters[0]) == {}
    steps(optimizer, parameters, range(3))
    assert [int(optimizers.state_of(optimizer, p)["step"]) for p in parameters] == [3, 3, 3]
    middle = saved(optimizer, parameters)
    steps(optimizer, parameters, range(3, 6))
    others = weights(SHAPES, dtype)
    another = build(kind, others, 1.0 if kind == "Prodigy" else 1e-3)
    loaded(middle, another, others)
    assert saved(another, others) == middle
    steps(another, others, range(3, 6))
    assert saved(another, others) == saved(optimizer, parameters) != middle


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_zeros_are_harmless(build, kind):
    """Steps without a gradient leave numbers finite."""
    parameters = weights()
    optimizer = build(kind, parameters, 1.0)
    for _ in range(3):
        for p in parameters:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert all(p.isfinite().all() for p in parameters)
    assert math.isfinite(optimizer.param_groups[0].get("d", 0.0))
