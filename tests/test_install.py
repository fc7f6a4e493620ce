"""The environment is made once for locks of one content, and whoever installs, the same files come to the same places."""

import hashlib
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

ENVS = ROOT / "envs"
OURS = ("INSTALLER", "RECORD", "REQUESTED", "uv_cache.json", ".lock")  # what an installer says of itself


@pytest.fixture
def checkout(tmp_path):
    """A checkout's envs/ with small locks, and an environment that was made from them."""
    envs, venv = tmp_path / "envs", tmp_path / ".venv"
    envs.mkdir()
    (envs / "install").write_bytes((ENVS / "install").read_bytes())
    for name in ("build.txt", "lock.txt", "cluster.txt"):
        (envs / name).write_text(f"# {name}\n")
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    texts = b"".join((envs / name).read_bytes() for name in ("build.txt", "lock.txt", "cluster.txt"))
    (venv / "ready").write_text(hashlib.sha256(texts).hexdigest() + "\n")
    return tmp_path


def install(checkout, python=sys.executable):
    command = ["sh", checkout / "envs" / "install", python, checkout / ".venv"]
    return subprocess.run(command, capture_output=True, text=True)


def test_locks_of_the_same_content_make_nothing_anew(checkout):
    """Whatever the files' times, an environment that was made from locks of this content stays, in silence."""
    os.utime(checkout / ".venv" / "ready", (0, 0))
    found = install(checkout, python="/no/such/python")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("said", ["Python 3.9.18", "Python 2.7.18"])
def test_another_lock_asks_for_a_python_that_will_do(checkout, said):
    """A changed lock makes the environment anew, with a Python of 3.11 or newer; another one is named, and nothing is removed."""
    (checkout / "envs" / "lock.txt").write_text("# another\n")
    python = checkout / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{said}"\nexit 1\n')
    python.chmod(0o755)
    found = install(checkout, python=python)
    assert found.returncode == 1
    assert f"expected Python 3.11 or newer, found {said}. Name another one" in found.stderr
    assert (checkout / ".venv" / "ready").exists()


def test_an_environment_whose_python_is_gone_is_made_anew(checkout):
    """After an upgrade of the system's Python, an environment that does not run is not called ready."""
    (checkout / ".venv" / "bin" / "python").unlink()
    assert "expected Python 3.11 or newer" in install(checkout, python="false").stderr


def module(name):
    """A program of envs/ as a module."""
    loader = importlib.machinery.SourceFileLoader(f"envs_{name}", str(ENVS / name))
    found = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(found)
    return found


PIP = """\
:env:.cert='/etc/ca.pem'
global.cert='/etc/other.pem'
global.index-url='https://user:a=b@mirror.example/simple'
global.timeout='90'
install.find-links='/wheels\\n/more'
install.no-index='true'
freeze.timeout='10'
"""


def test_pips_configuration_is_uvs():
    """Registries, folders of wheels, certificates and proxies come from pip's configuration, by its precedence."""
    assert module("mirrors").translated(PIP, {}) == {
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_DEFAULT_INDEX": "https://user:a=b@mirror.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_HTTP_TIMEOUT": "90",
        "no_index": "--no-index",
    }


def test_what_uv_is_told_already_stays():
    """A variable of uv's own wins over pip's configuration."""
    said = {"UV_INDEX_URL": "https://other.example/simple", "SSL_CERT_FILE": "/mine.pem", "UV_FIND_LINKS": "/here"}
    assert set(module("mirrors").translated(PIP, said)) == {"UV_HTTP_TIMEOUT", "no_index"}


def compiled(root, *cache):
    found = subprocess.run([sys.executable, ENVS / "bytecode", root, *cache], check=True, capture_output=True, text=True)
    return found.stdout


def test_bytecode_is_made_once(tmp_path):
    """Environments in two folders share bytecode by the content of the sources; a changed source is compiled, a wrong one left."""
    for name in ("a", "b"):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "lib" / "one.py").write_text("def f():\n    return 1\n")
        (tmp_path / name / "lib" / "wrong.py").write_text("def f(:\n")
    assert "2 modules: 0 from the cache, 1 are not for this Python" in compiled(tmp_path / "a", tmp_path / "cache")
    assert "2 modules: 1 from the cache" in compiled(tmp_path / "b", tmp_path / "cache")
    first, second = (next((tmp_path / name).rglob("one*.pyc")).read_bytes() for name in ("a", "b"))
    assert first == second
    assert str(tmp_path).encode() not in first
    (tmp_path / "b" / "lib" / "one.py").write_text("def f():\n    return 2\n")
    compiled(tmp_path / "b", tmp_path / "cache")
    assert next((tmp_path / "b").rglob("one*.pyc")).read_bytes() != first
    assert next((tmp_path / "a").rglob("one*.pyc")).read_bytes() == first


def test_an_emptied_cache_entry_is_made_anew(tmp_path):
    """A file of the cache that a power loss emptied is not taken for bytecode."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "one.py").write_text("x = 1\n")
    compiled(tmp_path, tmp_path / "cache")
    target, entry = next(tmp_path.rglob("one*.pyc")), next((tmp_path / "cache").rglob("*.pyc"))
    made = target.read_bytes()
    target.unlink()
    entry.write_bytes(b"")
    compiled(tmp_path, tmp_path / "cache")
    assert next(tmp_path.rglob("one*.pyc")).read_bytes() == made


def test_uv_and_pip_install_the_same_files(tmp_path):
    """A wheel that uv installs and one that pip does are the same files with the same bytes, but for what they say of themselves."""
    wheel = _wheel(tmp_path)
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not in this environment: make env")
    options = ["--require-hashes", "--no-deps", "--no-index", "--find-links", tmp_path, "-r", lock]
    for name, program in {"by-pip": [sys.executable, "-m", "pip"], "by-uv": [uv, "pip"]}.items():
        quiet = ["--no-compile", "--quiet"] if name == "by-pip" else ["--no-cache", "--quiet", "--python", sys.executable]
        subprocess.run([*program, "install", *quiet, *options, "--target", tmp_path / name], check=True)
    assert _files(tmp_path / "by-pip") == _files(tmp_path / "by-uv")
    assert "tiny.py" in _files(tmp_path / "by-uv")


def _files(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name not in OURS
    }


def _wheel(folder):
    """A minimal wheel, made by hand."""
    files = {
        "tiny.py": "print('one')\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr("tiny-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in [*files, "tiny-1.0.dist-info/RECORD"]))
    return path
