"""Programs under an emulated processor: Debian's `qemu-user`, which shows one program another vendor, model and feature list.

It computes IEEE arithmetic exactly; its reciprocal estimates are those of no real processor, so what depends on them differs. It has
AVX2 and FMA and no AVX-512. A program that is started from within runs on the real processor.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROCESSORS = {"Haswell": "Haswell-v4", "Skylake": "Skylake-Client-v4", "Rome": "EPYC-Rome-v2"}
_QEMU = "qemu-x86_64"
needed = pytest.mark.skipif(
    shutil.which(_QEMU) is None, reason=f"{_QEMU} is not installed (on Debian and Ubuntu: apt install qemu-user)"
)


def run(module: str, *arguments: str | Path, processor: str | None = None) -> str:
    """What `python -m MODULE ARGUMENTS` prints on this processor or an emulated one; raises with its last lines when it fails."""
    emulator = [_QEMU, "-cpu", PROCESSORS[processor]] if processor else []
    done = subprocess.run(
        [*emulator, sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout
