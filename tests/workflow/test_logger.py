"""What a build says: a line per job that starts and ends, a failing job's last lines, and nothing of its spec."""

import os

from tests.conftest import ROOT
from tests.workflow.conftest import snakemake

WITH = {"env": os.environ | {"PYTHONPATH": str(ROOT)}}
MODEL = "results/25112201.safetensors"


def test_a_line_for_each_job(tmp_path):
    """A job that starts and ends has two lines, with the progress; no command and no spec is shown."""
    said = snakemake(tmp_path, "vocabulary/vocab.json", "--logger", "astolfo", **WITH).stderr
    assert "[0/1] starts  vocabulary: vocabulary/vocab.json\n" in said
    assert "[1/1] done    vocabulary/vocab.json in " in said
    assert "--spec" not in said


def test_a_failing_job_shows_its_last_lines(tmp_path):
    """Of a job that fails, the log's end is shown, and no line is a wall of JSON; --verbose has the command."""
    (tmp_path / "pins.yaml").write_text(f"'25112201': {'0' * 64}\n")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/25112201.safetensors").write_bytes(b"nothing")
    done = snakemake(tmp_path, MODEL, "--logger", "astolfo", check=False, **WITH)
    assert done.returncode == 1
    assert f"FAILED  adopted: {MODEL}" in done.stderr
    assert "the last lines of logs/adopted-25112201.log:" in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 400
    whole = snakemake(tmp_path, MODEL, "--logger", "astolfo", "--verbose", check=False, **WITH)
    assert "--spec" in whole.stdout + whole.stderr


def test_a_dry_run_is_snakemakes_own(tmp_path):
    """What would be done is shown as without the plugin."""
    plain, ours = (snakemake(tmp_path, MODEL, "-n", *more, **WITH) for more in ((), ("--logger", "astolfo")))
    assert [line for line in ours.stdout.splitlines() if "segment" in line] == [
        line for line in plain.stdout.splitlines() if "segment" in line
    ]
