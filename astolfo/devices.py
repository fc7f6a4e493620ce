"""Devices of this machine, shared out to jobs: each takes its own and holds them until it ends.

    claim(2)                 waits for two free CUDA devices, and makes them the only ones that this process sees

Snakemake counts GPUs and names none. A job therefore holds a lock on one file per device, below the machine's temporary
folder, so that builds in several working directories agree; the lock goes with the process, however it ends. Under SLURM
or Kubernetes the devices that a job sees are its own already, and nothing is claimed. Imports no torch.
"""

import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)
_GPUS = Path("/proc/driver/nvidia/gpus")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ALLOCATED = ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST")  # set where something else gives a job its devices
_PERIOD = 1.0  # seconds between two looks for a free device
_held: list[IO[str]] = []


def visible() -> list[str]:
    """The devices that this process may use, as CUDA_VISIBLE_DEVICES names them; without it all that the driver has."""
    if _VISIBLE in os.environ:
        return [name.strip() for name in os.environ[_VISIBLE].split(",") if name.strip()]
    return [str(index) for index in range(len(list(_GPUS.iterdir())))] if _GPUS.is_dir() else []


def claim(count: int, folder: Path | None = None) -> list[str]:
    """Takes `count` free devices (all there are, when they are fewer) and returns their names; waits until they are free.

    From then on CUDA_VISIBLE_DEVICES names them. Call before CUDA is in use. Empty where another program shares them out.
    """
    if any(name in os.environ for name in _ALLOCATED):
        return []
    names, waiting = visible(), False
    count = min(count, len(names))
    folder = folder or Path(tempfile.gettempdir(), "astolfo-devices")
    while count:
        taken = _lock_all(names, count, folder)
        if taken:
            _held.extend(taken.values())
            os.environ[_VISIBLE] = ",".join(taken)
            log.info("this job's devices: %s", os.environ[_VISIBLE])
            return list(taken)
        if not waiting:
            log.info("waiting for %d of the devices %s, which other jobs hold", count, ", ".join(names))
            waiting = True
        time.sleep(_PERIOD)
    return []


def _lock_all(names: list[str], count: int, folder: Path) -> dict[str, IO[str]]:
    """The first `count` free devices with their locks; none at all when fewer are free, so that no two jobs wait crosswise."""
    taken: dict[str, IO[str]] = {}
    for name in names:
        if len(taken) < count and (file := _lock(name, folder)):
            taken[name] = file
    if len(taken) == count:
        return taken
    for file in taken.values():
        file.close()
    return {}


def _lock(name: str, folder: Path) -> IO[str] | None:
    folder.mkdir(exist_ok=True)
    path = folder / name.replace("/", "_")
    file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")  # noqa: SIM115 - open as long as the process lives
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def memory() -> int | None:
    """Bytes of the smallest card that this process may use, None where nothing tells."""
    found = _query("memory.total", os.environ.get(_VISIBLE, ""))
    return int(min(found)) << 20 if found else None


def watts() -> float | None:
    """What the machine's cards draw now, None where nothing tells."""
    found = _query("power.draw")
    return sum(found) if found else None


@dataclass(frozen=True, kw_only=True)
class DriverCard:
    """A card as its driver describes it; what it does not tell is None."""

    name: str
    memory_gib: float | None
    compute_capability: tuple[int, int] | None
    watts: float | None  # its power limit


def cards() -> list[DriverCard]:
    """The cards that this process may use, in the driver's order; empty where there is no driver or it tells nothing."""
    if os.environ.get(_VISIBLE, "all").strip() in ("", "-1"):
        return []
    fields = "name,memory.total,power.limit"
    rows = _rows(f"{fields},compute_cap") or _rows(fields)  # drivers before 470 know no compute_cap
    return [_found(*row) for row in rows]


def _found(name: str, memory: str, limit: str, capability: str = "") -> DriverCard:
    mebibytes, version = _number(memory), re.fullmatch(r"(\d+)\.(\d+)", capability)
    return DriverCard(
        name=name,
        memory_gib=mebibytes and round(mebibytes / 1024, 1),
        compute_capability=(int(version[1]), int(version[2])) if version else None,
        watts=_number(limit),
    )


def _number(text: str) -> float | None:
    """A figure of the driver's; None where it says "[N/A]" or the like."""
    try:
        return float(text)
    except ValueError:
        return None


def _query(what: str, cards: str = "") -> list[float]:
    """A figure of each of the `cards` ("": all); empty where one of them has none."""
    found = [_number(value) for (value,) in _rows(what, cards)]
    return [] if None in found else [value for value in found if value is not None]


def _rows(what: str, cards: str | None = None) -> list[list[str]]:
    """What the driver's own program, which starts no CUDA, says of each of the `cards` ("": all; None: those of this process)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    named = os.environ.get(_VISIBLE, "") if cards is None else cards
    try:
        command = [program, f"--query-gpu={what}", "--format=csv,noheader,nounits", *([f"--id={named}"] if named else [])]
        output = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[value.strip() for value in line.split(",")] for line in output.splitlines() if line.strip()]
    return rows if all(len(row) == what.count(",") + 1 for row in rows) else []
