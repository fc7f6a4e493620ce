"""Shared by all tests: numerics are pinned before anything imports torch, and long proofs need `-m slow`."""

import os
from pathlib import Path

from astolfo import library, numerics

numerics.pin()

ROOT = Path(__file__).parent.parent
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".pytest_cache" / "home")  # what a user's programs remember stays as it is
CONFIG = ROOT / "config"
SMALL = ROOT / "tests" / "small"  # a ledger for tests that need runs, and not the record's
STAND_INS = library.STAND_INS
