"""Writing large files in pieces made by several threads, past the page cache where the file system allows it.

A file is preallocated and written in aligned pieces of 4 MiB (O_DIRECT), so that it is on the disk, and not only in the
cache, when the call returns; where the file system refuses that, the same pieces are written normally and flushed. The
digest is computed on the way, in the order of the file. Several files of the same length of data are written side by side.
"""

import errno
import fcntl
import hashlib
import mmap
import os
import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

PIECE = 1 << 22
_PAGE = 4096


class Output:
    """One file of a known size, open for writing at `path`; pieces may be written in any order, digests not."""

    def __init__(self, path: Path, size: int, direct: bool = True):
        self.size, self.digest = size, hashlib.sha256()
        self._file = _open(path, direct)
        if self.direct and size:
            os.posix_fallocate(self._file, 0, -(-size // _PAGE) * _PAGE)

    @property
    def direct(self) -> bool:
        """Whether this file is written past the page cache."""
        return bool(fcntl.fcntl(self._file, fcntl.F_GETFL) & os.O_DIRECT)

    @property
    def pieces(self) -> int:
        """How many pieces the file has."""
        return -(-self.size // PIECE)

    def span(self, piece: int) -> tuple[int, int]:
        """First and last+1 byte of a piece."""
        return piece * PIECE, min((piece + 1) * PIECE, self.size)

    def write(self, piece: int, buffer: np.ndarray) -> None:
        """Writes one piece from a page-aligned buffer of PIECE bytes."""
        start, end = self.span(piece)
        whole = -(-(end - start) // _PAGE) * _PAGE
        buffer[end - start : whole] = 0
        try:
            _pwrite(self._file, memoryview(buffer)[:whole], start)
        except OSError as error:
            if error.errno != errno.EINVAL or not self.direct:
                raise
            fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) & ~os.O_DIRECT)
            _pwrite(self._file, memoryview(buffer)[:whole], start)

    def finish(self) -> None:
        """Cuts the padding off the end and closes the file."""
        os.ftruncate(self._file, self.size)
        self.close()

    def close(self) -> None:
        """Closes the file; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


Fill = Callable[[int, list[np.ndarray]], None]
"""Fills the buffers of all outputs for one piece; called from several threads at once."""


def produce(outputs: list[Output], fill: Fill, ahead: Callable[[int], None], threads: int, digests: bool) -> None:
    """Fills, writes and digests all pieces of all outputs; `ahead(piece)` is called some pieces before `fill(piece)`.

    At most `threads` + 2 sets of buffers exist. The first exception of any thread is raised here, the rest is abandoned.
    """
    count = max(output.pieces for output in outputs)
    free: queue.SimpleQueue[list[np.ndarray]] = queue.SimpleQueue()
    for _ in range(min(threads + 2, count)):
        free.put([np.frombuffer(mmap.mmap(-1, PIECE), np.uint8) for _ in outputs])
    waiting: list[Future[list[np.ndarray]]] = []

    def make(piece: int, buffers: list[np.ndarray]) -> list[np.ndarray]:
        fill(piece, buffers)
        for output, buffer in zip(outputs, buffers, strict=True):
            if piece < output.pieces:
                output.write(piece, buffer)
        return buffers

    def settle(piece: int) -> None:
        buffers = waiting.pop(0).result()
        if digests:
            list(hashers.map(lambda pair: _digest(pair[0], piece, pair[1]), zip(outputs, buffers, strict=True)))
        free.put(buffers)

    with ThreadPoolExecutor(threads) as workers, ThreadPoolExecutor(threads) as hashers:
        try:
            for piece in range(count):
                if free.empty():
                    settle(piece - len(waiting))
                ahead(piece)
                waiting.append(workers.submit(make, piece, free.get()))
            while waiting:
                settle(count - len(waiting))
        finally:
            for future in waiting:
                future.cancel()


def _digest(output: Output, piece: int, buffer: np.ndarray) -> None:
    if piece < output.pieces:
        start, end = output.span(piece)
        output.digest.update(memoryview(buffer)[: end - start])


def _open(path: Path, direct: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if direct:
        try:
            return os.open(path, flags | os.O_DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(path, flags, 0o666)


def _pwrite(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
