"""A run on a machine, before anything is run: `astolfo plan ID`, `astolfo plan ID --hardware NAME`.

    plan(ledger, run, machine) -> Needs            raises Refusal for what the machine cannot do, with the nearest changes

A plan is for the scale that the machine's device is for: a CPU builds the miniature, a CUDA device the full scale. Every
figure comes with where it is from: the ledger, arithmetic, the record's measurements, or an estimate that says so.
"""

from dataclasses import dataclass
from typing import Any

from astolfo.errors import LedgerError, Refusal
from astolfo.ledger import schema
from astolfo.ledger.files import unknown
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.recipe import Recipe, recipe_of
from astolfo.ledger.references import Reference
from astolfo.ledger.steps import plan_of, samples_per_step
from astolfo.plan import cards
from astolfo.plan.memory import GIB, USABLE, Memory, fitting, memory, named, result_bytes, saving, state_bytes
from astolfo.plan.propose import holding, nearest, processes
from astolfo.plan.speed import Speed, speed

OLDEST = (7, 5)
"""The oldest compute capability that torch 2.13's public CUDA 13 wheels have kernels for: Turing. Volta (7.0) is gone."""

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
    """The machine of that name: of the ledger's hardware/, else of cards. Raises LedgerError with near names."""
    if name in ledger.hardware:
        return ledger.hardware[name]
    asked = cards.parsed(name)
    for other, found in ledger.hardware.items():  # 3090 and "1 x RTX 3090" are 1x3090
        if asked and asked == cards.parsed(other) and found.devices == asked[0]:
            return found
    try:
        return cards.machine(name)
    except LedgerError:
        names = [*ledger.hardware, *cards.cards()]
        advice = "`astolfo hardware --list` shows machines and cards; 2x4090 is a machine with two of one."
        raise LedgerError(f"{unknown('machine', name, names)} {advice}") from None


def plan(ledger: Ledger, run: Run, machine: schema.Hardware, *, exact: bool = False) -> Needs:
    """What `run` needs on `machine`, on as many of its devices as share the logical ranks evenly, or (`exact`) on all of them.

    Raises Refusal when it cannot run there, with what is lacking.
    """
    _check_scale(ledger, machine)
    recipe, steps = recipe_of(ledger, run), plan_of(ledger, run)
    _check_build(machine)
    count = _processes(run, recipe, machine)
    if exact and count != machine.devices:
        raise Refusal(
            f"{machine.devices} processes do not share its {recipe.ranks} logical ranks",
            f"{recipe.ranks} logical ranks cannot be run by {machine.devices} processes ({machine.title}): use a divisor of "
            f"{recipe.ranks}, for instance {count}.",
        )
    full = ledger.scale.device == "cuda"
    placement, needed = _placed(run, recipe, machine, count) if full else ({}, None)
    length, segments = steps.end - steps.start, len(steps.boundaries) - 1
    images = _images(ledger, run, steps.start, steps.end)
    pace = speed(recipe, machine, count)
    days = (images / pace.fast / _DAY, images / pace.slow / _DAY) if pace else None
    kwh = None
    if days and machine.power:
        low, high = (day * 24 * machine.power.watts / 1000 for day in days)
        kwh = low, high
    disk = segments * state_bytes(recipe) + result_bytes(recipe) if full else None
    return Needs(
        run=run, recipe=recipe, steps=length, images=images, segments=segments, processes=count, memory=needed,
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


def every(ledger: Ledger) -> list[Run]:
    """The ledger's runs, each after those that it is made from; of runs that only support others, those that are needed here."""
    found: dict[str, Run] = {}
    for run in ledger.runs.values():
        if not run.era.support:
            found |= {one.id: one for one in lineage(ledger, run)}
    return list(found.values())


def _images(ledger: Ledger, run: Run, start: int, end: int) -> int:
    """Images that the steps from `start` to `end` see; the last step of an epoch sees what is left of it."""
    per_step, per_epoch = samples_per_step(run), plan_of(ledger, run).steps_per_epoch
    images = ledger.dataset_of(run).images or 0
    if per_epoch is None:
        return (end - start) * per_step

    def seen(epochs: int, steps: int) -> int:
        return epochs * images + steps * per_step

    return seen(*divmod(end, per_epoch)) - seen(*divmod(start, per_epoch))


def _processes(run: Run, recipe: Recipe, machine: schema.Hardware) -> int:
    """How many processes run the logical ranks: the most that share them evenly, each on a device or core of its own."""
    if recipe.engine and machine.device == "cpu":
        return processes(recipe.model_copy(update={"engine": None}), machine.devices)
    if count := processes(recipe, machine.devices):
        return count
    raise Refusal(
        f"its engine needs {recipe.ranks} devices, there {_are(machine.devices)}",
        f"This run's engine is DeepSpeed, whose world size decides the bits: it needs {recipe.ranks} devices, "
        f"{machine.title} has {machine.devices}. Choose a machine that has them.{_advice(run, recipe, machine)}",
    )


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"


def _check_scale(ledger: Ledger, machine: schema.Hardware) -> None:
    if ledger.scale.device != machine.device:
        raise Refusal(
            f"no {ledger.scale.device} device",
            f"The scale {ledger.scale_name} needs a device of the kind {ledger.scale.device}, {machine.title} has "
            f"{machine.device}. A CPU builds the miniature, a CUDA device the full scale.",
        )


def _check_build(machine: schema.Hardware) -> None:
    capability = machine.compute_capability
    if capability and capability < OLDEST:
        have, oldest = (".".join(map(str, version)) for version in (capability, OLDEST))
        raise Refusal(
            f"compute capability {have}, and the pinned build begins at {oldest}",
            f"{machine.title}: compute capability {have}, but the pinned build, torch 2.13 with CUDA 13, has kernels from "
            f"{oldest} on, so the pinned environment cannot run there. An older build needs a lock of its own, and is a numerics "
            "class of its own: docs/environments.md says how.",
        )


def _placed(run: Run, recipe: Recipe, machine: schema.Hardware, count: int) -> tuple[dict[str, Any], Memory]:
    """How a training saves memory there: as the run's entry says, else the quickest way with which it fits; and its memory.

    Raises Refusal when it does not fit.
    """
    has = _usable(machine)
    given = saving(run.fields.placement.model_dump() if run.fields.placement else {})
    placement, needed = (given, memory(recipe, count, **given)) if given else fitting(recipe, count, has)
    if needed.total <= has:
        return placement, needed
    free, best = fitting(recipe, count, has)
    freed = (
        f" Without its `placement` it would fit: {named(free) or 'nothing saved'}; no bit changes." if best.total <= has else ""
    )
    raise Refusal(
        f"needs {needed.total / 1e9:.1f} GB a device, has {has / 1e9:.1f} GB to use",
        f"Run {run.id} does not fit {machine.title}: a device needs about {needed.total / 1e9:.1f} GB ({needed}), it has "
        f"{has / 1e9:.1f} GB to use, so {(needed.total - has) / 1e9:.1f} GB are lacking with {recipe.ranks} logical rank"
        f"{'s' * (recipe.ranks > 1)} on {count} device{'s' * (count > 1)}.{freed or _advice(run, recipe, machine)}",
    )


def _usable(machine: schema.Hardware) -> float:
    """Bytes of one device that a training may have."""
    return (machine.device_memory_gib or float("inf")) * GIB * USABLE


def _advice(run: Run, recipe: Recipe, machine: schema.Hardware) -> str:
    """What would fit instead: the nearest changes of the run, and the least machines that take it as it stands."""
    found = nearest(recipe, machine.devices, _usable(machine))
    lines = [
        f"\n\nIt fits there with {'one of these' if len(found) > 1 else 'this'} in its entry:",
        *(f"  {one}" for one in found),
    ]
    if not found:
        lines = ["\n\nNo change that is known here makes it fit there."]
    else:
        lines.append("A run with other keys is another run; give it a name of its own.")
    machines = holding(recipe)
    return "\n".join([*lines, *([f"As it stands it fits {', '.join(machines)}."] if machines else [])])
