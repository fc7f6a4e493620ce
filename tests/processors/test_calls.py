"""The harness itself: calls are recorded with all that decides them, made again with the same result, and told apart otherwise."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # the stage that trusts it runs it first

CODE = """
import json, sys
from pathlib import Path
from tests.processors import calls, work
import torch

assert len(work.recipes(work.load(work.CONFIG))) > 60
folder, x = Path(sys.argv[1]), torch.arange(24.0).view(4, 6)
with calls.Recorder(folder) as recorder:
    torch.mm(x, x.T), torch.mm(x, x.T), torch.mm(x, x.T.contiguous())  # two of them are one call
    x[:, 1:].sqrt(), x.add_(x, alpha=0.5), (x**2, x**3, x + 1.0, x + 2.0)  # numbers count of powers alone
    x.bfloat16(), torch.zeros(0).sum(), torch.empty(3), torch.rand(3)
recorder.lines.close(), recorder.bytes.close()
lines = (folder / "calls.jsonl").read_text().splitlines()
print(*(json.loads(line)["name"].removesuffix(".default") for line in lines))
print(list(calls.replay(folder)))
wrong = json.loads(lines[2]) | {"digest": "0"}
(folder / "calls.jsonl").write_text("\\n".join([*lines[:2], json.dumps(wrong), *lines[3:]]))
print([(one["call"], one["name"]) for one in calls.replay(folder)])
"""


def test_calls_are_made_again(tmp_path):
    """Each distinct call is recorded once, gives the same bits when it is made again, and one that does not is named."""
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "calls")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names, same, other = done.stdout.splitlines()
    assert names.split() == [
        "aten.mm", "aten.clone", "aten.mm", "aten.sqrt", "aten.add_.Tensor", "aten.pow.Tensor_Scalar", "aten.pow.Tensor_Scalar",
        "aten.add.Tensor", "aten._to_copy", "aten.zeros", "aten.sum",
    ]  # fmt: skip
    assert (same, other) == ("[]", "[(2, 'aten.mm.default')]")
