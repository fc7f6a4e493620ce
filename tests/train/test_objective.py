"""The objectives are the papers' formulas, or, under `kohya`, what the original trainer computed."""

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from astolfo.ledger import load, recipe_of
from astolfo.ledger.schema import SEMANTICS
from astolfo.ledger.schema import Objective as Options
from astolfo.train.objective import Objective, alphas_cumprod, loss, min_snr_weights
from tests.conftest import CONFIG


def objective(semantics="reference", **options):
    ledger = load(CONFIG)
    recipe = recipe_of(ledger, ledger.run("25112201"))
    return Objective(recipe.model_copy(update={"objective": Options(**options), "choices": SEMANTICS[semantics]}))


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


def test_min_snr_choice_is_named(latents):
    """`snr_table` decides which weights a v run with zero terminal SNR gets; at the last timestep the true one is 0."""
    options = {"kind": "v", "zero_terminal_snr": True, "min_snr_gamma": 5}
    draws = np.array([0.9999, 0.5])
    kohya, reference = (objective(name, **options).task(*latents, draws).weight for name in ("kohya", "reference"))
    assert kohya[0] == pytest.approx(0.00466, rel=1e-2)
    assert reference[0] == 0


def test_min_snr_for_eps_is_capped_at_one():
    """For eps the weight is min(SNR, 5) / SNR: 1 where SNR is small, 5 / SNR where it is large."""
    weights, table = min_snr_weights("eps", alphas_cumprod(False), 5), alphas_cumprod(False)
    assert weights[999] == 1
    assert weights[0] == pytest.approx(5 * (1 - table[0].item()) / table[0].item(), rel=1e-3)


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
