"""Who is alive: jobs end with the process that started them, and the working directory knows whether one still runs.

A killed Snakemake leaves its lock behind and its jobs running. Here each job notices that its parent is gone and stops;
and as long as a Snakemake or a job of ours lives, it holds a shared lock on `.astolfo/alive`, so that whoever clears
Snakemake's lock can ask first.
"""

import atexit
import contextlib
import fcntl
import os
import signal
import threading
import time
from pathlib import Path

ALIVE = Path(".astolfo/alive")
_PERIOD = 0.5  # seconds


def hold_alive() -> None:
    """Marks this working directory as in use until this process ends; does nothing where nothing can be written."""
    with contextlib.suppress(OSError):
        ALIVE.parent.mkdir(exist_ok=True)
        file = open(ALIVE, "a")  # noqa: SIM115 - stays open as long as the process lives
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        atexit.register(file.close)  # and until then it is held


def watch_parent(parent: int | None = None, patience: float = 0.0) -> None:
    """From now on this process ends (exit status 143) soon after its parent process has gone.

    With `patience` it is asked first (SIGTERM, upon which a training saves its state), and ended after so many seconds.
    """
    expected = os.getppid() if parent is None else parent

    def look() -> None:
        while os.getppid() == expected:
            time.sleep(_PERIOD)
        if patience:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(patience)
        os._exit(143)

    threading.Thread(target=look, name="watch parent", daemon=True).start()
