"""Several machines: processes that torchrun has started, in whatever grouping, give the bits of one process."""

import os
import socket
import subprocess
import sys

import pytest

from astolfo.errors import PlacementError
from astolfo.files import canonical_json, write_sidecar
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
def test_machines_leave_no_trace(train, spec_of, inputs, tmp_path, machines, each):
    """Four logical ranks on 1x4, 2x2, 4x1 or 2x1 processes give the state of one process that was started alone."""
    spec = spec_of(0, 1, accumulation=1, steps_per_epoch=None)
    out = tmp_path / "launched" / "00000001.safetensors"
    assert set(launch(machines, each, lambda: train_segment(spec, inputs, None, out, Placement()))) == {0}
    assert digest(out) == digest(train(spec))


def test_a_world_that_does_not_divide_the_ranks_is_refused(spec_of, inputs, tmp_path):
    """Three processes cannot run four logical ranks: every one of them says so and ends."""

    def work():
        with pytest.raises(PlacementError, match="use a divisor of 4"):
            train_segment(spec_of(0, 1), inputs, None, tmp_path / "x" / "00000001.safetensors", Placement())

    assert launch(3, 1, work) == [0, 0, 0]


@pytest.mark.slow
def test_torchrun_itself(train, spec_of, inputs, tmp_path):
    """Two agents of torchrun, as on two machines, train by the command line to the same file."""
    spec = spec_of(0, 1, accumulation=1, steps_per_epoch=None)
    out, expected = tmp_path / "torchrun" / "00000001.safetensors", digest(train(spec))
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
distributed_type: MULTI_GPU
enable_cpu_affinity: false
main_process_ip: 127.0.0.1
main_training_function: main
mixed_precision: bf16
num_machines: {machines}
num_processes: 2
rdzv_backend: static
same_network: true
use_cpu: false
"""


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_accelerate_itself(train, spec_of, inputs, tmp_path, machines):
    """`accelerate launch` with a user's configuration, for one machine or as on two, trains by the command line to the same file."""
    spec = spec_of(0, 1, accumulation=1, steps_per_epoch=None)
    out, expected = tmp_path / "accelerate" / "00000001.safetensors", digest(train(spec))
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    (tmp_path / "accelerate.yaml").write_text(CONFIGURATION.format(machines=machines))
    write_sidecar(inputs.vocabulary / "vocab.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launchers = [
        subprocess.Popen(
            [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "accelerate.yaml"),
             "--machine_rank", str(machine), "--main_process_port", str(port), "-m", "astolfo", "job", "train",
             "--spec", f"@{tmp_path / 'spec.json'}", "--dataset", str(inputs.dataset), "--vocabulary", str(inputs.vocabulary),
             "--out", str(out)],
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for machine in range(machines)
    ]  # fmt: skip
    said = [launcher.communicate()[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0] * machines, said
    assert digest(out) == expected
