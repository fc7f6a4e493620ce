"""Filling pieces of merged files: which tensors lie in a piece, what of the inputs they need, and the sum itself.

A piece is a stretch of bytes of the output files, so it begins and ends anywhere among tensors. Inputs are read in blocks of
`BLOCK` elements, once for all outputs, and asked from the disk `AHEAD` pieces earlier.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astolfo.checkpoint.safefile import SIZES, Entry, SafeFile
from astolfo.checkpoint.stream import PIECE
from astolfo.errors import CheckpointError, NumericsError
from astolfo.merging import kernel

BLOCK = 1 << 18  # elements; a thread's arrays then stay in the processor's cache
AHEAD = 8  # pieces


@dataclass(frozen=True)
class Source:
    """Where one output tensor comes from: the base's entry, the trained model's, or both; and the alpha of each output.

    `literal` are its bytes where it comes from neither.
    """

    base: Entry | None
    trained: Entry | None
    dtype: str
    shape: tuple[int, ...]
    alphas: tuple[float, ...]
    literal: bytes | None = None


def changed(extras: Mapping[str, list[str]], clamped: Mapping[str, tuple[int, float]]) -> list[str]:
    """Lines for a person: by file, what was left out of it or written anew; by key, how many values were too large."""
    return [
        *(f"{file}: {line}" for file, found in extras.items() for line in found),
        *(f"{key}: {count} values were too large and clamped, up to {top:g}" for key, (count, top) in clamped.items()),
    ]


class Job:
    """Fills pieces of the outputs from the two inputs. One instance serves all threads."""

    def __init__(
        self,
        base: SafeFile,
        trained: SafeFile,
        sources: dict[str, Source],
        plans: Sequence[tuple[bytes, dict[str, Entry]]],
        threads: int,
    ):
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
        """Asks the disk for what `fill` will need `AHEAD` pieces later."""
        for key, start, end in self._within(
            (piece + AHEAD) * PIECE - min(self.headers), (piece + AHEAD + 1) * PIECE - min(self.headers)
        ):
            source, place = self.sources[key], self._place_of(key)
            for file, entry in zip(self.files, (source.base, source.trained), strict=True):
                if entry is not None:
                    size, out = SIZES[entry.dtype], SIZES[source.dtype]
                    os.posix_fadvise(
                        file, entry.start + (start - place) // out * size, (end - start) // out * size, os.POSIX_FADV_WILLNEED
                    )

    def fill(self, piece: int, buffers: list[np.ndarray]) -> None:
        """Makes one piece of every output."""
        for header, (text, _), buffer in zip(self.headers, self.plans, buffers, strict=True):
            if piece * PIECE < header:
                part = text[piece * PIECE : (piece + 1) * PIECE]
                buffer[: len(part)] = np.frombuffer(part, np.uint8)
        low, high = piece * PIECE - max(self.headers), (piece + 1) * PIECE - min(self.headers)
        for key, start, end in self._within(low, high):
            size = SIZES[self.sources[key].dtype]
            for at in range(start, end, BLOCK * size):
                self._block(key, at, min(at + BLOCK * size, end), piece, buffers)

    def _place_of(self, key: str) -> int:
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
        source, size, place = self.sources[key], SIZES[self.sources[key].dtype], self._place_of(key)
        reader = _Stretch(self, source, (start - place) // size, (end - start) // size)
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
            self._local.scratch = kernel.Scratch(BLOCK)
        found: kernel.Scratch = self._local.scratch
        return found


class _Stretch:
    """The same stretch of elements of both inputs, read and decoded once, when first needed."""

    def __init__(self, job: Job, source: Source, first: int, count: int):
        self.job, self.source, self.first, self.count = job, source, first, count
        self._raw: dict[int, np.ndarray] = {}
        self._decoded: dict[int, tuple[np.ndarray, float]] = {}

    def write(self, alpha: float, span: slice, into: np.ndarray, last: bool) -> tuple[int, float]:
        """Writes elements `span` of the stretch as the output has them; returns what had to be clamped.

        After the `last` output what was read is no longer valid.
        """
        source, scratch = self.source, self.job.scratch()
        if source.literal is not None:
            size = SIZES[source.dtype]
            whole = np.frombuffer(source.literal, np.uint8)
            into[:] = whole[(self.first + span.start) * size : (self.first + span.stop) * size]
            return 0, 0.0
        sides = (source.base, source.trained)
        only = None if all(sides) and alpha not in (0, 1) else 0 if source.trained is None or (alpha == 0 and source.base) else 1
        if only is not None and sides[only].dtype == source.dtype:  # type: ignore[union-attr]
            into[:] = self._stored(only).view(np.uint8)[span.start * SIZES[source.dtype] : span.stop * SIZES[source.dtype]]
            return 0, 0.0
        first, second = (self._values(only), None) if only is not None else (self._values(0), self._values(1))
        (values, scale), other = first, second and (second[0][span], second[1])
        bounded = source.dtype == "F16" and 0 <= alpha <= 1 and all(side is None or side.dtype == "F16" for side in sides)
        return kernel.encode(
            kernel.weigh((values[span], scale), other, alpha, scratch, last), source.dtype, into, scratch, bounded
        )

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
