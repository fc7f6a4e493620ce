"""What a build says while it runs: `snakemake ... --logger astolfo` (`make` says it).

A line for each job that starts and ends, with how far the build is; of a job that fails, the last lines of its log. Commands and
their specs are left to `--verbose`, which gives Snakemake's own output, as a dry run does.
"""

import re
import sys
import time
from collections import deque
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

_LAST = 12  # lines of a failed job's log
_WIDE = 300  # characters of a line that are shown; a log's lines are sentences, and shown whole
_STEPS = ("Select jobs to execute", "Using shell:", "Assuming unrestricted shared filesystem")  # of Snakemake's own work
_INTERRUPTED = "Terminating processes on user request"
_COMMAND = re.compile(r"Command '.*' (?:returned non-zero exit status \d+|died with <Signals\.(\w+): \d+>)\.", re.DOTALL)
_SILENT = {
    LogEvent.SHELLCMD, LogEvent.RUN_INFO, LogEvent.RESOURCES_INFO, LogEvent.WORKFLOW_STARTED, LogEvent.JOB_STARTED,
    LogEvent.PROGRESS, LogEvent.RULEGRAPH, LogEvent.DEBUG_DAG,
}  # fmt: skip


class LogHandler(LogHandlerBase):
    """Snakemake's log, a line per event."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self.stream = sys.stdout if settings.stdout else sys.stderr
        self.jobs: dict[int, tuple[str, float]] = {}  # number -> what it makes, when it began
        self.done, self.total, self.interrupted = 0, 0, False
        self.whole = None
        if settings.verbose or settings.dryrun:
            self.whole = ColorizingTextHandler(nocolor=settings.nocolor, stream=self.stream)
            self.whole.setFormatter(DefaultFormatter(settings.quiet, settings.show_failed_logs))

    def emit(self, record: LogRecord) -> None:
        """Writes what a record says, if it is for a reader."""
        if self.whole is not None:
            self.whole.emit(record)
        elif text := self.text_of(record):
            print(text, file=self.stream, flush=True)

    def text_of(self, record: LogRecord) -> str:
        """The text of a record; "" for what is only counted."""
        event, about = getattr(record, "event", None), vars(record)
        if event == LogEvent.RUN_INFO:
            self.total = about.get("stats", {}).get("total", self.total)
        if event in _SILENT:
            return ""
        if event == LogEvent.JOB_INFO:
            return self._starts(about)
        if event == LogEvent.JOB_FINISHED:
            return self._ends(about)
        if event == LogEvent.JOB_ERROR:
            return self._fails(about)
        text = record.getMessage().strip() if record.msg is not None else ""
        if text.startswith(_STEPS):
            return ""
        self.interrupted |= text.startswith(_INTERRUPTED)
        if (command := _COMMAND.search(text)) is not None:
            return (
                "" if self.interrupted else _ended_by(command[1])
            )  # a job's command, with its spec: what became of it is told by the job's own lines
        return "\n".join(_cut(line) for line in text.splitlines())

    def _starts(self, about: dict[str, Any]) -> str:
        name = about["output"][0] if about["output"] else about["rule_name"]
        self.jobs[about["jobid"]] = (name, time.monotonic())
        return f"{self._progress()} starts  {about['rule_name']}: {name}"

    def _ends(self, about: dict[str, Any]) -> str:
        self.done += 1
        name, begun = self.jobs.pop(about["job_id"], (f"job {about['job_id']}", time.monotonic()))
        return f"{self._progress()} done    {name} in {_duration(time.monotonic() - begun)}"

    def _fails(self, about: dict[str, Any]) -> str:
        name, _ = self.jobs.pop(about["jobid"], (", ".join(about["output"]) or about["rule_name"], 0.0))
        if self.interrupted:
            return f"{self._progress()} stopped {about['rule_name']}: {name}"
        lines = [f"{self._progress()} FAILED  {about['rule_name']}: {name}"]
        for log in about["log"]:
            lines += [f"    the last lines of {log}:", *(f"    | {line}" for line in _tail(Path(str(log).split(" ")[0])))]
        return "\n".join([*lines, "    (its whole command: --verbose, or make ... VERBOSE=1)"])

    def _progress(self) -> str:
        width = len(str(self.total))
        return f"[{self.done:{width}}/{self.total}]"

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False  # Snakemake's own: what --quiet is to leave out

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False


def _tail(log: Path) -> list[str]:
    """The last lines of a log."""
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            return [line.rstrip() for line in deque(lines, _LAST)] or ["(it is empty)"]
    except OSError as error:
        return [f"(it cannot be read: {error.strerror})"]


def _ended_by(signal: str | None) -> str:
    """What is to be said of a command's end besides that it failed: nothing, or the signal, of which no log can tell."""
    if signal is None:
        return ""
    why = " (by somebody, or by the system for want of memory)" if signal == "SIGKILL" else ""
    return f"A job was ended by {signal}{why}; what is finished stays."


def _cut(line: str) -> str:
    return line if len(line) <= _WIDE else f"{line[:_WIDE]} ... ({len(line) - _WIDE:,} characters more: --verbose)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
