"""Several machines: processes that torchrun has started, in whatever grouping, give the bits of one process."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from astolfo.errors import PlacementError
from astolfo.files import canonical_json, write_sidecar
from astolfo.train import placement, ranks
from astolfo.train.segment import Placement, train_segment
from tests.train.conftest import digest, in_child


def launch(machines, each, work):
    """Runs `work` in processes with the environment that torchrun gives to `each` on every machine; their exit statuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for number in range(machines * each):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number % each), "WORLD_SIZE": str(machines * each),
                           "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
            os._exit(in_child(work))
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize(("machines", "each"), [(1, 4), (2, 2), (4, 1), (2, 1)])
def test_machines_leave_no_trace(undisturbed, spec_of, inputs, tmp_path, machines, each):
    """Four logical ranks on 1x4, 2x2, 4x1 or 2x1 processes give the state of one process that was started alone."""
    spec = spec_of(0, 1, accumulation=1, steps_per_epoch=None)
    out = tmp_path / "launched" / "00000001.safetensors"
    expected = digest(undisturbed(spec))
    assert set(launch(machines, each, lambda: train_segment(spec, inputs, None, out, Placement()))) == {0}
    assert digest(out) == expected


def test_a_world_that_does_not_divide_the_ranks_is_refused(spec_of, inputs, tmp_path):
    """Three processes cannot run four logical ranks: every one of them says so and ends."""

    def work():
        with pytest.raises(PlacementError, match="use a divisor of 4"):
            train_segment(spec_of(0, 1), inputs, None, tmp_path / "x" / "00000001.safetensors", Placement())

    assert launch(3, 1, work) == [0, 0, 0]


@pytest.mark.slow
def test_torchrun_itself(undisturbed, spec_of, inputs, tmp_path):
    """Two agents of torchrun, as on two machines, train by the command line to the same file."""
    spec = spec_of(0, 1, accumulation=1, steps_per_epoch=None)
    out, expected = tmp_path / "torchrun" / "00000001.safetensors", digest(undisturbed(spec))
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    write_sidecar(inputs.vocabulary / "vocab.json")
    job = ["-m", "astolfo", "job", "train", "--spec", f"@{tmp_path / 'spec.json'}", "--dataset", str(inputs.dataset),
           "--vocabulary", str(inputs.vocabulary), "--out", str(out)]  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1",
             "--master-addr", "127.0.0.1", "--master-port", str(port), *job],
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    said = [agent.communicate()[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert digest(out) == expected


CONFIGURATION = """
compute_environment: LOCAL_MACHINE
distributed_type: {kind}
enable_cpu_affinity: {affinity}
main_process_ip: 127.0.0.1
main_training_function: main
mixed_precision: bf16
num_machines: {machines}
num_processes: 2
rdzv_backend: static
same_network: true
use_cpu: {cpu}
"""
MPIRUN = """\
#!/bin/sh
# Open MPI's command line and environment, every host of the hostfile being this one.
[ "$1" = --version ] && { echo "mpirun (Open MPI) 4.1.4"; exit; }
[ "$1 $3 $4 $5 $6 $7 $8" = "--hostfile --npernode 1 -n 2 --bind-to socket" ] || { echo "not understood: $*"; exit 2; }
shift 8
for rank in 0 1; do
    OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=$rank OMPI_COMM_WORLD_LOCAL_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0 "$@" &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid" || exit 1; done
"""


def accelerate(tmp_path, inputs, spec, out, machines, *options, path="", **given):
    """`accelerate launch` on each of `machines` with one configuration; exit statuses and what was said."""
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    about = {"kind": "MULTI_GPU", "cpu": "false", "affinity": "false", "machines": machines} | given
    (tmp_path / "accelerate.yaml").write_text(CONFIGURATION.format(**about))
    write_sidecar(inputs.vocabulary / "vocab.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "PATH": f"{path}{os.environ['PATH']}"}
    launchers = [
        subprocess.Popen(
            [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "accelerate.yaml"),
             "--machine_rank", str(machine), "--main_process_port", str(port), *options, "-m", "astolfo", "job", "train",
             "--spec", f"@{tmp_path / 'spec.json'}", "--dataset", str(inputs.dataset), "--vocabulary", str(inputs.vocabulary),
             "--out", str(out)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for machine in range(1 if options else machines)
    ]  # fmt: skip
    said = [launcher.communicate()[0] for launcher in launchers]
    return [launcher.returncode for launcher in launchers], said


@pytest.mark.slow
@pytest.mark.parametrize(("machines", "affinity"), [(1, "false"), (2, "false"), (2, "true")])
def test_accelerate_itself(train, spec_of, inputs, tmp_path, machines, affinity):
    """`accelerate launch` with a user's configuration, for one machine or as on two, trains by the command line to the same file."""
    spec = spec_of(0, 1, accumulation=1, steps_per_epoch=None)
    out, expected = tmp_path / "accelerate" / "00000001.safetensors", digest(train(spec))
    codes, said = accelerate(tmp_path, inputs, spec, out, machines, affinity=affinity)
    assert set(codes) == {0}, said
    assert digest(out) == expected


@pytest.mark.slow
def test_accelerate_on_the_cpus_of_two_machines(train, spec_of, inputs, tmp_path):
    """MULTI_CPU, which accelerate has mpirun start on each machine of a hostfile: the same file."""
    spec = spec_of(0, 1, accumulation=1, steps_per_epoch=None)
    out, expected = tmp_path / "accelerate" / "00000001.safetensors", digest(train(spec))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mpirun").write_text(MPIRUN)
    (tmp_path / "bin" / "mpirun").chmod(0o755)
    (tmp_path / "hosts").write_text("127.0.0.1\n127.0.0.1\n")
    options = ("--mpirun_hostfile", str(tmp_path / "hosts"))
    codes, said = accelerate(tmp_path, inputs, spec, out, 2, *options, path=f"{tmp_path / 'bin'}:", kind="MULTI_CPU", cpu="true")
    assert codes == [0], said
    assert digest(out) == expected


def test_accelerate_without_mpirun_trains_nothing_twice(monkeypatch):
    """MULTI_CPU without mpirun starts one process a machine that knows of no other: refused, with what to add."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("ACCELERATE_USE_CPU", "True"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    with pytest.raises(PlacementError, match="--mpirun_hostfile"):
        ranks.launched()


def test_affinity_is_that_of_the_devices_node(monkeypatch, tmp_path):
    """With `enable_cpu_affinity`, a process keeps to the CPUs of the NUMA node that its GPU is attached to."""
    folder = tmp_path / "0000:3b:00.0"
    folder.mkdir()
    (folder / "numa_node").write_text("1\n")
    monkeypatch.setattr(placement, "_PCI", tmp_path)
    assert placement.node_of(0, 0x3B, 0) == 1
    assert placement.node_of(0, 0x5E, 0) is None
    (folder / "numa_node").write_text("-1\n")
    assert placement.node_of(0, 0x3B, 0) is None
    bound, joined = [], []
    monkeypatch.setattr(ranks, "bind", bound.append)
    monkeypatch.setattr(ranks, "node_of", lambda domain, bus, device: bus)
    monkeypatch.setattr(ranks.torch.cuda, "set_device", joined.append)
    about = SimpleNamespace(pci_domain_id=0, pci_bus_id=7, pci_device_id=0)
    monkeypatch.setattr(ranks.torch.cuda, "get_device_properties", lambda: about)
    for name in ("init_process_group", "get_world_size", "get_rank"):
        monkeypatch.setattr(ranks.torch.distributed, name, lambda *_, **__: 1)
    for value, device in (("1", "cuda"), ("1", "cpu"), ("0", "cuda")):
        monkeypatch.setenv("ACCELERATE_CPU_AFFINITY", value)
        monkeypatch.setenv("LOCAL_RANK", "3")
        ranks._join(device)
    assert (bound, joined) == ([7], [3, 3])
