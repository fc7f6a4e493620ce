"""Runs one segment as a job: takes up what an interrupted attempt left, trains, saves, reports progress.

While it trains, the state is written every now and then into a hidden file beside the output (`autosave.py`); the next attempt at
the same spec goes on from there. The output appears when the segment is complete. Where a NaN or an
infinity ends the run, a report `<step>.failure.json` stands beside it.
"""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from astolfo.checkpoint.safefile import open_file
from astolfo.errors import AstolfoError, PlacementError, StateError
from astolfo.files import exclusive, write_json
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.specs import identity
from astolfo.numerics import naming_operators
from astolfo.train import ranks, state
from astolfo.train.autosave import Autosave
from astolfo.train.guards import WrongNumber
from astolfo.train.host_memory import available
from astolfo.train.loop import Inputs, Trainer
from astolfo.train.optimizer import check_machine
from astolfo.train.placement import Placement, bind, on_ramdisk
from astolfo.train.progress import Progress
from astolfo.train.retention import prune

log = logging.getLogger(__name__)


_FULL = (
    "The GPU's memory ran out: {error} Give the run {run} in the ledger `placement: {{gradient_checkpointing: true, "
    "offload_gradients: true}}`, which needs least and decides no bit, and start again: what was saved last is taken up."
)


class Interrupted(AstolfoError):
    """The job was asked to stop; its state is saved and the next attempt goes on from there."""


def train_segment(spec: dict[str, Any], inputs: Inputs, before: Path | None, out: Path, placement: Placement) -> None:
    """Trains from `before` (None: from the base) to the step `spec["to"]` and writes the state at `out`.

    Raises StateError when another process works on the same output, Interrupted after SIGTERM or SIGINT, WrongNumber for a
    NaN or an infinity unless the recipe says `on_failure: keep`; the state is then the last good one, labelled as stopped;
    PlacementError when the device's memory runs out. Nothing is lost in any of these cases.
    """
    job = _Job(spec, inputs, before, out, placement)
    first = not ranks.launched()  # of several processes that were started together one holds the lock and writes
    with ExitStack() as stack:
        if first:
            stack.enter_context(exclusive(out.with_name(f".{out.stem}.lock"), f"The segment {out}"))
            job.autosave.sweep()
        if job.continue_stopped(write=first):
            return
        bind(placement.numa)
        job.inputs = replace(inputs, dataset=stack.enter_context(on_ramdisk(inputs.dataset, placement.ramdisk)))
        stack.callback(job.autosave.close)
        processes = ranks.start(job.placement.processes, placement.device)
        try:
            with naming_operators(f"run {out.parent.name}"):
                job.run(processes)
        except BaseException as error:
            if isinstance(error, torch.OutOfMemoryError):
                error = PlacementError(_FULL.format(run=out.parent.name, error=str(error).partition(" If ")[0]))
            if processes.index and not isinstance(error, Interrupted | WrongNumber):
                log.error("process %d: %s", processes.index, error)
            others = ranks.finish(processes, failed=True)
            if others and not isinstance(error, AstolfoError):
                raise AstolfoError("Another training process stopped; its message stands above.") from None
            raise error
        ranks.finish(processes)


class _Job:
    """One segment to be trained, as one of its processes sees it."""

    def __init__(self, spec: dict[str, Any], inputs: Inputs, before: Path | None, out: Path, placement: Placement):
        self.spec, self.inputs, self.before, self.out, self.placement = spec, inputs, before, out, placement
        self.recipe = Recipe.model_validate(spec["recipe"])
        check_machine(self.recipe, torch.device(placement.device))
        self.engine: type[Trainer] = Trainer
        if self.recipe.engine:
            from astolfo.train import deepspeed

            self.engine, self.placement = deepspeed.DeepSpeedTrainer, deepspeed.check(self.recipe, placement)
        self.autosave = Autosave(out, spec)
        self.report = out.with_suffix(".failure.json")

    def continue_stopped(self, write: bool) -> bool:
        """When the run was stopped in an earlier segment: hands its state on, unchanged but for the name. No training."""
        if self.before is None or "astolfo.stopped" not in open_file(self.before).metadata:
            return False
        if not write:
            return True
        with self._previous_state() as found:
            assert found.stopped
            log.warning("the run stopped at step %d (%s): its state is handed on", found.stopped["step"], found.stopped["why"])
        state.save(self.out, found, identity(self.spec))
        return True

    def run(self, processes: ranks.Processes) -> None:
        """Trains the segment, or what a wrong number leaves of it."""
        stopped, end = None, self.spec["to"]
        trainer = self._trainer(processes)
        try:
            self._steps(trainer, end)
        except WrongNumber as error:
            stopped, end = error.with_traceback(None), error.step
            if error.what != "weight":  # the weights are still those of the last good step
                self._keep(trainer, end)
        if stopped:
            self._write_report(stopped, processes)
            if self.recipe.on_failure != "keep":
                raise stopped
            if stopped.what == "weight":  # the update itself went wrong: what was before it is done again
                trainer.close()  # a GPU may hold no two models
                del trainer
                self.autosave.wait()
                processes.any(False)  # nobody reads what process 0 still writes
                trainer = self._trainer(processes)
                self._steps(trainer, end)
        found = trainer.state(end)
        if found is not None:
            found.stopped = stopped.label() if stopped else None
            self.autosave.wait()
            state.save(self.out, found, identity(self.spec))
            self.autosave.clear()
            if not stopped:
                self.report.unlink(missing_ok=True)
            if self.placement.keep_states:
                prune(self.out.parent, self.placement.keep_states, self.placement.named, before=self.spec["to"])

    def _trainer(self, processes: ranks.Processes) -> Trainer:
        """A trainer with the newest good state."""
        trainer = self.engine(self.recipe, self.inputs, processes, self.placement)
        self.begin = self._resume(trainer)
        return trainer

    def _steps(self, trainer: Trainer, end: int) -> None:
        """Does the steps from where the trainer stands to `end`, saving now and then."""
        quiet = trainer.processes.index > 0
        with ExitStack() as stack:
            received = stack.enter_context(_collecting_signals())
            name, first, where = self.out.parent.name, self.spec["from"], self.placement
            progress = stack.enter_context(
                Progress(
                    name,
                    first,
                    self.begin,
                    end,
                    self.recipe,
                    where.tensorboard,
                    quiet=quiet,
                    heartbeat=where.heartbeat,
                    run_end=where.run_end,
                )
            )
            saved = time.monotonic()
            for step in range(self.begin, end):
                progress.advance(step, trainer.step(step))
                self._sample(trainer, step + 1)
                due = step + 1 < end and time.monotonic() - saved >= self.placement.keep_every
                stop, due = trainer.processes.any(bool(received), due)
                if stop or due:
                    self._keep(trainer, step + 1, wait=stop)
                    saved = time.monotonic()
                if stop:
                    raise Interrupted(f"Stopped as asked at step {step + 1}; the same command goes on from there.")

    def _sample(self, trainer: Trainer, done: int) -> None:
        """Draws sample pictures after so many steps, where they are asked for."""
        if not self.placement.sample_every or done % self.placement.sample_every or trainer.processes.index:
            return
        assert self.placement.samples
        assert self.placement.draw
        self.placement.draw(trainer, self.inputs.base, self.placement.samples / f"{done:08d}.png")

    def _write_report(self, error: WrongNumber, processes: ranks.Processes) -> None:
        """Writes the failure report beside the state, and the log."""
        if processes.index:
            return
        write_json(self.report, error.report() | {"recipe": self.recipe.digest, "run": self.out.parent.name})
        log.error("%s: %s Report: %s", self.out.parent.name, error, self.report)

    def _resume(self, trainer: Trainer) -> int:
        """Restores the newest good state and returns its position."""
        if found := self.autosave.load(quiet=trainer.processes.index > 0):
            trainer.restore(found)
            return found.position
        if self.before is None:
            return int(self.spec["from"])
        with self._previous_state() as found:
            trainer.restore(found)
        return found.position

    @contextmanager
    def _previous_state(self) -> Iterator[state.State]:
        """The state that the segment begins with; whole when the block ends."""
        assert self.before
        with state.reading(self.before, identity(self.spec | {"to": self.spec["from"]})) as found:
            if found.position != self.spec["from"] and not found.stopped:
                raise StateError(
                    f"{self.before} is at step {found.position}, but the segment begins at {self.spec['from']}. Build it again."
                )
            yield found

    def _keep(self, trainer: Trainer, position: int, wait: bool = True) -> None:
        """Keeps the state after `position` steps for the next attempt. Without `wait` the training goes on meanwhile.

        Every process must call it.
        """
        self.autosave.wait()  # one state at a time: another would take its memory again
        if (found := trainer.state(position)) is not None:
            # What is on a CPU is the training's own memory, and would change under the writer's hands.
            if trainer.device.type == "cpu" and not wait:
                wait = 2 * found.size > (available() or 0.0)  # no memory for a copy
                found = found if wait else found.staged()
            self.autosave.save(found, wait=wait)


@contextmanager
def _collecting_signals() -> Iterator[list[int]]:
    """Collects SIGTERM, SIGINT and SIGHUP instead of dying of them, for as long as the block lasts."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    old = {number: signal.signal(number, lambda n, _: received.append(n)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
