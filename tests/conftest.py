"""Shared by all tests: numerics are pinned before anything imports torch, and long proofs need `-m slow`."""

from pathlib import Path

from astolfo import library, numerics

numerics.pin()

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config"
STAND_INS = library.STAND_INS
