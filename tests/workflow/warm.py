"""Snakemake in processes that are forked from one which has imported it already: imports are most of what a plan costs.

`run(arguments, cwd)` behaves as `subprocess.run([python, "-m", "snakemake", *arguments], cwd=cwd, capture_output=True, text=True)`.
The process that is forked knows nothing of this program, so a call imports the copy that its PYTHONPATH names, or the checkout.
"""

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# What Snakemake imports for every plan, partly late.
PRELOADED = (
    "snakemake.cli", "snakemake.dag", "snakemake.profiles", "snakemake.report.html_reporter", "snakemake.scheduling.job_scheduler",
    "smart_open", "platformdirs", "difflib", "pydantic", "yaml",
)  # fmt: skip
_servers: dict[int, subprocess.Popen] = {}  # by the process that started it: a forked one starts its own


def run(arguments, cwd, env=None, check=False) -> subprocess.CompletedProcess:
    """Calls Snakemake in the folder `cwd`; with `check` a failure is a CalledProcessError."""
    server = _servers.get(os.getpid()) or _started()
    arguments = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        environment = dict(os.environ if env is None else env)
        asked = {"arguments": arguments, "cwd": str(cwd), "environment": environment, "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process that Snakemake is forked from has ended"
        done = subprocess.CompletedProcess(["snakemake", *arguments], int(answer), out.read_text(), err.read_text())
    if check:
        done.check_returncode()
    return done


def _started():
    command = [sys.executable, "-P", __file__]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(_end, server)
    _servers[os.getpid()] = server
    return server


def _end(server):
    server.communicate()  # it ends when its input does


def serve() -> None:
    """Forks a process for every line of the input and answers with its exit status; returns in that process alone."""
    for name in PRELOADED:
        importlib.import_module(name)
    asked, answers = (os.fdopen(os.dup(number), mode) for number, mode in ((0, "r"), (1, "w")))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in iter(asked.readline, ""):
        child = os.fork()
        if child == 0:
            return _become(**json.loads(line))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()
    os._exit(0)


def _become(arguments, cwd, environment, out, err):
    """Makes this process what `python -m snakemake` would be there."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[:0] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [str(Path(sys.modules["snakemake"].__file__).with_name("__main__.py")), *arguments]
    for number, name in ((1, out), (2, err)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)


if __name__ == "__main__":
    serve()
    from snakemake.cli import main

    sys.exit(main())
