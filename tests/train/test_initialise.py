"""First weights: a function of seed and name, at a scale that keeps the signal's size."""

import hashlib

import pytest
import torch
from torch import nn

from astolfo.train.initialise import initialise


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(500, 16)
        self.linear = nn.Linear(64, 300)
        self.conv = nn.Conv2d(8, 32, 3)
        self.norm = nn.GroupNorm(4, 32)


def digest(module: nn.Module) -> str:
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in module.parameters())).hexdigest()


def test_golden_bytes():
    """The weights of a seed have the bytes they have always had, whatever torch's generator holds."""
    torch.manual_seed(3)
    assert digest(initialise(Small(), 1)) == "c822586cf8c24d7fede432abde552469b21ef36ff0f1ea168fd63f0454dcee30"


def test_seed_and_name_decide():
    """Another seed gives other weights, and so does another name for a layer of the same shape."""
    one, two = initialise(Small(), 1), initialise(Small(), 2)
    assert not torch.equal(one.linear.weight, two.linear.weight)
    twins = initialise(nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}), 1)
    assert not torch.equal(twins["a"].weight, twins["b"].weight)


def test_scales():
    """Layers have variance 1 / fan in and no bias, norms are the identity, embeddings have CLIP's deviation."""
    small = initialise(Small(), 1)
    for layer, fan_in in ((small.linear, 64), (small.conv, 72)):
        assert layer.weight.abs().max() <= (3 / fan_in) ** 0.5
        assert (layer.bias == 0).all()
        assert abs(layer.weight.std() * fan_in**0.5 - 1) < 0.03
        assert abs(layer.weight.mean()) < 0.01
    assert (small.norm.weight == 1).all()
    assert (small.norm.bias == 0).all()
    assert abs(small.embedding.weight.std() / 0.02 - 1) < 0.03


def test_half_precision_is_the_rounded_float():
    """A module of another dtype gets the same numbers, rounded."""
    assert torch.equal(initialise(Small().half(), 1).linear.weight, initialise(Small(), 1).linear.weight.half())


def test_an_unknown_layer_is_refused():
    """A layer without a rule is an error, not a silent leftover of torch's generator."""
    with pytest.raises(TypeError, match="alone"):
        initialise(nn.ModuleDict({"alone": nn.PReLU()}), 1)


def test_silent_layers_are_zero():
    """Layers named as silent are zeros, and no others."""
    module = nn.ModuleDict({"conv2": nn.Linear(3, 3), "conv1": nn.Linear(3, 3)})
    initialise(module, 1, silent=("conv2",))
    assert not module["conv2"].weight.any()
    assert module["conv1"].weight.all()
