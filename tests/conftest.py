"""Shared by all tests: numerics are pinned before anything imports torch, and long proofs need `-m slow`."""

from pathlib import Path

from astolfo import numerics

numerics.pin()

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "config"
