"""Progress: a bar with rate and remaining time on a terminal, plain lines in the log, scalars for TensorBoard."""

import logging
import sys
import time
from pathlib import Path
from types import TracebackType

from astolfo.ledger.recipe import Recipe
from astolfo.train.optimizer import schedule_factor

log = logging.getLogger(__name__)
_LINE_EVERY = 10.0  # seconds


class Progress:
    """Reports each step of a segment; a context manager. Counts steps of the whole data order."""

    def __init__(
        self, name: str, first: int, begin: int, end: int, recipe: Recipe, tensorboard: Path | None, *, quiet: bool
    ):  # fmt: skip
        self.name, self.first, self.begin, self.end, self.recipe, self.quiet = name, first, begin, end, recipe, quiet
        self._started = self._told = time.monotonic()
        self._bar = self._writer = None
        if quiet:
            return
        if tensorboard is not None:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter

            self._writer = EventFileWriter(str(tensorboard))
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=end - first, initial=begin - first, desc=name, unit="step", dynamic_ncols=True, leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()
        if not self.quiet and kind is None:
            log.info("%s: %s", self.name, self._summary(self.end))

    def advance(self, step: int, loss: float) -> None:
        """Tells that step number `step` is done, with its loss."""
        if self.quiet:
            return
        if self._writer is not None:
            self._scalars(step + 1, {"loss": loss, "learning rate factor": schedule_factor(self.recipe, step)})
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update()
        if time.monotonic() - self._told >= _LINE_EVERY:
            self._told = time.monotonic()
            level = logging.INFO if self._bar is None else logging.DEBUG  # on a terminal the bar says it
            log.log(level, "%s: step %d of %d, loss %.4f, %s", self.name, step + 1, self.end, loss, self._summary(step + 1))

    def _summary(self, position: int) -> str:
        seconds, done = time.monotonic() - self._started, position - self.begin
        if not done or not seconds:
            return "nothing left to do"
        rate = done / seconds
        per_step = self.recipe.ranks * self.recipe.batch_size * self.recipe.accumulation
        left = (self.end - position) / rate
        return f"{rate:.2f} steps/s, {rate * per_step:.1f} images/s" + (f", {left:.0f} s left" if left else "")

    def _scalars(self, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        rows = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=rows)))
