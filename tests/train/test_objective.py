"""The objectives are the papers' formulas, or, under `kohya`, what the original trainer computed."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from astolfo.ledger import load, recipe_of
from astolfo.ledger.schema import SEMANTICS
from astolfo.ledger.schema import Objective as Options
from astolfo.train.loss import Task, loss
from astolfo.train.objective import Objective, alphas_cumprod, min_snr_weights, weights
from tests.conftest import SMALL


def objective(semantics="reference", batch_size=2, **options):
    ledger = load(SMALL)
    recipe = recipe_of(ledger, ledger.run("plain"))
    changes = {"objective": Options(**options), "choices": SEMANTICS[semantics], "batch_size": batch_size}
    return Objective(recipe.model_copy(update=changes))


@pytest.fixture
def latents():
    return torch.linspace(-1, 1, 2 * 4 * 3 * 3).reshape(2, 4, 3, 3), torch.linspace(1, -2, 2 * 4 * 3 * 3).reshape(2, 4, 3, 3)


def test_the_schedule_is_stable_diffusions():
    """alpha-bar is diffusers' scaled-linear schedule, with the known end points."""
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert torch.equal(alphas_cumprod(False), scheduler.alphas_cumprod)
    assert alphas_cumprod(False)[[0, 999]].tolist() == pytest.approx([0.99915, 0.00466], abs=5e-6)


def test_zero_terminal_snr_ends_at_zero():
    """The rescaled schedule is exactly 0 at the last timestep and unchanged at the first."""
    table = alphas_cumprod(True)
    assert table[999] == 0
    assert table[998] == pytest.approx(1.97e-7, rel=0.01)
    assert table[0] == pytest.approx(0.99915, abs=1e-5)


@pytest.mark.parametrize(
    ("timestep", "stale", "true"), [(500, 0.2763, 0.2410), (700, 0.0825, 0.0553), (800, 0.0369, 0.0176), (900, 0.01415, 0.00296)]
)
def test_min_snr_before_and_after_the_rescale(timestep, stale, true):
    """min-SNR weights for v: the original trainer reads the table before the rescale, the paper's is the one after."""
    assert min_snr_weights("v", alphas_cumprod(False), 5)[timestep] == pytest.approx(stale, rel=2e-3)
    assert min_snr_weights("v", alphas_cumprod(True), 5)[timestep] == pytest.approx(true, rel=4e-3)


@pytest.mark.parametrize(("timestep", "ratio"), [(500, 1.15), (700, 1.49), (800, 2.09), (900, 4.8), (950, 14), (990, 314)])
def test_min_snr_of_the_stale_table_is_too_large(timestep, ratio):
    """How many times the weight of the table before the rescale is the true one's; at the last timestep the true one is 0."""
    stale, true = (min_snr_weights("v", alphas_cumprod(rescaled), 5) for rescaled in (False, True))
    assert stale[timestep] / true[timestep] == pytest.approx(ratio, rel=2e-2)
    assert stale[999] == pytest.approx(0.00466, rel=2e-3)
    assert true[999] == 0
    assert [weights.mean().item() for weights in (stale, true)] == pytest.approx([0.2943, 0.2776], abs=5e-5)


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_min_snr_is_off_or_on(latents, kind):
    """Without gamma nothing is weighted; without the rescale both tables are one, so both semantics weight alike."""
    draws = np.array([0.3, 0.7])
    assert objective(kind=kind).task(*latents, draws).weight is None
    weights = [objective(name, kind=kind, min_snr_gamma=5).task(*latents, draws).weight for name in ("kohya", "reference")]
    assert torch.equal(*weights)


def test_min_snr_choice_is_named(latents):
    """`snr_table` decides which weights a v run with zero terminal SNR gets; at the last timestep the true one is 0."""
    options = {"kind": "v", "zero_terminal_snr": True, "min_snr_gamma": 5}
    draws = np.array([0.9999, 0.5])
    kohya, reference = (objective(name, **options).task(*latents, draws).weight for name in ("kohya", "reference"))
    assert kohya[0] == pytest.approx(0.00466, rel=1e-2)
    assert reference[0] == 0


def test_min_snr_for_eps_is_capped_at_one():
    """For eps the weight is min(SNR, 5) / SNR: 1 where SNR is small, 5 / SNR where it is large."""
    found, table = min_snr_weights("eps", alphas_cumprod(False), 5), alphas_cumprod(False)
    assert found[999] == 1
    assert found[0] == pytest.approx(5 * (1 - table[0].item()) / table[0].item(), rel=1e-3)


def test_eps_adds_noise_and_asks_for_it(latents):
    """eps: noisy = sqrt(a) x + sqrt(1 - a) e, target e."""
    x, e = latents
    task, a = objective(kind="eps").task(x, e, np.array([0.25, 0.5])), alphas_cumprod(False)[[250, 500]].reshape(2, 1, 1, 1)
    assert task.timestep.tolist() == [250, 500]
    torch.testing.assert_close(task.noisy, a.sqrt() * x + (1 - a).sqrt() * e)
    assert torch.equal(task.target, e)


def test_v_asks_for_the_velocity(latents):
    """v: target sqrt(a) e - sqrt(1 - a) x; at zero terminal SNR the last target is -x."""
    x, e = latents
    task = objective(kind="v", zero_terminal_snr=True).task(x, e, np.array([0.25, 0.9999]))
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True)
    scheduler.alphas_cumprod = alphas_cumprod(True)
    torch.testing.assert_close(task.target, scheduler.get_velocity(x, e, task.timestep))
    torch.testing.assert_close(task.noisy[1], e[1])
    torch.testing.assert_close(task.target[1], -x[1])


def test_rf_moves_straight(latents):
    """rf: noisy = (1 - s) x + s e, target e - x; the median s under shift 3 is 3/4, told to the UNet as 750."""
    x, e = latents
    task = objective(kind="rf", shift=3.0).task(x, e, np.array([0.5, 0.5]))
    torch.testing.assert_close(task.noisy, 0.25 * x + 0.75 * e)
    torch.testing.assert_close(task.target, e - x)
    assert task.timestep.tolist() == [750.0, 750.0]


def test_rf_timesteps_are_logit_normal(latents):
    """Without shift, s is the logistic of a standard normal: a draw of the quantile p gives logistic(quantile(p))."""
    draws = np.array([0.158655253931457, 0.841344746068543])  # one standard deviation below and above
    exact = objective(kind="rf").task(*latents, draws).timestep.tolist()
    assert exact == pytest.approx([268.941, 731.059], abs=1e-2)
    assert objective("kohya", kind="rf").task(*latents, draws).timestep.tolist() == [268.0, 731.0]


@pytest.mark.parametrize("shift", [None, 1.0, 3.0])
def test_rf_shift(latents, shift):
    """Shift r moves s to r s / (1 + (r - 1) s); 1, like none, leaves it; noise is added at the s that is told."""
    x, e = latents
    draws, r = np.array([0.158655253931457, 0.841344746068543]), shift or 1.0
    s = torch.tensor([0.268941421, 0.731058579])
    s = r * s / (1 + (r - 1) * s)
    task = objective(kind="rf", shift=shift).task(x, e, draws)
    torch.testing.assert_close(task.timestep, 1000 * s)
    torch.testing.assert_close(task.noisy, (1 - s).reshape(2, 1, 1, 1) * x + s.reshape(2, 1, 1, 1) * e)


def test_rf_timesteps_stay_in_range(latents):
    """The extreme draws: told at most 999 under `kohya`, below 1000 under `reference`, and never below 0."""
    draws = np.array([2.0**-33, 1 - 2.0**-33])
    kohya, reference = (objective(name, kind="rf", shift=3.0).task(*latents, draws).timestep for name in ("kohya", "reference"))
    assert kohya.tolist() == [5.0, 999.0]
    assert 0 < reference[0] < 10
    assert 999 < reference[1] < 1000


def test_rf_moments(latents):
    """Over evenly spread draws, s has the logit-normal(0, 1)'s mean 1/2 and standard deviation 0.2083."""
    draws = (np.arange(10_000) + 0.5) / 10_000
    s = objective(kind="rf").task(torch.zeros(10_000, 1, 1, 1), torch.zeros(10_000, 1, 1, 1), draws).timestep / 1000
    assert s.mean().item() == pytest.approx(0.5, abs=1e-4)
    assert s.std().item() == pytest.approx(0.2083, abs=2e-4)


def test_the_schedule_in_bf16_is_a_choice():
    """`kohya` casts alpha-bar to bf16 before the root, so there is no noise at all at timestep 0; `reference` has 0.0292."""
    x = torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16)
    noisy = [objective(name, kind="eps").task(x, torch.ones_like(x), np.array([0.0])).noisy for name in ("kohya", "reference")]
    assert noisy[0].abs().max() == 0
    assert noisy[1].float().mean() == pytest.approx(0.0292, rel=0.01)


def test_the_loss_is_the_mean_of_weighted_means(latents):
    """The loss is each sample's mean squared error, weighted, then averaged over the batch."""
    task = objective("kohya", kind="v", zero_terminal_snr=True, min_snr_gamma=5).task(*latents, np.array([0.5, 0.9]))
    error = task.target.square().mean(dim=(1, 2, 3))
    expected = (error * torch.tensor([0.2763, 0.01415])).mean()
    assert loss(task, torch.zeros_like(task.target)).item() == pytest.approx(expected.item(), rel=2e-3)


def test_the_contrastive_term_pushes_away_from_the_batchs_others(latents):
    """loss - lambda MSE(prediction, target of the previous sample), as torch.roll by 1 has it: three samples by hand."""
    x = torch.arange(3.0).reshape(3, 1, 1, 1) * torch.ones(3, 4, 2, 2)
    e = torch.tensor([1.0, 5.0, -2.0]).reshape(3, 1, 1, 1) * torch.ones(3, 4, 2, 2)
    task = objective("kohya", batch_size=3, kind="rf", contrastive=0.05).task(x, e, np.array([0.2, 0.5, 0.8]))
    own, others = [1.0, 4.0, -4.0], [-4.0, 1.0, 4.0]  # e - x, and that of samples 2, 0, 1
    prediction = torch.tensor([0.5, 2.0, -1.0]).reshape(3, 1, 1, 1) * torch.ones(3, 4, 2, 2)
    near, far = (np.mean([(p - t) ** 2 for p, t in zip([0.5, 2.0, -1.0], y, strict=True)]) for y in (own, others))
    assert loss(task, prediction).item() == pytest.approx(near - 0.05 * far, rel=1e-6)


def test_the_contrastive_terms_gradient(latents):
    """The gradient is 2 (p - y) - 2 lambda (p - y') over the number of elements; targets get none."""
    task = objective(kind="rf", contrastive=0.05).task(*latents, np.array([0.2, 0.8]))
    prediction = torch.zeros_like(task.target, requires_grad=True)
    loss(task, prediction).backward()
    expected = 2 * (0.05 * task.target.flip(0) - task.target) / task.target.numel()
    torch.testing.assert_close(prediction.grad, expected)


def test_a_batch_of_one_has_no_contrast(latents):
    """A bucket's last batch of one sample is trained without the term, not with (1 - lambda) times the loss."""
    x, e = (part[:1] for part in latents)
    with_term, without = (objective(kind="rf", **more).task(x, e, np.array([0.4])) for more in ({"contrastive": 0.05}, {}))
    prediction = torch.full_like(x, 0.25)
    assert torch.equal(loss(with_term, prediction), loss(without, prediction))


def test_the_contrastive_term_says_when_it_cannot_act(caplog):
    """At batch size 1 the term does nothing, as in the original trainer, and the log says so once; else it is silent."""
    with caplog.at_level(logging.WARNING):
        objective("kohya", kind="rf", contrastive=0.05)
        assert not caplog.records
        objective("kohya", batch_size=1, kind="rf", contrastive=0.05)
    assert len(caplog.records) == 1
    assert "changes nothing at batch_size 1" in caplog.text


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_the_contrastive_term_belongs_to_rf(kind):
    """eps and v with a contrastive term are refused."""
    with pytest.raises(ValueError, match="contrastive belongs to rf"):
        Options(kind=kind, contrastive=0.05)


def test_the_plain_loss_is_unchanged(latents):
    """Without weight and term the loss is the mean squared error of all elements, to the bit."""
    x, e = latents
    assert torch.equal(loss(Task(x, torch.zeros(2), e), x), torch.nn.functional.mse_loss(x, e))


T = np.array([0, 250, 500, 900, 999])
# What sd-scripts' functions at 48d368f give at these timesteps, of a v model with zero terminal SNR (whose SNR they read before
# the rescale), under min-SNR 5 and each further weight: custom_train_functions.py:68-111.
WEIGHTS = [
    ("v", {"min_snr_gamma": 5}, [0.004250109, 0.6737923, 0.2763325, 0.01415113, 0.004660094]),
    ("v", {"scale_v_pred_loss_like_noise_pred": True}, [0.999001, 0.6737923, 0.2763325, 0.01415113, 0.004660094]),
    ("eps", {"v_pred_like_loss": 0.5}, [1.5005, 1.742068, 2.809415, 36.33286, 108.294]),
    ("eps", {"debiased_estimation_loss": True}, [0.03162278, 0.6957994, 1.61828, 8.3466, 14.61465]),
    ("v", {"debiased_estimation_loss": True}, [0.000999001, 0.3262077, 0.7236676, 0.9858489, 0.9953399]),
    ("v", {"min_snr_gamma": 5, "scale_v_pred_loss_like_noise_pred": True, "debiased_estimation_loss": True},
     [4.241621e-06, 0.148097, 0.05525899, 0.0001974207, 2.161528e-05]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options", "expected"), WEIGHTS, ids=lambda value: "+".join(value) if isinstance(value, dict) else None
)
def test_weights_are_the_original_trainers(kind, options, expected):
    """Each weight, and their product, has the original's values under `kohya`; `reference` reads the schedule's own table."""
    tables = weights(Options(kind=kind, **options), alphas_cumprod(False))
    assert tables[T].tolist() == pytest.approx(expected, rel=2e-6)
    found = objective("kohya", kind=kind, zero_terminal_snr=kind == "v", **options)
    x = torch.ones(len(T), 1, 1, 1)
    assert found.task(x, x, (T + 0.5) / 1000).weight.tolist() == pytest.approx(expected, rel=2e-6)


def test_weights_at_no_signal_are_finite():
    """With zero terminal SNR and its own table, v's weights at the last timestep are 0, or 1 where the paper's is 1 / (SNR + 1)."""
    table = alphas_cumprod(True)
    assert weights(Options(kind="v", scale_v_pred_loss_like_noise_pred=True), table)[999] == 0
    assert weights(Options(kind="v", debiased_estimation_loss=True), table)[999] == 1


# train_util.py:6110-6130, for c = 0.1 and a scale of 0.5 where the schedule reads one; snr before and after the rescale.
THRESHOLDS = [
    ("eps", "constant", [0.05] * 5), ("eps", "exponential", [0.5, 0.2811707, 0.1581139, 0.06294627, 0.05011526]),
    ("eps", "snr", [0.9497092, 0.4129634, 0.2312836, 0.1103023, 0.1036913]),
    ("v", "snr", [0.9497092, 0.4007667, 0.2169108, 0.1024032, 0.1]),
    ("rf", "constant", [0.05] * 5), ("rf", "exponential", None),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "schedule", "expected"), THRESHOLDS)
@pytest.mark.parametrize("semantics", ["kohya", "reference"])
def test_hubers_threshold_follows_the_timestep(semantics, kind, schedule, expected):
    """c over the timesteps is the original's, also where there is no signal; rf's follows 1000 s."""
    loss_of = {"kind": "huber", "schedule": schedule, "c": 0.1, **({"scale": 0.5} if schedule != "snr" else {})}
    x = torch.ones(len(T), 1, 1, 1)
    task = objective(semantics, kind=kind, zero_terminal_snr=kind == "v", loss=loss_of).task(x, x, (T + 0.5) / 1000)
    wanted = expected or [0.5 * 0.1 ** (t / 1000) for t in task.timestep.tolist()]
    assert task.c.tolist() == pytest.approx(wanted, rel=1e-5)
    assert task.measure == "huber"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("l1", [2.25, 0.35, 0.25, 0.05, 3.75]), ("huber", [0.4304442, 0.1103278, 0.06155276, 0.002462113, 0.3700334]),
     ("smooth_l1", [4.304442, 0.2206556, 0.06155276, 0.01231056, 7.400667])],
)  # fmt: skip
def test_errors_are_the_original_trainers(kind, expected):
    """l1, Huber and smooth-L1 have the original's values (train_util.py:6133-6165); a weight multiplies each sample's mean."""
    prediction, y = torch.tensor([-2.0, -0.1, 0.0, 0.3, 4.0]).reshape(5, 1, 1, 1), torch.full((5, 1, 1, 1), 0.25)
    c = None if kind == "l1" else torch.tensor([0.1, 0.5, 1.0, 0.2, 0.05])
    task = Task(y, y, y, measure=kind, c=c)
    assert loss(task, prediction).item() == pytest.approx(np.mean(expected), rel=1e-5)
    for sample in range(5):
        weight = torch.zeros(5)
        weight[sample] = 5.0
        assert loss(replace(task, weight=weight), prediction).item() == pytest.approx(expected[sample], rel=1e-4)


def test_huber_is_a_square_near_zero_and_a_line_far_away():
    """For small errors Huber's loss is the square (smooth-L1's is that by c); for large ones its slope is 2 c (2)."""
    y, c = torch.zeros(1, 1, 1, 1), torch.tensor([0.1])
    for kind, by in (("huber", 1.0), ("smooth_l1", 0.1)):
        near, far, farther = (loss(Task(y, y, y, measure=kind, c=c), torch.full_like(y, p)).item() for p in (1e-3, 100.0, 101.0))
        assert near == pytest.approx(1e-6 / by, rel=2e-3)
        assert farther - far == pytest.approx(0.2 / by, rel=1e-3)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [({}, [0, 500, 999]), ({"min_timestep": 200}, [200, 600, 999]), ({"max_timestep": 400}, [0, 200, 399]),
     ({"min_timestep": 100, "max_timestep": 300}, [100, 200, 299]), ({"min_timestep": 500, "max_timestep": 500}, [500] * 3),
     ({"min_timestep": 1000}, [999] * 3), ({"max_timestep": 0}, [0] * 3)],
)  # fmt: skip
def test_timesteps_lie_between_their_bounds(bounds, expected):
    """Timesteps are uniform from min_timestep on and below max_timestep, as torch.randint draws them; equal bounds are that one."""
    x = torch.zeros(3, 1, 1, 1)
    draws = np.array([2.0**-33, 0.5, 1 - 2.0**-33])
    assert objective(kind="eps", **bounds).task(x, x, draws).timestep.tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "rf", "min_timestep": 5}, "min_timestep is of the SNR schedule of eps and v"),
     ({"kind": "eps", "scale_v_pred_loss_like_noise_pred": True}, "belongs to v, not to eps"),
     ({"kind": "v", "v_pred_like_loss": 1.0}, "belongs to eps, not to v"),
     ({"kind": "eps", "adaptive_noise_scale": 0.1}, "adaptive_noise_scale needs noise_offset"),
     ({"kind": "eps", "ip_noise_gamma_random": True}, "needs ip_noise_gamma"),
     ({"kind": "eps", "min_timestep": 600, "max_timestep": 500}, "above max_timestep"),
     ({"kind": "rf", "loss": "huber"}, "rf has no SNR schedule: give huber schedule"),
     ({"kind": "rf", "contrastive": 0.05, "loss": "l1"}, "the contrastive term is a squared error"),
     ({"kind": "eps", "loss": {"kind": "l1", "c": 0.1}}, "l1 has no c"),
     ({"kind": "eps", "loss": {"kind": "huber", "scale": 0.5}}, "scale has no effect under schedule: snr"),
     ({"kind": "eps", "loss": {"kind": "huber", "c": 2.0}}, "c must be at most 1")],
)  # fmt: skip
def test_what_an_objective_does_not_have_is_refused(options, message):
    """An option that would be without effect or meaning is an error that names it."""
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_an_objective_has_one_form():
    """`loss: l2` is what is computed anyway, and Huber's defaults may be written out: the same recipe."""
    assert Options(kind="eps", loss="l2") == Options(kind="eps")
    assert Options(kind="eps", loss="huber") == Options(
        kind="eps", loss={"kind": "huber", "schedule": "snr", "c": 0.1, "scale": 1.0}
    )
