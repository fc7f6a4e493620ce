"""Progress: a bar with rate and remaining time on a terminal, plain lines in the log, scalars for TensorBoard, a heartbeat.

The heartbeat is one line of JSON every ten seconds in a file that outside monitors follow: time, run, step, end of the segment,
loss, steps and images per second, seconds left; the run's end (`run_end`, a step) and the seconds to it (`run_seconds_left`); and
where the driver tells them the cards' power (watts) and the energy since the segment began (joules). It is a log: nothing is
made from it.
"""

import json
import logging
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from astolfo.devices import watts
from astolfo.ledger.recipe import Recipe
from astolfo.train import schedule

log = logging.getLogger(__name__)
_LINE_EVERY = 10.0  # seconds
_WITHIN = 10.0  # seconds; a step that takes longer has a heartbeat of its own for each
_SLOW = 60.0  # seconds; and a line in the log for each


class Progress:
    """Reports each step of a segment; a context manager. Counts steps of the whole data order."""

    def __init__(
        self, name: str, first: int, begin: int, end: int, recipe: Recipe, tensorboard: Path | None, *, quiet: bool,
        heartbeat: Path | None = None, run_end: int | None = None,
    ):  # fmt: skip
        self.run_end = run_end or end  # the last step of all the run's segments
        self.name, self.first, self.begin, self.end, self.recipe, self.quiet = name, first, begin, end, recipe, quiet
        self._started = self._reported = self._stepped = time.monotonic()
        self._bar = self._writer = None
        self._heartbeat = Heartbeat(heartbeat, name) if heartbeat and not quiet else None
        self._step, self._done = begin, threading.Event()
        self._thread: threading.Thread | None = None
        if quiet:
            return
        if tensorboard is not None:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._writer = EventFileWriter(str(tensorboard))
        if sys.stderr.isatty():
            from tqdm import tqdm

            what = name if end == self.run_end else f"{name} to step {end:,} of {self.run_end:,}"
            self._bar = tqdm(total=end - first, initial=begin - first, desc=what, unit="step", dynamic_ncols=True, leave=False)

    def __enter__(self) -> "Progress":
        if not self.quiet:
            self._thread = threading.Thread(target=self._wait, name="progress within a step", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()  # nothing that it says comes after the end
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()
        if self._heartbeat is not None:
            self._heartbeat.close(kind)
        if not self.quiet and kind is None:
            log.info("%s: %s", self.name, self._summary(self.end))

    def advance(self, step: int, loss: float) -> None:
        """Tells that step number `step` is done, with its loss."""
        if self.quiet:
            return
        self._step, self._stepped = step + 1, time.monotonic()
        if self._writer is not None:
            self._scalars(step + 1, {"loss": loss, "learning rate factor": schedule.factor(self.recipe, step)})
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update()
        if time.monotonic() - self._reported >= _LINE_EVERY:
            self._reported = time.monotonic()
            if self._heartbeat is not None:
                self._heartbeat.beat(step + 1, self.end, self.run_end, loss, *self._rates(step + 1))
            level = logging.INFO if self._bar is None else logging.DEBUG  # on a terminal the bar says it
            log.log(level, "%s: step %d of %d, loss %.4f, %s", self.name, step + 1, self.end, loss, self._summary(step + 1))

    def _wait(self) -> None:
        """Of a step that takes longer than _WITHIN, tells that it goes on: the log each minute, the heartbeat as ever."""
        reported = 0.0
        while not self._done.wait(_WITHIN):
            within = time.monotonic() - self._stepped
            if within < _WITHIN:
                reported = 0.0
                continue
            if self._heartbeat is not None:
                self._heartbeat.alive(self._step, self.end, self.run_end, within)
            if within // _SLOW > reported:
                reported = within // _SLOW
                log.info("%s: step %d of %d, under way for %s", self.name, self._step + 1, self.end, _duration(within))

    def _summary(self, position: int) -> str:
        if position == self.begin:
            return "nothing left to do"
        rate, images = self._rates(position)
        text = f"{rate:.2f} steps/s, {images:.1f} images/s"
        if position < self.end:
            text += f", {_duration((self.end - position) / rate)} left"
        if position < self.run_end > self.end:
            text += f", {_duration((self.run_end - position) / rate)} to the run's end at step {self.run_end:,}"
        return text

    def _rates(self, position: int) -> tuple[float, float]:
        """Steps and images per second since this attempt began."""
        rate = (position - self.begin) / max(time.monotonic() - self._started, 1e-9)
        return rate, rate * self.recipe.ranks * self.recipe.batch_size * self.recipe.accumulation

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        assert self._writer
        rows = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=rows)))


class Heartbeat:
    """Appends a line of JSON to `path` at every beat; what cannot be written is given up with a warning, not the training."""

    def __init__(self, path: Path, run: str):
        self.path, self.run = path, run
        self._last, self._joules = time.monotonic(), 0.0
        self._position: dict[str, Any] = {}

    def beat(
        self, step: int, end: int, run_end: int, loss: float, steps_per_second: float, images_per_second: float
    ) -> None:  # fmt: skip
        """Tells how far the training is, and how fast."""
        self._position = {"step": step, "end": end, "run_end": run_end, "loss": round(loss, 6)}
        self._write(
            "training", steps_per_second=round(steps_per_second, 4), images_per_second=round(images_per_second, 3),
            seconds_left=round((end - step) / steps_per_second),
            run_seconds_left=round((run_end - step) / steps_per_second), **self._energy(),
        )  # fmt: skip

    def alive(self, step: int, end: int, run_end: int, seconds: float) -> None:
        """Tells that the step after `step` goes on, and for how long it has."""
        self._position |= {"step": step, "end": end, "run_end": run_end}
        self._write("within a step", step_seconds=round(seconds, 1))

    def close(self, error: type[BaseException] | None) -> None:
        """Tells that the segment ended, and by what."""
        self._write("ended" if error is None else error.__name__)

    def _energy(self) -> dict[str, float]:
        drawn, now = watts(), time.monotonic()
        if drawn is None:
            return {}
        self._joules, self._last = self._joules + drawn * (now - self._last), now
        return {"watts": drawn, "joules": round(self._joules)}

    def _write(self, what: str, **values: float) -> None:
        line = {"time": round(time.time(), 1), "run": self.run, "what": what, **self._position, **values}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            log.warning("no heartbeat in %s: %s", self.path, error)


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, after the days when there are any: "0:01:05", "44 days, 3:12:05"."""
    return str(timedelta(seconds=round(seconds)))
