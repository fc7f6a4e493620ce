"""Snakemake's own reports say sensible things of a built directory: --summary, --list-changes, --report and --archive."""

import os
import subprocess
import tarfile
import zipfile

import pytest
import yaml
from PIL import Image

from tests.conftest import CONFIG, ROOT
from tests.site.conftest import chromium  # noqa: F401  the browser that the pages are tried in
from tests.workflow.conftest import snakemake

BASE = "bases/own.safetensors"
EVALUATION = "evaluations/25112201"


def ledger(folder, objective):
    """A ledger beside the working directory, of one base, whose stand-in is made in a second."""
    folder = folder.with_name(f"{folder.name}-ledger")
    folder.mkdir(exist_ok=True)
    (folder / "ledger.yaml").write_text(yaml.safe_dump({"bases": {"own": {"objective": objective}}}))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A working directory with that base, whose ledger was named by a relative path."""
    folder = tmp_path_factory.mktemp("reported")
    snakemake(folder, BASE, config=[f"ledger={os.path.relpath(ledger(folder, 'eps'), folder)}"])
    return folder


def summary(folder):
    """Column -> value, of each output."""
    rows = [line.split("\t") for line in snakemake(folder, BASE, "--summary").stdout.splitlines() if "\t" in line]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}


def changes(folder, kind):
    said = snakemake(folder, BASE, "--list-changes", kind).stdout
    return [line for line in said.splitlines() if line.startswith("bases/")]


def test_what_is_built_is_said_to_be_as_it_should(built):
    """Every output has its rule, nothing is to be made again, and neither code nor inputs have changed, however the ledger is named."""
    found = summary(built)
    assert set(found) == {BASE, f"{BASE}.sha256", f"{BASE}.attestation.json"}
    assert {(row["rule"], row["status"], row["plan"].strip()) for row in found.values()} == {("base_stand_in", "ok", "no update")}
    assert changes(built, "code") == changes(built, "input") == []


def test_what_the_ledger_changed_is_named(built):
    """Another objective in the ledger: the summary names the outputs that it touches, and a dry run the reason."""
    ledger(built, "v")
    try:
        found = {(row["status"], row["plan"].strip()) for row in summary(built).values()}
        assert found == {("params changed", "update pending")}
        assert set(changes(built, "params")) == set(summary(built))
        assert "Params have changed" in snakemake(built, BASE, "-n").stdout
    finally:
        ledger(built, "eps")


def click(browser, text):
    browser.value(f"[...document.querySelectorAll('a')].find(one => one.innerText.trim() === {text!r}).click()")


def test_the_report_opens_in_a_browser(chromium, tmp_path):  # noqa: F811
    """`--report` writes a zip of a page: unpacked, it draws the graph, lists the evaluation and shows its picture, and asks no host."""
    (tmp_path / EVALUATION).mkdir(parents=True)
    Image.new("RGB", (64, 48), "teal").save(tmp_path / EVALUATION / "grid.png")
    (tmp_path / EVALUATION / "index.html").write_text("<!doctype html><title>An evaluation</title>")
    (tmp_path / EVALUATION / "metrics.json").write_text("{}")
    snakemake(tmp_path, f"{EVALUATION}/index.html", "--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as file:
        file.extractall(tmp_path / "unpacked")
    (page,) = (tmp_path / "unpacked").rglob("report.html")
    chromium.open(page)
    chromium.wait("document.body.innerText.includes('What was built from the ledger')")
    chromium.wait("document.querySelector('canvas')?.clientHeight > 100")
    drawn = "(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some(value => value > 0))"
    chromium.wait(f"{drawn}(document.querySelector('canvas'))")
    click(chromium, "Results")
    chromium.wait("document.body.innerText.includes('25112201')")
    assert "Evaluations" in chromium.value("document.body.innerText")
    chromium.value("document.querySelector('[iconname=eye]').click()")
    chromium.wait("[...document.querySelectorAll('img')].some(one => one.naturalWidth === 64 && one.naturalHeight === 48)")
    assert chromium.problems() == []


@pytest.mark.slow
def test_an_archive_holds_a_checkouts_files(tmp_path):
    """`--archive` in a checkout packs the workflow, the ledger, the locks and the program; of a folder apart, no workflow."""
    checkout, apart = tmp_path / "checkout", tmp_path / "apart"
    apart.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    arguments = ("vocabulary/vocab.json", "--archive")
    for directory in (checkout, apart):
        command = [*arguments, str(tmp_path / f"{directory.name}.tar.gz"), "--snakefile", str(checkout / "Snakefile")]
        snakemake(directory, *command, env=os.environ | {"PYTHONPATH": str(checkout)})
    with tarfile.open(tmp_path / "checkout.tar.gz") as file:
        names = set(file.getnames())
    assert {"Snakefile", "workflow/rules/train.smk", "envs/lock.txt", "astolfo/cli.py"} <= names
    assert {f"config/{path.name}" for path in CONFIG.glob("*.yaml")} <= names
    with tarfile.open(tmp_path / "apart.tar.gz") as file:
        assert not [name for name in file.getnames() if name.endswith(".smk")]
