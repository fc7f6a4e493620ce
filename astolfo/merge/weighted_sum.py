"""Weighted sums of two checkpoints: `base * (1 - alpha) + trained * alpha`, as fast as the disk.

    merge("base.safetensors", "trained.safetensors", {0.5: "half.safetensors"})

Computed in fp32 and rounded once to the output's dtype; the bits depend on inputs, alphas and dtypes alone. Several alphas
read the inputs once. Nothing is ever held but a few pieces of 4 MiB. Rules for what is not a plain weighted sum:

- where alpha is 0 or 1, the other side is not looked at; the tensor is copied byte for byte if the dtype is kept;
- what is not a float (position_ids) is copied from the base;
- marker keys (v_pred, ztsnr) are the trained model's: a marker that only the base has is dropped;
- any other key that only one side has is copied from that side. All three kinds of lonely keys are listed in the result.

The output's dtype is that of the base, tensor by tensor, unless told. Metadata is the trained model's, less what no longer
holds (hash, date, parents, recipe), plus the parents' digests and the merge itself.
"""

import contextlib
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from astolfo.checkpoint.layout import block_of, identify, part_of
from astolfo.checkpoint.metadata import HASH_KEY, MARKERS
from astolfo.checkpoint.safefile import SIZES, Entry, SafeFile, open_file, plan
from astolfo.errors import CheckpointError, NumericsError
from astolfo.files import canonical_json, read_sidecar, sha256_of, sidecar, write_sidecar, written
from astolfo.merge import kernel
from astolfo.merge.stream import PIECE, Output, produce

DTYPES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
_BLOCK = 1 << 18  # elements; a thread's arrays then stay in the processor's cache
_AHEAD = 8  # pieces that are asked from the disk before they are needed
_STALE = {HASH_KEY, "modelspec.date", "astolfo.parents", "astolfo.recipe", "astolfo.run", "astolfo.merge"}


@dataclass(frozen=True)
class Merged:
    """What a merge wrote: sha256 by alpha (empty without digests), and what deserves a line in its log."""

    digests: dict[float, str]
    direct: bool
    only_in_base: list[str] = field(default_factory=list)
    only_in_trained: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    clamped: dict[str, tuple[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """Where one output tensor comes from: the base's entry, the trained model's, or both; and the alpha of each output."""

    base: Entry | None
    trained: Entry | None
    dtype: str
    shape: tuple[int, ...]
    alphas: tuple[float, ...]


def merge(
    base: Path | str,
    trained: Path | str,
    outputs: Mapping[float, Path | str],
    *,
    dtype: str | Mapping[str, str] | None = None,
    per_part: Mapping[str, float] | None = None,
    per_block: Mapping[str, float] | None = None,
    metadata: Mapping[str, str] | None = None,
    threads: int | None = None,
    digests: bool = True,
    direct: bool = True,
) -> Merged:
    """Writes one weighted sum per alpha of `outputs`, each whole or not at all, each with its side-car.

    `per_part` ("vae": 0.0) and `per_block` ("unet.input_blocks.4": 0.3; see `layout.block_of`) replace the outputs' alpha, the
    block's before the part's. `dtype` is "fp16", "bf16" or "fp32", for all parts or by part. `threads` defaults to the cores
    this process may use. `digests=False` writes no side-cars and does not hash (for measurements); `direct=False` goes through
    the page cache.

    Raises CheckpointError for damaged or different models and unknown parts or blocks, NumericsError for a NaN or an infinity
    in a tensor that is summed (its key is named), PlacementError when the disk is full.
    """
    alphas = tuple(outputs)
    if not alphas or any(not math.isfinite(alpha) for alpha in alphas):
        raise CheckpointError(f"Expected at least one finite alpha, found {list(alphas)}.")
    if len({Path(path).absolute() for path in outputs.values()}) < len(alphas):
        raise CheckpointError("Expected a file of its own for each alpha, found one path twice.")
    with open_file(base) as first, open_file(trained) as second:
        _check_kinds(first, second)
        sources = _sources(first, second, alphas, _overrides(first, second, per_part or {}, per_block or {}), dtype)
        parents = _parents(base, trained) if digests else {}
        specs = {key: (source.dtype, source.shape) for key, source in sources.items()}
        plans = [plan(specs, _metadata(second, parents, alpha, dtype, per_part, per_block) | dict(metadata or {})) for alpha in alphas]
        job = _Job(first, second, sources, plans, _thread_count(threads))
        found = _write(job, list(outputs.values()), digests, direct)
    return Merged(
        dict(zip(alphas, found, strict=True)) if digests else {},
        job.direct,
        [key for key in first.keys() if key not in second and key in sources],
        [key for key in second.keys() if key not in first],
        [key for key in first.keys() if key not in sources],
        job.clamped,
    )


def digest_of(path: Path | str) -> str:
    """sha256 of a file: from its side-car if that is not older than the file, else hashed now, and remembered if it can be."""
    record = sidecar(path)
    if record.exists() and record.stat().st_mtime_ns >= Path(path).stat().st_mtime_ns:
        return read_sidecar(path)
    digest = sha256_of(path)
    with contextlib.suppress(OSError):  # a read-only folder
        write_sidecar(path, digest)
    return digest


class _Job:
    """Fills pieces of the outputs from the two inputs. One instance serves all threads."""

    def __init__(self, base: SafeFile, trained: SafeFile, sources: dict[str, _Source], plans: list, threads: int):
        self.base, self.trained, self.sources, self.plans, self.threads = base, trained, sources, plans, threads
        self.clamped: dict[str, tuple[int, float]] = {}
        self.direct = False
        self.files: tuple[int, int] = (-1, -1)
        self.headers = [len(header) for header, _ in plans]
        places = plans[0][1]  # all outputs have the same data behind headers of different lengths
        self.order = [(key, place.start - self.headers[0], place.end - self.headers[0]) for key, place in places.items()]
        self._starts = np.array([start for _, start, _ in self.order], np.int64)
        self._local = threading.local()
        self._lock = threading.Lock()

    @property
    def data(self) -> int:
        """Bytes of data of every output."""
        return self.order[-1][2] if self.order else 0

    def ahead(self, piece: int) -> None:
        """Asks the disk for what `fill` will need `_AHEAD` pieces later."""
        for key, start, end in self._within((piece + _AHEAD) * PIECE - min(self.headers), (piece + _AHEAD + 1) * PIECE - min(self.headers)):
            source, place = self.sources[key], self.order_start(key)
            for file, entry in zip(self.files, (source.base, source.trained), strict=True):
                if entry is not None:
                    size, out = SIZES[entry.dtype], SIZES[source.dtype]
                    os.posix_fadvise(file, entry.start + (start - place) // out * size, (end - start) // out * size, os.POSIX_FADV_WILLNEED)

    def fill(self, piece: int, buffers: list[np.ndarray]) -> None:
        """Makes one piece of every output."""
        for header, (text, _), buffer in zip(self.headers, self.plans, buffers, strict=True):
            if piece * PIECE < header:
                part = text[piece * PIECE : (piece + 1) * PIECE]
                buffer[: len(part)] = np.frombuffer(part, np.uint8)
        low, high = piece * PIECE - max(self.headers), (piece + 1) * PIECE - min(self.headers)
        for key, start, end in self._within(low, high):
            size = SIZES[self.sources[key].dtype]
            for at in range(start, end, _BLOCK * size):
                self._block(key, at, min(at + _BLOCK * size, end), piece, buffers)

    def order_start(self, key: str) -> int:
        """Where a tensor begins in the data."""
        return self.plans[0][1][key].start - self.headers[0]

    def _within(self, low: int, high: int) -> list[tuple[str, int, int]]:
        """The tensors, cut to whole elements, that lie within data bytes [low, high)."""
        first = max(int(np.searchsorted(self._starts, low, "right")) - 1, 0)
        result = []
        for key, start, end in self.order[first:]:
            if start >= high:
                break
            size = SIZES[self.sources[key].dtype]
            cut = start + max(low - start, 0) // size * size, min(end, start + -(-(high - start) // size) * size)
            if cut[0] < cut[1]:
                result.append((key, *cut))
        return result

    def _block(self, key: str, start: int, end: int, piece: int, buffers: list[np.ndarray]) -> None:
        """One block of one tensor, data bytes [start, end), for every output."""
        source, size, place = self.sources[key], SIZES[self.sources[key].dtype], self.order_start(key)
        reader = _Reader(self, source, (start - place) // size, (end - start) // size)
        for index, (buffer, alpha) in enumerate(zip(buffers, source.alphas, strict=True)):
            low = piece * PIECE - self.headers[index]
            begin, stop = max(start, low), min(end, low + PIECE)
            if begin < stop:
                span = slice((begin - start) // size, (stop - start) // size)
                try:
                    clamped = reader.write(alpha, span, buffer[begin - low : stop - low], last=index == len(buffers) - 1)
                except FloatingPointError:
                    raise NumericsError(
                        f"{key} holds a NaN or an infinity in {self.base.path} or {self.trained.path}; no merge was written. "
                        "`astolfo inspect --scan` counts them; give its part or block alpha 0 or 1 to copy it from the good side."
                    ) from None
                if clamped[0]:
                    self._note(key, clamped)

    def _note(self, key: str, clamped: tuple[int, float]) -> None:
        with self._lock:
            count, largest = self.clamped.get(key, (0, 0.0))
            self.clamped[key] = (count + clamped[0], max(largest, clamped[1]))

    def scratch(self) -> kernel.Scratch:
        """The calling thread's working memory."""
        if not hasattr(self._local, "scratch"):
            self._local.scratch = kernel.Scratch(_BLOCK)
        return self._local.scratch


class _Reader:
    """The same stretch of elements of both inputs, read and decoded once, when first needed."""

    def __init__(self, job: _Job, source: _Source, first: int, count: int):
        self.job, self.source, self.first, self.count = job, source, first, count
        self._raw: dict[int, np.ndarray] = {}
        self._decoded: dict[int, tuple[np.ndarray, float]] = {}

    def write(self, alpha: float, span: slice, into: np.ndarray, last: bool) -> tuple[int, float]:
        """Writes elements `span` of the stretch as the output has them; returns what had to be clamped.

        After the `last` output what was read is no longer valid.
        """
        source, scratch = self.source, self.job.scratch()
        sides = (source.base, source.trained)
        only = 0 if source.trained is None or alpha == 0 else 1 if source.base is None or alpha == 1 else None
        if only is not None and sides[only].dtype == source.dtype:  # type: ignore[union-attr]
            into[:] = self._stored(only).view(np.uint8)[span.start * SIZES[source.dtype] : span.stop * SIZES[source.dtype]]
            return 0, 0.0
        first, second = (self._values(only), None) if only is not None else (self._values(0), self._values(1))
        cut = tuple((side[0][span], side[1]) if side else None for side in (first, second))
        bounded = source.dtype == "F16" and 0 <= alpha <= 1 and all(side is None or side.dtype == "F16" for side in sides)
        return kernel.encode(kernel.weigh(cut[0], cut[1], alpha, scratch, last), source.dtype, into, scratch, bounded)

    def _values(self, side: int) -> tuple[np.ndarray, float]:
        if side not in self._decoded:
            dtype = (self.source.base, self.source.trained)[side].dtype  # type: ignore[union-attr]
            stored = self._stored(side).view(kernel.FLOATS[dtype])
            self._decoded[side] = kernel.decode(stored, dtype, self.job.scratch().decoded[side])
        return self._decoded[side]

    def _stored(self, side: int) -> np.ndarray:
        if side not in self._raw:
            entry, file = (self.source.base, self.source.trained)[side], (self.job.base, self.job.trained)[side]
            assert entry is not None
            size = SIZES[entry.dtype]
            self._raw[side] = self.job.scratch().stored[side].view(np.uint8)[: self.count * size]
            _read(self.job.files[side], self._raw[side], entry.start + self.first * size, file.path)
        return self._raw[side]


def _read(file: int, into: np.ndarray, offset: int, path: Path) -> None:
    view = memoryview(into)
    while view:
        count = os.preadv(file, [view], offset)
        if count == 0:
            raise CheckpointError(f"{path} became shorter while it was read; merge again when nothing writes to it.")
        view, offset = view[count:], offset + count


def _write(job: _Job, paths: list[Path | str], digests: bool, direct: bool) -> list[str]:
    with contextlib.ExitStack() as stack:
        besides = [stack.enter_context(written(path)) for path in paths]
        files = [stack.enter_context(open(file.path, "rb", buffering=0)) for file in (job.base, job.trained)]
        job.files = (files[0].fileno(), files[1].fileno())
        outputs = []
        for beside, header in zip(besides, job.headers, strict=True):
            outputs.append(Output(beside, header + job.data, direct))
            stack.callback(outputs[-1].close)
        job.direct = all(output.direct for output in outputs)
        for piece in range(_AHEAD):
            job.ahead(piece - _AHEAD)
        produce(outputs, job.fill, job.ahead, job.threads, digests)
        for output, path in zip(outputs, paths, strict=True):
            output.finish()
            sidecar(path).unlink(missing_ok=True)  # never an old digest beside a new file
    if digests:
        return [write_sidecar(path, output.digest.hexdigest()) for path, output in zip(paths, outputs, strict=True)]
    return []


def _thread_count(threads: int | None) -> int:
    return max(1, threads or len(os.sched_getaffinity(0)))


def _check_kinds(base: SafeFile, trained: SafeFile) -> None:
    kinds = [identify(file.keys()) for file in (base, trained)]
    if kinds[0] != kinds[1] or "adapter" in kinds[0]:
        raise CheckpointError(
            f"Expected two models of the same architecture, found {kinds[0]} ({base.path}) and {kinds[1]} ({trained.path}). "
            "A LoRA has to be baked into a model before it can be merged."
        )


def _overrides(base: SafeFile, trained: SafeFile, parts: Mapping[str, float], blocks: Mapping[str, float]) -> dict[str, float]:
    """The alpha of each key that does not take the outputs'. Raises CheckpointError for parts or blocks no key belongs to."""
    keys = dict.fromkeys([*base.keys(), *trained.keys()])
    names = {key: (part_of(key), f"{part_of(key)}.{block_of(key)}") for key in keys}
    for given, known in ((parts, {part for part, _ in names.values() if part}), (blocks, {b for p, b in names.values() if p})):
        if strange := set(given) - known:
            raise CheckpointError(f"Expected names among {', '.join(sorted(known))}, found {', '.join(sorted(strange))}.")
    return {
        key: float(blocks.get(block, parts.get(part, 0.0)))  # type: ignore[arg-type]
        for key, (part, block) in names.items()
        if block in blocks or part in parts
    }


def _sources(
    base: SafeFile, trained: SafeFile, alphas: tuple[float, ...], overrides: Mapping[str, float], dtype: str | Mapping[str, str] | None
) -> dict[str, _Source]:
    sources = {}
    for key in dict.fromkeys([*base.keys(), *trained.keys()]):
        first, second = base.entries.get(key), trained.entries.get(key)
        if key in MARKERS:
            if second is not None:
                sources[key] = _Source(None, second, second.dtype, second.shape, alphas)
            continue
        if first and second and first.shape != second.shape:
            raise CheckpointError(f"{key}: expected the same shape on both sides, found {first.shape} in {base.path} and {second.shape} in {trained.path}.")
        if first and second and not {first.dtype, second.dtype} <= set(kernel.FLOATS):
            if first.dtype in ("F64", "F8_E4M3", "F8_E5M2"):
                raise CheckpointError(f"{key}: expected F16, BF16 or F32 to sum, found {first.dtype} in {base.path}. Convert the file first.")
            second = None
        one = first or second
        assert one is not None
        chosen = _dtype_of(dtype, part_of(key)) if one.dtype in kernel.FLOATS else None
        sources[key] = _Source(first, second, chosen or one.dtype, one.shape, (overrides[key],) * len(alphas) if key in overrides else alphas)
    return sources


def _dtype_of(dtype: str | Mapping[str, str] | None, part: str | None) -> str | None:
    chosen = dtype.get(part or "") if isinstance(dtype, Mapping) else dtype
    if chosen is not None and chosen not in DTYPES:
        raise CheckpointError(f"Expected one of {', '.join(DTYPES)} as dtype, found {chosen!r}.")
    return DTYPES[chosen] if chosen else None


def _parents(base: Path | str, trained: Path | str) -> dict[str, str]:
    return {"base": digest_of(base), "trained": digest_of(trained)}


def _metadata(
    trained: SafeFile,
    parents: Mapping[str, str],
    alpha: float,
    dtype: str | Mapping[str, str] | None,
    per_part: Mapping[str, float] | None,
    per_block: Mapping[str, float] | None,
) -> dict[str, str]:
    kept = {key: value for key, value in trained.metadata.items() if key not in _STALE}
    options = {"dtype": dtype, "per_part": per_part, "per_block": per_block}
    options = {key: dict(value) if isinstance(value, Mapping) else value for key, value in options.items() if value}
    recipe = {"method": "weighted_sum", "alpha": float(alpha)} | options
    return kept | {"astolfo.merge": canonical_json(recipe), "astolfo.parents": canonical_json(dict(parents))}
