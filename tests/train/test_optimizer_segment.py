"""Every optimizer of the ledger in a real training: neither processes nor a segment's end leave a trace in the state file."""

from typing import get_args

import pytest

from astolfo.checkpoint.safefile import open_file
from astolfo.ledger.schema import LearningRate, Optimizer
from tests.train.conftest import digest

KINDS = get_args(Optimizer.model_fields["kind"].annotation)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "relative"])
def test_processes_and_segments_leave_no_trace(train, spec_of, kind):
    """Three steps by one process, and two by four processes and a third by two, are the same file.

    Four ranks with batches of two from buckets of three shapes; UNet and both text encoders; gradients that are clipped.
    """
    choice = {"kind": "AdaFactor", "relative_step": True} if kind == "relative" else {"kind": kind}
    changes = {"optimizer": Optimizer(**choice), "batch_size": 2, "max_grad_norm": 0.01, "accumulation": 1}
    if kind == "Prodigy":
        changes["learning_rate"] = LearningRate(unet=1, text_encoders=1)
    whole = train(spec_of(0, 3, **changes, steps_per_epoch=None), "whole")
    first = train(spec_of(0, 2, **changes, steps_per_epoch=None), "cut", processes=4)
    assert digest(train(spec_of(2, 3, **changes, steps_per_epoch=None), "cut", first, processes=2)) == digest(whole)
    assert {key.split(".")[0] for key in open_file(whole).keys() if key.startswith("weights")} == {
        "weights/unet", "weights/text_encoder", "weights/text_encoder_2",
    }  # fmt: skip
