"""Every key of a run at once, in a real training: neither processes nor a segment's end leave a trace in the state."""

import pytest

from astolfo.data.join import Part, join
from astolfo.ledger.schema import SEMANTICS, Captions, LearningRate, Objective, Optimizer, Precision, Schedule, UNetBlocks
from astolfo.train import state
from astolfo.train.loop import Inputs
from tests.train.conftest import digest

KEYS = {
    "objective": Objective(
        kind="eps", min_timestep=10, max_timestep=990, noise_offset=0.05, noise_offset_random=True, adaptive_noise_scale=0.01,
        multires_noise={"iterations": 3}, ip_noise_gamma=0.1, ip_noise_gamma_random=True, debiased_estimation_loss=True,
        v_pred_like_loss=0.5, loss="huber",
    ),
    "captions": Captions(
        kind="pick", shuffle=True, keep_tokens=1, tag_dropout=0.2, dropout=0.1, dropout_every_epochs=2, prefix="a {b|c},",
        suffix="d", wildcards=True,
    ),
    "learning_rate": LearningRate(unet=1e-4, text_encoder=1e-4, blocks={"up_blocks": 2e-4, "down_blocks.1": 0}),
    "unet": UNetBlocks(freeze=("mid_block", "attn2.to_k")),
    "schedule": Schedule(kind="cosine-with-restarts", warmup_steps=1, cycles=2),
    "precision": Precision(), "max_grad_norm": 0.5, "batch_size": 2, "ranks": 4, "accumulation": 1, "steps_per_epoch": None, "first_step": 0, "last_step": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def mix(inputs, tmp_path_factory):
    """The dataset of 16 pictures twice, once of them three times an epoch."""
    folder = tmp_path_factory.mktemp("mix") / "mix"
    join(folder, [Part(name="a", folder=inputs.dataset, repeats=3), Part(name="b", folder=inputs.dataset)])
    return Inputs(base=None, dataset=folder, vocabulary=inputs.vocabulary)


@pytest.mark.slow
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_no_key_leaves_a_trace_of_processes_or_cuts(train, spec_of, mix, semantics):
    """Three steps by one process, and one by four processes and two by two, are the same file; what is frozen is not in it."""
    keys = KEYS | {"choices": SEMANTICS[semantics], "optimizer": Optimizer(kind="AdamWScheduleFree", weight_decay=0.1)}
    whole = train(spec_of(0, 3, **keys), "whole", given=mix)
    first = train(spec_of(0, 1, **keys), "cut", processes=4, given=mix)
    assert digest(train(spec_of(1, 3, **keys), "cut", first, processes=2, given=mix)) == digest(whole)
    names = {name for name in state.load(whole).weights if name.startswith("unet.")}
    assert names
    assert not [name for name in names if "mid_block" in name or "attn2.to_k" in name or "down_blocks.1" in name]
