"""Shared by all tests: numerics are pinned before anything imports torch, and long proofs need `-m slow`."""

import os
from pathlib import Path

import pytest

from astolfo import library, numerics

numerics.pin()

ROOT = Path(__file__).parent.parent
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".pytest_cache" / "home")  # what a user's programs remember stays as it is
CONFIG = ROOT / "config"
SMALL = ROOT / "tests" / "small"  # a ledger for tests that need runs, and not the record's
STAND_INS = library.STAND_INS


@pytest.fixture
def elsewhere(tmp_path_factory, monkeypatch):
    """An empty folder as working directory. The checkout is one too: what was built in it decides which ledger it holds."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def pytest_configure(config):
    """Refuses to test another checkout's code, where what was edited here would pass untested."""
    found = Path(numerics.__file__).resolve().parent.parent
    if found != ROOT.resolve():
        raise pytest.UsageError(
            f"expected to test the astolfo of {ROOT}, found that of {found}: this environment was made for another checkout. "
            f"Run `make env` in {ROOT}, then `. .venv/bin/activate` there."
        )
