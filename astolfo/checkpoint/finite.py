"""NaN and infinities in a model file, counted by key in every dtype that has them, without torch and without loading it."""

import os
from collections.abc import Callable, Iterator

import numpy as np

from astolfo.checkpoint.safefile import SIZES, SafeFile

_BLOCK = 1 << 19  # elements


def not_finite(file: SafeFile) -> dict[str, dict[str, int]]:
    """NaN and infinity counts of the keys that have any."""
    result = {}
    with open(file.path, "rb", buffering=0) as stream:
        for key in file:
            if (count := _COUNT.get(file.dtype(key))) is None:
                continue
            found = np.array([count(block) for block in _blocks(stream.fileno(), file, key)], np.int64).reshape(-1, 2).sum(axis=0)
            if found.any():
                result[key] = {"nan": int(found[0]), "inf": int(found[1])}
    return result


def summary(found: dict[str, dict[str, int]]) -> str:
    """The counts in words: how many in how many tensors, and the first three by name. Empty where there are none."""
    if not found:
        return ""
    nan, inf = (sum(counts[what] for counts in found.values()) for what in ("nan", "inf"))
    names = ", ".join(f"{key} ({counts['nan']:,} NaN, {counts['inf']:,} infinite)" for key, counts in list(found.items())[:3])
    more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
    return f"{nan:,} NaN and {inf:,} infinite values in {len(found):,} tensors: {names}{more}"


def _blocks(stream: int, file: SafeFile, key: str) -> Iterator[bytes]:
    entry = file.entries[key]
    step = _BLOCK * SIZES[entry.dtype]
    for start in range(entry.start, entry.end, step):
        yield os.pread(stream, min(step, entry.end - start), start)


def _bits(code: str, sign: int, infinity: int) -> Callable[[bytes], tuple[int, int]]:
    """Counts among floats whose bits without the `sign` are NaN beyond those of `infinity`."""

    def count(block: bytes) -> tuple[int, int]:
        bits = np.frombuffer(block, code) & sign
        if not bits.size or bits.max() < infinity:
            return 0, 0
        return int((bits > infinity).sum()), int((bits == infinity).sum())

    return count


def _floats(code: str) -> Callable[[bytes], tuple[int, int]]:
    def count(block: bytes) -> tuple[int, int]:
        values = np.frombuffer(block, code)
        return int(np.isnan(values).sum()), int(np.isinf(values).sum())

    return count


def _equal(*nan: int) -> Callable[[bytes], tuple[int, int]]:
    """Counts among bytes that know no infinity, and these as NaN."""
    return lambda block: (int(np.isin(np.frombuffer(block, "u1"), nan).sum()), 0)


_COUNT = {
    "F16": _bits("<u2", 0x7FFF, 0x7C00), "BF16": _bits("<u2", 0x7FFF, 0x7F80), "F8_E5M2": _bits("u1", 0x7F, 0x7C),
    "F8_E4M3": _equal(0x7F, 0xFF), "F8_E8M0": _equal(0xFF), "F8_E4M3FNUZ": _equal(0x80), "F8_E5M2FNUZ": _equal(0x80),
    "F32": _floats("<f4"), "F64": _floats("<f8"), "C64": _floats("<f4"),
}  # fmt: skip
