"""Nix for the tests: Debian's nix-bin, a stand-in for nixpkgs made of this machine's programs, and no substituter."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

STUB = ROOT / "tests" / "nix" / "nixpkgs"
_CONFIG = """\
experimental-features = nix-command flakes
substituters =
sandbox = false
build-users-group =
max-jobs = 1
"""


class Nix:
    """Calls nix on this checkout's flake, with the stand-in instead of nixpkgs."""

    def __init__(self, stub: Path):
        self.stub = stub

    def use(self, python: str) -> None:
        """The interpreter that the stand-in passes off as nixpkgs' python312."""
        (self.stub / "host.nix").write_text(f'{{ python = "{python}"; path = "/usr/bin:/bin"; }}\n')

    def __call__(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """One call; with `check` it has to succeed."""
        found = subprocess.run(
            ["nix", *arguments],
            env={**os.environ, "NIX_CONFIG": _CONFIG, **environment},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert not check or found.returncode == 0, found.stderr
        return found

    def flake(self, *arguments: str, flake: Path = ROOT, **options) -> subprocess.CompletedProcess:
        """A call about the flake: `command ... flake` with the stand-in."""
        given = ["--override-input", "nixpkgs", f"path:{self.stub}", "--no-write-lock-file"]
        return self(*arguments[:-1], f"{flake}{arguments[-1]}", *given, **options)


@pytest.fixture(scope="session")
def python312() -> str:
    """A Python of the flake's version, on PATH or among pyenv's; the test is skipped where there is none."""
    for found in (shutil.which("python3.12"), *Path.home().glob(".pyenv/versions/3.12.*/bin/python3.12")):
        if found and subprocess.run([found, "-c", "import venv"], capture_output=True).returncode == 0:
            return os.path.realpath(found)
    pytest.skip("python3.12 is missing: the exact locks name files for it, and nixpkgs, which would bring it, is a stand-in here")


@pytest.fixture(scope="session")
def nix(tmp_path_factory) -> Nix:
    """Nix, installed first where it is missing and this is root on Debian; else the test is skipped, saying why."""
    if not shutil.which("nix"):
        _install()
    stub = tmp_path_factory.mktemp("nix") / "nixpkgs"
    shutil.copytree(STUB, stub)
    found = Nix(stub)
    found.use(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    return found


def _install() -> None:
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("nix is missing, and only root on Debian installs it here: apt-get install nix-bin")
    print("\ninstalling nix-bin, since nix is missing", flush=True)
    found = subprocess.run(["apt-get", "install", "-y", "-q", "nix-bin"], capture_output=True, text=True)
    if found.returncode or not shutil.which("nix"):
        pytest.skip(f"nix is missing, and apt-get install nix-bin failed: {found.stderr[-300:]}")
