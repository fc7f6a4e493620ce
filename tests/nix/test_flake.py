"""The flake is whole: Nix walks all of it, a wrong attribute fails, and the real builder gives the same bytes twice."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT
from tests.workflow.conftest import artifacts, small, snakemake  # noqa: F401 - small is a fixture

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a flake in a folder without git takes all of it")
PIN = ("21a67dc470149f337cecafbe965d8d252a390518", "sha256-ugpsyk3NM2s87vXfUiIIiibbJ4Pp0JPS5p/3mfs+q+c=", 1789114715)


def test_nixpkgs_is_pinned():
    """flake.lock names one nixpkgs by revision, content and time, and flake.nix the branch that it is from."""
    lock = json.loads((ROOT / "flake.lock").read_text())
    locked, original = lock["nodes"]["nixpkgs"]["locked"], lock["nodes"]["nixpkgs"]["original"]
    assert lock["version"] == 7
    assert (locked["rev"], locked["narHash"], locked["lastModified"]) == PIN
    assert f"github:{original['owner']}/{original['repo']}/{original['ref']}" in (ROOT / "flake.nix").read_text()


def test_the_flake_is_short():
    """flake.nix says what there is, in under 80 lines; derivations stand in nix/."""
    assert len((ROOT / "flake.nix").read_text().splitlines()) < 80


@needs_git
def test_nix_walks_the_whole_flake(nix):
    """Every output evaluates: packages, app, shell, checks and formatter; the lock is the one that Nix would follow."""
    assert PIN[0] in nix.flake("flake", "metadata", "").stderr  # the lock's entry, which the stand-in replaces
    nix.flake("flake", "check", "--no-build", "")
    shown = json.loads(nix.flake("flake", "show", "--json", "").stdout)
    system = "x86_64-linux"
    assert set(shown["packages"][system]) == {"wheelhouse", "libraries", "environment", "default"}
    assert set(shown["checks"][system]) == {"format", "lint", "tests"}
    assert {"apps", "devShells", "formatter"} <= set(shown)


def test_a_wrong_attribute_fails(nix, tmp_path):
    """The walk is not for show: an attribute that nixpkgs lacks is an error that names it."""
    broken = _checkout(tmp_path / "broken")
    path = broken / "nix" / "default.nix"
    path.write_text(path.read_text().replace("pkgs.util-linux", "pkgs.util-linus"))
    found = nix.flake("flake", "check", "--no-build", "", flake=f"path:{broken}", check=False)
    assert found.returncode
    assert "util-linus" in found.stderr


def test_another_system_is_refused_by_name(nix):
    """Where no exact lock exists for a system, the error says so instead of building something else."""
    expression = _wheelhouse(nix, '{ other-system = "sha256-"; }')
    found = nix("eval", "--impure", "--raw", "--expr", f"({expression}).outPath", check=False)
    assert "no exact lock for x86_64-linux" in found.stderr


def test_the_name_follows_the_lock(nix, tmp_path):
    """Another lock is another derivation name, so that a forgotten hash can never serve the old set."""
    name = ["nix", "eval", "--impure", "--raw", "--expr"][1:]
    (tmp_path / "exact-build.txt").write_text("same\n")
    (tmp_path / "exact.txt").write_text("one\n")
    first = nix(*name, f"({_wheelhouse(nix, _hashes('A' * 43 + '='), tmp_path)}).name").stdout
    (tmp_path / "exact.txt").write_text("two\n")
    second = nix(*name, f"({_wheelhouse(nix, _hashes('A' * 43 + '='), tmp_path)}).name").stdout
    assert first != second
    assert all(re.fullmatch("astolfo-wheelhouse-[0-9a-f]{16}", found) for found in (first, second))


def test_the_builder_makes_what_the_hash_says(nix, tmp_path):
    """The real builder makes a small wheelhouse from files at hand, as one fixed output whose hash is the folder's."""
    wheel = _wheel(tmp_path / "mirror", "print('one')\n")
    _small_locks(tmp_path, wheel)
    found = _build(nix, tmp_path, wheel, _nar(nix, wheel.parent), tmp_path / "wheelhouse")
    assert found.returncode == 0, found.stderr
    assert _nar(nix, tmp_path / "wheelhouse") == _nar(nix, wheel.parent)


def test_a_wheel_with_other_bytes_is_refused(nix, tmp_path):
    """A mirror that serves other bytes than the lock's fails the build; so does a set that is not the hash's."""
    wheel = _wheel(tmp_path / "mirror", "print('one')\n")
    _small_locks(tmp_path, wheel)
    nar = _nar(nix, wheel.parent)
    _wheel(tmp_path / "mirror", "print('two')\n")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in _build(nix, tmp_path, wheel, nar, tmp_path / "wheelhouse").stderr
    _small_locks(tmp_path, wheel)
    assert "hash mismatch in fixed-output derivation" in _build(nix, tmp_path, wheel, nar, tmp_path / "wheelhouse").stderr


def test_two_offline_installs_are_the_same(nix, tmp_path):
    """Wheels installed twice without a network, bytecode compiled with unchecked hashes: one NAR hash."""
    wheel = _wheel(tmp_path / "mirror", "print('one')\n")
    _small_locks(tmp_path, wheel)
    hashes = set()
    for name in ("a", "b"):
        target = tmp_path / name / "lib"  # the bytecode must not hold the folder's name
        options = ["--no-index", "--require-hashes", "--no-deps", "--no-compile", "--find-links", wheel.parent]
        _python("-m", "pip", "install", "--quiet", *options, "--target", target, "-r", tmp_path / "exact.txt")
        _python(ROOT / "envs" / "bytecode", tmp_path / name)
        assert list(target.rglob("*.pyc"))
        hashes.add(_nar(nix, target))
    assert len(hashes) == 1


@pytest.mark.slow
def test_the_wheelhouse_has_the_hash_that_nix_expects(nix, python312, tmp_path):
    """All files of the exact locks, downloaded by the real builder: their NAR hash is the flake's."""
    given = {"python": python312, "locks": str(ROOT / "envs"), "out": str(tmp_path / "wheelhouse")}
    subprocess.run(["sh", ROOT / "nix" / "download.sh"], check=True, env={**os.environ, **given}, stdout=subprocess.DEVNULL)
    assert f'"{_nar(nix, tmp_path / "wheelhouse")}"' in (ROOT / "nix" / "hash.nix").read_text()


@needs_git
@pytest.mark.slow
def test_the_flakes_program_builds_what_make_builds(nix, python312, tmp_path, small):  # noqa: F811 - the fixture
    """`nix run . -- TARGET`, all of it built by Nix with the stand-in, makes the bytes that this environment makes."""
    nix.use(python312)
    nix.flake("build", "--out-link", str(tmp_path / "program"), "")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    target, ledger = "results/plain.safetensors", f"ledger={small}"
    subprocess.run([tmp_path / "program/bin/astolfo-build", target, "--config", ledger], check=True, cwd=theirs)
    snakemake(ours, target, config=[ledger])
    assert artifacts(theirs) == artifacts(ours)


def _nar(nix, folder):
    return nix("hash", "path", str(folder.resolve())).stdout.strip()


def _python(*arguments):
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def _build(nix, locks, wheel, nar, out):
    """Has Nix build the small wheelhouse, from the wheel's folder instead of a registry."""
    expression = _wheelhouse(nix, _hashes(nar.removeprefix("sha256-")), locks)
    mirror = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)}
    return nix("build", "--impure", "--print-build-logs", "--expr", expression, "-o", str(out), check=False, **mirror)


def _checkout(folder):
    folder.mkdir()
    for name in ("flake.nix", "flake.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("nix", "envs"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def _hashes(nar):
    return f'{{ x86_64-linux = "sha256-{nar}"; }}'


def _wheelhouse(nix, hashes, locks=None):
    """The Nix expression of nix/wheelhouse.nix over the stand-in, with other hashes and perhaps other locks."""
    files = "".join(f'"{name}" = {locks / name}; ' for name in ("exact-build.txt", "exact.txt")) if locks else ""
    given = f"locks = {{ {files}}};" if locks else ""
    return (
        f'let flake = builtins.getFlake "path:{nix.stub}"; pkgs = flake.legacyPackages.x86_64-linux; in '
        f"import {ROOT}/nix/wheelhouse.nix {{ inherit pkgs; inherit (flake) lib; python = pkgs.python312; {given} hashes = {hashes}; }}"
    )


def _wheel(folder, code):
    """A minimal wheel, made by hand."""
    folder.mkdir(exist_ok=True)
    path = folder / "tiny-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"tiny.py": code, "tiny-1.0.dist-info/METADATA": about, "tiny-1.0.dist-info/WHEEL": kind}
    record = "".join(f"{name},,\n" for name in [*files, "tiny-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, "tiny-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, text)
    return path


def _small_locks(folder, wheel):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    line = f"tiny==1.0 --hash=sha256:{digest}  # {wheel.name}\n"
    for name in ("exact-build.txt", "exact.txt"):
        (folder / name).write_text(line)
