"""The lock pins every file by sha256, names no host, and is what this environment was made from."""

import re
import subprocess
from importlib import metadata

import pytest

from tests.conftest import ROOT

LOCK = (ROOT / "envs" / "lock.txt").read_text()
BUILD = (ROOT / "envs" / "build.txt").read_text()
PINS = re.findall(
    r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(===?)([^ ;\\]+)(?: *;([^\\]*))? \\\n((?: +--hash=sha256:[0-9a-f]{64}.*\n?)+)", LOCK, re.M
)


def test_every_line_is_pinned_with_a_hash():
    """Each requirement of both locks has one exact version and at least one sha256."""
    for text in (LOCK, BUILD):
        requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        hashed = re.findall(r"^\S+===?\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.M)
        assert len(requirements) == len(hashed) > 3


def test_no_local_wheel_can_take_torchs_place():
    """torch is pinned by arbitrary equality, with the public wheels' hashes of several Pythons and machines."""
    _name, operator, version, _, hashes = next(pin for pin in PINS if pin[0] == "torch")
    assert (operator, version) == ("===", "2.13.0")
    assert hashes.count("sha256:") > 10


def test_what_is_installed_is_what_is_locked():
    """Every package of the lock that this Python needs is installed in the locked version."""
    from packaging.markers import Marker

    for name, _, version, marker, _ in PINS:
        if not marker or Marker(marker.strip()).evaluate():
            assert metadata.version(name) == version, name


def test_deepspeed_is_the_real_one():
    """DeepSpeed is the sdist of 0.19, not the old wheel that an unpinned pip takes."""
    assert metadata.version("deepspeed").startswith("0.19.")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git checkout to list its files")
def test_no_registry_is_named():
    """No tracked file names the host of a package registry, so that any mirror serves."""
    hosts = "|".join(
        rf"{name}\.{top}" for name, top in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "(org|com)"), ("debian", "org"))
    )
    found = subprocess.run(["git", "grep", "-lIE", hosts], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == ""
