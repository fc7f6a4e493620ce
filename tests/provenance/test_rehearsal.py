"""A rehearsal says what it saw, what is expected, how often such findings were right, and what it cannot tell."""

import json
import sys

import pytest
from click.testing import CliRunner

from astolfo import program
from astolfo.cli import cli
from astolfo.errors import AstolfoError
from astolfo.ledger import load
from astolfo.provenance import rehearsal, verdicts

LEAST = """\
bases: {my-base: {}}
datasets: {my-pictures: {images: 20000}}
runs:
  my-first: {base: my-base, dataset: my-pictures, epochs: 4, learning_rate: {unet: 1.0e-5}}
"""
KNOWN = {"good": "works", "blurred": "works", "grey": "blur", "merged": "works after merge", "ended": "blur", "first": "blur"}


@pytest.fixture
def record(ledger, monkeypatch):
    """The program's ledger with verdicts on six of its runs: four as recorded, one that differs, one that is not comparable."""
    folder = ledger.folder
    path = folder / verdicts.FOLDER / "miniature" / "0.json"
    path.parent.mkdir(parents=True)
    judged = {run: {"sha256": "0", "objective": "v", "summary": [summary(word)]} for run, word in KNOWN.items()}
    path.write_text(json.dumps({"numerics": {"device": "cpu"}, "verdicts": judged}))
    monkeypatch.setattr(program, "CONFIG", folder)
    return folder


def summary(word):
    one = {"runtime": "v", "uncond": "null", "own": True, "verdict": word, "alpha": 1.0, "best": None, "works_at": []}
    return {**one, "sentence": f"It is {word}."}


def graph(word):
    """In the place of the graph: a command that leaves the numbers of an evaluation."""
    report = {"summary": [summary(word)], "models": {"trained": {"sha256": "0"}}, "objective": {"kind": "v"}}

    def command(directory, use, target):
        path = directory / target.replace("index.html", "metrics.json")
        code = f"import pathlib; p = pathlib.Path({str(path.absolute())!r}); p.parent.mkdir(parents=True); p.write_text({json.dumps(report)!r})"
        return [sys.executable, "-c", code]

    return command


def rehearsed(monkeypatch, folder, run, word, *options):
    """What the verb prints, by the subject of each line."""
    monkeypatch.setattr(program, "snakemake_command", graph(word))
    done = CliRunner().invoke(cli, [*options, "rehearse", run, "-d", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    return dict(line.split(": ", 1) for line in done.stdout.splitlines()[2:])


def test_a_recorded_run_is_held_against_its_outcome(record, tmp_path, monkeypatch):
    """What is expected is the record's own words; the run's own verdict on record does not count for the trust."""
    said = rehearsed(monkeypatch, tmp_path, "blurred", "blur", "--config", str(record))
    assert said["It saw"] == "v runtime, null uncond: It is blur."
    assert said["Expected"] == 'the ledger says "Failure with blur image.", and that is what was seen.'
    assert "of 4 other runs" in said["How far to trust it"]
    assert "gave 4 as recorded" in said["How far to trust it"]
    assert 'It said "blur" of 2 of them, and 2 were.' in said["How far to trust it"]
    assert "at 100 times its rates, less what bf16 rounds away at them, with fp32 weights for bf16" in said["It cannot tell"]


def test_a_run_of_ones_own_is_trusted_as_far_as_the_record_goes(record, tmp_path, monkeypatch):
    """In a ledger without verdicts the program's record counts, with what it got wrong, and one count for the outcomes that
    expect the same words; a run without an outcome expects nothing."""
    own = tmp_path / "own"
    (own / "config").mkdir(parents=True)
    (own / "config" / "ledger.yaml").write_text(LEAST)
    said = rehearsed(monkeypatch, own, "my-first", "works")
    assert said["Expected"] == "the ledger says no outcome of this run."
    assert "of 5 other runs whose outcome is known in such words the miniature gave 4 as recorded" in said["How far to trust it"]
    assert ', 2 of 3 that were to be "blur or broken". ' in said["How far to trust it"]
    assert said["How far to trust it"].endswith('It said "works" of 2 of them, and 1 were.')
    assert "--scale full plan my-first`)" in said["It cannot tell"]


def test_a_run_that_is_not_shortened_is_said_to_be_trained_harder(record, tmp_path, monkeypatch):
    """Of a small dataset all steps are made, at raised rates: the report says so, and of a large one nothing."""
    for images, said in ((24, True), (20_000, False)):
        own = tmp_path / str(images)
        (own / "config").mkdir(parents=True)
        (own / "config" / "ledger.yaml").write_text(LEAST.replace("20000", str(images)))
        found = rehearsed(monkeypatch, own, "my-first", "broken")
        assert ("about 100 times as hard" in found.get("Mind", "")) == said


def test_an_outcome_that_no_verdict_contradicts_is_only_told(record, tmp_path, monkeypatch):
    """What is no verdict (a first run) is neither confirmed nor differed from, and a word that was never said of a known run is said to be so."""
    said = rehearsed(monkeypatch, tmp_path, "first", "broken", "--config", str(record))
    assert said["Expected"] == 'the ledger says "Very first run.", which no verdict confirms or contradicts.'
    assert said["How far to trust it"].endswith('It never said "broken" of any.')


def test_a_directory_of_full_size_gets_a_folder_for_rehearsals(record, tmp_path, monkeypatch):
    """One directory holds one scale: the rehearsal lies within, and the directory's own files stay alone."""
    program.remember(tmp_path, program.Use(config=record, scale="full"))
    rehearsed(monkeypatch, tmp_path, "blurred", "blur")
    assert (tmp_path / "rehearsal" / "evaluations" / "blurred" / "metrics.json").exists()
    assert not (tmp_path / "evaluations").exists()


def test_a_rehearsal_that_stops_is_an_error(record, tmp_path, monkeypatch):
    """A build that fails is said to be one, with where its files are."""
    monkeypatch.setattr(program, "snakemake_command", lambda *_: [sys.executable, "-c", "raise SystemExit(1)"])
    ledger = load(record, "miniature")
    with pytest.raises(AstolfoError, match=f"did not come to its end.*{tmp_path}"):
        rehearsal.rehearse(ledger, ledger.run("blurred"), tmp_path)
