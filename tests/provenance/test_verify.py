"""`astolfo verify FILE`: the bytes, the chain up to the bases, the record, and signatures."""

import json
import shutil

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.files import read_sidecar, sidecar, write_json, write_sidecar
from astolfo.ledger import load
from astolfo.provenance import digests
from astolfo.provenance.attestation import attestation_path, name_of, read
from astolfo.provenance.verify import verify
from tests.conftest import SMALL

ALL = ("vocabulary", "base", "state 1", "state 2", "result", "merge")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_whole_chain_is_verified(built):
    """Every file is re-hashed, the one that was brought is named, and one line says so."""
    found = verify(built["merge"])
    assert found.good
    assert set(found.rehashed) == {name_of(path) for path in built.values()} | {"vocabulary/merges.txt"}
    assert found.adopted == ["bases/AK.safetensors"]
    assert "\n" not in found.verdict
    assert f"verified, sha256 {read_sidecar(built['merge'])}; 7 files re-hashed; adopted, not rebuilt" in found.verdict


@pytest.mark.parametrize("kind", [lambda path: path, sidecar, attestation_path], ids=["bytes", "side-car", "attestation"])
@pytest.mark.parametrize("name", ALL)
def test_one_flipped_bit_is_found_and_named(built, name, kind):
    """One bit of any file, side-car or attestation of the chain: not verified, and the first problem names the file."""
    flip(kind(built[name]))
    found = verify(built["merge"])
    assert not found.good
    assert name_of(built[name]).rpartition("/")[2] in found.problems[0]


def test_a_belonging_file_is_verified_too(built):
    """The vocabulary's second file is part of its artifact."""
    flip(built["vocabulary"].with_name("merges.txt"))
    assert "vocabulary/merges.txt is damaged" in verify(built["merge"]).verdict


def test_absent_ancestors_are_vouched_for_by_attestations(built):
    """States that were deleted do not break the chain; the verdict says that their bytes were not read."""
    for name in ("state 1", "state 2"):
        built[name].unlink()
    found = verify(built["result"])
    assert found.good
    assert "attested but not re-hashed: states/plain/00000002.safetensors, states/plain/00000001" in found.verdict


def test_a_missing_attestation_breaks_the_chain(built):
    """Without a parent's attestation nothing says what it was made from."""
    attestation_path(built["state 2"]).unlink()
    assert "states/plain/00000002.safetensors.attestation.json is missing" in verify(built["result"]).verdict


def test_another_attestation_is_no_substitute(built):
    """A sound attestation of another file in a parent's place is found."""
    shutil.copyfile(attestation_path(built["state 1"]), attestation_path(built["state 2"]))
    assert "00000002.safetensors.attestation.json is damaged" in verify(built["result"]).verdict


def test_a_file_without_attestation_is_not_verified(built):
    """A checkpoint from anywhere has no known origin."""
    attestation_path(built["result"]).unlink()
    assert "has no attestation beside it" in verify(built["result"]).verdict


def test_a_file_alone_is_read_without_its_parents(built, tmp_path):
    """A checkpoint that was handed on with its attestation is checked; that the chain cannot be followed is said."""
    there = tmp_path / "downloads"
    there.mkdir()
    for path in (built["result"], attestation_path(built["result"])):
        shutil.copyfile(path, there / path.name.replace("plain", "AstolfoXL"))
    found = verify(there / "AstolfoXL.safetensors")
    assert found.sha256 == read_sidecar(built["result"])
    assert all("is missing: the chain above it cannot be followed" in problem for problem in found.problems)


def test_the_record_is_asked(built, tmp_path):
    """A result that is a recorded one says so; another is a fault where its numerics class is on record, and else only told."""
    shutil.copytree(SMALL, tmp_path / "config")
    record = {"numerics": read(built["result"]).numerics, "sha256": {"plain": read_sidecar(built["result"])}}
    write_json(tmp_path / "config" / digests.FOLDER / "miniature" / "x.json", record)
    assert "verified, the recorded file" in verify(built["result"], load(tmp_path / "config")).verdict
    record["sha256"] = {"plain": "0" * 64}
    write_json(tmp_path / "config" / digests.FOLDER / "miniature" / "x.json", record)
    assert f"differs from the record: expected sha256 {'0' * 64}" in verify(built["result"], load(tmp_path / "config")).verdict
    write_json(tmp_path / "config" / digests.FOLDER / "miniature" / "x.json", record | {"numerics": {"processor": "another"}})
    found = verify(built["result"], load(tmp_path / "config"))
    assert found.good
    assert "verified, not the recorded file, and made in a numerics class that is not on record" in found.verdict


def test_what_was_accepted_is_mentioned(built):
    """An artifact that stands although code or lock changed says why."""
    write_json(built["state 2"].with_name("00000002.safetensors.accepted.json"), {"reason": "only the log changed"})
    assert "states/plain/00000002.safetensors was accepted: only the log changed" in verify(built["result"]).verdict


@pytest.fixture
def program():
    """The arguments that every call begins with: a ledger without records, whose digests the chain's could not have."""
    return ["--config", str(SMALL)]


def test_the_command(built, program, monkeypatch, tmp_path):
    """Exit status 0 and one line; 1 when a bit is wrong; --json has everything."""
    monkeypatch.chdir(tmp_path)  # the checkout may remember a ledger of its own
    done = CliRunner().invoke(cli, [*program, "verify", str(built["merge"])])
    assert (done.exit_code, done.output.count("\n")) == (0, 1)
    write_sidecar(built["base"], "0" * 64)
    done = CliRunner().invoke(cli, [*program, "verify", str(built["merge"]), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.output)["problems"]
