"""What the miniature's bases draw under each runtime, beside the dataset's own pictures.

    python benchmarks/pictures/bases.py [FILE ...] [--sheets FOLDER]

Without files: the bases that come with the program. Each is sampled with 24 prompts at the usual settings (8 steps, guidance 4)
as eps, as v and as rf. Printed are: how many pictures show each told attribute; the median strength at which they do; sharpness
and contrast over the dataset's; contrast by scale, from single pixels to large shapes; and the verdict. The last line is of the
autoencoder: its peak signal-to-noise ratio, and how many of the dataset's pictures are recognised before and after it.
`--sheets` keeps the pictures.
"""

import argparse
import tempfile
from pathlib import Path

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from astolfo import library  # noqa: E402
from astolfo.checkpoint.architecture import Architecture  # noqa: E402
from astolfo.checkpoint.autoencoder import load_autoencoder  # noqa: E402
from astolfo.checkpoint.layout import identify  # noqa: E402
from astolfo.checkpoint.safefile import open_file  # noqa: E402
from astolfo.data import vocabulary  # noqa: E402
from astolfo.data.photograph import photographs  # noqa: E402
from astolfo.data.pixels import encode, to_pictures  # noqa: E402
from astolfo.data.procedural import scene  # noqa: E402
from astolfo.evaluate import metrics  # noqa: E402
from astolfo.evaluate.candidate import Candidate  # noqa: E402
from astolfo.evaluate.prompts import procedural_prompts  # noqa: E402
from astolfo.evaluate.recognition import ATTRIBUTES  # noqa: E402
from astolfo.evaluate.sample import RUNTIMES, Settings, sample  # noqa: E402
from astolfo.evaluate.verdict import Evidence, judge  # noqa: E402
from astolfo.ledger import load  # noqa: E402
from astolfo.train.autoencoder import psnr  # noqa: E402

SEED, PROMPTS, SIDE, COUNT = 25112201, 24, 48, 192
SCENES = [scene(SEED, index, ((SIDE, SIDE),)) for index in range(COUNT)]
LEDGER = load(Path(__file__).parents[2] / "config", "miniature")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--sheets", type=Path, help="a folder for pictures of the pictures")
    options = parser.parse_args()
    shipped = [library.STAND_INS / f"{name}.safetensors" for name in ("sdxl-eps", "sdxl-v", "sd2-v")]
    with tempfile.TemporaryDirectory() as words:
        vocabulary.write(words)
        for file in options.files or shipped:
            look(file, Path(words), options.sheets)
    autoencoder()


def look(file: Path, words: Path, sheets: Path | None) -> None:
    """Prints three lines of a model, one for each runtime."""
    with open_file(file) as opened:
        family = identify(opened.keys())
    candidate = Candidate(Architecture.from_mapping(LEDGER.scale.architectures[family], family), None, file, words)
    prompts = procedural_prompts(SEED, PROMPTS, width=SIDE, height=SIDE)
    parts = candidate.at(1.0)
    reference = seen(parts["vae"], dataset())
    for runtime in RUNTIMES:
        settings = Settings(runtime=runtime, zero_terminal_snr=runtime == "v", steps=8, cfg=4.0, width=SIDE, height=SIDE)
        made, finite = sample(parts, candidate.text, [prompt.text for prompt in prompts], settings, seed=SEED)
        found = metrics.agreements([*made], [prompt.scene for prompt in prompts if prompt.scene])
        looks = metrics.relative(metrics.looks([*made]), metrics.looks(reference))
        scales = np.array(metrics.by_scale([*made])) / np.array(metrics.by_scale(reference))
        told = ", ".join(f"{name} {sum(one[name] for one in found):.0f}" for name in (*ATTRIBUTES, "all"))
        verdict = judge(Evidence(
            runtime=runtime, pictures=PROMPTS, finite=int(finite.sum()), sharpness=looks["sharpness"],
            contrast=looks["contrast"], shown=int(sum(one["all"] for one in found)),
        ))  # fmt: skip
        strength = np.median([one["strength"] for one in found])
        print(
            f"{file.stem} as {runtime}: {verdict.word}; of {PROMPTS} right: {told}; strength {strength:.2f}; sharpness "
            f"{looks['sharpness']:.2f}, contrast {looks['contrast']:.2f}, by scale {np.round(scales, 2)}",
            flush=True,
        )
        if sheets:
            sheets.mkdir(parents=True, exist_ok=True)
            sheet = np.concatenate([np.concatenate([*made[row : row + 8]], 1) for row in range(0, PROMPTS, 8)], 0)
            Image.fromarray(sheet.repeat(2, 0).repeat(2, 1)).save(sheets / f"{file.stem}-{runtime}.png")


def autoencoder() -> None:
    """Prints how the autoencoder keeps the dataset's pictures."""
    architecture = Architecture.from_mapping(LEDGER.scale.architectures["sdxl"], "sdxl")
    model = load_autoencoder(library.STAND_INS / "sdxl-vae.safetensors", architecture)
    drawn = dataset()
    right = [np.mean([one["all"] for one in metrics.agreements(some, SCENES)]) for some in (drawn, seen(model, drawn))]
    print(f"autoencoder: {psnr(model, drawn):.1f} dB; {right[0]:.0%} of {COUNT} pictures are recognised, {right[1]:.0%} after it")


def dataset() -> list[np.ndarray]:
    """Pictures as the datasets have them, all of one size, of a seed that nothing was trained on."""
    return photographs(SEED, SCENES)


@torch.no_grad()
def seen(model: torch.nn.Module, drawn: list[np.ndarray]) -> list[np.ndarray]:
    """Pictures of one size through an autoencoder and back."""
    return [*to_pictures(model.decode(encode(model, torch.from_numpy(np.stack(drawn)))).sample).numpy()]  # type: ignore[operator]


if __name__ == "__main__":
    main()
