"""What each runtime makes of an exact model of the miniature's scenes, when captions leave strength and focus open.

    python benchmarks/pictures/exact.py

The pictures known are the 540 plain scenes, averaged to 12 x 12 pixels (the size of the miniature's latents), with a texture
whose power falls as 1 / frequency^2; each at any of some strengths over grey (the ground too, or over a clear ground) and blurs.
Such a mixture of normals has an exact denoiser in closed form, told and untold; nothing is trained. Printed: the strength at
which what was asked is drawn (median of 16 prompts), contrast over the dataset's, and the correlation with what was asked.
"""

import math
from dataclasses import dataclass, field

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import numpy as np  # noqa: E402
import torch  # noqa: E402

from astolfo.data import procedural  # noqa: E402
from astolfo.evaluate.sample import Settings, scheduler_of  # noqa: E402
from astolfo.train.objective import alphas_cumprod  # noqa: E402

SIDE, PIXELS = 12, 4
GROUNDS = [(colour, ground) for colour in procedural.COLOURS for ground in procedural.COLOURS if ground != colour]
NAMES = [(shape, *pair, position) for shape in procedural.SHAPES for pair in GROUNDS for position in procedural.POSITIONS]
TEXTURE, FLOOR = 0.2, 0.02  # deviations, over half the range of a channel


@dataclass(frozen=True)
class Open:
    """What captions leave open: strengths, blurs (deviations in pixels of the 12 x 12), and whether the ground fades too."""

    strengths: np.ndarray = field(default_factory=lambda: np.ones(1))
    blurs: tuple[float, ...] = (0.0,)
    ground: bool = True


UNIFORM, LOGARITHMIC = np.linspace(0.05, 1, 20), np.exp(np.linspace(math.log(0.05), 0, 20))
FOCUS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
CASES = {
    "all of it told": Open(),
    "uniform, clear ground": Open(UNIFORM, ground=False),
    "uniform": Open(UNIFORM),
    "log-uniform": Open(LOGARITHMIC),
    "uniform, and focus": Open(UNIFORM, FOCUS),
    "log-uniform, and focus": Open(LOGARITHMIC, FOCUS),
}


def cosines() -> np.ndarray:
    """The orthonormal cosine transform of SIDE numbers, in which blurs and textures are diagonal."""
    k = np.arange(SIDE)[:, None]
    rows = np.cos(np.pi * (np.arange(SIDE) + 0.5) * k / SIDE) * math.sqrt(2 / SIDE)
    rows[0] /= math.sqrt(2)
    return rows


D = cosines()
FREQUENCY = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE)))


def scenes() -> tuple[np.ndarray, np.ndarray]:
    """The scenes and their grounds in [-1, 1]: float64 (540, 12, 12, 3)."""
    drawn = np.stack([procedural.draw(procedural.plain(*name)) for name in NAMES]) / 127.5 - 1
    grounds = np.stack([np.array(procedural.COLOURS[name[2]]) / 127.5 - 1 for name in NAMES])
    small = drawn.reshape(-1, SIDE, PIXELS, SIDE, PIXELS, 3).mean((2, 4))
    return small, np.broadcast_to(grounds[:, None, None], small.shape)


def transformed(pictures: np.ndarray) -> np.ndarray:
    return np.einsum("ki,lj,...ijc->...klc", D, D, pictures)


class Exact:
    """The mixture over (strength and blur, scene) of normals, in cosines, scaled to variance 1; and its denoisers."""

    def __init__(self, left: Open):
        drawn, grounds = map(transformed, scenes())
        spectrum = 1 / np.maximum(FREQUENCY, 1) ** 2
        spectrum[0, 0] = 0
        spectrum *= TEXTURE**2 * SIDE**2 / spectrum.sum()
        means, variances = [], []
        for g in left.strengths:
            for blur in left.blurs:
                kept = np.exp(-0.5 * (np.pi * FREQUENCY / SIDE * blur) ** 2)[..., None]
                means.append(g * drawn * kept if left.ground else grounds + g * (drawn - grounds) * kept)
                variances.append(np.broadcast_to((g * kept) ** 2 * spectrum[..., None] + FLOOR**2, drawn.shape[1:]))
        means, variances = (torch.tensor(np.stack(one)).float().flatten(start) for one, start in ((means, 2), (variances, 1)))
        self.mean = means.mean((0, 1))
        self.deviation = math.sqrt(float(((means - self.mean) ** 2).mean() + variances.mean()))
        self.means, self.variances = (means - self.mean) / self.deviation, variances / self.deviation**2
        self.contrast = float(np.mean(left.strengths)) * scenes()[0].std((1, 2)).mean()

    def pictures(self, x: torch.Tensor, signal: float, spread: float, asked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """E[picture | x], told which scene is `asked`, and told nothing; x: (batch, 432)."""
        variance = signal**2 * self.variances + spread**2
        products = torch.einsum("bn,mkn->bmk", x, self.means / variance[:, None]) * signal
        length = (self.means.square() / variance[:, None]).sum(-1) * signal**2
        energy = x.square() @ (1 / variance).T + variance.log().sum(-1)
        evidence = products - 0.5 * (length + energy[:, :, None])
        told = torch.full_like(evidence, -torch.inf)
        rows = torch.arange(len(x))
        told[rows, :, asked] = evidence[rows, :, asked]
        gain = signal * self.variances / variance
        found = []
        for one in (told, evidence):
            weight = one.flatten(1).softmax(1).reshape(one.shape)
            mean = torch.einsum("bmk,mkn->bmn", weight, self.means)
            found.append((mean * (1 - signal * gain)).sum(1) + x * (weight.sum(-1) @ gain))
        return found[0], found[1]

    def sampled(self, kind: str, runtime: str, asked: torch.Tensor, cfg: float, steps: int = 8) -> np.ndarray:
        """Pictures of an exact model of `kind` under a runtime: float64 (batch, 12, 12, 3) in [-1, 1]."""
        scheduler = scheduler_of(Settings(runtime=runtime, zero_terminal_snr=runtime == "v", steps=steps, cfg=cfg))
        x = torch.randn(len(asked), self.means.shape[-1], generator=torch.Generator().manual_seed(1))
        known = alphas_cumprod(kind == "v")
        for timestep in scheduler.timesteps:
            signal, spread = known[int(timestep)].sqrt().item(), (1 - known[int(timestep)]).sqrt().item()
            told, untold = (
                noise if kind == "eps" else signal * noise - spread * picture
                for picture in self.pictures(x, signal, spread, asked)
                for noise in [(x - signal * picture) / spread]
            )
            x = scheduler.step(untold + cfg * (told - untold), timestep, x).prev_sample
        cosines = (x * self.deviation + self.mean).numpy().reshape(-1, SIDE, SIDE, 3)
        return np.clip(np.einsum("ki,lj,...klc->...ijc", D, D, cosines), -1, 1)


def main() -> None:
    asked = torch.tensor(np.random.default_rng(0).choice(len(NAMES), 16, replace=False))
    target = scenes()[0][asked]
    target = target - target.mean((1, 2), keepdims=True)
    for name, left in CASES.items():
        model = Exact(left)
        for kind, runtime in (("eps", "eps"), ("eps", "v"), ("v", "v"), ("v", "eps")):
            for cfg in (1.0, 4.0):
                made = model.sampled(kind, runtime, asked, cfg)
                found = made - made.mean((1, 2), keepdims=True)
                product = (found * target).sum((1, 2, 3))
                strength = product / (target**2).sum((1, 2, 3))
                alike = product / np.sqrt((found**2).sum((1, 2, 3)) * (target**2).sum((1, 2, 3)) + 1e-9)
                contrast = made.std((1, 2)).mean() / model.contrast
                print(
                    f"{name:24} {kind:>3} as {runtime:3} cfg {cfg:g}: strength {np.median(strength):.2f}, "
                    f"contrast {contrast:.2f}, correlation {np.median(alike):.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
