"""What a file in a dataset's folder or tar is, told from its name alone: one list of suffixes, compared without case.

A suffix says what to try, not what a file is: pictures are opened by what their bytes say.
"""

import os
import re
import unicodedata

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
"""Formats that are read, as Pillow names them, with their suffixes."""

PICTURES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_OTHERS = "jxl heic heif psd jp2 j2k jxr tga ico svg pdf exr hdr dds qoi ppm pgm pbm pcx xcf kra dng cr2 nef arw"
_FILMS = "mp4 webm mov avi mkv swf"
UNREAD = frozenset(f".{suffix}" for suffix in f"{_OTHERS} {_FILMS}".split())
"""Suffixes of pictures and films that are not read: a file of that kind is left out by name."""

_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
CAPTIONS = {".txt": "tags", ".caption": "sentence"}
PICTURE, UNREADABLE, SYSTEMS, OTHER = "picture", "unreadable", "system's", "other"
_SYSTEMS = re.compile(r"(\._.*|\.ds_store|thumbs\.db|desktop\.ini)", re.IGNORECASE | re.DOTALL)


def role(name: str) -> str:
    """What the file `name` is for: a picture, "tags", "sentence", an unreadable picture, the system's, or something else."""
    suffix = split(name)[1]
    if _SYSTEMS.fullmatch(name.rpartition("/")[2]):
        return SYSTEMS
    if suffix in PICTURES:
        return PICTURE
    return CAPTIONS.get(suffix) or (UNREADABLE if suffix in UNREAD else OTHER)


def split(name: str) -> tuple[str, str]:
    """A name without its suffix, and the suffix in lower case."""
    stem, suffix = os.path.splitext(name)
    return stem, suffix.lower()


def without_picture_suffix(name: str) -> str:
    """The name without a suffix that pictures have; any other suffix is part of the name. A .jxl's latents may be cached, too."""
    stem, suffix = split(name)
    return stem if suffix in PICTURES or suffix in UNREAD else name


def normalized(name: str) -> str:
    """One spelling of a name that file systems write in two (letters with accents, composed or not)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def why_left(name: str) -> str:
    """Why a file that is no picture and no caption is left out."""
    found, suffix = role(name), split(name)[1]
    if found == UNREADABLE:
        return f"a kind of picture that is not read: {suffix}. Convert it to PNG, JPEG or WebP"
    if suffix in _TABLES:
        return f"a table, of which no caption is read here: {suffix}. `astolfo dataset import table` reads Parquet"
    return "a file of the system's" if found == SYSTEMS else f"no picture and no caption: {suffix or 'no suffix'}"
