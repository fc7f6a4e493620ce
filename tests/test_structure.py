"""The package's layers: imports lead downwards, and who may import whom is written here."""

import ast
import subprocess

import pytest

from tests import conftest
from tests.conftest import ROOT

LAYERS = (
    {
        "errors",
        "deferred_imports",
        "elementary",
        "files",
        "randomness",
        "liveness",
        "numerics",
        "operators",
        "digest_cache",
        "devices",
    },
    {"library"},
    {"ledger", "program"},
    {"checkpoint", "plan"},
    {"data"},
    {"merging", "pins", "train"},
    {"evaluate", "kohya"},
    {"provenance"},
    {"graph"},
    {"site"},
    {"commands"},
    {"cli", "__main__", "__init__"},
)
"""From the bottom up. A module imports its own layer's package and those below."""


def imports():
    """(importing part, imported part, file and line) of every import within the package."""
    for path in sorted((ROOT / "astolfo").rglob("*.py")):
        here = path.relative_to(ROOT / "astolfo").with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "astolfo":
                below = node.module.split(".")[1:]
                names = below[:1] or [name.name for name in node.names]
            elif isinstance(node, ast.Import):
                names = [name.name.split(".")[1] for name in node.names if name.name.startswith("astolfo.")]
            for name in names:
                yield here, name, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_imports_lead_downwards():
    """No module imports one of a higher layer."""
    height = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{where}: {here} imports {there}" for here, there, where in imports() if there in height and height[there] > height[here]
    ]
    assert wrong == []


def test_every_part_has_a_layer():
    """A new module or package is given its place."""
    parts = {path.stem for path in (ROOT / "astolfo").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts == set().union(*LAYERS)


def test_the_tests_of_one_checkout_refuse_the_code_of_another(monkeypatch, tmp_path):
    """pytest with another checkout's environment ends before any test, and says which command mends it."""
    conftest.pytest_configure(None)
    monkeypatch.setattr(conftest, "ROOT", tmp_path)
    with pytest.raises(pytest.UsageError, match=f"astolfo of {tmp_path}, found that of {ROOT}.*`make env`"):
        conftest.pytest_configure(None)


def test_no_large_file_is_tracked():
    """All tracked files stay small, the shipped models included: what a killed program left behind is not committed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert [str(path) for path in paths if path.is_file() and path.stat().st_size > 4_000_000] == []
