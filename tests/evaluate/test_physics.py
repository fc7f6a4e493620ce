"""What an eps model is under the v runtime: computed for models that are exact, and measured for the shipped base.

Pictures whose components are independent and normal have an exact eps model in closed form. Sampled as v it must lose more
than half of every component's amplitude, and most of the large structures': a blur without content. What a prompt tells survives
that, unless it leaves the strength open, as a photograph's contrast is: then an exact eps model sampled as v fades whatever it draws.
"""

from math import acos, atan, atanh, exp, pi, sqrt, tan
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from astolfo.evaluate import evaluate, metrics, validate
from astolfo.evaluate.candidate import Candidate
from astolfo.evaluate.prompts import procedural_prompts
from astolfo.evaluate.sample import Settings, _denoise, sample, scheduler_of
from astolfo.evaluate.verdict import KEPT, Evidence, judge
from astolfo.train.objective import alphas_cumprod

SPREADS = (0.3, 1.0, 2.0, 5.0)  # far larger ones SDXL's own schedule loses too, which begins with some signal in the noise

OPEN = [i / 20 for i in range(1, 21)]  # strengths of a picture in mist, all equally likely
SIDE, TEMPLATES = 12, 64  # the miniature's latents, and how many pictures a prompt chooses from


class Exact(nn.Module):
    """The UNet that knows the distribution: each channel is normal with a deviation of its own; predicts E[e | x] or E[v | x]."""

    def __init__(self, kind, zero_terminal_snr):
        super().__init__()
        self.kind, self.alphas = kind, alphas_cumprod(zero_terminal_snr)
        self.variance = torch.tensor(SPREADS).square().reshape(1, -1, 1, 1)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, x, timestep, context, **further):
        alpha = self.alphas[int(timestep)]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        known = x / (self.variance * alpha + 1 - alpha)
        noise, picture = spread * known, signal * self.variance * known
        return SimpleNamespace(sample=noise if self.kind == "eps" else signal * noise - spread * picture)


def kept(kind, runtime, sampler="DDIM", steps=250):
    """By component: the deviation of what is sampled, over that of the pictures."""
    noise = torch.randn(2, len(SPREADS), 64, 64, generator=torch.Generator().manual_seed(1))
    zero = runtime == "v"
    settings = Settings(runtime=runtime, sampler=sampler, zero_terminal_snr=zero, steps=steps, cfg=1.0)
    latents = _denoise(Exact(kind, zero), (torch.zeros(4, 1, 1), {}), noise, settings)
    return (latents.std(dim=(0, 2, 3)) / torch.tensor(SPREADS)).tolist()


def expected(s):
    """What is left of a component of deviation `s`, in closed form."""
    k = sqrt(abs(1 - s * s))
    return exp(-(1.0 if k == 0 else atanh(k) / k if s < 1 else atan(k) / k)) / s


def test_the_closed_form_lies_below_the_threshold():
    """For any deviation less than KEPT of a component is left, and the less the larger it is."""
    values = [expected(s / 100) for s in range(1, 10_000)]
    assert values[0] < KEPT
    assert values == sorted(values, reverse=True)
    assert [round(expected(s), 2) for s in (1.0, 5.0)] == [0.37, 0.15]


def test_an_exact_eps_model_is_a_blur_under_v():
    """DDIM with zero terminal SNR keeps of each component what the closed form says, so that sharpness and contrast are halved."""
    found = kept("eps", "v")
    assert found == pytest.approx([expected(s) for s in SPREADS], rel=0.05)
    assert judge(Evidence(runtime="v", pictures=8, finite=8, sharpness=max(found))).word == "blur"


@pytest.mark.parametrize(("kind", "sampler"), [("eps", "DDIM"), ("v", "DDIM"), ("v", "Euler")])
def test_an_exact_model_keeps_its_pictures_under_its_own_runtime(kind, sampler):
    """Under its own objective every component keeps nine tenths of its amplitude or more."""
    assert min(kept(kind, kind, sampler)) > 0.9


def test_the_v_runtime_ends_in_pure_noise():
    """The last alpha-bar is exactly 0, in training and in sampling, and sampling begins there."""
    scheduler = scheduler_of(Settings(runtime="v", zero_terminal_snr=True, steps=8))
    assert scheduler.timesteps[0] == 999
    assert scheduler.alphas_cumprod[999] == 0.0
    assert alphas_cumprod(True)[999] == 0.0


class Misty(nn.Module):
    """The UNet that knows pictures of open strength: one of `strengths` times what is drawn.

    `templates`, orthogonal and of mean square 1, are what a prompt chooses from: a row of the context says which may be meant. None:
    pictures that no prompt tells, every latent normal. `seen`: the angle and the root mean square of what was given, of the first row.
    """

    def __init__(self, kind, zero_terminal_snr, strengths, templates=None):
        super().__init__()
        self.kind, self.alphas = kind, alphas_cumprod(zero_terminal_snr)
        self.strengths, self.templates, self.seen = torch.tensor(strengths), templates, []
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, x, timestep, context, **further):
        alpha = self.alphas[int(timestep)]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        self.seen.append((int(timestep), x[0].square().mean().sqrt().item()))
        told = self._grain if self.templates is None else self._told
        picture = told(x.flatten(1), context[:, 0], signal, spread).reshape(x.shape)
        noise = (x - signal * picture) / spread
        return SimpleNamespace(sample=noise if self.kind == "eps" else signal * noise - spread * picture)

    def _grain(self, x, meant, signal, spread):
        """E[picture | x]: the strength follows from the energy."""
        variance = (signal * self.strengths).square() + spread.square()
        weight = (-0.5 * (x.square().sum(1, keepdim=True) / variance + x.shape[1] * variance.log())).softmax(1)
        return (weight * signal * self.strengths.square() / variance).sum(1, keepdim=True) * x

    def _told(self, x, meant, signal, spread):
        """E[picture | x]: template and strength follow from the products with the templates."""
        g = self.strengths[:, None]
        evidence = (signal * g * (x @ self.templates.T)[:, None] - 0.5 * (signal * g).square() * x.shape[1]) / spread.square()
        evidence = evidence + torch.where(meant.bool(), 0.0, -torch.inf)[:, None]  # (batch, strengths, templates)
        return (g * evidence.flatten(1).softmax(1).reshape(evidence.shape)).sum(1) @ self.templates


def strengths(kind, runtime, known, cfg, steps):
    """The strength of what was asked for in eight sampled pictures, over the mean of the strengths that are `known`."""
    numbers = torch.randn(4 * SIDE**2, TEMPLATES, generator=torch.Generator().manual_seed(3))
    templates = torch.linalg.qr(numbers).Q.T * 2 * SIDE
    asked = torch.cat([torch.ones(8, TEMPLATES), torch.eye(TEMPLATES)[:8]])[:, None]
    noise = torch.randn(8, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    settings = Settings(runtime=runtime, zero_terminal_snr=runtime == "v", steps=steps, cfg=cfg)
    latents = _denoise(Misty(kind, kind == "v", known, templates), (asked, {}), noise, settings)
    return (latents.flatten(1) * templates[:8]).mean(1) / torch.tensor(known).mean()


def test_pictures_of_open_strength_fade_under_v_with_the_noise():
    """Whatever is seen is taken for noise on a weaker picture, so that from angle pi/2 on tan(angle / 2) of it is left, and no more."""
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    settings = Settings(runtime="v", zero_terminal_snr=True, steps=250, cfg=1.0)
    model, alphas = Misty("eps", False, OPEN), scheduler_of(settings).alphas_cumprod
    latents = _denoise(model, (torch.zeros(2, 1, 1), {}), noise, settings)
    left = [(tan(acos(alphas[timestep].sqrt()) / 2), rms) for timestep, rms in model.seen]
    assert [rms for _, rms in left[::25]] == pytest.approx([expected for expected, _ in left[::25]], rel=0.05)
    assert latents.std() < min(OPEN)


def test_what_a_prompt_tells_at_one_strength_survives_the_v_runtime():
    """At the angle where sampling ends, 1 - tan(angle / 2) (1 + pi / 2 - angle) of it is there: nearly all, guided or not."""
    angle = acos(scheduler_of(Settings(runtime="v", zero_terminal_snr=True)).alphas_cumprod[0].sqrt())
    drawn = 1 - tan(angle / 2) * (1 + pi / 2 - angle)
    for cfg in (1.0, 4.0):
        assert strengths("eps", "v", [1.0], cfg, steps=250).tolist() == pytest.approx([drawn] * 8, abs=0.01)


@pytest.mark.parametrize("steps", [8, 28])
def test_what_a_prompt_tells_fades_where_its_strength_is_open(steps):
    """Sampled as v less than a third of the mean strength is left, guided as usual; under its own runtime a guided model draws more."""
    assert strengths("eps", "v", OPEN, 4.0, steps).max() < 1 / 3
    assert strengths("eps", "eps", OPEN, 4.0, steps).median() > 1
    assert strengths("v", "v", OPEN, 4.0, steps).median() > 1


def looked_at(shipped, file, words, runtime):
    """What is measured of eight pictures of a shipped base under one runtime, at the usual settings, and the verdict."""
    candidate = Candidate(shipped.architecture, None, file, words)
    prompts = procedural_prompts(5, 8, width=48, height=48)
    settings = Settings(runtime=runtime, zero_terminal_snr=runtime == "v", steps=8, cfg=4.0, width=48, height=48)
    pictures, finite = sample(candidate.at(1.0), candidate.text, [prompt.text for prompt in prompts], settings, seed=5)
    held_out = validate.procedural(candidate.parts["vae"], seed=5, count=96, side=48)
    reference = evaluate._reference(candidate, held_out)
    looks = metrics.relative(metrics.looks([*pictures]), reference.looks)
    shown = sum(one["all"] for one in metrics.agreements([*pictures], [prompt.scene for prompt in prompts]))
    left = np.array(metrics.by_scale([*pictures])) / np.array(reference.by_scale)
    numbers = {"sharpness": looks["sharpness"], "contrast": looks["contrast"], "shown": int(shown)}
    return judge(Evidence(runtime=runtime, pictures=8, finite=int(finite.sum()), **numbers)).word, left, numbers


def test_the_shipped_eps_base_is_a_blur_under_v(shipped, words):
    """It works as eps; sampled as v about half of the contrast is left at every scale: a blur by the pictures alone."""
    word, _, numbers = looked_at(shipped, shipped.eps, words, "eps")
    assert word == "works", numbers
    word, left, numbers = looked_at(shipped, shipped.eps, words, "v")
    assert word == "blur", numbers
    assert left.max() < 0.6, left


def test_the_shipped_v_base_is_broken_under_eps(shipped, words):
    """It works as v; sampled as eps its pictures are wild ones, of more than twice the dataset's contrast or sharpness."""
    word, _, numbers = looked_at(shipped, shipped.v, words, "v")
    assert word == "works", numbers
    word, _, numbers = looked_at(shipped, shipped.v, words, "eps")
    assert word == "broken", numbers


def test_the_shipped_eps_base_read_as_v_knows_less_than_a_guess(shipped, words):
    """Its loss at high noise is far below a guess's as eps, and above it as v."""
    base = Candidate(shipped.architecture, None, shipped.eps, words)
    held_out = validate.procedural(base.parts["vae"], seed=5, count=8, side=48)
    own = validate.losses(base, held_out, "eps", validate.NOISY, seed=5)["relative"]
    foreign = validate.losses(base, held_out, "v", validate.NOISY, seed=5, terminal=True)["relative"]
    assert max(own) < 0.6
    assert min(foreign) > 1.0
