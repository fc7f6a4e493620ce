"""What a build leaves beside its artifacts, and what it refuses to go on from."""

import pytest

from astolfo.checkpoint.safefile import open_file
from astolfo.files import read_sidecar, sha256_of
from astolfo.program import LOCK
from astolfo.provenance import jobs, stale
from tests.checkpoint.test_modelspec import faults
from tests.provenance.standards import valid_attestations

BASE, RESULT = "bases/own.safetensors", "results/first.safetensors"


def test_jobs_leave_a_record_of_who_made_what(built):
    """Of every artifact the code and the lock that made it are on record, as the plan had named them, and nothing is stale."""
    lock = sha256_of(LOCK)
    for name, verb in (("vocabulary/vocab.json", "vocabulary"), ("datasets/pictures/store.json", "dataset"),
                       ("states/first/00000001.safetensors", "train"), (RESULT, "export")):  # fmt: skip
        made = jobs.read(built.directory / name)
        assert (made["verb"], made["named"]) == (verb, stale.makers(verb, lock)), name
    assert "code" not in jobs.read(built.directory / "bases/sdxl-vae.safetensors")  # a pinned file was made by nobody here
    beside = {path.name.removeprefix("first.safetensors") for path in (built.directory / "results").iterdir()}
    assert beside == {"", ".sha256", ".attestation.json"}
    assert stale.find(built.directory, lock) == []


def test_others_read_what_was_built(built):
    """A trained result keeps to ModelSpec's published text, and every attestation of the build is a Statement to in-toto's classes."""
    assert faults(open_file(built.directory / RESULT).metadata) == []
    found = sorted(built.directory.rglob("*.attestation.json"))
    assert len(found) > 5
    valid_attestations(found)


@pytest.mark.parametrize("damaged", [BASE, RESULT])
def test_a_damaged_input_stops_the_build(copy, damaged):
    """One flipped bit in a base or a result stops what would be made of it, and never gets into the record."""
    path = copy.directory / damaged
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    recorded = read_sidecar(path)
    done = copy.snakemake("results/first-0.50.safetensors", check=False)
    assert done.returncode == 1
    assert f"{damaged} is damaged: expected sha256 {recorded}" in done.stdout + done.stderr
    assert read_sidecar(path) == recorded
