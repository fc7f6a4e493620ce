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
from tests.stages import EMULATOR, EMULATOR_FROM

PROCESSORS = {"Haswell": "Haswell-v4", "Skylake": "Skylake-Client-v4", "Rome": "EPYC-Rome-v2"}
needed = pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"{EMULATOR} is not installed ({EMULATOR_FROM})")


def run(module: str, *arguments: str | Path, processor: str | None = None) -> str:
    """What `python -m MODULE ARGUMENTS` prints on this processor or an emulated one; raises with its last lines when it fails."""
    emulator = [EMULATOR, "-cpu", PROCESSORS[processor]] if processor else []
    done = subprocess.run(
        [*emulator, sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout
