"""What is run on the day there is a card: its steps do not take each other's numbers, and all of it is rehearsed on a CPU."""

import base64
import hashlib
import json
import subprocess
import sys
import zipfile

import pytest

from benchmarks import card, carry
from tests.conftest import ROOT

WRITES = "import json, pathlib; pathlib.Path('{found}').write_text(json.dumps({'number': 1}));"


def test_what_was_measured_survives_a_step_that_fails(tmp_path):
    """A step that fails, one that runs past its limit and one that has no time left take nothing from the others."""
    steps = [
        card.Step("good", 60, ("-c", WRITES)),
        card.Step("failing", 60, ("-c", f"{WRITES} print('why'); exit(3)")),
        card.Step("endless", 2, ("-c", f"{WRITES}\nwhile True: pass")),
        card.Step("long", 1e6, ("-c", "pass")),
    ]
    assert not card.measure(steps, tmp_path / "card.json", minutes=2)
    found = json.loads((tmp_path / "card.json").read_text())
    assert {name: one["ended"].partition(":")[0] for name, one in found.items()} == {
        "good": "well", "failing": "failed", "endless": "failed", "long": "left out",
    }  # fmt: skip
    assert [found[name]["number"] for name in ("good", "failing", "endless")] == [1, 1, 1]
    assert found["failing"]["said"] == ["why"]


def test_two_builds_are_compared(tmp_path):
    """Builds of the miniature that differ are a failure, and the table says so."""
    build = "import json, pathlib; pathlib.Path('{found}').write_text(json.dumps({'digest': %d}))"
    steps = [card.Step(f"miniature, {which} build", 60, ("-c", build % which)) for which in (1, 2)]
    assert not card.measure(steps, tmp_path / "card.json", minutes=2)
    assert "| the miniature built twice | other bytes |" in card.table(json.loads((tmp_path / "card.json").read_text()))


def test_the_page_has_the_table_of_what_was_measured():
    """docs/performance.md has the rows that the reports of cards give; there is none yet."""
    assert card.table({}) in (ROOT / "docs" / "performance.md").read_text()


def test_a_wheel_that_is_cut_down_is_a_wheel(tmp_path):
    """The files that are left out are gone, the record names the others with their digests, and the bytes are the same twice."""
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        for name in ("x/__init__.py", "x/cuda118.so", "x/cuda130.so", "x-1.dist-info/RECORD"):
            wheel.writestr(name, name)
    for out in ("a.whl", "b.whl"):
        carry.strip(tmp_path / "x.whl", tmp_path / out, r"x/cuda(?!130)")
    assert (tmp_path / "a.whl").read_bytes() == (tmp_path / "b.whl").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.whl") as wheel:
        assert wheel.namelist() == ["x/__init__.py", "x/cuda130.so", "x-1.dist-info/RECORD"]
        digest = base64.urlsafe_b64encode(hashlib.sha256(b"x/cuda130.so").digest()).rstrip(b"=").decode()
        assert f"x/cuda130.so,sha256={digest},12\n" in wheel.read("x-1.dist-info/RECORD").decode()


@pytest.mark.slow
def test_all_of_it_is_rehearsed(tmp_path):
    """At toy size on a CPU every step ends well, and the table lacks nothing but what a card alone has."""
    command = [sys.executable, ROOT / "benchmarks" / "card.py", "--rehearse", "--out", tmp_path / "card.json"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    report = json.loads((tmp_path / "card.json").read_text())
    assert done.returncode == 0, {name: one for name, one in report.items() if one["ended"] != "well"}
    rows = dict(line.strip("| ").split(" | ") for line in card.table(report).splitlines())
    missing = {name for name, value in rows.items() if value == card.NOTHING}
    assert missing == {"predicted against measured peak memory"}
    assert rows["the miniature built twice"] == "the same bytes"
