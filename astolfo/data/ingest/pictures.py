"""Pictures into buckets and latents: looked at (`probe`), read and cropped (`read`), encoded (`encoder`).

Whatever a file holds, a picture is either read whole or refused with a reason: an empty, truncated or absurdly large one costs
neither the memory that it claims nor the import. Limits hold for what is read and for what is made of it.
"""

import hashlib
import os
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from astolfo import randomness
from astolfo.data.ingest.bucketing import Bucketing, centred, letterbox, resized
from astolfo.data.ingest.colours import Reading, decoded, turned
from astolfo.data.ingest.run import Encoding
from astolfo.data.ingest.source import Loaded, Refused
from astolfo.digest_cache import digest_of
from astolfo.ledger.file_kinds import FORMATS

CROPS = ("kohya", "reference")
DRAWS = ("sample", "mean")
MOST_PIXELS = 64_000_000
MOST_MADE = 1 << 24  # pixels of a resized picture before it is cropped: beyond, only what is kept is made
MOST_BYTES = 1 << 28
PLAIN = Reading()

Image.init()  # all decoders now, and not in the first of several threads
Image.MAX_IMAGE_PIXELS = None  # `_opened` has a limit of its own, before anything is decoded
_READ = tuple(name for name in FORMATS if name in Image.OPEN)


def probe(data: Any, bucketing: Bucketing, reading: Reading = PLAIN) -> tuple[int, int]:
    """The bucket (height, width) of the picture in `data`: bytes, or a path of which the header is read. Raises Refused."""
    with _opened(data) as image:
        size = image.size[::-1] if reading.exif == "apply" and turned(image) else image.size
        width, height = bucketing.placed(*size)[0]
    if not width or not height:
        raise Refused(f"{size[0]} x {size[1]} pixels, and no bucket is so narrow")
    return height, width


def read(data: Any, bucket: tuple[int, int], crop: str, reading: Reading = PLAIN, bucketing: Bucketing | None = None) -> Loaded:
    """The picture's pixels at its bucket (height, width); `crop` names how its crop is recorded. Raises Refused.

    `bucketing`: what chose the bucket; without it the picture is resized to cover its bucket.
    """
    wanted = bucket[1], bucket[0]
    with _opened(data) as image:
        try:
            picture, notes = decoded(image, reading)
        except Refused:
            raise
        except Exception as error:  # decoders raise whatever comes to them
            raise Refused(f"the picture cannot be decoded: {error}") from None
    original = picture.size
    size = resized(*original, wanted)
    if bucketing and not bucketing.upscale:
        placed, size = bucketing.placed(*original)
        if placed != wanted:
            raise Refused("its size changed while it was being imported")
    pixels, (left, top) = _cropped(picture, size, wanted)
    if reading.mirrored:  # what was cut on the right is now cut on the left
        pixels, left = mirrored(pixels), size[0] - wanted[0] - left
    if crop == "kohya":
        box = letterbox(*original, wanted)
        left, top = int(wanted[0] - box[2] if reading.mirrored else box[0]), int(box[1])
    return Loaded(pixels=pixels, original_size=(original[1], original[0]), crop=(top, left), notes=notes)


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """A picture with left and right changed."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _cropped(picture: Image.Image, size: tuple[int, int], wanted: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The picture resized to `size` and cut to `wanted` around the centre (both width, height), and left and top of the cut.

    A picture so narrow that covering would make millions of pixels to throw away is cut first: the same pixels, but for the
    last bit of a rounding.
    """
    left, top = centred(size, wanted)
    if size != picture.size:
        enlarging = size[0] > picture.size[0] or size[1] > picture.size[1]
        method = Image.Resampling.LANCZOS if enlarging else Image.Resampling.BOX
        if size[0] * size[1] > MOST_MADE:
            across, down = picture.size[0] / size[0], picture.size[1] / size[1]
            box = (left * across, top * down, (left + wanted[0]) * across, (top + wanted[1]) * down)
            return np.asarray(picture.resize(wanted, method, box=box)), (left, top)
        picture = picture.resize(size, method)
    return np.asarray(picture.crop((left, top, left + wanted[0], top + wanted[1]))), (left, top)


def _opened(data: Any) -> Image.Image:
    """The picture with its header read and its size known to be sane."""
    size = _size_of(data) if isinstance(data, Path) else len(data)
    if not 0 < size <= MOST_BYTES:
        raise Refused(f"the picture has {size:,} bytes")
    try:
        image = Image.open(data if isinstance(data, Path) else BytesIO(data), formats=_READ)
    except Image.UnidentifiedImageError:
        raise Refused("no picture of a known kind") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise Refused(f"the picture cannot be decoded: {error}") from None
    except Exception as error:
        raise Refused(f"the picture cannot be decoded: {error}") from None
    if not 0 < image.width * image.height <= MOST_PIXELS:
        pixels = image.width * image.height / 1e6
        image.close()
        raise Refused(f"the picture has {pixels:.1f} megapixels; at most {MOST_PIXELS / 1e6:.0f} are taken")
    return image


def _size_of(path: Path) -> int:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise Refused("no plain file: a folder, a pipe, a socket or a device")
    return status.st_size


def encoder(
    autoencoder: Any, *, draw: str, seed: int = 0, batch: int = 8, device: str = "cpu", file: Path | None = None
) -> Encoding:
    """Encodes by diffusers' AutoencoderKL: the posterior's mean, or one `sample` of it for each picture.

    A sample is keyed by the picture's own pixels under `seed`: neither order nor batch decides it, and two copies of one picture
    stay two copies. `file`: where the autoencoder came from; its digest is part of what an import goes on with.
    """
    import torch

    from astolfo.data.pixels import to_input

    autoencoder = autoencoder.to(device)

    @torch.no_grad()
    def encode(pictures: list[np.ndarray]) -> list[np.ndarray]:
        posterior = autoencoder.encode(to_input(torch.from_numpy(np.stack(pictures))).to(device)).latent_dist
        latents = posterior.mean.float().cpu().numpy()
        if draw == "sample":
            latents = latents + posterior.std.float().cpu().numpy() * np.stack(
                [_noise(seed, p, latents.shape[1:]) for p in pictures]
            )
        return list(latents)

    identity = {"draw": draw, "seed": seed if draw == "sample" else None, "autoencoder": digest_of(file) if file else None}
    return Encoding(encode=encode, batch=batch, identity=identity)


def _noise(seed: int, picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(np.ascontiguousarray(picture)).digest()[:8], "little")
    return randomness.normal(seed, "posterior", key, shape)
