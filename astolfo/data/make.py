"""Makes the miniature's datasets: procedural pictures, encoded by an autoencoder, written as a store."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astolfo.data import procedural
from astolfo.data.store import NewSample, write_store
from astolfo.data.vocabulary import spoken
from astolfo.train.autoencoder import encode


def scenes(pictures: dict[str, Any], seed: int, images: int) -> list[procedural.Scene]:
    """The scenes of a dataset; `pictures` holds the scale's sizes as [width, height] pairs in pixels."""
    sizes = tuple((int(width), int(height)) for width, height in pictures["sizes"])
    return [procedural.scene(seed, index, sizes) for index in range(images)]


def make_dataset(
    folder: Path, autoencoder: Any, pictures: dict[str, Any], *, seed: int, images: int, about: dict[str, Any]
) -> str:
    """Draws, encodes and stores `images` scenes of `seed`; returns the store's digest. Latents are the posterior's mean."""
    found = scenes(pictures, seed, images)
    samples: list[NewSample | None] = [None] * images
    for size in sorted({(scene.height, scene.width) for scene in found}):
        members = [index for index, scene in enumerate(found) if (scene.height, scene.width) == size]
        drawn = torch.from_numpy(np.stack([procedural.draw(found[index]) for index in members]))
        for index, latents in zip(members, encode(autoencoder, drawn).numpy(), strict=True):
            samples[index] = _sample(found[index], f"{seed}-{index:08d}", latents)
    return write_store(folder, [sample for sample in samples if sample is not None], about)


def _sample(scene: procedural.Scene, name: str, latents: np.ndarray) -> NewSample:
    size = (scene.height, scene.width)
    return NewSample(
        id=name, latents=latents, bucket=size, original_size=size, crop=(0, 0), tags=joined(procedural.tags(scene)),
        sentence=procedural.sentence(scene),
    )  # fmt: skip


def joined(tags: Iterable[str]) -> str:
    """Tags as they stand in a caption: "1star, solo, red star"."""
    return ", ".join(spoken(tag) for tag in tags)
