"""A plan as text: one figure a line with where it comes from, and what all the runs before it need."""

from astolfo.ledger import schema
from astolfo.ledger.ledger import Ledger
from astolfo.ledger.steps import plan_of, samples_per_step
from astolfo.plan.memory import named, result_bytes, state_bytes
from astolfo.plan.plan import Needs


def as_text(ledger: Ledger, needs: Needs, machine: schema.Hardware) -> str:
    """One run on one machine."""
    rows = [
        ("steps", f"{needs.steps:,}", _steps(ledger, needs)),
        ("images", f"{needs.images:,}", f"{ledger.sole_dataset(needs.run).images:,} in the dataset {needs.run.fields.dataset}"),
        ("segments", f"{needs.segments:,}", "one job each, from save_every"),
        ("processes", str(needs.processes), f"for {needs.recipe.ranks} logical ranks; decides no bit"),
        *_full_scale(needs, machine),
        _speed(needs),
        ("time", _time(needs.days), "images / speed; without evaluations and merges" if needs.days else ""),
        ("energy", *_energy(needs, machine)),
    ]
    width = max(len(value) for _, value, _ in rows)
    head = f"{needs.run.id} on {machine.title}, at the {ledger.scale_name} scale"
    return "\n".join([head, "", *(f"  {name:10} {value:{width}}  {source}".rstrip() for name, value, source in rows)])


def summary(rows: list[tuple[str, Needs | str]]) -> str:
    """All runs of a lineage, one line each (a text stands for what cannot run there), and their sum."""
    lines = ["", "with the runs that it is made from:", ""]
    for name, needs in rows:
        if isinstance(needs, str):
            lines.append(f"  {name:10} {needs}")
            continue
        lines.append(
            f"  {name:10} {needs.steps:>11,} steps {needs.segments:>5,} segments  {_bytes(needs.disk):>8}  {_time(needs.days)}"
        )
    known = [needs for _, needs in rows if not isinstance(needs, str)]
    days = _summed([needs.days for needs in known])
    disk = None if any(needs.disk is None for needs in known) else sum(needs.disk or 0 for needs in known)
    steps, segments = sum(needs.steps for needs in known), sum(needs.segments for needs in known)
    missing = "" if len(known) == len(rows) else f"  ({len(rows) - len(known)} of {len(rows)} cannot run there)"
    lines.append(f"  {'together':10} {steps:>11,} steps {segments:>5,} segments  {_bytes(disk):>8}  {_time(days)}{missing}")
    return "\n".join(lines)


def _steps(ledger: Ledger, needs: Needs) -> str:
    steps = plan_of(ledger, needs.run)
    fields = needs.run.fields
    each = f"{samples_per_step(needs.run)} images a step: {fields.ranks} ranks x batch {fields.batch_size} x accumulation"
    place = f"; steps {steps.start:,} to {steps.end:,} of the data order" if steps.start else ""
    return f"{each} {fields.accumulation}{place}"


def _full_scale(needs: Needs, machine: schema.Hardware) -> list[tuple[str, str, str]]:
    if needs.memory is None or needs.disk is None:
        return []
    has = f" of {machine.device_memory_gib * 1.073741824:.1f}" if machine.device_memory_gib else ""
    states = f"{needs.segments} states of {_bytes(state_bytes(needs.recipe))}, a result of {_bytes(result_bytes(needs.recipe))}"
    return [
        (
            "memory",
            f"{needs.memory.total / 1e9:.1f}{has} GB a device",
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
    factor, unit = next(
        (f, u) for f, u in ((1, "days"), (24, "hours"), (1440, "minutes")) if not days or days[0] * f >= 1 or f == 1440
    )
    return _range(days and (days[0] * factor, days[1] * factor), unit)


def _range(ends: tuple[float, float] | None, unit: str) -> str:
    if ends is None:
        return "unknown"
    low, high = (_short(end) for end in ends)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _summed(ranges: list[tuple[float, float] | None]) -> tuple[float, float] | None:
    known = [ends for ends in ranges if ends is not None]
    return (sum(low for low, _ in known), sum(high for _, high in known)) if len(known) == len(ranges) else None


def _bytes(count: float | None) -> str:
    if count is None:
        return ""
    unit, size = ("TB", 1e12) if count >= 1e12 else ("GB", 1e9)
    return f"{count / size:.1f} {unit}"
