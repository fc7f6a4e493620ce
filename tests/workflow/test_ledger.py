"""The whole record rebuilds: every run, every merge it names, every base that the graph makes."""

import pytest

from astolfo import numerics
from astolfo.ledger import load
from astolfo.provenance import digests
from tests.conftest import CONFIG
from tests.provenance.standards import valid_attestations
from tests.workflow.conftest import jobs, snakemake


def test_the_plan_of_the_whole_record(tmp_path):
    """`make ledger` builds a result per run, the merges that outcomes name, and the bases that they need."""
    shown = snakemake(tmp_path, "ledger", "-n").stdout
    planned = {line for line in shown.replace(",", "\n").split() if line.endswith(".safetensors")}
    assert {reference.path for reference in digests.models(load(CONFIG))} <= planned
    assert jobs(shown)["ledger"] == 1


@pytest.mark.slow
def test_the_whole_record_is_rebuilt(tmp_path):
    """Every model of the record is built, its attestations are valid in-toto, and it is the recorded file on any processor."""
    snakemake(tmp_path, "ledger", "--set-threads", "segment=1")
    findings = digests.compare(load(CONFIG), tmp_path, numerics.numerics_class())
    assert [finding for finding in findings if finding.verdict != digests.IDENTICAL] == []
    valid_attestations(tmp_path.rglob("*.attestation.json"))
