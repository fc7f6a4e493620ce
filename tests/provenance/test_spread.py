"""The bounds of `astolfo compare` on a run of the record: one changed rounding lies within them, another run does not."""

import subprocess
import sys

import pytest

from astolfo.ledger import load
from astolfo.provenance.compare import bounds_of, compare
from tests.conftest import CONFIG, ROOT
from tests.workflow.conftest import snakemake

RUN = "25111202"
EXPECTED = {"ulp-1": "equivalent", "scalar": "equivalent", "seed": "different", "rate-1.1": "different"}


def spread(*arguments):
    subprocess.run([sys.executable, str(ROOT / "benchmarks/spread.py"), *map(str, arguments)], check=True)


@pytest.mark.slow
def test_a_rounding_is_equivalent_and_another_run_is_different(tmp_path):
    """The last bit of one weight, or another instruction set: equivalent. Another seed, a rate ten percent higher: different."""
    snakemake(tmp_path, "bases/AC-NoobAI-1.0.safetensors", "datasets/6k/store.json", "vocabulary/vocab.json")
    variants = [f"--variant={name}" for name in ("reference", *EXPECTED)]
    spread("train", RUN, tmp_path / "spread", "-d", tmp_path, "--accumulation", 1, *variants)
    spread("draw", tmp_path / "spread", "-d", tmp_path)
    folder, bounds = tmp_path / "spread" / RUN, bounds_of(load(CONFIG))
    reference = folder / "reference" / "result.safetensors"
    for name, verdict in EXPECTED.items():
        found = compare(reference, folder / name / "result.safetensors", bounds)
        assert found.verdict == verdict, (name, str(found))
        assert None not in (found.weights, found.loss, found.pictures)
