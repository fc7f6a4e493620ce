"""Work shared out over processes, when the results are functions of the pieces: who computes a piece decides no bit.

    parallel_map(square, [1, 2, 3], processes=2)     # [1, 4, 9]

The processes are forks, so that what the caller has loaded is there without being read again; each takes every so many'th piece.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from astolfo.errors import AstolfoError

P = TypeVar("P")
R = TypeVar("R")


def parallel_map(work: Callable[[P], R], pieces: Sequence[P], processes: int) -> list[R]:
    """`work` of every piece, in the pieces' order. What a process raises is raised here."""
    count = min(processes, len(pieces))
    if count <= 1:
        return [work(piece) for piece in pieces]
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    children = [context.Process(target=_share, args=(work, pieces[i::count], pipes[i][1])) for i in range(count)]
    for child, (_, sender) in zip(children, pipes, strict=True):
        child.start()
        sender.close()  # the child's alone now, so that its end is noticed
    results: list[Any] = [None] * len(pieces)
    for i, (receiver, _) in enumerate(pipes):
        results[i::count] = _received(receiver)
    for child in children:
        child.join()
    return results


def _share(work: Callable[[P], R], pieces: Sequence[P], sender: Connection) -> None:
    try:
        sender.send([work(piece) for piece in pieces])
    except BaseException as error:  # told to the parent, who raises it
        sender.send(error)


def _received(receiver: Connection) -> list[Any]:
    try:
        found = receiver.recv()
    except EOFError:
        raise AstolfoError(
            "A process of this evaluation was ended from outside, perhaps for want of memory. Run it again."
        ) from None
    if isinstance(found, BaseException):
        raise found
    return found
