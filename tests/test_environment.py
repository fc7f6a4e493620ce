"""The lock pins every file by sha256, names no host, and is what this environment was made from."""

import re
import subprocess
from importlib import metadata

import pytest

from tests.conftest import ROOT

LOCK = (ROOT / "envs" / "lock.txt").read_text()
BUILD = (ROOT / "envs" / "build.txt").read_text()
CLUSTER = (ROOT / "envs" / "cluster.txt").read_text()
EVIDENCE = (ROOT / "envs" / "evidence.txt").read_text()
DEVELOP = (ROOT / "envs" / "develop.txt").read_text()
PIN = re.compile(
    r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?(===?)([^ ;\\]+)(?: *;([^\\]*))? \\\n((?: +--hash=sha256:[0-9a-f]{64}.*\n?)+)", re.M
)
PINS = PIN.findall(LOCK)
EXACT_LINE = re.compile(r"^([a-z0-9-]+)(===?)(\S+) --hash=sha256:([0-9a-f]{64})  # (\S+\.(?:whl|tar\.gz))$")
SOURCES = {"connection-pool", "deepspeed"}


def test_every_line_is_pinned_with_a_hash():
    """Each requirement of the universal locks has one exact version and at least one sha256."""
    for text in (LOCK, BUILD, CLUSTER, EVIDENCE, DEVELOP):
        requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        hashed = re.findall(r"^\S+===?\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.M)
        assert len(requirements) == len(hashed) >= 3


def test_no_local_wheel_can_take_torchs_place():
    """torch is pinned by arbitrary equality, with the public wheels' hashes of several Pythons and machines."""
    _name, operator, version, _, hashes = next(pin for pin in PINS if pin[0] == "torch")
    assert (operator, version) == ("===", "2.13.0")
    assert hashes.count("sha256:") > 10


def test_what_is_installed_is_what_is_locked():
    """Every package of the lock that this Python needs is installed in the locked version."""
    from packaging.markers import Marker

    for name, _, version, marker, _ in [*PINS, *PIN.findall(CLUSTER)]:
        if not marker or Marker(marker.strip()).evaluate():
            assert metadata.version(name) == version, name


@pytest.mark.parametrize(("extra", "text", "one"), [("evidence", EVIDENCE, "securesystemslib"), ("develop", DEVELOP, "mypy")])
def test_an_extra_is_installed_whole_or_not_at_all(extra, text, one):
    """Of what signs and packs evidence, and of what checks and tests, every package has the locked version, or none is there."""
    from packaging.markers import Marker

    pins = [pin for pin in PIN.findall(text) if not pin[3] or Marker(pin[3].strip()).evaluate()]
    there = {found.metadata["Name"].lower().replace("_", "-"): found.version for found in metadata.distributions()}
    if one not in there:
        pytest.skip(f"the extra is not installed: make {extra}")
    assert {pin[0]: there.get(pin[0]) for pin in pins} == {pin[0]: pin[2] for pin in pins}


def test_no_package_is_pinned_twice():
    """What one of the locks that are installed together pins, no other of them pins again."""
    names = [name for text in (LOCK, CLUSTER, EVIDENCE, DEVELOP) for name in {pin[0] for pin in PIN.findall(text)}]
    assert sorted(set(names)) == sorted(names)


def exact(name):
    """The lines of an exact lock as (package, operator, version, sha256, file name)."""
    return [check_exact(line) for line in (ROOT / "envs" / name).read_text().splitlines()]


def check_exact(line):
    """One line of an exact lock, taken apart; an error that shows a line without exactly one hash and one file name."""
    found = EXACT_LINE.match(line)
    assert found, f"expected NAME==VERSION --hash=sha256:<one digest>  # FILE, found: {line}"
    return found.groups()


def on_the_flakes_python(marker):
    """Whether a marker holds for the Python and system that the flake pins: 3.12 on x86_64 Linux."""
    from packaging.markers import Marker

    system = {"python_version": "3.12", "python_full_version": "3.12.11", "sys_platform": "linux", "platform_machine": "x86_64"}
    others = {"platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    return not marker.strip() or Marker(marker.strip()).evaluate(
        {**system, **others, "platform_python_implementation": "CPython"}
    )


@pytest.mark.parametrize(("name", "universal"), [("exact.txt", LOCK + CLUSTER), ("exact-build.txt", BUILD)])
def test_the_exact_lock_agrees_with_the_universal_one(name, universal):
    """The packages of the universal locks that the flake's Python needs, each in that version, with one of its hashes."""
    lines = exact(name)
    expected = {pin[0].lower(): pin for pin in PIN.findall(universal) if on_the_flakes_python(pin[3])}
    assert [line[0] for line in lines] == sorted(expected)
    for package, operator, version, digest, file in lines:
        _, equals, locked, _, hashes = expected[package]
        assert (operator, version) == (equals, locked), package
        assert f"sha256:{digest}" in hashes, f"{file} is not in the universal lock"
        assert file.endswith(".whl") or package in SOURCES, f"{file}: only {SOURCES} may be built from source"


def test_the_exact_wheels_are_for_the_flakes_python():
    """Every wheel is for CPython 3.12 or older stable ABIs, or for any Python, on x86_64 Linux or any system; and so is nix/."""
    for *_, file in exact("exact.txt"):
        if file.endswith(".whl"):
            *_, python, abi, system = file.removesuffix(".whl").split("-")
            assert {"cp312", "abi3", "none"} & set(abi.split(".")), file
            assert "x86_64" in system or system == "any", file
            assert re.search(r"py3|cp3", python), file
    assert "pkgs.python312" in (ROOT / "nix" / "default.nix").read_text()
    assert "PYTHON, SYSTEM = (3, 12)" in (ROOT / "envs" / "exact").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.4.6  # numpy-2.4.6-py3-none-any.whl",
        f"numpy==2.4.6 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}  # numpy-2.4.6-py3-none-any.whl",
        f"numpy==2.4.6 --hash=sha256:{'a' * 64}",
        f"numpy>=2.4 --hash=sha256:{'a' * 64}  # numpy-2.4.6-py3-none-any.whl",
    ],
)
def test_a_missing_or_second_hash_is_shown(line):
    """A line without a hash, with two, without its file's name or without a version is an error that shows the line."""
    with pytest.raises(AssertionError, match="expected NAME==VERSION --hash") as error:
        check_exact(line)
    assert line in str(error.value)


def test_the_closure_is_complete():
    """Whatever a locked package needs here is locked too, so that installing without dependencies leaves nothing out."""
    from packaging.requirements import Requirement

    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    installed = {plain(found.metadata["Name"]) for found in metadata.distributions()}
    locked = {plain(pin[0]) for text in (LOCK, CLUSTER) for pin in PIN.findall(text)}
    for name, _, _, marker, _ in [*PINS, *PIN.findall(CLUSTER)]:
        if on_the_flakes_python(marker) and plain(name) in installed:
            for text in metadata.requires(name) or ():
                needed = Requirement(text)
                if not needed.marker or needed.marker.evaluate({"extra": ""}):
                    assert plain(needed.name) in locked, f"{name} needs {needed}, which no lock has"


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
