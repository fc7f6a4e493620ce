"""Recorded verdicts, those of the record at the end: written by a verb, kept by numerics class, shown beside the record's outcomes."""

import json

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import InputError
from astolfo.ledger import load, table
from astolfo.provenance import digests, verdicts
from tests.conftest import CONFIG

ERAS = ("2511a", "2511b", "2601", "2602")


def evaluated(folder, run, word, alpha=1.0):
    """Leaves the numbers of an evaluation in `folder`."""
    one = {"runtime": "v", "uncond": "null", "own": True, "verdict": word, "alpha": alpha, "best": alpha, "works_at": [alpha]}
    report = {
        "summary": [{**one, "sentence": "Said.", "cells": [0]}],
        "models": {"trained": {"sha256": "0" * 64}},
        "objective": {"kind": "v"},
    }
    path = folder / "evaluations" / run / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(report))


def test_verdicts_stand_beside_the_outcome(ledger, tmp_path):
    """A run that works where the record says so is as recorded; one that does not differs; a partial outcome is "kinda works"."""
    for run, word in (
        ("good", "works"),
        ("blurred", "works"),
        ("merged", "works after merge"),
        ("nearly", "kinda works"),
    ):
        evaluated(tmp_path, run, word, alpha=0.55 if "merge" in word else 1.0)
    arguments = ["--config", str(ledger.folder), "verdicts", "--directory", str(tmp_path)]
    assert "4 recorded in" in CliRunner().invoke(cli, [*arguments, "--record"], catch_exceptions=False).output
    shown = table.markdown(ledger, table.COLUMNS | verdicts.columns(ledger))
    rows = {line.split("|")[1].strip(): line for line in shown.splitlines() if line.startswith("| ")}
    assert rows["good"].endswith("| null uncond works: as recorded |")
    assert rows["blurred"].endswith("| null uncond works: **differs** |")
    assert rows["merged"].endswith("| null uncond works after merge (best at 0.55): as recorded |")
    assert rows["nearly"].endswith("| null uncond kinda works: as recorded |")
    assert rows["grey"].endswith("|  |")
    assert "v runtime, null uncond: Said." in CliRunner().invoke(cli, arguments, catch_exceptions=False).output


def test_a_record_grows(ledger, tmp_path):
    """What is recorded later is added, another numerics class is left alone, and an empty folder is an error."""
    with pytest.raises(InputError, match="holds no evaluation"):
        verdicts.record(ledger, tmp_path, {"processor": "a"})
    evaluated(tmp_path / "first", "blurred", "blur")
    evaluated(tmp_path / "second", "good", "works")
    path, _ = verdicts.record(ledger, tmp_path / "first", {"processor": "a"})
    verdicts.record(ledger, tmp_path / "second", {"processor": "b"})
    assert verdicts.record(ledger, tmp_path / "second", {"processor": "a"}) == (path, 1)
    assert [
        sorted(one["verdicts"]) for one in sorted(verdicts.records(ledger), key=lambda one: one["numerics"]["processor"])
    ] == [
        ["blurred", "good"],
        ["good"],
    ]


def test_damaged_numbers_are_refused(ledger, tmp_path):
    """An evaluation that is no report is named, with what to do."""
    evaluated(tmp_path, "blurred", "blur")
    (tmp_path / "evaluations/blurred/metrics.json").write_text("{}")
    with pytest.raises(InputError, match=r"blurred/metrics\.json is no evaluation of this version .* make it again"):
        verdicts.found_in(ledger, tmp_path)


def test_the_shipped_record_covers_its_eras():
    """Every run that the record lists in 2511a to 2602 has its verdicts, over the recorded bytes of its result."""
    found = load(CONFIG)
    wanted = {run.id for run in found.runs.values() if run.era.era in ERAS and run.counts}
    assert verdicts.records(found)
    for one in verdicts.records(found):
        assert set(one["verdicts"]) == wanted
        for run, judged in one["verdicts"].items():
            assert judged["sha256"] in {known["sha256"][run] for known in digests.records(found)}
