"""What a model file is, without loading it: architecture, parts, dtypes, parameters per block, metadata, lineage, digest.

Reads the header alone (milliseconds, a few MB) unless told to scan the values, which also hashes the file.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from astolfo.checkpoint.layout import block_of, identify, part_of
from astolfo.checkpoint.metadata import objective_of
from astolfo.checkpoint.safefile import SIZES, SafeFile, open_file
from astolfo.errors import InputError
from astolfo.files import read_sidecar
from astolfo.remembered import digest_of, known

_BLOCK = 1 << 22  # bytes


def inspect(path: Path | str, scan: bool = False) -> dict[str, Any]:
    """Everything that can be said about a checkpoint, as JSON-ready mapping.

    `digest` is the file's sha256 where it was hashed before (and did not change since) or `scan` hashes it, else None;
    `recorded` is what a side-car claims, whoever wrote it. `scan` also counts NaN and infinities per key.
    Raises CheckpointError as `open_file` does.
    """
    with open_file(path) as file:
        kind = identify(file.keys())
        objective, zero_terminal_snr, because = objective_of(file.keys(), file.metadata)
        result = {
            "path": str(path),
            "bytes": os.path.getsize(path),
            "architecture": kind,
            "tensors": len(file.keys()),
            "parameters": sum(math.prod(file.shape(key)) for key in file),
            "parts": _parts(file),
            "other_keys": [key for key in file if part_of(key) is None][:100],
            "objective": {"name": objective, "zero_terminal_snr": zero_terminal_snr, "because": because},
            "metadata": dict(sorted(file.metadata.items())),
            "lineage": _lineage(file),
            "digest": digest_of(path) if scan else known(path),
            "recorded": _recorded(path),
        }
        if scan:
            result["not_finite"] = _not_finite(file)
    return result


def report(found: dict[str, Any]) -> str:
    """What `inspect` found, as text for a terminal."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    size = f"{found['parameters']:,} parameters in {found['tensors']:,} tensors, {found['bytes'] / 2**30:.2f} GiB"
    objective = found["objective"]
    zero = ", zero terminal SNR" if objective["zero_terminal_snr"] else ""
    yield f"{found['path']}: {found['architecture']}, {size}"
    yield f"objective: {objective['name']}{zero} (because of {objective['because']})"
    yield from _digests(found["digest"], found["recorded"])
    for name, part in found["parts"].items():
        dtypes = ", ".join(f"{count} x {dtype}" for dtype, count in part["dtypes"].items())
        yield f"{name}: {part['parameters']:,} parameters, {dtypes}"
        yield from (f"    {block:<20}{count:>15,}" for block, count in part["blocks"].items())
    yield from (f"{role}: {value}" for role, value in found["lineage"].items())
    yield from (f"{key} = {value}" for key, value in found["metadata"].items())
    for key, counts in found.get("not_finite", {}).items():
        yield f"NOT FINITE: {key}: {counts['nan']} NaN, {counts['inf']} infinite"


def _digests(digest: str | None, recorded: str | None) -> Iterator[str]:
    """The digest, as far as it is known, and what a side-car says of it."""
    if digest:
        yield f"sha256: {digest}"
    elif recorded:
        yield f"sha256: {recorded} by its side-car, which nobody compared; --scan reads the file"
    else:
        yield "sha256: not computed; --scan reads the file"
    if digest and recorded not in (None, digest):
        yield f"NOT ITS SIDE-CAR'S: that says {recorded}, and was written for another file or before a change"


def _parts(file: SafeFile) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for key in sorted(file.keys(), key=_natural):
        if (name := part_of(key)) is None:
            continue
        part = parts.setdefault(name, {"tensors": 0, "parameters": 0, "dtypes": {}, "blocks": {}})
        count = math.prod(file.shape(key))
        part["tensors"] += 1
        part["parameters"] += count
        part["dtypes"][file.dtype(key)] = part["dtypes"].get(file.dtype(key), 0) + 1
        part["blocks"][block_of(key)] = part["blocks"].get(block_of(key), 0) + count
    return parts


def _natural(key: str) -> list[tuple[int, str]]:
    return [(int(word), "") if word.isdigit() else (-1, word) for word in key.split(".")]


def _lineage(file: SafeFile) -> dict[str, Any]:
    result: dict[str, Any] = {
        key.removeprefix("astolfo."): file.metadata[key] for key in ("astolfo.run", "astolfo.recipe") if key in file.metadata
    }
    for key in ("astolfo.parents", "astolfo.merge"):
        if key in file.metadata:
            try:
                result[key.removeprefix("astolfo.")] = json.loads(file.metadata[key])
            except ValueError:
                result[key.removeprefix("astolfo.")] = file.metadata[key]
    return result


def _recorded(path: Path | str) -> str | None:
    try:
        return read_sidecar(path)
    except InputError:
        return None


def _not_finite(file: SafeFile) -> dict[str, dict[str, int]]:
    """NaN and infinity counts of the keys that have any."""
    result = {}
    with open(file.path, "rb", buffering=0) as stream:
        for key in file:
            nan = inf = 0
            for block in _blocks(stream.fileno(), file, key):
                more = _count(block, file.dtype(key))
                nan, inf = nan + more[0], inf + more[1]
            if nan or inf:
                result[key] = {"nan": nan, "inf": inf}
    return result


def _blocks(stream: int, file: SafeFile, key: str) -> Iterator[bytes]:
    entry = file.entries[key]
    if entry.dtype in ("F16", "BF16", "F32", "F64"):
        for start in range(entry.start, entry.end, _BLOCK // 8 * SIZES[entry.dtype]):
            yield os.pread(stream, min(_BLOCK // 8 * SIZES[entry.dtype], entry.end - start), start)


def _count(block: bytes, dtype: str) -> tuple[int, int]:
    if dtype in ("F16", "BF16"):
        bits = np.frombuffer(block, "<u2") & 0x7FFF
        infinity = 0x7C00 if dtype == "F16" else 0x7F80
        if not bits.size or bits.max() < infinity:
            return 0, 0
        return int((bits > infinity).sum()), int((bits == infinity).sum())
    values = np.frombuffer(block, "<f4" if dtype == "F32" else "<f8")
    return int(np.isnan(values).sum()), int(np.isinf(values).sum())
