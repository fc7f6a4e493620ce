"""Pictures into buckets and latents: looked at (`probe`), read and cropped (`read`), encoded (`encoder`).

Whatever a file holds, a picture is either read whole or refused with a reason: an empty, truncated or absurdly large one costs
neither the memory that it claims nor the import. Pixels are taken as stored: like sd-scripts', the reader looks at no EXIF
orientation and drops an alpha channel.
"""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from astolfo import randomness
from astolfo.data.ingest.bucketing import Bucketing, centred, letterbox, resized
from astolfo.data.ingest.run import Encoding
from astolfo.data.ingest.source import Loaded, Refused
from astolfo.files import sha256_of

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp"))
CROPS = ("kohya", "reference")
DRAWS = ("sample", "mean")
MOST_PIXELS = 64_000_000
MOST_BYTES = 1 << 28


def probe(data: Any, bucketing: Bucketing) -> tuple[int, int]:
    """The bucket (height, width) of the picture in `data`: bytes, or a path of which the header is read. Raises Refused."""
    with _opened(data) as image:
        width, height = bucketing.choose(*image.size)
    return height, width


def read(data: Any, bucket: tuple[int, int], crop: str) -> Loaded:
    """The picture's pixels at its bucket (height, width); `crop` names how its crop is recorded. Raises Refused."""
    wanted = bucket[1], bucket[0]
    with _opened(data) as image:
        original = image.size
        try:
            picture = image.convert("RGB")
        except Exception as error:  # decoders raise whatever comes to them
            raise Refused(f"the picture cannot be decoded: {error}") from None
    size = resized(*original, wanted)
    if size != picture.size:
        enlarging = size[0] > original[0] or size[1] > original[1]
        picture = picture.resize(size, Image.Resampling.LANCZOS if enlarging else Image.Resampling.BOX)
    left, top = centred(size, wanted)
    pixels = np.asarray(picture.crop((left, top, left + wanted[0], top + wanted[1])))
    if crop == "kohya":
        left, top = (int(value) for value in letterbox(*original, wanted)[:2])
    return Loaded(pixels=pixels, original_size=(original[1], original[0]), crop=(top, left))


def _opened(data: Any) -> Image.Image:
    """The picture with its header read and its size known to be sane."""
    size = data.stat().st_size if isinstance(data, Path) else len(data)
    if not 0 < size <= MOST_BYTES:
        raise Refused(f"the picture has {size:,} bytes")
    Image.MAX_IMAGE_PIXELS = None  # the limit below comes before anything is decoded
    try:
        image = Image.open(data if isinstance(data, Path) else BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP"))
    except Image.UnidentifiedImageError:
        raise Refused("no picture of a known kind") from None
    except OSError:
        raise
    except Exception as error:
        raise Refused(f"the picture cannot be decoded: {error}") from None
    if not 0 < image.width * image.height <= MOST_PIXELS:
        pixels = image.width * image.height / 1e6
        image.close()
        raise Refused(f"the picture has {pixels:.1f} megapixels; at most {MOST_PIXELS / 1e6:.0f} are taken")
    return image


def encoder(
    autoencoder: Any, *, draw: str, seed: int = 0, batch: int = 8, device: str = "cpu", file: Path | None = None
) -> Encoding:
    """Encodes by diffusers' AutoencoderKL: the posterior's mean, or one `sample` of it for each picture.

    A sample is keyed by the picture's own pixels under `seed`: neither order nor batch decides it, and two copies of one picture
    stay two copies. `file`: where the autoencoder came from; its digest is part of what an import goes on with.
    """
    import torch

    from astolfo.train.autoencoder import to_input

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

    identity = {"draw": draw, "seed": seed if draw == "sample" else None, "autoencoder": sha256_of(file) if file else None}
    return Encoding(encode=encode, batch=batch, identity=identity)


def _noise(seed: int, picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(np.ascontiguousarray(picture)).digest()[:8], "little")
    return randomness.normal(seed, "posterior", key, shape)
