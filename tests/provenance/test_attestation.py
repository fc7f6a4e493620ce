"""Attestations: their form, what they name, and that two equal builds have the same."""

import json

import pytest

from astolfo.errors import InputError
from astolfo.files import read_sidecar, sha256_of, write_json
from astolfo.provenance import attestation
from astolfo.provenance.attestation import name_of, read
from astolfo.provenance.meter import Meter
from tests.provenance.conftest import chain, spec
from tests.provenance.standards import valid_attestations


def test_the_form_is_in_toto_with_slsa_provenance(built):
    """The statement has the required fields of in-toto's Statement v1 and SLSA's provenance v1, and no times."""
    said = json.loads(attestation.attestation_path(built["result"]).read_text())
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    name, digest = "results/plain.safetensors", read_sidecar(built["result"])
    assert said["subject"] == [{"name": name, "digest": {"sha256": digest}}]
    definition, run = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    assert definition["buildType"] == "urn:astolfo:job:export:v1"
    assert {"spec", "scale", "semantics", "run"} <= set(definition["externalParameters"])
    assert {"identity", "code", "lock", "numerics", "astolfo_digest"} == set(definition["internalParameters"])
    assert run["builder"]["id"]
    assert "metadata" not in run


def test_in_totos_own_classes_read_every_attestation(built):
    """`in-toto-attestation` parses each statement and predicate strictly, to the last field, and finds them valid."""
    valid_attestations(attestation.attestation_path(path) for path in built.values())


def test_the_first_attestations_are_still_read(built):
    """One whose digest stands beside SLSA's own fields, as the first had it, is read; with a bit flipped, it is not."""
    file = attestation.attestation_path(built["result"])
    said = json.loads(file.read_text())
    said["predicate"]["astolfo_digest"] = said["predicate"]["buildDefinition"]["internalParameters"].pop("astolfo_digest")
    write_json(file, said)
    assert read(built["result"]).job == "export"
    said["subject"][0]["name"] = "another"
    write_json(file, said)
    with pytest.raises(InputError, match="is damaged"):
        read(built["result"])


def test_two_equal_builds_have_the_same_attestations(built, tmp_path):
    """Built in another folder, every attestation is the same, byte for byte."""
    again = chain(tmp_path / "elsewhere" / "deeper")
    for name, path in built.items():
        assert attestation.attestation_path(path).read_bytes() == attestation.attestation_path(again[name]).read_bytes()


def test_parents_are_named_with_their_attestations(built):
    """Each direct parent stands there with role, digest and the digest of its own attestation."""
    found = {parent.role: parent for parent in read(built["merge"]).parents}
    assert set(found) == {"base", "trained"}
    assert found["trained"].sha256 == read_sidecar(built["result"])
    assert found["trained"].attestation == sha256_of(attestation.attestation_path(built["result"]))


def test_a_checkpoint_names_the_losses_of_every_segment(built):
    """The digests of the loss curve up to each segment's end, the same as the states' own."""
    found = read(built["result"]).losses
    assert list(found) == [1, 2]
    assert found[1] == read(built["state 1"]).losses[1]


def test_a_pinned_file_is_adopted(built):
    """What was brought says that it was not rebuilt, by which rule it could be, and claims no code, lock or numerics."""
    found = read(built["base"])
    assert found.adopted
    assert found.remade_by == "results/foundation-eps.safetensors"
    assert found.numerics is None


@pytest.mark.parametrize("position", range(5, 3000, 150))
def test_a_flipped_bit_in_an_attestation_is_found(built, position):
    """Wherever one bit of an attestation flips, it is refused."""
    file = attestation.attestation_path(built["result"])
    data = bytearray(file.read_bytes())
    data[position % len(data)] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"attestation\.json is damaged"):
        read(built["result"])


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/results/1.safetensors", "results/1.safetensors"),
        ("states/plain/00000001.safetensors", "states/plain/00000001.safetensors"),
        ("/results/of/mine/bases/X.safetensors", "bases/X.safetensors"),
        ("/somewhere/else/X.safetensors", "X.safetensors"),
    ],
)
def test_names_are_those_of_the_working_directory(path, name):
    """An artifact's name is the same wherever its working directory lies."""
    assert name_of(path) == name


def test_what_a_job_cost():
    """Time and memory are told of every job."""
    assert {"started", "seconds", "cpu_seconds", "peak_memory_mib"} <= set(Meter().cost())


def test_what_a_gpu_computed_has_its_class(tmp_path, monkeypatch):
    """A state names the device that trained it, and what a CPU casts and sums of its weights names that device too."""
    monkeypatch.setattr("astolfo.numerics.numerics_class", lambda device="cpu": {"device": device})
    paths = chain(tmp_path / "work", device="cuda")
    classes = {name: read(path).numerics for name, path in paths.items()}
    assert classes["base"] is None
    assert classes["vocabulary"] == {"device": "cpu"}
    assert {classes[name]["device"] for name in ("state 1", "state 2", "result", "merge")} == {"cuda"}


def test_what_was_accepted_of_a_parent_is_repeated(built):
    """What is made from an artifact of other code, kept on record, says so and why."""
    accepted = {"made": {"code": "a" * 64}, "accepted": {"code": "b" * 64}, "reason": "only the log changed"}
    write_json(built["result"].with_name(built["result"].name + ".accepted.json"), accepted)
    attestation.write("merge", built["merge"], spec("merge", alpha="0.50"), {"base": built["base"], "trained": built["result"]})
    rows = attestation.read(built["merge"]).definition["resolvedDependencies"]
    assert {row["annotations"]["role"]: row["annotations"].get("accepted") for row in rows} == {"base": None, "trained": accepted}
