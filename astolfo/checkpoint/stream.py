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
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

PIECE = 1 << 22
_PAGE = 4096


class Output:
    """One file of a known size, open for writing at `path`; pieces may be written in any order, but not taken into the digest.

    The digest leaves out the first `skip` bytes.
    """

    def __init__(self, path: Path, size: int, direct: bool = True, skip: int = 0):
        self.size, self.digest, self._skip = size, hashlib.sha256(), skip
        self._file = _open(path, direct)
        if self.direct and size:
            _reserve(self._file, -(-size // _PAGE) * _PAGE)

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

    def take(self, piece: int, buffer: np.ndarray) -> None:
        """Takes one piece into the digest; pieces must come in order."""
        start, end = self.span(piece)
        self.digest.update(memoryview(buffer)[max(0, self._skip - start) : end - start])

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

    Pieces are filled by `threads` threads while others write and digest the ones before, so that processor and disk wait
    for each other as little as possible. At most `threads` + 3 sets of buffers exist. The first exception of any thread is
    raised here, the rest is abandoned.
    """
    count = max(output.pieces for output in outputs)
    free = [[np.frombuffer(mmap.mmap(-1, PIECE), np.uint8) for _ in outputs] for _ in range(min(threads + 3, count))]
    filling: deque[tuple[int, list[np.ndarray], Future]] = deque()
    storing: deque[tuple[list[np.ndarray], list[Future]]] = deque()

    def store() -> None:
        piece, buffers, filled = filling.popleft()
        filled.result()
        tasks = []
        for output, buffer, hasher in zip(outputs, buffers, hashers, strict=True):
            if piece < output.pieces:
                tasks.append(writers.submit(output.write, piece, buffer))
                if digests:
                    tasks.append(hasher.submit(output.take, piece, buffer))
        storing.append((buffers, tasks))

    def release() -> None:
        buffers, tasks = storing.popleft()
        for task in tasks:
            task.result()
        free.append(buffers)

    with ExitStack() as stack:
        fillers, writers = (stack.enter_context(ThreadPoolExecutor(number)) for number in (threads, 2))
        # A thread of its own for each output keeps its pieces in order.
        hashers = [stack.enter_context(ThreadPoolExecutor(1)) for _ in outputs]
        try:
            for piece in range(count):
                if len(filling) > threads:
                    store()
                if not free:
                    release()
                ahead(piece)
                buffers = free.pop()
                filling.append((piece, buffers, fillers.submit(fill, piece, buffers)))
            while filling:
                store()
            while storing:
                release()
        finally:
            for task in [task for *_, task in filling] + [task for _, tasks in storing for task in tasks]:
                task.cancel()


def _open(path: Path, direct: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if direct:
        try:
            return os.open(path, flags | os.O_DIRECT, 0o666)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return os.open(path, flags, 0o666)


def _reserve(file: int, size: int) -> None:
    """Has a file's place on the disk set aside, where the file system can do that (NFS and FUSE often cannot)."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def _pwrite(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written
