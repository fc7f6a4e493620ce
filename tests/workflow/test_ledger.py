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
    """Every model of the record is built, its attestations are valid in-toto, and it is the recorded file where that is promised."""
    snakemake(tmp_path, "ledger", "--set-threads", "segment=1")
    ledger, here = load(CONFIG), numerics.numerics_class()
    verdicts = {finding.name: finding.verdict for finding in digests.compare(ledger, tmp_path, here)}
    expected = {digests.IDENTICAL} if digests.recorded(ledger, here) else {digests.IDENTICAL, digests.DIFFERS}
    assert set(verdicts.values()) <= expected, {name: found for name, found in verdicts.items() if found not in expected}
    valid_attestations(tmp_path.rglob("*.attestation.json"))
