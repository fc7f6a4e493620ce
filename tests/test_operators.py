"""Operators that stand in the place of torch's own: correctly rounded, wherever torch computes them, and nothing else changed."""

import numpy as np
import pytest
import torch

from astolfo import operators, randomness
from tests.train.conftest import in_child

X = torch.from_numpy(randomness.normal(1, "roots", 0, (4096,))).abs() + 1e-3
ROOTS = torch.from_numpy(np.sqrt(X.numpy()))
WAYS = {
    "sqrt": lambda x: x.sqrt(),
    "sqrt_": lambda x: x.clone().sqrt_(),
    "sqrt.out": lambda x: torch.sqrt(x, out=torch.empty(0)),
    "sqrt.out, of its shape": lambda x: torch.sqrt(x, out=torch.empty_like(x)),
    "pow": lambda x: x**0.5,
    "pow_": lambda x: x.clone().pow_(0.5),
    "pow.out": lambda x: torch.pow(x, 0.5, out=torch.empty(0)),
    "foreach": lambda x: torch._foreach_sqrt([x])[0],
}


def replaced(work):
    """Runs `work` in a process in which the operators are in place."""

    def run():
        operators.replace()
        operators.replace()
        work()

    assert in_child(run) == 0, "the test failed in its own process; its traceback stands below"


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_root_is_correctly_rounded(way):
    """Whoever asks for a square root gets the one of IEEE 754; torch's own reciprocal root is computed from that."""

    def work():
        assert torch.equal(WAYS[way](X), ROOTS)
        assert torch.equal(X.rsqrt(), 1.0 / ROOTS)

    replaced(work)


def test_doubles_and_integers():
    """float64 is correctly rounded too, integers count as float32, and what MKL does not compute stays torch's."""
    narrow = X.bfloat16().sqrt()

    def work():
        assert torch.equal(X.double().sqrt(), torch.from_numpy(np.sqrt(X.double().numpy())))
        assert torch.equal(torch.arange(9).sqrt(), torch.from_numpy(np.sqrt(np.arange(9, dtype=np.float32))))
        assert torch.equal(X.bfloat16().sqrt(), narrow)
        assert torch.equal(X**3, X * X * X)
        assert torch.tensor(-1.0).sqrt().isnan()
        assert torch.sqrt(torch.tensor(-1.0 + 0j)).imag == 1
        assert torch.empty(0).sqrt().shape == (0,)

    replaced(work)


def test_layout_is_kept():
    """A root has the strides that torch would have given it, whatever those of its input are."""
    shapes = [X.view(2, 32, 8, 8).to(memory_format=torch.channels_last), X.view(64, 64).T, X.view(64, 64)[:, ::2], X[:1].view(())]
    strides = [one.sqrt().stride() for one in shapes]

    def work():
        assert [one.sqrt().stride() for one in shapes] == strides
        assert all(torch.equal(one.sqrt(), torch.from_numpy(np.asarray(np.sqrt(one.numpy())))) for one in shapes)

    replaced(work)


def test_gradients_and_optimizers_use_it():
    """Autograd differentiates the root, and the root in torch's AdamW is this one."""
    weight = torch.nn.Parameter(X.clone())

    def work():
        x = X[:8].double().requires_grad_()
        assert torch.autograd.gradcheck(torch.sqrt, (x,))
        assert torch.autograd.gradcheck(lambda x: x**0.5, (x,))
        optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0, eps=0.0, betas=(0.0, 0.0), foreach=False)
        weight.grad = X.clone()
        optimizer.step()
        expected = X.clone().addcdiv_(X, (X * X).sqrt(), value=-1.0)
        assert torch.equal(weight.data, expected)

    replaced(work)
