"""Steps, epochs and segments: derived from images, ranks, batch, accumulation and save cadence, never typed.

The ledger counts steps at full scale. A smaller scale has fewer images, so each of its steps stands for many: a named
step of the record (a save, a hand-over, a stop) maps to the nearest step of the scale, at least 1.
"""

from dataclasses import dataclass
from functools import cache

from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.references import Reference

_TAIL = 10  # a last stretch shorter than a tenth of the save cadence joins the segment before it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps of one run at one scale: trained from `boundaries[0]` to `boundaries[-1]`, saved at each in between."""

    steps_per_epoch: int | None
    boundaries: tuple[int, ...]

    @property
    def start(self) -> int:
        return self.boundaries[0]

    @property
    def end(self) -> int:
        return self.boundaries[-1]


def steps_per_epoch(run: Run, images: int) -> int:
    """Optimizer steps of one epoch: ceil(images / (ranks x batch size x accumulation))."""
    return -(-images // samples_per_step(run))


def samples_per_step(run: Run) -> int:
    """Samples that one optimizer step sees: ranks x batch size x accumulation."""
    fields = run.fields
    return (fields.ranks or 0) * (fields.batch_size or 0) * (fields.accumulation or 0)


def full_steps(ledger: Ledger, run: Run) -> int:
    """The length of the run's data order at full scale, in steps: all its epochs."""
    images = ledger.datasets[str(run.fields.dataset)].images
    return run.fields.steps or steps_per_epoch(run, images) * (run.fields.epochs or 0)


def scale_steps(ledger: Ledger, run: Run) -> int:
    """The same length at the ledger's scale: so many epochs, whole or not, of a dataset that may be smaller; at least 1."""
    images, steps = ledger.dataset_of(run).images or 0, run.fields.steps
    if steps is None:
        return steps_per_epoch(run, images) * (run.fields.epochs or 0)
    if ledger.scale_name != "full" and run.fields.miniature_steps:
        return run.fields.miniature_steps
    here, full = steps_per_epoch(run, images), steps_per_epoch(run, ledger.datasets[str(run.fields.dataset)].images)
    return _proportion(steps, here, full)


def to_scale(ledger: Ledger, run: Run, full_step: int) -> int:
    """The scale's step for a step counted at full scale: proportional, at least 1 (0 stays 0)."""
    total, here = full_steps(ledger, run), scale_steps(ledger, run)
    if full_step > total:
        raise run.error(f"run {run.id} has {total:,} steps at full scale, so there is no step {full_step:,}.")
    return _proportion(full_step, here, total)


def _proportion(steps: int, here: int, full: int) -> int:
    """`steps` of `full` as the nearest number of `here`, at least 1 (0 stays 0)."""
    return steps and max(1, (2 * steps * here + full) // (2 * full))


def span_of(ledger: Ledger, run: Run, steps: int) -> int:
    """A warm-up, or a cadence, of so many steps at full scale in the scale's steps: the same share of the run, at least 1."""
    return _proportion(steps, scale_steps(ledger, run), full_steps(ledger, run))


def from_scale(ledger: Ledger, run: Run, step: int) -> int:
    """A full-scale step that maps to the scale's `step`: the inverse of `to_scale`, as far as there is one."""
    return step * full_steps(ledger, run) // scale_steps(ledger, run)


def step_of(ledger: Ledger, reference: Reference) -> int:
    """Where in its run's steps (at the ledger's scale) a checkpoint lies. Raises LedgerError when the run has none there."""
    run = ledger.run(str(reference.run))
    plan = plan_of(ledger, run)
    step = plan.end
    if reference.step is not None:
        step = to_scale(ledger, run, reference.step)
    elif reference.epoch is not None:
        step = scale_steps(ledger, run) * reference.epoch // (run.fields.epochs or 1)
    if not plan.start < step <= plan.end:
        raise run.error(f"there is no {reference}: run {run.id} trains steps {plan.start:,} to {plan.end:,} at this scale.")
    return step


@cache
def plan_of(ledger: Ledger, run: Run) -> Plan:
    """The run's start, end and segment boundaries at the ledger's scale."""
    total = scale_steps(ledger, run)
    start, end = start_step(ledger, run), total
    if run.fields.until_step:
        end = to_scale(ledger, run, run.fields.until_step)
    if end <= start:
        raise run.error(f"run {run.id} would end at step {end} but starts at step {start}: its until_step lies too early.")
    cadence = _cadence(ledger, run, end - start)
    boundaries = set(range(start + cadence, end - cadence // _TAIL, cadence)) | {start, end}
    boundaries |= {step for step in named_steps(ledger, run) if start < step < end}
    per_epoch = None if run.fields.steps else steps_per_epoch(run, ledger.dataset_of(run).images or 0)
    return Plan(steps_per_epoch=per_epoch, boundaries=tuple(sorted(boundaries)))


def named_steps(ledger: Ledger, run: Run) -> list[int]:
    """The steps of the run's checkpoints that the ledger names: other entries start from them, or the run itself does anew."""
    named = [_named_step(ledger, run, reference) for reference in ledger.named_checkpoints.get(run.id, [])]
    return sorted({*named, *_restarts(ledger, run)})


def start_step(ledger: Ledger, run: Run) -> int:
    """Where in the data order the run begins: its parent's step for a continuation, else 0."""
    parent = ledger.parent(run)
    if not run.fields.continues:
        return 0
    if parent is None or parent.run is None:
        raise run.error(f"run {run.id} continues, but its base is no checkpoint of a run. Name one, or drop `continues`.")
    return step_of(ledger, parent)


def restart_before(ledger: Ledger, run: Run, end: int) -> Reference | None:
    """The checkpoint of its own that the run began anew from, weights alone, last before step `end`; None without one."""
    before = [epoch for epoch, step in zip(run.fields.restart_epochs or (), _restarts(ledger, run), strict=True) if step < end]
    return Reference(run=run.id, epoch=max(before)) if before else None


def _restarts(ledger: Ledger, run: Run) -> list[int]:
    """The steps at which a run began anew from its own checkpoint."""
    epochs, total = run.fields.epochs or 1, scale_steps(ledger, run)
    return [total * epoch // epochs for epoch in run.fields.restart_epochs or ()]


def _cadence(ledger: Ledger, run: Run, length: int) -> int:
    every = run.fields.save_every
    if every is None:
        cadence = length
    elif every.epochs:
        cadence = scale_steps(ledger, run) * every.epochs // (run.fields.epochs or 1)
    else:
        cadence = to_scale(ledger, run, min(every.steps or 1, full_steps(ledger, run)))
    most = ledger.scale.max_segments
    return max(1, cadence, -(-length // most) if most else 1)


def _named_step(ledger: Ledger, run: Run, named: Reference) -> int:
    if named.epoch is not None:
        return scale_steps(ledger, run) * named.epoch // (run.fields.epochs or 1)
    return to_scale(ledger, run, named.step or 0)
