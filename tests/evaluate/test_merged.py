"""Merging in memory: the bits of the merge on disk."""

import pytest
import torch

from astolfo.checkpoint.model import load_state_dicts
from astolfo.evaluate.candidate import Candidate
from astolfo.evaluate.merged import weighted
from astolfo.merging.weighted_sum import merge


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.82, 1.0])
def test_the_bits_of_the_streamed_merge(architecture, models, tmp_path, alpha):
    """A merge in memory equals the loaded file of the streamed merge, to the last bit and dtype."""
    merge(*models, {alpha: tmp_path / "merged.safetensors"})
    expected = load_state_dicts(tmp_path / "merged.safetensors", architecture)
    found = {(p, n): value for p, n, value in weighted(*(load_state_dicts(path, architecture) for path in models), alpha)}
    assert found.keys() == {(part, name) for part, state in expected.items() for name in state}
    for (part, name), value in found.items():
        assert value.dtype == expected[part][name].dtype
        assert torch.equal(value, expected[part][name]), name


def test_a_candidate_returns_to_what_it_was(architecture, models, words):
    """Going to another alpha and back leaves the trained model's weights."""
    candidate = Candidate(architecture, *models, words)
    before = {name: value.clone() for name, value in candidate.at(1.0)["unet"].state_dict().items()}
    half = {name: value.clone() for name, value in candidate.at(0.5)["unet"].state_dict().items()}
    assert any(not torch.equal(before[name], half[name]) for name in before)
    assert all(torch.equal(before[name], value) for name, value in candidate.at(1.0)["unet"].state_dict().items())
