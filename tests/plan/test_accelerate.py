"""A configuration of accelerate as a machine of the plan."""

import re

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from tests.conftest import CONFIG, SMALL

GIVEN = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "mixed_precision": "bf16", "use_cpu": "false",
         "num_machines": 2, "num_processes": 2, "machine_rank": 0, "debug": "false"}  # fmt: skip


def plan(tmp_path, hardware, *, config=SMALL, run="plain", **changed):
    file = tmp_path / "accelerate.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in (GIVEN | changed).items()))
    return CliRunner().invoke(cli, ["--config", str(config), "plan", run, "--hardware", hardware, "--accelerate", str(file)])


def test_its_processes_are_the_machines_devices(tmp_path):
    """Two processes on two machines with a card each are planned as two of that card."""
    done = plan(tmp_path, "4x3090")
    assert done.exit_code == 0, done.output
    assert "2 processes on 2 machines by accelerate.yaml" in done.output


def test_what_four_cards_did_is_not_said_of_two(tmp_path):
    """A speed that was measured with all devices of a machine is that of so many processes, and of no other number."""
    four, two = (
        plan(tmp_path, "4x3090", config=CONFIG, run="25112201", num_machines=1, num_processes=count).output.split("\n\nwith")[0]
        for count in (4, 2)
    )
    assert "  measured: the record" in four
    assert "kWh" in four
    assert re.search(r"processes +2", two)
    assert "not measured: " in two
    assert "kWh" not in two


def test_processes_that_do_not_share_the_ranks(tmp_path):
    """As many processes as a training would refuse are refused by the plan, in the same words."""
    done = plan(tmp_path, "4x3090", num_processes=3)
    assert "cannot be run by 3 processes" in str(done.exception)
    assert "use a divisor" in str(done.exception)


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
