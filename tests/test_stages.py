"""The longer proofs: each slow test belongs to a stage, and a stage says what of it was run."""

import sys

import pytest

from tests.conftest import ROOT
from tests.stages import STAGES, Stage, run


def test_every_slow_test_is_in_a_stage():
    """A module with slow tests, or its folder, stands in the command of some stage."""
    named = {word.split("::")[0] for stage in STAGES for word in stage.command if word.startswith("tests/")}
    slow = [path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py") if "mark.slow" in path.read_text()]
    assert len(slow) > 20
    assert [
        str(path) for path in slow if not named & {str(path), *map(str, path.parents)} and path.name != "test_stages.py"
    ] == []


def test_what_a_stage_names_is_there():
    """Files and folders in the commands of the stages exist."""
    named = {word.split("::")[0] for stage in STAGES for word in stage.command if word.startswith("tests/")}
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("def test_a(): pass", "passed"),
        ("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no')", "passed, but for 1 of 2 tests that were skipped,"),
        ("import pytest\ndef test_b(): pytest.skip('no')", "skipped, all 1 tests (their reasons stand above)"),
        ("def test_a(): assert False", "FAILED"),
    ],
)
def test_a_stage_says_what_wasrun(tmp_path, body, outcome):
    """A stage whose tests were all skipped has not passed."""
    (tmp_path / "test_one.py").write_text(body)
    command = (sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path / "test_one.py"))
    assert run(Stage("one", "something", 1, command)) == outcome
