"""What a build says: a line per job that starts and ends, a failing job's last lines, and nothing of its spec."""

import logging
import os
from types import SimpleNamespace

from tests.conftest import ROOT, SMALL
from tests.workflow.conftest import snakemake

WITH = {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "config": [f"ledger={SMALL}"]}
MODEL = "results/plain.safetensors"


def test_a_line_for_each_job(tmp_path):
    """A job that starts and ends has two lines, with the progress; no command and no spec is shown."""
    said = snakemake(tmp_path, "vocabulary/vocab.json", "--logger", "astolfo", **WITH).stderr
    assert "[0/1] starts  vocabulary: vocabulary/vocab.json\n" in said
    assert "[1/1] done    vocabulary/vocab.json in " in said
    assert "--spec" not in said


def test_a_failing_job_shows_its_last_lines(tmp_path):
    """Of a job that fails, the log's end is shown, and no line is a wall of JSON; --verbose has the command."""
    (tmp_path / "pins.yaml").write_text(f"plain: {'0' * 64}\n")
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/plain.safetensors").write_bytes(b"nothing")
    done = snakemake(tmp_path, MODEL, "--logger", "astolfo", check=False, **WITH)
    assert done.returncode == 1
    assert f"FAILED  adopted: {MODEL}" in done.stderr
    assert "the last lines of logs/adopted-plain.log:" in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 400
    whole = snakemake(tmp_path, MODEL, "--logger", "astolfo", "--verbose", check=False, **WITH)
    assert "--spec" in whole.stdout + whole.stderr


def test_a_dry_run_is_snakemakes_own(tmp_path):
    """What would be done is shown as without the plugin."""
    plain, ours = (snakemake(tmp_path, MODEL, "-n", *more, **WITH) for more in ((), ("--logger", "astolfo")))
    assert [line for line in ours.stdout.splitlines() if "segment" in line] == [
        line for line in plain.stdout.splitlines() if "segment" in line
    ]


def handler(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from snakemake_logger_plugin_astolfo import LogHandler

    made = LogHandler.__new__(LogHandler)
    made.common_settings = SimpleNamespace(stdout=False, verbose=False, dryrun=False)
    made.__post_init__()
    return made


def record(text, **about):
    return logging.makeLogRecord({"msg": text, "levelno": logging.ERROR, **about})


FAILED = {"event": "job_error", "jobid": 1, "rule_name": "segment", "output": ["states/x"], "log": []}
COMMAND = 'CalledProcessError in file "train.smk", line 47:\nCommand \'exec astolfo --spec {"a":\n1}\' '


def test_what_became_of_a_command_is_said_without_it(monkeypatch):
    """An exit status is told by the job's lines alone; a signal, which leaves no line in a log, is named."""
    made = handler(monkeypatch)
    assert made.text_of(record(COMMAND + "returned non-zero exit status 1.", event="error")) == ""
    said = made.text_of(record(COMMAND + "died with <Signals.SIGKILL: 9>.", event="error"))
    assert said.startswith("A job was ended by SIGKILL (by somebody, or by the system for want of memory)")
    assert "--spec" not in said
    assert made.text_of(record(None, **FAILED)).startswith("[0/0] FAILED  segment: states/x\n")


def test_what_a_user_interrupts_has_not_failed(monkeypatch):
    """After Ctrl-C, a job that ends early is said to be stopped, without the lines of its log."""
    made = handler(monkeypatch)
    assert made.text_of(record("Terminating processes on user request, this might take some time."))
    assert made.text_of(record(COMMAND + "died with <Signals.SIGINT: 2>.", event="error")) == ""
    assert made.text_of(record(None, **FAILED)) == "[0/0] stopped segment: states/x"
