"""A configuration of accelerate as a machine of the plan."""

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from tests.conftest import SMALL

GIVEN = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "mixed_precision": "bf16", "use_cpu": "false",
         "num_machines": 2, "num_processes": 2, "machine_rank": 0, "debug": "false"}  # fmt: skip


def plan(tmp_path, hardware, **changed):
    file = tmp_path / "accelerate.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in (GIVEN | changed).items()))
    return CliRunner().invoke(cli, ["--config", str(SMALL), "plan", "plain", "--hardware", hardware, "--accelerate", str(file)])


def test_its_processes_are_the_machines_devices(tmp_path):
    """Two processes on two machines with a card each are planned as two of that card."""
    done = plan(tmp_path, "4x3090")
    assert done.exit_code == 0, done.output
    assert "2 processes on 2 machines by accelerate.yaml" in done.output


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"distributed_type": "FSDP"}, "it splits the model"),
        ({"use_cpu": "true"}, "is for the CPU"),
        ({"nonsense": 1}, "is no configuration that accelerate reads"),
    ],
)
def test_what_it_cannot_be(tmp_path, changed, said):
    """A split model, a configuration for CPUs on a machine of cards, unknown keys: each is refused, and why."""
    done = plan(tmp_path, "4x3090", **changed)
    assert said in str(done.exception)
