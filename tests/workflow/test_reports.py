"""Snakemake's own reports say sensible things of a built directory: --summary and --report."""

import zipfile

import pytest

from tests.site.conftest import chromium  # noqa: F401  the browser that the pages are tried in
from tests.workflow.conftest import snakemake

BASE = "bases/AK-NIL-1.2.safetensors"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    snakemake(folder, BASE)
    return folder


def test_the_summary_names_what_is_built(built):
    """Every output stands there with its rule, and none is to be made again."""
    rows = [line.split("\t") for line in snakemake(built, BASE, "--summary").stdout.splitlines() if "\t" in line]
    found = {row[0]: row for row in rows[1:]}
    assert found[BASE][rows[0].index("rule")] == "base_pinned"
    assert {row[-1].strip() for row in found.values()} == {"no update"}


def test_the_report_opens_in_a_browser(built, chromium, tmp_path):  # noqa: F811
    """`--report` writes a zip of a page; unpacked, it opens without an error and speaks of this workflow."""
    snakemake(built, BASE, "--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as file:
        file.extractall(tmp_path)
    (page,) = tmp_path.rglob("report.html")
    chromium.open(page)
    chromium.wait("document.body.innerText.includes('Workflow')")
    assert not [problem for problem in chromium.problems() if not problem.startswith("http")]
