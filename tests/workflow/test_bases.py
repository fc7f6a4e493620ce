"""The miniature's shipped bases are what their rules in the graph make, to the last byte."""

import json

import pytest

from astolfo import numerics
from astolfo.files import read_sidecar
from astolfo.ledger import load
from tests.conftest import CONFIG
from tests.workflow.conftest import snakemake

RECORDED = json.loads((CONFIG / "pinned" / "miniature" / "numerics.json").read_text())
PINNED = {name: base.miniature for name, base in load(CONFIG).bases.items() if base.miniature.file}


def same_class() -> bool:
    """Whether this machine computes in the class that the shipped files were made in."""
    return numerics.numerics_class() == RECORDED


@pytest.mark.slow
@pytest.mark.parametrize("name", PINNED)
def test_a_shipped_base_is_rebuilt(name, tmp_path):
    """The rule that makes a shipped base gives exactly its digest; in another numerics class, the same digest twice."""
    target = f"results/{PINNED[name].made_by}.safetensors" if PINNED[name].made_by else f"rebuilt/{name}.safetensors"
    folders = [tmp_path / "a"] if same_class() else [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        snakemake(folder, target)
    found = {read_sidecar(folder / target) for folder in folders}
    assert len(found) == 1, "two builds differ"
    assert not same_class() or found == {PINNED[name].sha256}


def test_the_shipped_files_are_the_pinned_ones():
    """Each shipped file has the sha256 that the ledger records."""
    from astolfo.files import sha256_of

    for origin in PINNED.values():
        assert sha256_of(CONFIG / "pinned" / "miniature" / origin.file) == origin.sha256
