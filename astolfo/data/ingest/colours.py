"""From what a file's decoder gives to eight bits of red, green and blue, with a word for everything that is changed on the way.

Like sd-scripts' reader, the default takes pictures as they are stored: turned as the camera held it, with the colours that lie
under transparency, without a look at colour profiles. What has no right value in eight bits is refused by name.
"""

import contextlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from astolfo.data.ingest.source import Refused

EXIF = ("ignore", "apply")
AS_STORED = "stored"
FIRST = "of an animation or several pages the first picture was taken"
TURNED = "turned by EXIF: taken as stored (--exif apply turns it)"
HIDDEN = "transparent in places: colours under it taken as stored (--alpha white puts it on white)"
DEEP = "16 bits a channel brought to 8"
PRINTED = "ink colours (CMYK) turned into RGB without their profile"
PROFILED = "a colour profile other than sRGB was not applied"
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262
_ALPHA = {"RGBA", "RGBa", "LA", "La", "PA"}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How pictures are read. `exif`: whether its orientation is applied; `alpha`: "stored", or the colour below transparency.

    `mirrored`: left and right change places.
    """

    exif: str = "ignore"
    alpha: str = AS_STORED
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.exif not in EXIF:
            raise Refused(f"expected one of {', '.join(EXIF)} as exif, found {self.exif!r}")
        if self.alpha != AS_STORED:
            self.colour()

    def colour(self) -> tuple[int, ...]:
        """The colour that is put below transparency. Raises Refused for what is none."""
        try:
            return ImageColor.getrgb(self.alpha)[:3]
        except ValueError:
            raise Refused(f"expected {AS_STORED!r} or a colour such as white or #808080 as alpha, found {self.alpha!r}") from None

    def about(self) -> dict[str, Any]:
        """What of this differs from the record's reading, for a manifest."""
        plain = {"exif": "ignore", "alpha": AS_STORED, "mirrored": False}
        return {key: value for key, value in vars(self).items() if value != plain[key]}


def turned(image: Image.Image) -> bool:
    """Whether EXIF has the picture lie on its side, so that width and height change places."""
    return _orientation(image) in (5, 6, 7, 8)


def decoded(image: Image.Image, reading: Reading) -> tuple[Image.Image, tuple[str, ...]]:
    """The whole picture in RGB, and what was changed or not looked at. Raises Refused for numbers without a known range."""
    notes = [FIRST] if getattr(image, "is_animated", False) and image.format not in ("JPEG", "MPO") else []
    image.load()
    if _orientation(image) != 1:
        if reading.exif == "apply":
            image = ImageOps.exif_transpose(image)
        else:
            notes.append(TURNED)
    if _foreign(image.info.get("icc_profile")):
        notes.append(PROFILED)
    image = _eight_bits(image, notes)
    if image.mode == "CMYK":
        notes.append(PRINTED)
    if image.mode in _ALPHA or "transparency" in image.info:
        return _opaque(image.convert("RGBA"), reading, notes), tuple(notes)
    return image.convert("RGB"), tuple(notes)


def _eight_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """A 16-bit grey picture in 8 bits, black to white as it was."""
    if image.mode in ("I", "F"):
        raise Refused(f"numbers of 32 bits ({image.mode}), of which nobody says what is white")
    if not image.mode.startswith("I;16"):
        return image
    notes.append(DEEP)
    tags = getattr(image, "tag_v2", {})  # a TIFF's, whose 12 bits and whose white at 0 Pillow hands on as they are
    white = 4095 if tags.get(_BITS) == (12,) else 65535
    levels = (np.minimum(np.arange(65536), white) * 255 + white // 2) // white
    levels = (255 - levels if tags.get(_PHOTOMETRIC) == 0 else levels).astype(np.uint8)
    return Image.fromarray(levels[np.asarray(image)], "L")


def _opaque(image: Image.Image, reading: Reading, notes: list[str]) -> Image.Image:
    """An RGBA picture without its transparency."""
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")
    if reading.alpha == AS_STORED:
        notes.append(HIDDEN)
        return image.convert("RGB")
    below = Image.new("RGBA", image.size, (*reading.colour(), 255))
    below.alpha_composite(image)
    return below.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none or it is damaged."""
    with contextlib.suppress(Exception):  # a damaged EXIF fails in many ways, and none of them concerns the pixels
        found = image.getexif().get(_ORIENTATION, 1)
        return found if found in range(1, 9) else 1
    return 1


def _foreign(profile: bytes | None) -> bool:
    """Whether an embedded profile names other colours than sRGB's; a damaged one does not."""
    if not profile:
        return False
    with contextlib.suppress(Exception):
        return "srgb" not in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(profile))).lower()
    return False
