"""The host's memory: what a true-size model needs of it on a CPU, what there is, and what is said when it was not enough.

    check(wanted, available(), available_swap())    before the first step: refuses what cannot fit
    supervised(work, wanted)    runs `work` in a process of its own, and tells if the kernel ended that for want of memory

The kernel ends the process that holds most, with a signal that nobody can answer. So a training or an evaluation that may run out
of memory runs as the child of one that holds little, which lives to tell.
"""

import contextlib
import ctypes
import logging
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from astolfo.checkpoint.architecture import Architecture
from astolfo.errors import PlacementError
from astolfo.ledger.recipe import Recipe
from astolfo.liveness import watch_parent
from astolfo.plan.memory import memory as planned

log = logging.getLogger(__name__)
PROGRAM = 1.15e9
"""Bytes of a process besides what the recipe takes, measured: 0.9 of libraries, the rest gaps and layers' copies in fp32."""

COPIES = 20
"""Bytes for each element of the largest weight that trains, measured: 16 are an 8-bit update's fp32 copies of it, of its
gradient and of two moments."""

MARGIN = 1.1  # a training is refused when it needs so many times what is free: predictions are good to 10 %

TRAINING = (
    "What helps: ending other programs, swap space, `placement: {gradient_checkpointing: true}` for the run in the ledger, "
    "fewer processes (`--set-threads segment=1`), or a machine with more. What was saved last is taken up."
)
SAMPLING = "What helps: ending other programs, swap space, or a machine with more."
_TRUE = 500_000_000  # parameters; a smaller model has room everywhere
_M_MMAP_THRESHOLD = -3  # of mallopt, by its number in malloc.h
_OWN_PAGES = 1 << 20  # bytes from which a tensor has pages of its own


def needed_by_training(
    recipe: Recipe, processes: int, checkpointing: bool | tuple[str, ...], size: tuple[int, int]
) -> float | None:
    """Bytes that all processes of a training on a CPU need together; None for a model that is not of true size.

    `checkpointing` is the placement's `gradient_checkpointing`, `size` that of the largest pictures (height, width; pixels).
    """
    if recipe.architecture["unet"]["block_out_channels"][-1] < 1280:
        return None
    return processes * needed_by_process(recipe, processes, checkpointing, size)


def needed_by_evaluation(architecture: Architecture, processes: int, pictures: int, size: tuple[int, int]) -> float | None:
    """Bytes that an evaluation on a CPU needs, in fp32; None for a model that is not of true size.

    Each process makes `pictures` of `size` (height, width; pixels) at a time. Several begin with the first one's weights, and
    each makes its own of them.
    """
    from astolfo.train import memory

    parameters = sum(math.prod(shape) for part in architecture.parts for shape in architecture.shapes(part).values())
    if parameters <= _TRUE:
        return None
    weights = (processes + (processes > 1)) * 4 * parameters
    return weights + processes * memory.sampling(architecture, pictures, size) + PROGRAM


def needed_by_process(recipe: Recipe, processes: int, checkpointing: bool | tuple[str, ...], size: tuple[int, int]) -> float:
    """Bytes that one process needs at most, resident, for a model of whatever size."""
    from astolfo.train import rounding
    from astolfo.train.memory import largest, predict

    if recipe.engine:
        found = planned(recipe, processes, gradient_checkpointing=checkpointing)
        own = found.total - found.overhead
    else:
        own = predict(recipe, processes=processes, size=size, checkpointing=checkpointing).peak
    most = largest(recipe)
    rounded = rounding.WORKING * min(rounding.PIECE, most) if recipe.precision.update == "stochastic" else 0
    return own + PROGRAM + COPIES * most + rounded


def available(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Bytes that this process may still take, of the machine and of its control group; None where nothing tells."""
    found = [info["MemAvailable"]] if "MemAvailable" in (info := _meminfo(proc)) else []
    try:
        most = (groups / "memory.max").read_text().strip()
        if most != "max":
            cache = dict(line.split() for line in (groups / "memory.stat").read_text().splitlines())
            used = float((groups / "memory.current").read_text()) - float(cache.get("inactive_file", 0))
            found.append(float(most) - used)
    except (OSError, ValueError):
        pass
    return min(found) if found else None


def available_swap(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes of swap space that this process may still take; 0.0 where nothing tells."""
    found = [_meminfo(proc).get("SwapFree", 0.0)]
    try:
        most = (groups / "memory.swap.max").read_text().strip()
        if most != "max":
            found.append(float(most) - float((groups / "memory.swap.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(found)


def _meminfo(proc: Path) -> dict[str, float]:
    """Bytes by their name in /proc/meminfo; empty where there is none."""
    try:
        lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
        return {words[0].rstrip(":"): float(words[1]) * 1024 for words in lines if len(words) > 1}
    except (OSError, ValueError):
        return {}


def check(wanted: float, there: float | None, swap: float, helps: str = TRAINING) -> None:
    """Says to the log what is needed and what is there. Raises PlacementError for what cannot fit, swap space included."""
    if there is None:
        log.info("about %.1f GB of memory are needed; nothing tells what is free", wanted / 1e9)
    elif wanted <= there:
        log.info("about %.1f of %.1f GB of free memory are needed", wanted / 1e9, there / 1e9)
    elif wanted <= MARGIN * there + swap:
        log.warning("about %.1f GB of memory are needed, and %.1f GB are free: %s", wanted / 1e9, there / 1e9, helps)
    else:
        spare = f" and {swap / 1e9:.1f} GB of swap space" if swap else ""
        raise PlacementError(
            f"About {wanted / 1e9:.1f} GB of memory are needed, and {there / 1e9:.1f} GB{spare} are free: the kernel would end "
            f"the job. {helps}"
        )


def supervised(work: Callable[[], object], wanted: float, patience: float = 0.0, helps: str = TRAINING) -> None:
    """Runs `work` in a process of its own and returns when it has ended well; its exit status otherwise ends this one.

    Signals that ask to stop are handed on. Raises PlacementError when the kernel ended it. Call before any device is in use.
    """
    there, parent = available(), os.getpid()
    child = os.fork()
    if child == 0:
        _worked(work, parent, patience)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGKILL:
        raise PlacementError(killed(wanted, there, helps))
    if code:
        raise SystemExit(code if code > 0 else 128 - code)


def free_at_once() -> None:
    """Has the C library give the memory of large tensors back to the system when they are freed.

    Left to itself, glibc keeps all up to 32 MB once one of that size has been freed, and puts what comes next between them:
    after an update in 8 bits at true size it held 3 GB that nothing used. Another C library is left as it is.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)


def _worked(work: Callable[[], object], parent: int, patience: float) -> NoReturn:
    watch_parent(parent, patience)
    free_at_once()
    try:
        work()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        from astolfo.errors import AstolfoError

        code = 1
        if isinstance(error, AstolfoError | ValueError):
            log.error("%s", error)
        else:
            log.exception("The job failed")
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def killed(wanted: float, there: float | None, helps: str) -> str:
    """What is said of a job that the kernel ended."""
    here = "nothing told how much was here" if there is None else f"{there / 1e9:.1f} GB were free when it began"
    return f"killed by signal 9, most likely for want of memory: about {wanted / 1e9:.1f} GB were needed, {here}. {helps}"
