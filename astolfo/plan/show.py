"""A plan as text: one figure a line with where it comes from, and what all the runs before it need."""

from collections.abc import Sequence

from astolfo.ledger import schema
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.show import stand_in
from astolfo.ledger.steps import plan_of, samples_per_step
from astolfo.plan import cards
from astolfo.plan.memory import GIB, USABLE, Memory, named, result_bytes, state_bytes
from astolfo.plan.plan import Needs

_UNITS = ((1, "days"), (24, "hours"), (1440, "minutes"), (86_400, "seconds"))  # of a day
_OF_STEPS = "images / speed; without the start of a job, datasets, merges and evaluations"


def as_text(ledger: Ledger, needs: Needs, machine: schema.Hardware) -> str:
    """One run on one machine."""
    rows = [
        ("steps", f"{needs.steps:,}", _steps(ledger, needs)),
        ("images", f"{needs.images:,}", f"{ledger.dataset_of(needs.run).images:,} in the dataset {needs.run.fields.dataset}"),
        ("segments", f"{needs.segments:,}", "one job each, from save_every"),
        ("processes", str(needs.processes), f"for {needs.recipe.ranks} logical ranks; decides no bit"),
        *_full_scale(needs, machine),
        _speed(needs),
        ("time", _time(needs.days), _OF_STEPS if needs.days else ""),
        ("energy", *_energy(needs, machine)),
    ]
    width = max(len(value) for _, value, _ in rows)
    head = f"{needs.run.id} on {machine.title}, at the {ledger.scale_name} scale"
    lines = [head, "", *(f"  {name:10} {value:{width}}  {source}".rstrip() for name, value, source in rows)]
    if stand_ins := stand_in(ledger, needs.run):
        lines.append(f"  {'stand-in':10} {stand_ins}")
    return "\n".join(lines)


def remarks(ledger: Ledger, runs: Sequence[Run]) -> list[str]:
    """What a reader should know of these runs besides figures: pictures that are not here, a warm-up of no steps."""
    found = []
    for run in runs:
        name, schedule = str(run.fields.dataset), run.fields.schedule
        for place in ledger.absent(name):
            found.append(
                f"{place} is not here, where the ledger has pictures of {name}: a build on this machine would end there."
            )
        if schedule and schedule.kind in ("warmup", "warmup-linear") and not (schedule.warmup_ratio or _says_steps(schedule)):
            found.append(f"{run.id} has schedule: {schedule.kind} without warmup_steps or warmup_ratio: there is no warm-up.")
    return list(dict.fromkeys(found))


def _says_steps(schedule: schema.Schedule) -> bool:
    return "warmup_steps" in schedule.model_fields_set


def summary(title: str, rows: list[tuple[str, Needs | str]]) -> str:
    """Several runs, one line each (a text stands for what cannot run there), and the sum of those that can."""
    if not rows:
        return f"{title} none yet"
    width = max(len(name) for name, _ in [*rows, ("together", "")])
    lines = [title, ""]
    for name, needs in rows:
        if isinstance(needs, str):
            lines.append(f"  {name:{width}} {needs}")
        else:
            lines.append(_line(f"{name:{width}}", needs.steps, needs.segments, needs.memory, needs.disk, needs.days))
    known = [needs for _, needs in rows if not isinstance(needs, str)]
    if len(known) < len(rows):
        lines.append(f"  {'':{width}} Plan one of them by itself for what would make it run there.")
    if not known:
        return "\n".join(lines)
    disk = None if any(needs.disk is None for needs in known) else sum(needs.disk or 0 for needs in known)
    steps, segments = sum(needs.steps for needs in known), sum(needs.segments for needs in known)
    largest = max((needs.memory for needs in known if needs.memory), key=lambda memory: memory.total, default=None)
    missing = [] if len(known) == len(rows) else [f"{len(rows) - len(known)} of {len(rows)} cannot run there"]
    days = [needs.days for needs in known]
    if unknown := days.count(None):
        missing.append(f"{unknown} without a known time")
    total = _line(f"{'together':{width}}", steps, segments, largest, disk, _summed([each for each in days if each]))
    return "\n".join([*lines, f"{total}  ({', '.join(missing)})" if missing else total])


def machines(ledger: Ledger) -> str:
    """The ledger's machines and the library's cards, by name, with what is known of each."""
    rows = [
        (name, one.title, one.device_memory_gib, one.compute_capability, one.peak_tflops) for name, one in ledger.hardware.items()
    ]
    rows += [(name, one.title, one.memory_gib, one.compute_capability, one.peak_tflops) for name, one in cards.cards().items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]  # type: ignore[arg-type]
    lines = ["machines of the ledger", ""]
    for place, (name, title, memory, capability, peak) in enumerate(rows):
        if place == len(ledger.hardware):
            lines += ["", "cards: 4090 is a machine with one, 2x4090 with two", ""]
        gib = f"{memory:g} GiB" if memory else ""
        version = ".".join(map(str, capability)) if capability else ""
        flops = f"{peak:g} TFLOP/s" if peak else ""
        lines.append(f"  {name:{widths[0]}}  {title:{widths[1]}}  {gib:>8}  {version:>4}  {flops:>14}".rstrip())
    return "\n".join(lines)


def _line(
    name: str, steps: int, segments: int, memory: Memory | None, disk: float | None, days: tuple[float, float] | None
) -> str:
    gb = f"  {memory.total / 1e9:>5.1f} GB a device" if memory else ""
    stored = f"  {_bytes(disk):>8} of disk" if disk is not None else ""
    return f"  {name} {steps:>11,} steps {segments:>5,} segments{gb}{stored}  {_time(days)}"


def _steps(ledger: Ledger, needs: Needs) -> str:
    steps = plan_of(ledger, needs.run)
    fields = needs.run.fields
    each = f"{samples_per_step(needs.run)} images a step: {fields.ranks} ranks x batch {fields.batch_size} x accumulation"
    place = f"; steps {steps.start:,} to {steps.end:,} of the data order" if steps.start else ""
    return f"{each} {fields.accumulation}{place}"


def _full_scale(needs: Needs, machine: schema.Hardware) -> list[tuple[str, str, str]]:
    if needs.memory is None or needs.disk is None:
        return []
    size = (machine.device_memory_gib or 0) * GIB / 1e9
    has = f" of {size * USABLE:.1f} GB to use ({size:.1f} GB a device)" if size else " GB a device"
    states = f"{needs.segments} states of {_bytes(state_bytes(needs.recipe))}, a result of {_bytes(result_bytes(needs.recipe))}"
    return [
        (
            "memory",
            f"{needs.memory.total / 1e9:.1f}{has}",
            f"arithmetic: {needs.memory}{_placement(needs)}",
        ),
        ("disk", _bytes(needs.disk), states),
    ]


def _placement(needs: Needs) -> str:
    """What a training there chooses, where it has to choose something."""
    keys = named(needs.placement)
    return f"; with {keys}" if keys else ""


def _speed(needs: Needs) -> tuple[str, str, str]:
    if needs.speed is None:
        return ("speed", "unknown", "nothing like it was measured on this machine")
    return ("speed", str(needs.speed), needs.speed.source)


def _energy(needs: Needs, machine: schema.Hardware) -> tuple[str, str]:
    if needs.kwh is None or machine.power is None:
        return "unknown", "the machine's power is not known" if machine.power is None else ""
    return _range(needs.kwh, "kWh"), f"{machine.power.watts:,g} W: {machine.power.source}"


def _time(days: tuple[float, float] | None) -> str:
    """Days, or the unit below them that reads well."""
    factor, unit = next((f, u) for f, u in _UNITS if not days or days[0] * f >= 1 or u == _UNITS[-1][1])
    return _range(days and (days[0] * factor, days[1] * factor), unit)


def _range(ends: tuple[float, float] | None, unit: str) -> str:
    if ends is None:
        return "unknown"
    low, high = (_short(end) for end in ends)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _summed(ranges: list[tuple[float, float]]) -> tuple[float, float] | None:
    return (sum(low for low, _ in ranges), sum(high for _, high in ranges)) if ranges else None


def _bytes(count: float | None) -> str:
    if count is None:
        return ""
    unit, size = ("TB", 1e12) if count >= 1e12 else ("GB", 1e9)
    return f"{count / size:.1f} {unit}"
