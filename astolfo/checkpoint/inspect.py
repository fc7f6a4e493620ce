"""What a model file is, without loading it: architecture, parts, dtypes, parameters per block, metadata, lineage, digest.

Reads the header alone (milliseconds, a few MB) unless told to scan the values, which also hashes the file.
"""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astolfo.checkpoint import hashes
from astolfo.checkpoint.extras import extras
from astolfo.checkpoint.finite import not_finite
from astolfo.checkpoint.layout import block_of, identify, part_of
from astolfo.checkpoint.metadata import objective_of
from astolfo.checkpoint.safefile import SafeFile, open_file
from astolfo.digest_cache import digest_of, known
from astolfo.errors import CheckpointError, InputError
from astolfo.files import read_sidecar

_PLAIN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal would obey


def inspect(path: Path | str, scan: bool = False) -> dict[str, Any]:
    """Everything that can be said about a checkpoint, as JSON-ready mapping.

    `digest` is the file's sha256 where it was hashed before (and did not change since) or `scan` hashes it, else None;
    `recorded` is what a side-car claims, whoever wrote it. `hashes` are the short ones that A1111 and Civitai show; where nothing
    is read, as side-car and metadata claim. `scan` also counts NaN and infinities per key.
    Raises CheckpointError as `open_file` does.
    """
    with open_file(path) as file:
        kind = identify(file.keys())
        objective, zero_terminal_snr, because = objective_of(file.keys(), file.metadata)
        result: dict[str, Any] = {
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
        data = hashes.of_data(path) if scan else hashes.data_sha256_in(file.metadata)
        result["hashes"] = hashes.short(result["digest"] or result["recorded"], data)
        if scan:
            result["not_finite"] = not_finite(file)
        result["beyond_parts"] = _left_out(file)
    return result


def report(found: dict[str, Any]) -> str:
    """What `inspect` found, as text for a terminal."""
    return "\n".join(_PLAIN.sub(lambda odd: odd[0].encode("unicode_escape").decode(), line) for line in _lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    size = f"{found['parameters']:,} parameters in {found['tensors']:,} tensors, {found['bytes'] / 2**30:.2f} GiB"
    objective = found["objective"]
    zero = ", zero terminal SNR" if objective["zero_terminal_snr"] else ""
    yield f"{found['path']}: {found['architecture']}, {size}"
    yield f"objective: {objective['name']}{zero} (because of {objective['because']})"
    yield from _digests(found["digest"], found["recorded"])
    if found["hashes"]:
        yield ", ".join(f"{name} {digest}" for name, digest in found["hashes"].items())
    for name, part in found["parts"].items():
        dtypes = ", ".join(f"{count} x {dtype}" for dtype, count in part["dtypes"].items())
        yield f"{name}: {part['parameters']:,} parameters, {dtypes}"
        yield from (f"    {block:<20}{count:>15,}" for block, count in part["blocks"].items())
    yield from (f"{role}: {value}" for role, value in found["lineage"].items())
    yield from (f"{key} = {value}" for key, value in found["metadata"].items())
    yield from found["beyond_parts"]
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


def _left_out(file: SafeFile) -> list[str]:
    """What other verbs leave out of this file or write anew, or why they refuse it."""
    try:
        return list(extras(file).lines())
    except CheckpointError as error:
        return [f"refused by other verbs: {error}"]


def _recorded(path: Path | str) -> str | None:
    try:
        return read_sidecar(path)
    except InputError:
        return None
