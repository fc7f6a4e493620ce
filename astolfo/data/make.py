"""Makes the miniature's datasets: procedural pictures, encoded by an autoencoder, on the road that every import takes."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from astolfo.data import procedural
from astolfo.data.ingest.pictures import encoder, mirrored
from astolfo.data.ingest.run import run
from astolfo.data.ingest.source import Loaded, Row, Source
from astolfo.data.join import both_ways
from astolfo.data.photograph import photograph, veil_of
from astolfo.data.vocabulary import spoken

_AT_ONCE = 64  # pictures that are encoded together


def scenes(pictures: dict[str, Any], seed: int, images: int) -> list[procedural.Scene]:
    """The scenes of a dataset; `pictures` holds the scale's sizes as [width, height] pairs in pixels."""
    sizes = tuple((int(width), int(height)) for width, height in pictures["sizes"])
    return [procedural.scene(seed, index, sizes) for index in range(images)]


def make_dataset(
    folder: Path, autoencoder: Any, pictures: dict[str, Any], *, seed: int, images: int, about: dict[str, Any],
    encoded_by: Path | None = None, flip: bool = False,
) -> str:  # fmt: skip
    """Draws, encodes and stores `images` scenes of `seed`; returns the store's digest. Latents are the posterior's mean.

    `encoded_by`: the autoencoder's file, by which an interrupted making knows that it may go on. `flip`: with a mirror of each.
    """
    encoding = encoder(autoencoder, draw="mean", batch=_AT_ONCE, file=encoded_by)

    def make(into: Path, mirrored: bool) -> str:
        source = _Scenes(scenes(pictures, seed, images), seed, autoencoder.config, about, mirrored)
        return run(source, into, encoding=encoding, workers=1, strict=True, replace=True).digest

    return both_ways(folder, make, about)[0] if flip else make(folder, False)


class _Scenes(Source):
    """Procedural pictures; their own sizes are their buckets."""

    def __init__(self, found: list[procedural.Scene], seed: int, config: Any, about: dict[str, Any], mirrored: bool = False):
        self._found, self._seed, self._mirrored = found, seed, mirrored
        self.about = about | ({"mirrored": True} if mirrored else {})
        self._channels, self._factor = config.latent_channels, 2 ** (len(config.block_out_channels) - 1)
        self.identity = {"kind": "scenes", "images": len(found), "seed": seed}

    def rows(self, workers: Executor) -> Iterator[Row]:
        """The scenes in their order."""
        for index, scene in enumerate(self._found):
            yield Row(
                id=f"{self._seed}-{index:08d}", tags=joined(procedural.tags(scene)), sentence=procedural.sentence(scene),
                where=str(index), bucket=(scene.height, scene.width),
            )  # fmt: skip

    def load(self, row: Row) -> Loaded:
        """The picture of a scene."""
        index = int(row.where)
        pixels = photograph(self._found[index], veil_of(self._seed, index))
        return Loaded(pixels=mirrored(pixels) if self._mirrored else pixels, original_size=row.bucket, crop=(0, 0))

    def shape(self, bucket: tuple[int, int]) -> tuple[int, int, int]:
        """The autoencoder's channels, its factor of pixels a latent."""
        return self._channels, bucket[0] // self._factor, bucket[1] // self._factor


def joined(tags: Iterable[str]) -> str:
    """Tags as they stand in a caption: "1star, solo, red star"."""
    return ", ".join(spoken(tag) for tag in tags)
