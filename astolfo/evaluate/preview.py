"""Sample pictures on the way: what the model draws while it trains, beside the log. They change no bit of the training.

Prompts are the captions of the dataset's first samples, noise is keyed by the picture's number alone: so the pictures of two
steps differ by what was learned between them.
"""

import logging
from pathlib import Path

import numpy as np

from astolfo.checkpoint.autoencoder import load_autoencoder
from astolfo.data.captions import caption
from astolfo.evaluate.grid import save_png
from astolfo.evaluate.sample import Settings, sample
from astolfo.ledger.schema import Captions
from astolfo.train.loop import Trainer
from astolfo.train.model import architecture_of

log = logging.getLogger(__name__)
PICTURES, SEED = 4, 0


def draw(trainer: Trainer, base: Path | None, out: Path) -> None:
    """Writes the model's pictures of PICTURES captions, side by side, as PNG at `out`. Nothing for a model without a base.

    The autoencoder is read from `base` for the occasion, so that no memory is held between the pictures.
    """
    if base is None:
        log.warning("no sample pictures: a model from nothing has no autoencoder to draw with")
        return
    architecture, objective = architecture_of(trainer.recipe), trainer.recipe.objective
    autoencoder = load_autoencoder(base, architecture).to(trainer.device)
    side = architecture.unet["sample_size"] * 2 ** (len(architecture.vae["block_out_channels"]) - 1)
    settings = Settings(
        runtime=objective.kind,
        zero_terminal_snr=objective.zero_terminal_snr,
        height=side,
        width=side,
        shift=objective.shift or 1.0,
    )
    rows = (trainer.store.sample(row) for row in range(min(PICTURES, len(trainer.store))))
    prompts = [caption(Captions(kind="concat"), row.tags, row.sentence, seed=SEED, position=0) for row in rows]
    pictures, _ = sample({**trainer.parts, "vae": autoencoder}, trainer.text, prompts, settings, seed=SEED)
    save_png(out, np.concatenate(list(pictures), axis=1), {"prompts": "\n".join(prompts)})
    log.info("sample pictures: %s", out)
