"""The record's bases that are shipped for the miniature are what their rules in the graph make, to the last byte."""

import json
from pathlib import Path

import pytest

from astolfo import numerics
from astolfo.files import read_sidecar, sha256_of
from astolfo.ledger import load
from tests.conftest import CONFIG, STAND_INS
from tests.workflow.conftest import snakemake

CLASSES = json.loads((STAND_INS / "numerics.json").read_text())
PINNED = {name: base.miniature for name, base in load(CONFIG).bases.items() if base.miniature.file}


@pytest.mark.slow
@pytest.mark.parametrize("name", PINNED)
def test_a_shipped_base_is_rebuilt(name, tmp_path):
    """The rule that makes a shipped base gives exactly its digest, on any processor."""
    target = f"results/{PINNED[name].made_by}.safetensors" if PINNED[name].made_by else f"rebuilt/{name}.safetensors"
    snakemake(tmp_path, target)
    assert read_sidecar(tmp_path / target) == PINNED[name].sha256


def test_the_shipped_files_are_the_pinned_ones():
    """Each shipped file has the sha256 that the ledger records, and was made in the class in which the CPU computes here."""
    for origin in PINNED.values():
        assert sha256_of(STAND_INS / origin.file) == origin.sha256
    assert set(CLASSES) == {Path(origin.file).stem for origin in PINNED.values()}
    assert [name for name, classes in CLASSES.items() if numerics.numerics_class() not in classes] == []
