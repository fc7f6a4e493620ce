"""What a file says about itself, and what `inspect` makes of it."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from astolfo.checkpoint.inspect import inspect, report
from astolfo.checkpoint.metadata import describe, markers, objective_of
from astolfo.checkpoint.model import save
from astolfo.checkpoint.safefile import write_file
from astolfo.errors import CheckpointError


def test_inspect_says_what_a_file_is(tmp_path, sdxl, states):
    """Parts, parameters, blocks, dtypes, lineage, objective and digest, without reading the values."""
    about = describe(
        family="sdxl", title="t", objective="v", zero_terminal_snr=True, parents={"base": "ab"}, recipe="cd", run="25010101"
    )
    saved = save(tmp_path / "x", states(sdxl), sdxl, dtypes={"vae": "fp32"}, metadata=about, markers=markers("v", True))
    found = inspect(tmp_path / "x")
    assert (found["architecture"], found["recorded"], found["digest"]) == ("sdxl", saved.digest, None)
    assert f"{saved.digest} by its side-car, which nobody compared" in report(found)
    assert found["objective"] == {"name": "v", "zero_terminal_snr": True, "because": "astolfo.objective"}
    assert found["lineage"] == {"run": "25010101", "recipe": "cd", "parents": {"base": "ab"}}
    assert found["other_keys"] == ["v_pred", "ztsnr"]
    for part in sdxl.parts:
        assert found["parts"][part]["parameters"] == sum(np.prod(shape, dtype=int) for shape in sdxl.shapes(part).values())
        assert sum(found["parts"][part]["blocks"].values()) == found["parts"][part]["parameters"]
    assert found["parts"]["vae"]["dtypes"].keys() == {"F32"}
    assert list(found["parts"]["unet"]["blocks"])[:2] == ["input_blocks.0", "input_blocks.1"]
    assert "zero terminal SNR" in report(found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_scan_counts_what_is_not_finite(tmp_path, dtype):
    """NaN and infinities are counted apart, in every dtype, and only where they are."""
    bad = torch.zeros(1_000_000, dtype=dtype)
    bad[[1, 999_999]], bad[5], bad[6] = float("nan"), float("inf"), -float("inf")
    digest = write_file(tmp_path / "x", {"bad": bad, "good": torch.ones(3, dtype=dtype), "ids": torch.arange(3)})
    (tmp_path / "x.sha256").unlink()
    assert inspect(tmp_path / "x")["digest"] is None
    found = inspect(tmp_path / "x", scan=True)
    assert found["not_finite"] == {"bad": {"nan": 2, "inf": 2}}
    assert found["digest"] == inspect(tmp_path / "x")["digest"] == digest
    assert "NOT FINITE: bad: 2 NaN, 2 infinite" in report(found)


def test_inspecting_needs_no_torch(tmp_path):
    """The command answers at once: importing torch alone would take longer than it may."""
    write_file(tmp_path / "x", {"a": np.zeros(3)})
    code = (
        "import sys; from astolfo.checkpoint.inspect import inspect as i; i(sys.argv[1], True); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False).returncode == 0


def test_markers_are_those_that_programs_read():
    """v_pred and ztsnr are empty float32 tensors; eps and rf have none of their own."""
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in markers("v", True).items()} == {
        "v_pred": ((0,), np.float32),
        "ztsnr": ((0,), np.float32),
    }
    assert list(markers("v")) == ["v_pred"]
    assert markers("eps") == markers("rf") == {}
    with pytest.raises(CheckpointError, match="eps, v, rf"):
        markers("vpred")


def test_the_objective_is_recognised_by_what_says_it():
    """Our own metadata speaks first, then the marker, then ModelSpec; else it is eps, as programs assume."""
    assert objective_of(["v_pred"], {"astolfo.objective": "rf"})[0] == "rf"
    assert objective_of(["v_pred", "ztsnr"], {}) == ("v", True, "marker v_pred")
    assert objective_of([], {"modelspec.prediction_type": "v"})[:2] == ("v", False)
    assert objective_of([], {})[:2] == ("eps", False)


def test_metadata_has_no_date_and_no_wrong_prediction_type():
    """rf has no ModelSpec prediction type, so none is claimed; nothing depends on the clock."""
    found = describe(family="sdxl", title="t", objective="rf", scale="full")
    assert "modelspec.prediction_type" not in found
    assert found["astolfo.objective"] == "rf"
    assert found["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
    assert not [key for key in found if "date" in key]
    assert all(isinstance(value, str) for value in found.values())
