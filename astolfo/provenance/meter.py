"""What a job cost: time, memory and energy, for its record (`astolfo.provenance.jobs`).

Energy is what the machine tells: the processor package's counter (RAPL, below /sys/class/powercap, often for root alone) and
each NVIDIA card's (NVML). Both count everything that runs there, not this job alone. What cannot be read is left out.
"""

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_POWERCAP = Path("/sys/class/powercap")


class Meter:
    """Started when it is made; `cost` says what was used since then."""

    def __init__(self) -> None:
        self._begun, self._started, self._energy = time.monotonic(), datetime.now(UTC), _counters()

    def cost(self) -> dict[str, Any]:
        """When it began (`started`, in UTC), seconds (wall and CPU, of this process and those it started), peak memory in MiB
        and, where told, joules by counter."""
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        found: dict[str, Any] = {
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._begun, 3),
            "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in (own, children)), 3),
            "peak_memory_mib": max(own.ru_maxrss, children.ru_maxrss) // 1024,
        }
        now = _counters()
        joules = {name: (now[name] - before) % _wraps(name) for name, before in self._energy.items() if name in now}
        if joules:
            found["joules"] = {name: round(value, 1) for name, value in joules.items()}
        return found


def _counters() -> dict[str, float]:
    """Joules since some moment, by the counter's name."""
    return dict(_packages()) | dict(_cards())


def _packages() -> Iterator[tuple[str, float]]:
    for zone in sorted(_POWERCAP.glob("intel-rapl:?")) if _POWERCAP.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            yield zone.name, int((zone / "energy_uj").read_text()) / 1e6


def _wraps(name: str) -> float:
    """Where a counter begins again at 0."""
    with contextlib.suppress(OSError, ValueError):
        return int((_POWERCAP / name / "max_energy_range_uj").read_text()) / 1e6
    return float("inf")


def _cards() -> Iterator[tuple[str, float]]:
    """NVML's counters, in millijoules since the driver was loaded, by the C library that comes with the driver."""
    if not os.path.exists("/dev/nvidiactl"):
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        nvml, count = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_uint()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
            return
        for index in range(count.value):
            card, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(card)) == 0 and (
                nvml.nvmlDeviceGetTotalEnergyConsumption(card, ctypes.byref(energy)) == 0
            ):
                yield f"gpu {index}", energy.value / 1000
        nvml.nvmlShutdown()
