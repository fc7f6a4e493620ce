"""A SLURM cluster of one node on the loopback: munge, a controller and a node daemon, all in one folder.

    with cluster(folder) as environment: ...        environment's PATH has its programs; raises Unavailable where it cannot start

It is Debian's slurm-wlm and munge, run as root, without a database of accounts. Its configuration is linked where SLURM looks
for it, since jobs get no SLURM_CONF; a machine that has one there already is left alone.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PARTITION = "miniature"
_PLACE = Path("/etc/slurm/slurm.conf")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_ASKED = 240  # times that the cluster is asked whether it is there: a busy machine answers more slowly

_CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
MinJobAge=600
ReturnToService=2
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName={partition} Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """This machine cannot run the cluster; the message says why."""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Runs the cluster as long as the block lasts; gives the environment in which sbatch finds it."""
    _install()
    with contextlib.ExitStack() as running:
        for name in ("state", "spool"):
            (folder / name).mkdir()
        folder.chmod(0o700)
        configuration = folder / "slurm.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=folder, host=socket.gethostname().split(".")[0], controller=_port(), daemon=_port(),
                cpus=os.cpu_count(), partition=PARTITION,
            )
        )  # fmt: skip
        _place(running, configuration)
        environment = {**os.environ, "PATH": _PATH}
        asked = {"env": environment, "capture_output": True, "text": True}
        daemons = [_start(running, folder, environment, *_munge(folder))]
        _until(lambda: (folder / "munge.socket").exists(), daemons, folder, "munged.out")
        daemons += [
            _start(running, folder, environment, *command) for command in (("slurmctld", "-D"), ("slurmd", "-D", "-N", "node"))
        ]
        idle = ["sinfo", "--noheader", "--states=idle", "--format=%N"]
        _until(lambda: "node" in subprocess.run(idle, **asked).stdout, daemons, folder, "slurmd.log")
        yield environment


def _install() -> None:
    """Has Debian's packages installed, saying so, where they are missing and this is root."""
    missing = [name for name in _PROGRAMS if not shutil.which(name, path=_PATH)]
    if not missing:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise Unavailable(f"{', '.join(missing)} missing, and only root on Debian installs them: apt-get install slurm-wlm munge")
    print(f"\ninstalling slurm-wlm and munge, since {', '.join(missing)} are missing", flush=True)
    found = subprocess.run(["apt-get", "install", "-y", "-q", "slurm-wlm", "munge"], capture_output=True, text=True)
    if found.returncode:
        raise Unavailable(f"apt-get install slurm-wlm munge failed: {found.stderr[-300:]}")


def _place(running: contextlib.ExitStack, configuration: Path) -> None:
    left = _PLACE.is_symlink() and _PLACE.readlink().parent.name.startswith("slurm-")  # by a test that was killed
    if os.geteuid() or (_PLACE.exists() and not left):
        raise Unavailable(f"it takes root, and a machine without a cluster of its own: {_PLACE}")
    _PLACE.unlink(missing_ok=True)
    _PLACE.parent.mkdir(exist_ok=True)
    _PLACE.symlink_to(configuration)
    running.callback(_PLACE.unlink)


def _munge(folder: Path) -> list[str]:
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    files = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "seed",
    }
    return ["munged", "--force", "--foreground", *(f"--{option}={folder / name}" for option, name in files.items())]


def _start(running: contextlib.ExitStack, folder: Path, environment: dict[str, str], *command: str) -> subprocess.Popen:
    log = running.enter_context((folder / f"{command[0]}.out").open("wb"))
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def stop() -> None:
        process.kill()
        process.wait()

    running.callback(stop)
    return process


def _until(holds, daemons: list[subprocess.Popen], folder: Path, log: str) -> None:
    for _ in range(_ASKED):
        if holds():
            return
        if any(daemon.poll() is not None for daemon in daemons):
            break
        time.sleep(0.5)
    said = (folder / log).read_text(errors="replace")[-500:] if (folder / log).exists() else "nothing"
    raise Unavailable(f"the cluster did not start; {log} says: {said}")


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
