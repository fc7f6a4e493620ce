"""The miniature's shipped bases are what their rules in the graph make, to the last byte."""

import json
from pathlib import Path

import pytest

from astolfo import numerics
from astolfo.files import read_sidecar, sha256_of
from astolfo.ledger import load
from astolfo.provenance import digests
from tests.conftest import CONFIG, STAND_INS
from tests.workflow.conftest import snakemake

CLASSES = json.loads((STAND_INS / "numerics.json").read_text())
PINNED = {name: base.miniature for name, base in load(CONFIG).bases.items() if base.miniature.file}


@pytest.mark.slow
@pytest.mark.parametrize("name", PINNED)
def test_a_shipped_base_is_rebuilt(name, tmp_path):
    """The rule that makes a shipped base gives exactly its digest, in the numerics classes where that was measured."""
    here = numerics.numerics_class()
    if not any(digests.same_class(load(CONFIG), here, one) for one in CLASSES[Path(PINNED[name].file).stem]):
        pytest.skip(
            f"{name} was made on {[one['processor'] for one in CLASSES[Path(PINNED[name].file).stem]]}; this machine's class is {here}"
        )
    target = f"results/{PINNED[name].made_by}.safetensors" if PINNED[name].made_by else f"rebuilt/{name}.safetensors"
    snakemake(tmp_path, target)
    assert read_sidecar(tmp_path / target) == PINNED[name].sha256


def test_the_shipped_files_are_the_pinned_ones():
    """Each shipped file has the sha256 that the ledger records, and the classes in which it was made are written down."""
    for origin in PINNED.values():
        assert sha256_of(STAND_INS / origin.file) == origin.sha256
    assert set(CLASSES) == {Path(origin.file).stem for origin in PINNED.values()}
