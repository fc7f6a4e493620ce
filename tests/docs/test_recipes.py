"""docs/how-to.md: every command that is not marked as needing a user's own files, a card or a big disk runs as it stands there."""

import os
import re
import shlex
import subprocess

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from tests.conftest import ROOT
from tests.workflow.test_twice import clone

LOOK_UP = {"ledger", "plan", "hardware", "numerics", "stale", "lineage", "verdicts"}  # verbs that need nothing built


def recipes():
    """The page's commands in their order, without those that are marked, and those that end only with Ctrl-C."""
    text = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
    blocks = re.findall(r"([^\n]*)\n\n```sh\n(.*?)^```$", text, re.M | re.S)
    lines = [line for before, block in blocks if "(yours)" not in before for line in block.splitlines()]
    return [line for line in lines if "(yours)" not in line and "ends with Ctrl-C" not in line]


def looked_up():
    """The words of each command that only looks something up."""
    split = [shlex.split(line, comments=True) for line in recipes()]
    found = [words[1:] for words in split if words[0] == "astolfo" and LOOK_UP & set(words)]
    assert found
    return [pytest.param(words, id=" ".join(words)) for words in found]


@pytest.mark.parametrize("words", looked_up())
def test_what_looks_something_up_runs_in_an_empty_folder(words, tmp_path, monkeypatch):
    """A command that needs nothing built ends well and prints something."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path):
    """All of the page's commands, one after the other in a clone with its environment active."""
    checkout = clone(tmp_path / "astolfo")
    own = os.environ | {"PYTHONPATH": str(checkout)}  # the clone's package, not the one that the environment links to
    script = "\n".join([". .venv/bin/activate", *recipes()])
    done = subprocess.run(["bash", "-ec", script], cwd=checkout, capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "reproduced, identical to" in done.stdout
    assert (checkout / "site/index.html").exists()
