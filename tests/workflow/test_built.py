"""What a build leaves beside its artifacts, what Snakemake's own reports say of it, and what it refuses to go on from."""

import json
import zipfile

import pytest

from astolfo.files import read_sidecar, sha256_of
from astolfo.program import LOCK
from astolfo.provenance import stale
from tests.site.conftest import chromium  # noqa: F401  the browser that the pages are tried in

BASE, RESULT = "bases/own.safetensors", "results/first.safetensors"


def test_jobs_leave_a_record_of_who_made_what(built):
    """Beside every artifact stands the code and the lock that made it, as the plan had named them, and nothing is stale."""
    lock = sha256_of(LOCK)
    for name, verb in (("vocabulary/vocab.json", "vocabulary"), ("datasets/pictures/store.json", "dataset"),
                       ("states/first/00000001.safetensors", "train"), (RESULT, "export")):  # fmt: skip
        made = json.loads((built.directory / f"{name}.made.json").read_text())
        assert (made["verb"], made["named"]) == (verb, stale.makers(verb, lock)), name
    assert not (built.directory / "bases/sdxl-vae.safetensors.made.json").exists()  # a pinned file was made by nobody here
    assert stale.find(built.directory, lock) == []


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


def test_the_summary_names_what_is_built(copy):
    """Every output stands there with its rule, and none is to be made again."""
    rows = [line.split("\t") for line in copy.snakemake(RESULT, "--summary").stdout.splitlines() if "\t" in line]
    found = {row[0]: row for row in rows[1:]}
    assert found[BASE][rows[0].index("rule")] == "base_stand_in"
    assert {row[-1].strip() for row in found.values()} == {"no update"}


def test_the_report_opens_in_a_browser(copy, chromium, tmp_path):  # noqa: F811
    """`--report` writes a zip of a page; unpacked, it opens without an error and speaks of this workflow."""
    copy.snakemake(RESULT, "--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as file:
        file.extractall(tmp_path)
    (page,) = tmp_path.rglob("report.html")
    chromium.open(page)
    chromium.wait("document.body.innerText.includes('Workflow')")
    assert not [problem for problem in chromium.problems() if not problem.startswith("http")]
