"""This machine, as an entry of a ledger's hardware/: `astolfo hardware`.

    this_machine("cuda"), this_machine("cpu")    its cards together, or the cores that this process may use

Cards are those that the driver tells of; the library of cards knows their peak. Nothing is measured: an entry that is kept can be
given the speeds that were seen (`measured`). Imports no torch, starts no CUDA.
"""

import os
import re
from pathlib import Path

import yaml

from astolfo import devices
from astolfo.errors import PlacementError
from astolfo.ledger import schema
from astolfo.plan import cards

_NODES, _RAMDISK = Path("/sys/devices/system/node"), Path("/dev/shm")
_MEMORY, _PROCESSOR = Path("/proc/meminfo"), Path("/proc/cpuinfo")
_GIB = 1 << 30


def this_machine(device: str) -> schema.Hardware:
    """This machine's cards ("cuda") or its cores ("cpu"). Raises PlacementError where it has no card."""
    if device == "cpu":
        return _cores().model_copy(update=_host())
    found = devices.cards()
    if not found:
        raise PlacementError(
            "This machine has no CUDA device: expected a card and its driver, and nvidia-smi tells of none. Name the machine "
            "that is meant, such as --hardware 4x3090 (`astolfo hardware --list` shows every card), or take the miniature scale."
        )
    if unknown := [one.name for one in found if one.memory_gib is None]:
        raise PlacementError(
            f"The driver tells no memory of {', '.join(dict.fromkeys(unknown))} (a card that is cut into parts, perhaps). "
            "Describe the machine in a file of hardware/, with device_memory_gib."
        )
    return cards.of_cards([_card(one) for one in found]).model_copy(update=_host())


def as_yaml(machine: schema.Hardware) -> str:
    """A machine as the text of its file in hardware/, without what is not known."""
    values = machine.model_dump(mode="json", exclude_none=True, exclude_defaults=True) | {"devices": machine.devices}
    styles = {key: None if isinstance(value, dict | list) else False for key, value in values.items()}  # None: one line within
    ordered = [key for key in schema.Hardware.model_fields if key in values]
    return "".join(
        yaml.safe_dump({key: values[key]}, default_flow_style=styles[key], width=1000, allow_unicode=True) for key in ordered
    )


def _card(found: devices.DriverCard) -> schema.Card:
    """A card by its driver, with what its vendor says besides."""
    known = cards.card_of_driver(found.name, found.memory_gib or 0)
    own = schema.Card(
        title=found.name.removeprefix("NVIDIA "),
        memory_gib=found.memory_gib or 0,
        compute_capability=found.compute_capability or (known.compute_capability if known else None),
        watts=found.watts or (known.watts if known else None),
    )
    return own.model_copy(update={"peak_tflops": known.peak_tflops, "source": known.source}) if known else own


def _cores() -> schema.Hardware:
    """The cores that this process may use: all of the machine's, or what a container or a job was given."""
    count = len(os.sched_getaffinity(0))
    found = re.search(r"^model name\s*:\s*(.+)$", _read(_PROCESSOR), re.MULTILINE)
    model = found[1].strip() if found else "CPU"
    return schema.Hardware(title=f"{count} core{'s' * (count > 1)} of {model}", device="cpu", devices=count)


def _host() -> dict[str, object]:
    """What the machine has besides its devices: memory, NUMA nodes, room on its RAM disk."""
    total = re.search(r"^MemTotal:\s*(\d+) kB", _read(_MEMORY), re.MULTILINE)
    nodes = len(list(_NODES.glob("node[0-9]*"))) or None
    ramdisk = os.statvfs(_RAMDISK) if _RAMDISK.is_dir() else None
    return {
        "host_memory_gib": round(int(total[1]) * 1024 / _GIB, 1) if total else None,
        "numa_nodes": nodes,
        "ramdisk_gib": round(ramdisk.f_blocks * ramdisk.f_frsize / _GIB, 1) if ramdisk else None,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
