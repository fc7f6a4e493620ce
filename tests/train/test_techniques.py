"""The recipe's techniques in real, small trainings: what a step's gradient is the mean of, and which weights move how far."""

import pytest
import torch

from astolfo.errors import LedgerError
from astolfo.ledger import recipe_of
from astolfo.ledger.schema import SEMANTICS, Captions, LearningRate, Objective, Optimizer
from astolfo.ledger.unet import FIXED
from astolfo.train.loop import Trainer
from astolfo.train.ranks import Processes
from tests.train.conftest import digest

pytestmark = pytest.mark.alone
PARTS = ("unet", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def inputs(inputs_of):
    """Those of 24 pictures, whose epochs end in steps that are short in every way."""
    return inputs_of(24)


@pytest.fixture
def trainer_of(ledger, inputs):
    """A function that makes a trainer of a plain recipe with changes, its silent first weights made audible."""

    def make(semantics="reference", **changes):
        given = {"choices": SEMANTICS[semantics], "max_grad_norm": 0.0, "steps_per_epoch": None, "first_step": 0, **changes}
        trainer = Trainer(recipe_of(ledger, ledger.run("plain")).model_copy(update=given), inputs, Processes())
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for part in trainer.parts.values():
                for parameter in part.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
        return trainer

    return make


def gradients(trainer):
    """The gradient of the step just done, by name; zeros where there is none."""
    pairs = zip(trainer.names, trainer.parameters, strict=True)
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in pairs}


def batches_of(trainer, step):
    return [batch for row in trainer.order.step(step) for batch in row if batch is not None]


def sample_losses(trainer, batch):
    """Each sample's own mean squared error in a micro-batch (times its weight, where the objective weighs)."""
    task, prediction = trainer._predict(batch)
    errors = (prediction - task.target).square().mean(dim=(1, 2, 3))
    return errors if task.weight is None else errors * task.weight


def compare(trainer, expected, step):
    """Checks a step's loss and gradient against `expected`, a scalar computed by another trainer of the same recipe."""
    other, value = expected
    wanted = torch.autograd.grad(value, other.parameters, allow_unused=True)
    loss = trainer.step(step)
    assert loss == pytest.approx(value.item(), rel=1e-5)
    found = gradients(trainer)
    assert sum(bool(g.any()) for g in found.values()) > 0.9 * len(found)
    for name, gradient in zip(other.names, wanted, strict=True):
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


GROUPED = {"batch_size": 4, "ranks": 2}


@pytest.mark.parametrize(("accumulation", "sizes"), [(3, [1]), (4, [1, 3, 4, 4, 4, 4, 4])])
def test_a_short_step_is_the_mean_of_its_samples(trainer_of, accumulation, sizes):
    """`reference`: whatever is missing at an epoch's end, and in whichever batches, each sample of the step counts the same."""
    trainer, other = (trainer_of(accumulation=accumulation, **GROUPED) for _ in range(2))
    step = trainer.order.steps_per_epoch - 1
    batches = batches_of(other, step)
    assert sorted(len(batch.rows) for batch in batches) == sizes
    compare(trainer, (other, torch.cat([sample_losses(other, batch) for batch in batches]).mean()), step)


def test_a_whole_step_is_the_mean_of_its_samples(trainer_of):
    """`reference`: batches of one size in a whole step, the usual case, give the mean over all samples."""
    changes = {"batch_size": 2, "accumulation": 1, "ranks": 4, "objective": Objective(kind="eps", min_snr_gamma=5)}
    trainer, other = trainer_of(**changes), trainer_of(**changes)
    compare(trainer, (other, torch.cat([sample_losses(other, batch) for batch in batches_of(other, 0)]).mean()), 0)


def test_a_short_step_of_kohya_counts_batches_in_full(trainer_of):
    """`kohya`: batches count the same whatever their size, missing ranks repeat the epoch's first batches, and the sum is
    divided by ranks x full accumulation."""
    trainer, other = (trainer_of("kohya", accumulation=3, **GROUPED) for _ in range(2))
    step = trainer.order.steps_per_epoch - 1
    batches = batches_of(other, step)
    assert len(batches) == 2
    assert batches[1].rows.tolist() == batches_of(other, 0)[0].rows.tolist()
    compare(trainer, (other, sum(sample_losses(other, batch).mean() for batch in batches) / (2 * 3)), step)


@pytest.mark.parametrize("semantics", ["kohya", "reference"])
def test_accumulation_beyond_the_epoch(trainer_of, semantics):
    """4 x 64 micro-batches of 24 pictures: one short step an epoch, the mean of the 24, or under `kohya` 24/256 of it."""
    trainer, other = (trainer_of(semantics, ranks=4, accumulation=64) for _ in range(2))
    assert trainer.order.steps_per_epoch == 1
    batches = batches_of(other, 1)
    assert len(batches) == 24
    total = sum(sample_losses(other, batch).mean() for batch in batches)
    compare(trainer, (other, total / {"kohya": 256, "reference": 24}[semantics]), 1)


def test_each_part_has_its_own_rate(trainer_of):
    """AdamW's first step moves a weight by its learning rate at most, and some by nearly that: each part by its own."""
    rates = {"unet": 1e-4, "text_encoder": 3e-4, "text_encoder_2": 9e-4}
    trainer = trainer_of(learning_rate=LearningRate(**rates), optimizer=Optimizer(kind="AdamW", weight_decay=0.0))
    before = {name: p.detach().clone() for name, p in zip(trainer.names, trainer.parameters, strict=True)}
    trainer.step(0)
    moved = dict.fromkeys(PARTS, 0.0)
    for name, parameter in zip(trainer.names, trainer.parameters, strict=True):
        part = name.split(".")[0]
        moved[part] = max(moved[part], (parameter - before[name]).abs().max().item())
    assert moved == pytest.approx(rates, rel=1e-2)


@pytest.mark.parametrize(
    ("rates", "percent"),
    [({"unet": 0.0, "text_encoders": 1e-4}, 100), ({"unet": 1e-4}, 100), ({"unet": 1e-4}, 71), ({"unet": 1e-4}, 68),
     ({"unet": 1e-4, "text_encoder": 1e-4}, 63)],
)  # fmt: skip
def test_what_does_not_train_keeps_every_bit(trainer_of, rates, percent):
    """Text encoders only, off, or one of them, and partial UNets: after two steps exactly what trains has moved."""
    rate = LearningRate.model_validate(rates)
    trainer = trainer_of(learning_rate=rate, unet=percent, optimizer=Optimizer(kind="AdamW"))
    before = {part: {n: p.detach().clone() for n, p in trainer.parts[part].named_parameters()} for part in PARTS}
    for step in range(2):
        trainer.step(step)
    still = {
        "unet": tuple(FIXED[percent].names) if percent in FIXED else (),
        "text_encoder": ("encoder.layers.1.", "final_layer_norm."),
        "text_encoder_2": (),
    }
    for part in PARTS:
        for name, parameter in trainer.parts[part].named_parameters():
            same = torch.equal(parameter.view(torch.int32), before[part][name].view(torch.int32))
            assert same == (getattr(rate, part) == 0 or name.startswith(still[part])), (part, name)


def test_a_contrast_needs_a_second_sample(trainer_of):
    """The contrastive term changes a training with batches of 2, and not one bit of one with batches of 1."""
    for batch_size in (1, 2):
        weights = []
        for contrastive in (None, 0.05):
            objective = Objective(kind="rf", shift=3.0, contrastive=contrastive)
            trainer = trainer_of("kohya", objective=objective, batch_size=batch_size, ranks=2, accumulation=1)
            trainer.step(0)
            weights.append(torch.cat([p.detach().flatten() for p in trainer.parameters]))
        assert torch.equal(*weights) == (batch_size == 1)


def test_the_contrastive_loss_of_a_step(trainer_of):
    """A step's loss is the mean over its micro-batches of loss - lambda x contrast, where batches have an even size."""
    changes = {"objective": Objective(kind="rf", contrastive=0.05), "batch_size": 2, "ranks": 4, "accumulation": 1}
    trainer, other = trainer_of(**changes), trainer_of(**changes)
    values = []
    for batch in batches_of(other, 0):
        task, prediction = other._predict(batch)
        assert len(batch.rows) == 2
        values.append((prediction - task.target).square().mean() - 0.05 * (prediction - task.target.flip(0)).square().mean())
    assert trainer.step(0) == pytest.approx((sum(values) / 4).item(), rel=1e-5)


def test_wildcards_leave_captions_without_braces_alone(trainer_of, ledger):
    """The miniature's captions have no braces, so a training with wildcards has the bits of one without."""
    plain = recipe_of(ledger, ledger.run("plain")).captions
    trainers = [trainer_of(captions=captions) for captions in (plain, Captions(**plain.model_dump() | {"wildcards": True}))]
    losses = [trainer.step(0) for trainer in trainers]
    assert losses[0] == losses[1]
    pairs = zip(trainers[0].parameters, trainers[1].parameters, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_techniques_leave_no_trace_of_processes(train, spec_of):
    """Batches of 4 with a contrastive term, wildcards and a short step: one process and two write the same state."""
    changes = {
        "objective": Objective(kind="rf", shift=3.0, contrastive=0.05), "captions": Captions(kind="pick", tokens=150, wildcards=True),
        "batch_size": 4, "ranks": 2, "accumulation": 3, "steps_per_epoch": None,
    }  # fmt: skip
    spec = spec_of(0, 3, **changes)
    assert digest(train(spec, "one")) == digest(train(spec, "two", processes=2))


def test_sd2_trains_with_its_one_encoder(trainer_of, ledger):
    """SD 2.1 in v with zero terminal SNR at 225 tokens: both its parts move; a partial UNet is refused by name."""
    changes = {
        "family": "sd2", "architecture": ledger.scale.architectures["sd2"], "unet": 100,
        "objective": Objective(kind="v", zero_terminal_snr=True, min_snr_gamma=5), "captions": Captions(kind="concat", tokens=225),
        "optimizer": Optimizer(kind="AdamW", weight_decay=0.0), "learning_rate": LearningRate(unet=1e-4, text_encoder=1e-4),
    }  # fmt: skip
    trainer = trainer_of("kohya", **changes)
    before = [p.detach().clone() for p in trainer.parameters]
    assert 0 < trainer.step(0) < 10
    moved = [name for name, p, old in zip(trainer.names, trainer.parameters, before, strict=True) if not torch.equal(p, old)]
    assert {name.split(".")[0] for name in moved} == {"unet", "text_encoder"}
    with pytest.raises(LedgerError, match="sd2 has none"):
        trainer_of("kohya", **changes | {"unet": 71})
