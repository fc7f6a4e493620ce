"""Kept states: what an attempt at a segment leaves for the next one, in hidden files beside the segment's output.

They are named by the spec's digest, so that another recipe, other code or another lock never goes on from them. There are two
places, and a save goes to the one that does not hold the last good state: whenever the process is killed, or the power
fails, a whole state with its side-car is there. Usually there is one file, and two while a save is under way.
"""

import glob
import logging
from pathlib import Path
from typing import Any

from astolfo.errors import AstolfoError
from astolfo.files import json_digest, sidecar, sweep
from astolfo.train import state
from astolfo.train.saving import Saver

log = logging.getLogger(__name__)


class Autosave:
    """The kept states of one segment, for one spec. `save` is for one process alone; `load` for all."""

    def __init__(self, out: Path, spec: dict[str, Any]):
        self._out, self._identity = out, json_digest(spec)
        self._places = [out.with_name(f".{out.stem}-{self._identity[:16]}-{letter}.safetensors") for letter in "ab"]
        self._good: Path | None = None
        self._saver = Saver()

    def sweep(self) -> None:
        """Removes what a kill during a write has left."""
        for place in self._places:
            sweep(place)

    def load(self, quiet: bool = False) -> state.State | None:
        """The newest state that is whole and of this spec; None when there is none. What is not used is said to the log."""
        self.wait()
        tell = log.debug if quiet else log.warning
        for other in set(self._all()) - {*self._places}:
            tell("%s is of an attempt by other code, another lock or another recipe: the segment does not go on from it", other)
        there = sorted((path for path in self._places if path.exists()), key=lambda path: -path.stat().st_mtime_ns)
        for path in there:
            try:
                found = state.load(path, self._identity)
            except AstolfoError as error:
                tell("not resumed from an interrupted attempt: %s", error)
                continue
            self._good = path
            (log.debug if quiet else log.info)("resumed at step %d, where an interrupted attempt was", found.position)
            return found
        return None

    def save(self, found: state.State, wait: bool = True) -> None:
        """Keeps a state; the one before it goes when this one is whole.

        Without `wait` it is written in the background: the tensors of `found` are then the writer's, each given back as soon as
        it is in the file.
        """
        place = next(path for path in self._places if path != self._good)
        self._saver.start(lambda: self._write(place, found, give_back=not wait))
        if wait:
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written any more. Raises what the last write raised."""
        self._saver.wait()

    def close(self) -> None:
        """Waits, and drops what the last write raised: for where another error is on its way."""
        self._saver.close()

    def clear(self) -> None:
        """Removes every kept state of the segment, of whatever spec."""
        for path in self._all():
            _remove(path)

    def _write(self, place: Path, found: state.State, give_back: bool) -> None:
        state.save(place, found, self._identity, give_back=give_back)
        before, self._good = self._good, place
        if before:
            _remove(before)

    def _all(self) -> list[Path]:
        return sorted(self._out.parent.glob(f".{glob.escape(self._out.stem)}-*.safetensors"))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)
