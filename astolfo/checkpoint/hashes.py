"""The short hashes that A1111, Civitai and their like show for a model file.

AutoV2 is the first ten hex digits of the file's sha256; A1111 shows it beside a model's name. AutoV3 is the first twelve of the
sha256 of what follows the safetensors header, so that it does not change with the metadata; `modelspec.hash_sha256` holds the
same digest whole.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from astolfo.checkpoint.metadata import HASH_KEY

_BLOCK = 1 << 22  # bytes


def short(sha256: str | None, data_sha256: str | None) -> dict[str, str]:
    """The short hashes, by their names, of those digests (hex) that are known."""
    known = {"AutoV2": (sha256, 10), "AutoV3": (data_sha256, 12)}
    return {name: digest[:length] for name, (digest, length) in known.items() if digest}


def data_sha256_in(metadata: Mapping[str, str]) -> str | None:
    """The digest (hex) of the data that a file's metadata names, if it names one."""
    return metadata.get(HASH_KEY, "").removeprefix("0x") or None


def of_data(path: Path | str) -> str:
    """sha256 (hex) of what follows the header of a safetensors file: all of its tensors' bytes. Reads the file."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        stream.seek(int.from_bytes(stream.read(8), "little"), os.SEEK_CUR)
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
