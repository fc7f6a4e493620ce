"""Every optimizer of the ledger in a real training: neither processes nor a segment's end leave a trace in the state file."""

from typing import get_args

import pytest

from astolfo.ledger.schema import Optimizer
from tests.train.conftest import digest

KINDS = get_args(Optimizer.model_fields["kind"].annotation)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "relative"])
def test_processes_and_segments_leave_no_trace(train, spec_of, kind):
    """Three steps by one process, and two by two processes and a third by one, are the same file."""
    choice = {"kind": "AdaFactor", "relative_step": True} if kind == "relative" else {"kind": kind}
    changes = {"optimizer": Optimizer(**choice), "ranks": 2, "accumulation": 1, "steps_per_epoch": None}
    whole = train(spec_of(0, 3, **changes), "whole")
    first = train(spec_of(0, 2, **changes), "cut", processes=2)
    assert digest(train(spec_of(2, 3, **changes), "cut", first)) == digest(whole)
