"""`astolfo crate`: a Workflow Run RO-Crate that the profile's own validator accepts."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from astolfo.errors import InputError
from astolfo.files import sha256_of
from astolfo.ledger import load
from astolfo.ledger.references import parse
from astolfo.provenance import jobs
from astolfo.provenance.attestation import attestation_path
from astolfo.provenance.crate import crate
from astolfo.provenance.meter import Meter
from astolfo.provenance.sign import Trust, check, sign
from tests.conftest import SMALL
from tests.provenance.test_sign import keys

rocrate = pytest.importorskip("rocrate.rocrate", reason="the extra for evidence is not installed: make evidence")
requests_cache = pytest.importorskip("requests_cache")


@pytest.fixture
def made(built, tmp_path):
    for path in built.values():
        jobs.write(path, {"cost": Meter().cost()})
    (built["base"].parent.parent / "pins.yaml").write_text(f"AK: {sha256_of(built['base'])}\n")
    return crate(load(SMALL), parse("plain-0.50"), built["base"].parent.parent, tmp_path / "crate")


class Carried(HTTPAdapter):
    """Answers with RO-Crate's context, whatever is asked.

    The rocrate package carries that of version 1.3; 1.1 has the terms of Bioschemas, which the profiles name, one folder up.
    """

    def send(self, request, **options):
        text = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
        text = text.replace(b"https://bioschemas.org/terms/", b"https://bioschemas.org/")
        raw = HTTPResponse(
            io.BytesIO(text), {"Content-Type": "application/ld+json"}, 200, preload_content=False, request_url=request.url
        )
        return self.build_response(request, raw)


def contexts(folder):
    """A cache for the validator with the one page that it would fetch."""
    session = requests_cache.CachedSession(str(folder / "cache"), backend="sqlite", expire_after=-1)
    session.mount("https://", Carried())
    session.get("https://w3id.org/ro/crate/1.1/context", headers={"Accept": "application/ld+json, application/json"})
    session.close()
    return folder / "cache"


def validator(folder, tmp_path, *arguments):
    command = [sys.executable, "-c", "from rocrate_validator.cli import cli; cli()", "-y", "--disable-color", "validate", "--no-paging", "-f", "json",
               "-o", str(tmp_path / "report.json"), "--offline", "--cache-path", str(contexts(tmp_path)), *arguments, str(folder)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    return done, json.loads((tmp_path / "report.json").read_text()) if (tmp_path / "report.json").exists() else None


def test_the_profiles_validator_accepts_it(made, tmp_path):
    """roc-validator finds no error against the Provenance Run Crate profile at the level REQUIRED."""
    done, report = validator(made, tmp_path, "-p", "provenance-run-crate", "-l", "required")
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert report["passed"]


def test_it_holds_what_is_needed_and_names_the_rest(made, built):
    """The model, the ledger, the pins, the workflow, the lock and every attestation lie in it; what it started from has its digest."""
    read = rocrate.ROCrate(made)
    assert (made / "results/plain-0.50.safetensors").read_bytes() == built["merge"].read_bytes()
    for path in (
        "lock.txt",
        "pins.yaml",
        "ledger/ledger.yaml",
        "workflow/Snakefile",
        "states/plain/00000002.safetensors.attestation.json",
    ):
        assert (made / path).is_file(), path
    base = next(one for one in read.get_entities() if one.get("name") == "bases/AK.safetensors")
    assert base["sha256"] == sha256_of(built["base"])
    assert not (made / "bases/AK.safetensors").exists()
    actions = read.get_by_type("CreateAction")
    assert {"astolfo job train: states/plain/00000001.safetensors"} <= {one["name"] for one in actions}
    assert len(actions) == len(built)  # a job each but the adopted base, and the run of the workflow


def test_card_and_signatures_go_along(built, tmp_path):
    """What lies beside the model for others to read, its card and its signatures, is packed: a stranger checks the crate's model."""
    directory, path = built["base"].parent.parent, built["merge"]
    private, public = keys(tmp_path, "mine")
    sign(path, private)
    path.with_suffix(".md").write_text("# plain-0.50\n")
    out = crate(load(SMALL), parse("plain-0.50"), directory, tmp_path / "signed")
    assert (out / "results" / "plain-0.50.md").read_text() == "# plain-0.50\n"
    assert "mine.pub" in check(out / "results" / path.name, Trust(key=public))


def test_two_crates_are_the_same(made, built, tmp_path):
    """The same directory gives the same crate, whenever it is packed."""
    again = crate(load(SMALL), parse("plain-0.50"), built["base"].parent.parent, tmp_path / "again")
    name = "ro-crate-metadata.json"
    assert (again / name).read_bytes() == (made / name).read_bytes()


def test_what_cannot_be_packed(built, tmp_path):
    """What is not built, a folder that holds something, a chain with a gap: each refused, and why."""
    ledger, directory = load(SMALL), built["base"].parent.parent
    with pytest.raises(
        InputError,
        match=r"is missing: a crate is of a built model\. Build it \(`.*results/velocity\.safetensors.*DIR=.*`\) first",
    ):
        crate(ledger, parse("velocity"), directory, tmp_path / "none")
    with pytest.raises(InputError, match="is not empty"):
        crate(ledger, parse("plain"), directory, directory)
    attestation_path(built["state 1"]).unlink()
    with pytest.raises(InputError, match=r"00000001.safetensors has no attestation"):
        crate(ledger, parse("plain"), directory, tmp_path / "gap")
