"""Saving while the training goes on: a state is staged once in the host's memory and written from there by another thread.

What is written is what the training was when it was staged, whatever it does meanwhile; each tensor's copy is given back as
soon as it is in the file. The file is whole or absent, so a kill during the write leaves the state before it.
"""

import contextlib
import threading
from pathlib import Path

from astolfo.train import state
from astolfo.train.state import State


class Saver:
    """Writes states one after another, each in the background."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, path: Path, found: State, identity: str) -> None:
        """Begins to write `found`, whose tensors are the writer's from here on. Waits for the write before it."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(path, found, identity), name="save a state")
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

    def _write(self, path: Path, found: State, identity: str) -> None:
        try:
            state.save(path, found, identity, give_back=True)
        except BaseException as error:
            self._error = error
