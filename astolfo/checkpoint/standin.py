"""Stand-ins: a model of its own for every base of which the miniature knows nothing but the name.

    vary(shipped, out, name="my-base", amount=0.05)

Every weight matrix of the shipped model gets noise of its own, so that two bases differ, a merge of them is something between,
and each still draws what it is asked. The noise is a function of the name: the same name is the same file everywhere.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from astolfo import randomness
from astolfo.checkpoint.layout import part_of
from astolfo.checkpoint.metadata import HASH_KEY, inherited
from astolfo.checkpoint.safefile import SafeFile, open_file, write_file


def vary(source: Path, out: Path, *, name: str, amount: float, metadata: Mapping[str, str]) -> str:
    """Writes `source` with noise of `amount` standard deviations of each matrix, drawn by `name`; returns the file's sha256.

    Vectors (biases, norms) and the autoencoder stay. `metadata` is added to what the model says of itself.
    """
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)
    with open_file(source) as file:
        tensors = {key: _varied(file, key, seed, amount) for key in file.keys()}
        return write_file(out, tensors, inherited(file.metadata) | dict(metadata), hash_key=HASH_KEY)


def _varied(file: SafeFile, key: str, seed: int, amount: float) -> np.ndarray:
    """A tensor [...] of the file in its own dtype, changed where it is a matrix."""
    found = file.array(key)
    if found.ndim < 2 or found.dtype.kind != "f" or part_of(key) in (None, "vae"):
        return found
    exact = found.astype(np.float64)
    deviation = 1.4826 * float(np.median(np.abs(exact)))  # a normal distribution's; a median, unlike a sum, has no order
    noise = randomness.normal(seed, f"stand-in {key}", 0, found.shape)
    return (exact + amount * deviation * noise).astype(found.dtype)
