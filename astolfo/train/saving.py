"""Saving while the training goes on: a staged state is written by another thread.

What is written is what the training was when it was staged, whatever it does meanwhile. The file is whole or absent, so a
kill during the write leaves the state before it.
"""

import contextlib
import threading
from collections.abc import Callable


class Saver:
    """Does one piece of writing after another, each in the background."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Begins to `write`. Waits for what was begun before."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(write,), name="save a state")
        self._thread.start()

    def wait(self) -> None:
        """Returns when nothing is being written any more. Raises what the last write raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Waits, and drops what the last write raised: for where another error is on its way."""
        with contextlib.suppress(Exception):
            self.wait()

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error
