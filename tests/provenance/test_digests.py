"""Recorded digests, those of the record at the end: what `astolfo verify` says of a working directory."""

import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from astolfo.checkpoint.safefile import write_file
from astolfo.cli import cli
from astolfo.errors import InputError
from astolfo.files import sha256_of, write_json, write_sidecar
from astolfo.ledger import load, table
from astolfo.ledger.references import Reference
from astolfo.numerics import numerics_class
from astolfo.provenance import digests
from astolfo.provenance import reproduce as again
from astolfo.provenance.compare import bounds_of
from astolfo.provenance.verdicts import columns as verdict_columns
from astolfo.provenance.verdicts import records as verdict_records
from astolfo.site.facts import gather
from tests.conftest import CONFIG, ROOT

HERE, ELSEWHERE = {"processor": "this one"}, {"processor": "another"}


@pytest.fixture
def built(ledger, tmp_path):
    """A working directory that holds every model of the ledger, each of one number."""
    for reference in digests.models(ledger):
        path = tmp_path / "work" / reference.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, {"x": np.zeros(1, np.float32)}, {"modelspec.title": str(reference)})
    return tmp_path / "work"


def verdicts(ledger, folder, numerics=HERE):
    return {finding.name: finding.verdict for finding in digests.compare(ledger, folder, numerics)}


def test_every_kind_of_model_is_verified(ledger):
    """Results, the merges that outcomes name, and the bases that the graph makes."""
    names = {str(reference) for reference in digests.models(ledger)}
    assert {"good", "merged", "merged-0.55", "made"} <= names
    assert not {"own", "sdxl-vae", "helper"} & names


def test_what_was_recorded_is_identical(ledger, built):
    """A record of a directory finds each of its models identical, whatever machine looks at it."""
    digests.record(ledger, built, HERE)
    assert set(verdicts(ledger, built).values()) == {digests.IDENTICAL}
    assert set(verdicts(ledger, built, ELSEWHERE).values()) == {digests.IDENTICAL}


def test_two_classes_keep_their_records(ledger, built):
    """The record of one class leaves another's alone, and a file of either is a recorded one."""
    digests.record(ledger, built, HERE)
    first = sha256_of(built / "results/good.safetensors")
    write_file(built / "results/good.safetensors", {"x": np.ones(1, np.float32)}, {})
    digests.record(ledger, built, ELSEWHERE)
    assert digests.recorded(ledger, HERE)["good"] == first
    assert digests.recorded(ledger, ELSEWHERE)["good"] == sha256_of(built / "results/good.safetensors")
    assert verdicts(ledger, built)["good"] == verdicts(ledger, built, ELSEWHERE)["good"] == digests.IDENTICAL


def test_what_differs_is_told_with_what_to_do(ledger, built):
    """Another file is said to differ on every machine: with a way to see how close it is where other bytes are no fault."""
    digests.record(ledger, built, HERE)
    write_file(built / "results/good.safetensors", {"x": np.ones(1, np.float32)}, {})
    for machine, said in (
        (HERE, "class is on record, so the recorded bytes are promised"),
        (ELSEWHERE, "compare RECORDED_FILE FILE"),
    ):
        findings = digests.compare(ledger, built, machine)
        assert {one.name for one in findings if one.verdict == digests.DIFFERS} == {"good"}
        last = digests.report(ledger, findings, machine).splitlines()[-1]
        assert said in last
        assert "numpy" not in last  # versions are printed where they are asked for


def test_one_function_decides_for_the_site_too(ledger, built):
    """The site says of each model what `astolfo verify` says."""
    digests.record(ledger, built, HERE)
    write_file(built / "results/good.safetensors", {"x": np.ones(1, np.float32)}, {})
    shown = gather(ledger, built).models
    for name, verdict in verdicts(ledger, built, ELSEWHERE).items():
        assert shown[name].verdict == verdict, name


@pytest.mark.parametrize("machine", [HERE, ELSEWHERE])
def test_a_rebuilt_file_is_compared_with_any_record(ledger, built, tmp_path, monkeypatch, machine):
    """`astolfo reproduce` without the file itself takes the recorded digest, whichever class it is of, and says what to do."""
    name = Reference(run="good")
    digests.record(ledger, built, HERE)
    monkeypatch.setattr(again, "class_here", lambda _: machine)
    value = 0

    def build(_ledger, reference, folder):
        write_file(folder / reference.path, {"x": np.full(1, value, np.float32)}, {"modelspec.title": str(reference)})

    monkeypatch.setattr(again, "_build", build)
    found = again.reproduce(ledger, name, tmp_path / "empty", tmp_path / "same", bounds_of(ledger))
    assert str(found) == "good.safetensors: reproduced, identical to the record"
    value = 1
    found = again.reproduce(ledger, name, tmp_path / "empty", tmp_path / "other", bounds_of(ledger))
    advice = "is on record, so the recorded bytes are promised here" if machine == HERE else "is not on record"
    assert found.comparison.verdict == "different"
    assert f"expected sha256 {sha256_of(built / name.path)}, found {sha256_of(found.rebuilt)}" in str(found)
    assert f"This machine's numerics class {advice}" in str(found)


def test_one_line_says_whether_a_file_is_the_recorded_one(ledger, built):
    """`astolfo verify FILE --digest`, with which `make results/RUN.safetensors` ends: the sha256, and whether it is on record."""
    path, arguments = built / "results/good.safetensors", ["--config", str(ledger.folder), "verify", "--digest"]
    say = lambda: CliRunner().invoke(cli, [*arguments, str(path), "-d", str(built)]).output  # noqa: E731
    assert say() == f"{path}: sha256 {sha256_of(path)}; none is on record\n"
    digests.record(ledger, built, HERE)
    before = sha256_of(path)
    assert say() == f"{path}: sha256 {before}, the recorded one\n"
    write_file(path, {"x": np.ones(1, np.float32)}, {})
    assert say().startswith(f"{path}: sha256 {sha256_of(path)}, not the recorded one, {before}. This machine's numerics class")


def test_two_classes_that_agree_in_everything_are_one(ledger, built):
    """Where another class builds the whole record to the same bytes it joins the record, until it builds something else."""
    first = digests.record(ledger, built, HERE)
    assert digests.record(ledger, built, ELSEWHERE) == first
    assert set(verdicts(ledger, built, ELSEWHERE).values()) == {digests.IDENTICAL}
    assert digests.same_class(ledger, HERE, ELSEWHERE)
    assert [digests.record(ledger, built, HERE), digests.record(ledger, built, ELSEWHERE)] == [first, first]
    assert digests.classes(digests.records(ledger)[0]) == [HERE, ELSEWHERE]
    write_file(built / "results/good.safetensors", {"x": np.ones(1, np.float32)}, {})
    assert digests.record(ledger, built, ELSEWHERE) != first
    assert not digests.same_class(ledger, HERE, ELSEWHERE)
    assert digests.recorded(ledger, HERE)["good"] != digests.recorded(ledger, ELSEWHERE)["good"]


def test_a_difference_a_damage_and_a_gap_are_told_apart(ledger, built):
    """Other bytes with their own side-car differ; bytes that are not the side-car's are damaged; no file is not built."""
    digests.record(ledger, built, HERE)
    (built / "results/good.safetensors").write_text("other bits")
    write_sidecar(built / "results/good.safetensors")
    (built / "results/blurred.safetensors").write_text("rot")
    (built / "results/nearly.safetensors").unlink()
    found = verdicts(ledger, built)
    assert [found[run] for run in ("good", "blurred", "nearly")] == ["differs", "damaged", "not built"]


def test_what_is_not_built_is_counted(ledger, tmp_path):
    """`astolfo verify` has a line for each model that is there, and one count for all that are not."""
    path = tmp_path / "work/results/good.safetensors"
    path.parent.mkdir(parents=True)
    for count in (0, 1):
        done = CliRunner().invoke(cli, ["--config", str(ledger.folder), "verify", "-d", str(tmp_path / "work")])
        lines = done.output.splitlines()
        assert done.exit_code == 0
        assert len(lines) == count + 1
        assert f" {len(digests.models(ledger)) - count} not built" in lines[-1]
        write_file(path, {"x": np.zeros(1, np.float32)}, {})
    assert lines[0].split() == ["good", "built", sha256_of(path)]  # no digest at all is recorded


def test_a_record_is_whole(ledger, built):
    """With a model missing nothing is recorded."""
    (built / "results/nearly.safetensors").unlink()
    with pytest.raises(InputError, match="1 of .* not built or damaged .nearly"):
        digests.record(ledger, built, HERE)


def test_the_command_says_both_digests(ledger, built):
    """`astolfo verify` prints what was found and what was recorded, and exits with 1 when a model differs."""
    arguments = ["--config", str(ledger.folder), "verify", "--directory", str(built)]
    assert CliRunner().invoke(cli, [*arguments, "--record"]).exit_code == 0
    path = built / "results/good.safetensors"
    before = sha256_of(path)
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    path.write_text("other bits")
    write_sidecar(path)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    whole = subprocess.run([sys.executable, "-m", "astolfo", *arguments], cwd=ROOT, capture_output=True)
    assert whole.returncode == 1
    assert f"{sha256_of(path)}  (recorded: {before})" in done.output


def test_the_table_tells_what_became_of_each_run(ledger):
    """A run that stopped says why, one that should have failed and did not is marked as differing, others are trained."""
    write_json(
        ledger.folder / digests.FOLDER / "miniature" / "x.json",
        {"numerics": {"device": "cpu"}, "sha256": {"good": "a" * 64, "wrong": "b" * 64, "ended": "c" * 64},
         "stopped": {"ended": "at step 55,000"}},
    )  # fmt: skip
    shown = table.markdown(ledger, table.COLUMNS | digests.columns(ledger))
    rows = {line.split("|")[1].strip(): line for line in shown.splitlines() if line.startswith("| ")}
    assert "| trained to its end | `aaaaaaaaaaaaaaaa` |" in rows["good"]
    assert "every number finite: **differs** | `bbbbbbbbbbbbbbbb` |" in rows["wrong"]
    assert "| stopped at step 55,000 | `cccccccccccccccc` |" in rows["ended"]
    assert "| not built |" in rows["first"]


def test_the_shipped_record_covers_the_ledger():
    """Each recorded class has a digest for every model of the record, and for nothing else."""
    names = {str(reference) for reference in digests.models(load(CONFIG))}
    found = digests.records(load(CONFIG))
    assert found
    for record in found:
        assert set(record["sha256"]) == names


def test_one_class_of_the_cpu_is_on_record():
    """Digests and verdicts have one record of the CPU each, and it is of the class in which every x86-64 processor computes."""
    for shipped in (digests.records(load(CONFIG)), verdict_records(load(CONFIG))):
        on_cpu = [one for record in shipped for one in digests.classes(record) if one["device"] == "cpu"]
        assert on_cpu == [numerics_class()]


def test_the_readme_states_the_digest():
    """The sha256 that a newcomer compares with is the recorded one, in the README and in docs/reproduce.md."""
    (recorded,) = {one["sha256"]["25112201"] for one in digests.records(load(CONFIG)) if one["numerics"]["device"] == "cpu"}
    for page in (ROOT / "README.md", ROOT / "docs/reproduce.md"):
        assert [line for line in page.read_text().splitlines() if recorded in line], f"{page} does not say {recorded}"


def test_a_page_shows_a_lineage_of_recorded_digests():
    """The files of the lineage in docs/reproduce.md have the digests of the record, and the base that of the shipped file."""
    (record,) = (one for one in digests.records(load(CONFIG)) if one["numerics"]["device"] == "cpu")
    known = record["sha256"] | {"AK-NIL-1.2": load(CONFIG).origin("AK-NIL-1.2").sha256}
    shown = re.findall(r"(\S+)\.safetensors  \[sha256 (\w{12}),", (ROOT / "docs/reproduce.md").read_text())
    assert len(shown) == 3
    assert [name for name, digest in shown if not known[name.partition("/")[2]].startswith(digest)] == []


def test_the_shipped_table_is_current():
    """docs/ledger.md is what `make docs/ledger.md` writes."""
    found = load(CONFIG)
    columns = table.COLUMNS | verdict_columns(found) | digests.columns(found)
    assert (ROOT / "docs/ledger.md").read_text() == table.markdown(found, columns) + "\n"
