"""Every artifact of the record's lineage to 26022301 is the same file in two builds."""

import pytest

from tests.workflow.conftest import artifacts, snakemake

TARGETS = ["results/26022301.safetensors", "results/26011102-0.82.safetensors", "evaluations/26011501/index.html"]


@pytest.mark.slow
def test_the_lineage_is_the_same_twice(tmp_path):
    """Base, states, results, merges and evaluations up to rectified flow have equal bytes in two folders."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        snakemake(tmp_path / name, *TARGETS)
        found.append(artifacts(tmp_path / name))
    assert found[0] == found[1]
    assert len([path for path in found[0] if path.startswith("states/") and path.endswith(".sha256")]) == 15
