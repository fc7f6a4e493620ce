"""Placement: where and how a segment is executed. It decides no bit.

What a machine lacks is said in the log and left out: a rebuild on a laptop must not fail because the record's machine had
two NUMA nodes, or memory for a RAM disk.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
_NODES = Path("/sys/devices/system/node")
_PCI = Path("/sys/bus/pci/devices")
_RAMDISK = Path("/dev/shm")
_SPARE = 1 << 30  # bytes that stay free on the RAM disk


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a segment is executed. `keep_every`: seconds between saves of an unfinished segment."""

    processes: int = 1
    device: str = "cpu"
    keep_every: float = 600.0
    tensorboard: Path | None = None
    gradient_checkpointing: bool | tuple[str, ...] = False  # all blocks, or those named (`ledger.schema.Block`)
    offload_gradients: bool = False  # partial sums of gradients wait in the host's memory
    heartbeat: Path | None = None  # file to append a line of JSON to, every ten seconds
    run_end: int | None = None  # the run's last step, for the time to it
    samples: Path | None = None  # folder for sample pictures
    sample_every: int | None = None  # steps between them
    draw: Callable[[Any, Path | None, Path], None] | None = None  # what draws them: of trainer, base and the PNG's path
    keep_states: int | None = None  # so many last states of the run stay, besides those in `named`
    named: tuple[int, ...] = ()  # steps whose states stay
    numa: int | None = None
    ramdisk: bool = False
    loader_workers: int = 1  # threads that read a step's samples


def bind(node: int | None) -> None:
    """Keeps this process, and those it starts, on the CPUs of a NUMA node; its memory then comes from there too."""
    if node is None:
        return
    try:
        cpus = _cpus((_NODES / f"node{node}" / "cpulist").read_text()) & os.sched_getaffinity(0)
    except OSError:
        cpus = set()
    if not cpus:
        log.warning("NUMA node %d is not available here: any CPU is used (no bit depends on it)", node)
        return
    os.sched_setaffinity(0, cpus)
    log.info("bound to the %d CPUs of NUMA node %d", len(cpus), node)


def node_of(pci_domain_id: int, pci_bus_id: int, pci_device_id: int) -> int | None:
    """The NUMA node that a PCI device, such as a GPU, is attached to; None where the machine does not tell."""
    address = f"{pci_domain_id:04x}:{pci_bus_id:02x}:{pci_device_id:02x}.0"
    try:
        node = int((_PCI / address / "numa_node").read_text())
    except OSError:
        return None
    return node if node >= 0 else None


@contextmanager
def on_ramdisk(folder: Path, ramdisk: bool) -> Iterator[Path]:
    """A dataset's folder, copied to the RAM disk for the block's length when that is asked for and there is room."""
    if not ramdisk:
        yield folder
        return
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    free = shutil.disk_usage(_RAMDISK).free if _RAMDISK.is_dir() else 0
    if size + _SPARE > free:
        log.warning("%s stays where it is: it has %d MiB, the RAM disk has %d MiB free", folder, size >> 20, free >> 20)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="astolfo-", dir=_RAMDISK) as copy:
        for file in folder.iterdir():
            if file.is_file():
                shutil.copyfile(file, Path(copy, file.name))
        log.info("%s is read from the RAM disk (%d MiB)", folder, size >> 20)
        yield Path(copy)


def _cpus(text: str) -> set[int]:
    """The numbers of a list such as "0-3,8,10-11"."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1)) if part else set()
    return found
