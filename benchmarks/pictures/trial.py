"""Trains a base of the miniature's sizes on pictures of open strength, and looks at what each runtime makes of it.

    python benchmarks/pictures/trial.py autoencoder vae.safetensors
    python benchmarks/pictures/trial.py train eps.safetensors --autoencoder vae.safetensors [--start sdxl-eps] [--kind v]
    python benchmarks/pictures/trial.py look eps.safetensors --sheets FOLDER

`train` begins with nothing, or with the UNet and text encoders of `--start`: a shipped base's name, or a file. `look` samples 24
prompts at the sampler's usual settings under eps and v, and prints: how many pictures show each told attribute, by templates that
ask for no strength; at which strength; sharpness and contrast over those of the dataset's pictures, seen through the autoencoder;
and contrast by scale over theirs, from single pixels to the whole. One thread. docs/log.md has what came out.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import numpy as np  # noqa: E402
import photographs  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from astolfo import library, randomness  # noqa: E402
from astolfo.checkpoint.architecture import Architecture  # noqa: E402
from astolfo.checkpoint.autoencoder import load_autoencoder, save_autoencoder  # noqa: E402
from astolfo.checkpoint.model import load, save  # noqa: E402
from astolfo.data import vocabulary  # noqa: E402
from astolfo.data.procedural import SIZES, Scene, scene  # noqa: E402
from astolfo.evaluate import metrics  # noqa: E402
from astolfo.evaluate.prompts import procedural_prompts, prompt_of  # noqa: E402
from astolfo.evaluate.sample import Settings, sample  # noqa: E402
from astolfo.ledger import load as load_ledger  # noqa: E402
from astolfo.train.autoencoder import encode, psnr, to_pictures, train_autoencoder  # noqa: E402
from astolfo.train.conditioning import Text  # noqa: E402
from astolfo.train.initialise import initialise  # noqa: E402
from astolfo.train.objective import alphas_cumprod, min_snr_weights  # noqa: E402

LEDGER = load_ledger(Path(__file__).parents[2] / "config", "miniature")
ARCHITECTURE = Architecture.from_mapping(LEDGER.scale.architectures["sdxl"], "sdxl")
TRAINED = ("unet", "text_encoder", "text_encoder_2")
SILENT = ("conv2", "proj_out", "conv_out")  # as `astolfo.train.model` begins a UNet from nothing
ATTRIBUTES = ("shape", "colour", "background", "position", "all")
SEED, PROMPTS = 25112201, 24
Parts = Mapping[str, nn.Module]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["autoencoder", "train", "look"])
    parser.add_argument("file", type=Path, help="what is written, or looked at")
    parser.add_argument("--kind", choices=["eps", "v"], default="eps")
    parser.add_argument("--autoencoder", type=Path)
    parser.add_argument("--start", help="sdxl-eps, sdxl-v or a file; nothing without it")
    parser.add_argument("--steps", type=int, help="default: 1500 of an autoencoder, 3000 of a base")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--text-rate", type=float, help="the text encoders', where it is another; 0: they do not train")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--constant", action="store_true", help="the rate does not fall")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the miniature's sizes; the first is square")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--passes", type=int, default=photographs.PASSES, help="of the blur at most")
    parser.add_argument("--strength", type=float, default=photographs.STRENGTHS[0], help="the least")
    parser.add_argument("--look-every", type=int, default=0, help="steps after which the model so far is saved and looked at")
    parser.add_argument("--cfg", type=float, nargs="+", default=[4.0])
    parser.add_argument("--sampling", type=int, default=8, help="steps")
    parser.add_argument("--sheets", type=Path, help="a folder for pictures of the pictures")
    options = parser.parse_args()
    {"autoencoder": autoencoder, "train": train, "look": look}[options.verb](options)


def pictures(options: argparse.Namespace, seed: int, count: int, sizes: Sequence = SIZES) -> tuple[list[Scene], list[np.ndarray]]:
    scenes = [scene(seed, index, sizes) for index in range(count)]
    veils = (photographs.veil(seed, index, (options.strength, 1.0), options.passes) for index in range(count))
    return scenes, [photographs.photograph(*pair) for pair in zip(scenes, veils, strict=True)]


def seen(model: nn.Module, drawn: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one size through an autoencoder and back."""
    return to_pictures(model.decode(encode(model, torch.from_numpy(np.stack(drawn)))).sample).numpy()


def autoencoder(options: argparse.Namespace) -> None:
    begun = time.time()
    _, drawn = pictures(options, 1, 600)
    found = train_autoencoder(ARCHITECTURE.config("vae"), drawn, seed=1, steps=options.steps or 1500, batch=4, learning_rate=3e-3)
    save_autoencoder(options.file, found, ARCHITECTURE)
    scenes, drawn = pictures(options, 77, 96, SIZES[:1])
    pairs = zip(seen(found, drawn), scenes, strict=True)
    right = np.mean([photographs.agreement(*pair)["all"] for pair in pairs])
    print(f"{time.time() - begun:.0f} s; of other pictures {psnr(found, drawn):.1f} dB, and {right:.0%} still right")


def train(options: argparse.Namespace) -> None:
    parts = started(options)
    scenes, drawn = pictures(options, 9, options.images, SIZES[: options.sizes])
    buckets = []
    for width, height in SIZES[: options.sizes]:
        rows = [i for i, one in enumerate(scenes) if (one.width, one.height) == (width, height)]
        latents = encode(parts["vae"], torch.from_numpy(np.stack([drawn[i] for i in rows])))
        buckets.append(((height, width), np.array(rows), latents * parts["vae"].config.scaling_factor))
    text = texts(parts)
    tokens = text.read([*map(prompt_of, scenes), ""])
    rates = {part: options.rate if part == "unet" or options.text_rate is None else options.text_rate for part in TRAINED}
    groups = [
        {"params": list(parts[part].train().requires_grad_(rate > 0).parameters()), "rate": rate} for part, rate in rates.items()
    ]
    trained = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01)
    alpha_bar, steps = alphas_cumprod(options.kind == "v"), options.steps or 3000
    weights, losses, begun = min_snr_weights(options.kind, alpha_bar, 5.0), [], time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * min((step + 1) / options.warmup, 1.0 if options.constant else 1 - step / steps)
        loss = loss_of(options, parts["unet"], text, tokens, buckets, alpha_bar, weights, step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} loss {np.mean(losses[-100:]):.4f}, {time.time() - begun:.0f} s", flush=True)
        if step + 1 == steps or (options.look_every and (step + 1) % options.look_every == 0):
            save(options.file, parts, ARCHITECTURE)
            look(options, f"-{step + 1}")


def started(options: argparse.Namespace) -> dict[str, nn.Module]:
    """A model's parts: those of `--start`, or first weights; with the autoencoder that was asked for."""
    shipped = library.STAND_INS / f"{options.start or 'sdxl-eps'}.safetensors"
    parts = loaded(shipped if shipped.exists() else Path(options.start)) if options.start else fresh()
    if options.start is None:
        for part in TRAINED:
            initialise(parts[part], options.seed, SILENT if part == "unet" else ())
    if options.autoencoder:
        parts["vae"] = load_autoencoder(options.autoencoder, ARCHITECTURE)
    return parts


def fresh() -> dict[str, nn.Module]:
    """Modules without weights worth keeping: every part is filled or put in place."""
    return {part: ARCHITECTURE.build(part, "cpu").eval() for part in ARCHITECTURE.parts}


def loaded(file: Path) -> dict[str, nn.Module]:
    return load(file, ARCHITECTURE, dtype=dict.fromkeys(ARCHITECTURE.parts, "fp32"))


def texts(parts: Parts) -> Text:
    with tempfile.TemporaryDirectory() as folder:
        vocabulary.write(folder)
        return Text.of(parts, Path(folder), tokens=75, context="inference")


def loss_of(
    options: argparse.Namespace, unet: nn.Module, text: Text, tokens: list[Tensor], buckets: list, alpha_bar: Tensor,
    weights: Tensor, step: int,
) -> Tensor:  # fmt: skip
    """The loss of a batch of one size, its timesteps spread evenly, a tenth of its captions dropped."""
    u = randomness.uniform(options.seed, "trial", step, 1 + 3 * options.batch)
    chosen, at, dropped = u[1:].reshape(3, -1)
    counts = np.cumsum([len(rows) for _, rows, _ in buckets])
    (height, width), rows, latents = buckets[int(np.searchsorted(counts, u[0] * counts[-1], side="right"))]
    chosen = (chosen * len(rows)).astype(int)
    timesteps = ((np.arange(options.batch) + at) / options.batch * 1000).astype(int)
    which = np.where(dropped < 0.1, len(tokens[0]) - 1, rows[chosen])
    context, pooled = text.encode([ids[which] for ids in tokens], "cpu")
    x0 = latents[chosen]
    noise = torch.from_numpy(randomness.normal(options.seed, "trial noise", step, tuple(x0.shape)))
    signal, spread = (one[timesteps].sqrt().reshape(-1, 1, 1, 1) for one in (alpha_bar, 1 - alpha_bar))
    target = noise if options.kind == "eps" else signal * noise - spread * x0
    sizes = torch.tensor([[height, width, 0, 0, height, width]] * options.batch).float()
    further = {"text_embeds": pooled, "time_ids": sizes}
    out = unet(signal * x0 + spread * noise, torch.from_numpy(timesteps), context, added_cond_kwargs=further).sample
    return ((out - target).square().mean((1, 2, 3)) * weights[timesteps]).mean()


@torch.no_grad()
def look(options: argparse.Namespace, suffix: str = "") -> None:
    parts = loaded(options.file)
    text, prompts = texts(parts), procedural_prompts(SEED, PROMPTS, width=48, height=48)
    reference = seen(parts["vae"], pictures(options, 78, 192, SIZES[:1])[1])
    for runtime in ("eps", "v"):
        for cfg in options.cfg:
            settings = Settings(
                runtime=runtime, zero_terminal_snr=runtime == "v", steps=options.sampling, cfg=cfg, width=48, height=48
            )
            made, _ = sample(parts, text, [prompt.text for prompt in prompts], settings, seed=SEED)
            found = [photographs.agreement(picture, prompt.scene) for picture, prompt in zip(made, prompts, strict=True)]
            looks = metrics.relative(metrics.looks(made), metrics.looks(reference))
            told = ", ".join(f"{name} {sum(one[name] for one in found):.0f}" for name in ATTRIBUTES)
            print(
                f"{options.file.stem}{suffix} as {runtime}, cfg {cfg:g}: of {PROMPTS} right: {told}; "
                f"strength {np.median([one['strength'] for one in found]):.2f}; sharpness {looks['sharpness']:.2f}, contrast "
                f"{looks['contrast']:.2f}, by scale {np.round(by_scale(made) / by_scale(reference), 2)}",
                flush=True,
            )
            if options.sheets:
                options.sheets.mkdir(parents=True, exist_ok=True)
                sheet = np.concatenate([np.concatenate(list(made[row : row + 8]), 1) for row in range(0, PROMPTS, 8)], 0)
                enlarged = Image.fromarray(sheet.repeat(2, 0).repeat(2, 1))
                enlarged.save(options.sheets / f"{options.file.stem}{suffix}-{runtime}-{cfg:g}.png")


def by_scale(pictures: np.ndarray) -> np.ndarray:
    """Deviation of what lies between boxes of 1, 2, 4, 8 and 16 pixels, and of the whole picture: float64 (5,)."""
    x, found = np.stack(pictures).astype(float) / 255.0, []
    whole = x.std((1, 2)).mean()
    while x.shape[1] % 2 == 0:
        y = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        found.append(np.sqrt(((x - y.repeat(2, 1).repeat(2, 2)) ** 2).mean()))
        x = y
    return np.array([*found, whole])


if __name__ == "__main__":
    main()
