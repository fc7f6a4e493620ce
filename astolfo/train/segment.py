"""Runs one segment as a job: takes up what an interrupted attempt left, trains, saves, reports progress.

While it trains, the state is written every now and then into a hidden file beside the output, named by the spec's digest;
the next attempt at the same spec goes on from there. The output appears when the segment is complete.
"""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astolfo.errors import AstolfoError, StateError
from astolfo.files import exclusive, json_digest, sidecar
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.specs import identity
from astolfo.train import ranks, state
from astolfo.train.loop import Inputs, Trainer
from astolfo.train.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a segment is executed; decides no bit. `keep_every`: seconds between saves of an unfinished segment."""

    processes: int = 1
    device: str = "cpu"
    keep_every: float = 600.0
    tensorboard: Path | None = None


class Interrupted(AstolfoError):
    """The job was asked to stop; its state is saved and the next attempt goes on from there."""


def train_segment(spec: dict[str, Any], inputs: Inputs, before: Path | None, out: Path, placement: Placement) -> None:
    """Trains from `before` (None: from the base) to the step `spec["to"]` and writes the state at `out`.

    Raises StateError when another process works on the same output, Interrupted after SIGTERM or SIGINT, NumericsError for
    a wrong number. Nothing is lost in any of these cases.
    """
    recipe = Recipe.model_validate(spec["recipe"])
    kept = out.with_name(f".{out.stem}-{json_digest(spec)[:16]}.safetensors")
    with exclusive(out.with_name(f".{out.stem}.lock"), f"The segment {out}"):
        processes = ranks.start(placement.processes, placement.device)
        try:
            _run(spec, recipe, inputs, before, out, kept, placement, processes)
        except BaseException as error:
            if processes.index and not isinstance(error, Interrupted):
                log.error("process %d: %s", processes.index, error)
            others = ranks.finish(processes, failed=True)
            if others and not isinstance(error, AstolfoError):
                raise AstolfoError("Another training process stopped; its message stands above.") from None
            raise
        ranks.finish(processes)


def _run(
    spec: dict[str, Any], recipe: Recipe, inputs: Inputs, before: Path | None, out: Path, kept: Path, placement: Placement,
    processes: ranks.Processes,
) -> None:  # fmt: skip
    trainer = Trainer(recipe, inputs, processes, placement.device)
    begin = _resume(trainer, spec, before, kept)
    with ExitStack() as stack:
        asked = stack.enter_context(_listening())
        progress = stack.enter_context(
            Progress(out.parent.name, spec["from"], begin, spec["to"], recipe, placement.tensorboard, quiet=processes.index > 0)
        )
        saved = time.monotonic()
        for step in range(begin, spec["to"]):
            loss = trainer.step(step)
            progress.advance(step, loss)
            due = step + 1 < spec["to"] and time.monotonic() - saved >= placement.keep_every
            stop, due = processes.any(bool(asked), due)
            if stop or due:
                _save(trainer, step + 1, kept, json_digest(spec))
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"Stopped as asked at step {step + 1}; the same command goes on from there.")
        _save(trainer, spec["to"], out, identity(spec))
    if processes.index == 0:
        kept.unlink(missing_ok=True)
        sidecar(kept).unlink(missing_ok=True)


def _resume(trainer: Trainer, spec: dict[str, Any], before: Path | None, kept: Path) -> int:
    """Restores the newest good state and returns its position."""
    if kept.exists():
        try:
            found = state.load(kept, json_digest(spec))
            trainer.restore(found)
            if trainer.processes.index == 0:
                log.info("resumed at step %d from %s, which an interrupted attempt left", found.position, kept)
            return found.position
        except AstolfoError as error:
            log.warning("not resumed from the interrupted attempt: %s", error)
    if before is None:
        return int(spec["from"])
    found = state.load(before, identity(spec | {"to": spec["from"]}))
    if found.position != spec["from"]:
        raise StateError(f"{before} is at step {found.position}, but the segment begins at {spec['from']}. Build it again.")
    trainer.restore(found)
    return found.position


def _save(trainer: Trainer, position: int, path: Path, name: str) -> None:
    found = trainer.state(position)
    if found is not None:
        state.save(path, found, name)


@contextmanager
def _listening() -> Iterator[list[int]]:
    """Collects SIGTERM, SIGINT and SIGHUP instead of dying of them, for as long as the block lasts."""
    asked: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    old = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
