"""A run on a machine, before anything is run: `astolfo plan ID --hardware NAME`.

    plan(ledger, run, machine) -> Needs            raises PlacementError for what the machine cannot do

A plan is for the scale that the machine's device is for: a CPU builds the miniature, a CUDA device the full scale. Every
figure comes with where it is from: the ledger, arithmetic, the record's measurements, or an estimate that says so.
"""

from dataclasses import dataclass
from typing import Any

from astolfo.errors import LedgerError, PlacementError
from astolfo.ledger import schema
from astolfo.ledger.files import unknown
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.recipe import Recipe, recipe_of
from astolfo.ledger.references import Reference
from astolfo.ledger.steps import plan_of, samples_per_step
from astolfo.plan.memory import USABLE, Memory, fitting, memory, result_bytes, saving, state_bytes
from astolfo.plan.speed import Speed, speed

OLDEST = (7, 5)
"""The oldest compute capability that torch 2.13's public CUDA 13 wheels have kernels for: Turing. Volta (7.0) is gone."""

_GIB = 1 << 30
_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one run needs. Disk in bytes; `days` and `kwh` are (least, most), None where nothing known tells them."""

    run: Run
    recipe: Recipe
    steps: int
    images: int
    segments: int
    processes: int
    memory: Memory | None
    placement: dict[str, Any]  # what a training there chooses of what saves memory
    disk: float | None
    speed: Speed | None
    days: tuple[float, float] | None
    kwh: tuple[float, float] | None


def machine_of(ledger: Ledger, name: str) -> schema.Hardware:
    """The machine of that name. Raises LedgerError with near names for an unknown one."""
    if name not in ledger.hardware:
        raise LedgerError(unknown("hardware", name, ledger.hardware) + " One file of config/hardware/ describes one machine.")
    return ledger.hardware[name]


def plan(ledger: Ledger, run: Run, machine: schema.Hardware) -> Needs:
    """What `run` needs on `machine`. Raises PlacementError when it cannot run there, with what is lacking."""
    _check_scale(ledger, machine)
    recipe, steps = recipe_of(ledger, run), plan_of(ledger, run)
    _check_build(machine)
    processes = _processes(recipe, machine)
    full = ledger.scale.device == "cuda"
    placement, needed = _placed(run, recipe, machine, processes) if full else ({}, None)
    length, segments = steps.end - steps.start, len(steps.boundaries) - 1
    images = _images(ledger, run, steps.start, steps.end)
    pace = speed(recipe, machine, processes)
    days = (images / pace.fast / _DAY, images / pace.slow / _DAY) if pace else None
    kwh = tuple(day * 24 * machine.power.watts / 1000 for day in days) if days and machine.power else None
    disk = segments * state_bytes(recipe) + result_bytes(recipe) if full else None
    return Needs(
        run=run, recipe=recipe, steps=length, images=images, segments=segments, processes=processes, memory=needed,
        placement=placement, disk=disk, speed=pace, days=days, kwh=kwh,
    )  # fmt: skip


def lineage(ledger: Ledger, run: Run) -> list[Run]:
    """The runs that a run is made from, and the run itself, in the order in which they can be built."""
    found: dict[str, Run] = {}

    def visit(reference: Reference) -> None:
        for parent in ledger.parents(reference):
            visit(parent)
        if reference.run:
            found.setdefault(reference.run, ledger.run(reference.run))

    visit(Reference(run=run.id))
    return list(found.values())


def _images(ledger: Ledger, run: Run, start: int, end: int) -> int:
    """Images that the steps from `start` to `end` see; the last step of an epoch sees what is left of it."""
    per_step, per_epoch = samples_per_step(run), plan_of(ledger, run).steps_per_epoch
    images = ledger.sole_dataset(run).images
    if per_epoch is None:
        return (end - start) * per_step

    def seen(step: int) -> int:
        return step // per_epoch * images + step % per_epoch * per_step

    return seen(end) - seen(start)


def _processes(recipe: Recipe, machine: schema.Hardware) -> int:
    """How many processes run the logical ranks: the most that share them evenly, each on a device or core of its own."""
    if recipe.engine and machine.device == "cuda" and machine.devices < recipe.ranks:
        raise PlacementError(
            f"This run's engine is DeepSpeed, whose world size decides the bits: it needs {recipe.ranks} devices, "
            f"{machine.title} has {machine.devices}. Choose a machine that has them."
        )
    return max(count for count in (1, 2, 4, 8) if recipe.ranks % count == 0 and count <= machine.devices)


def _check_scale(ledger: Ledger, machine: schema.Hardware) -> None:
    if ledger.scale.device != machine.device:
        raise PlacementError(
            f"The scale {ledger.scale_name} needs a device of the kind {ledger.scale.device}, {machine.title} has "
            f"{machine.device}. A CPU builds the miniature, a CUDA device the full scale."
        )


def _check_build(machine: schema.Hardware) -> None:
    capability = machine.compute_capability
    if capability and capability < OLDEST:
        have, oldest = (".".join(map(str, version)) for version in (capability, OLDEST))
        raise PlacementError(
            f"{machine.title}: compute capability {have}, but the pinned build, torch 2.13 with CUDA 13, has kernels from "
            f"{oldest} on, so the pinned environment cannot run there. An older build needs a lock of its own, and is a numerics "
            "class of its own: docs/environments.md says how."
        )


def _placed(run: Run, recipe: Recipe, machine: schema.Hardware, processes: int) -> tuple[dict[str, Any], Memory]:
    """How a training saves memory there: as the run's entry says, else the quickest way with which it fits; and its memory.

    Raises PlacementError when it does not fit.
    """
    has = (machine.device_memory_gib or float("inf")) * _GIB * USABLE
    given = saving(run.fields.placement.model_dump() if run.fields.placement else {})
    placement, needed = (given, memory(recipe, processes, **given)) if given else fitting(recipe, processes, has)
    if needed.total <= has:
        return placement, needed
    advice = "" if processes == recipe.ranks else f" {recipe.ranks} devices would hold less each."
    raise PlacementError(
        f"Run {run.id} does not fit {machine.title}: a device needs about {needed.total / 1e9:.1f} GB ({needed}), it has "
        f"{has / 1e9:.1f} GB to use, so {(needed.total - has) / 1e9:.1f} GB are lacking with {recipe.ranks} logical ranks on "
        f"{processes} device{'s' * (processes > 1)}.{advice} `astolfo plan` with another --hardware shows what it needs there."
    )
