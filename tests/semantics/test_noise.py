"""Noise and target as sd-scripts computes them in bf16: 12 timesteps of the schedule, and how many levels of noise it has.

`noise.json` was made by running the trainers' own code: `DDPMScheduler(scaled_linear)`, `prepare_scheduler_for_custom_training`,
`fix_noise_scheduler_betas_for_zero_terminal_snr`, then `add_noise` and `get_velocity` on latents times 0.13025. kohya: as
`sdxl_train.py:641-709` of kohya-ss/sd-scripts at 48d368f has it (diffusers 0.32.1), latents and noise in bf16. kohya-native:
`train_native.py:382-392` and `:224-252` of 6DammK9/sd-scripts at 42b8d79 (diffusers 0.25.0), both in fp32; the input is cast at last
(`sdxl_train.py:201` there). A row: timestep, sqrt(alpha-bar), sigma, the UNet's input and the v target of two values.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from astolfo import randomness
from astolfo.ledger import load, recipe_of
from astolfo.ledger.schema import SEMANTICS, Precision
from astolfo.ledger.schema import Objective as Options
from astolfo.train.model import DTYPES, latent_scale, noised_dtype
from astolfo.train.objective import Objective
from tests.conftest import SMALL

TABLES = json.loads((Path(__file__).parent / "noise.json").read_text())
LATENTS, NOISE = torch.tensor([[[[1.7, -0.9]]]]), torch.tensor([[[[0.4, -2.3]]]])
ROOTS = (
    3e-6  # theirs are MKL's, which stop a unit in the last place beside the true one, and zero terminal SNR subtracts such roots
)


def recipe(semantics, terminal):
    ledger = load(SMALL, "full")
    changes = {
        "objective": Options(kind="v", zero_terminal_snr=terminal), "choices": SEMANTICS[semantics],
        "precision": Precision(weights="bf16", compute="bf16"),
    }  # fmt: skip
    return recipe_of(ledger, ledger.run("plain")).model_copy(update=changes)


def at(wanted, timestep, latents, noise):
    """What a recipe makes of latents and noise at a timestep, in its dtypes."""
    dtype = noised_dtype(wanted)
    draws = np.array([(timestep + 0.5) / 1000])
    return Objective(wanted).task(latents.to(dtype) * latent_scale(wanted), noise.to(dtype), draws)


@pytest.mark.parametrize("terminal", [False, True], ids=["plain", "zero-terminal"])
@pytest.mark.parametrize("semantics", ["kohya", "kohya-native"])
def test_twelve_points_of_the_schedule(semantics, terminal):
    """What the UNet is given, to the bit, and the target, whose fp32 may differ in the last place."""
    wanted = recipe(semantics, terminal)
    assert latent_scale(wanted) == 0.13025
    rows = TABLES[semantics]["zero-terminal" if terminal else "plain"]["rows"]
    assert len(rows) == 12
    for timestep, _, _, noisy, target in rows:
        task = at(wanted, timestep, LATENTS, NOISE)
        assert task.noisy.to(DTYPES["bf16"]).flatten().tolist() == noisy, timestep
        assert task.target.dtype == noised_dtype(wanted)
        assert task.target.float().flatten().tolist() == pytest.approx(target, rel=0 if semantics == "kohya" else ROOTS, abs=1e-7)


@pytest.mark.parametrize("terminal", [False, True], ids=["plain", "zero-terminal"])
@pytest.mark.parametrize("semantics", ["kohya", "kohya-native"])
def test_levels_of_noise(semantics, terminal):
    """In bf16 1000 timesteps have 192 levels, and none at all at 0 and 1; in fp32 each has its own, from 0.02916."""
    wanted, table = recipe(semantics, terminal), TABLES[semantics]["zero-terminal" if terminal else "plain"]
    nothing, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    sigma = [at(wanted, timestep, nothing, one).noisy.item() for timestep in range(1000)]
    assert len(set(sigma)) == table["levels"]
    assert {timestep: sigma[timestep] for timestep, *_ in table["rows"]} == pytest.approx(
        {t: s for t, _, s, *_ in table["rows"]}, rel=ROOTS
    )


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_floored_timesteps_of_rectified_flow(shift):
    """s is float64 here: of 20,000 floored timesteps at most two are another than float32 gives, as there, and by one."""
    draws = (np.arange(20_000) + 0.5) / 20_000
    s = torch.sigmoid(torch.from_numpy(randomness.inverse_normal(draws)).float())
    theirs = ((shift * s / (1 + (shift - 1) * s)) * 1000).floor()
    wanted = recipe("kohya-native", terminal=False).model_copy(update={"objective": Options(kind="rf", shift=shift)})
    nothing = torch.zeros(20_000, 1, 1, 1)
    apart = (Objective(wanted).task(nothing, nothing, draws).timestep - theirs).abs()
    assert (apart.max() <= 1, (apart > 0).sum() <= 2) == (True, True)
