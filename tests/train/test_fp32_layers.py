"""bf16 layers on a CPU: fp32 arithmetic, rounded once, and nothing of it is kept."""

import pytest
import torch
from torch import nn

from astolfo.train.fp32_layers import compute_in_fp32

LAYERS = {
    "linear": (lambda: nn.Linear(12, 20), (2, 5, 12)),
    "linear without bias": (lambda: nn.Linear(12, 20, bias=False), (3, 12)),
    "convolution": (lambda: nn.Conv2d(8, 6, 3, stride=2, padding=1), (2, 8, 9, 7)),
    "pointwise": (lambda: nn.Conv2d(8, 6, 1), (2, 8, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_widened_layer_is_fp32_rounded_once(name):
    """Output and gradients are those of fp32 copies, each rounded to bf16; what is kept for the backward pass is bf16."""
    make, shape = LAYERS[name]
    torch.manual_seed(1)
    narrow = nn.Module.to(make(), torch.bfloat16)
    wide = make()
    wide.load_state_dict({key: value.float() for key, value in narrow.state_dict().items()})
    compute_in_fp32(narrow)
    x = torch.randn(shape).bfloat16().requires_grad_()
    y = x.detach().float().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor):
        out = narrow(x)
    expected = wide(y)
    assert torch.equal(out, expected.bfloat16())
    assert {tensor.dtype for tensor in kept} == {torch.bfloat16}
    given = torch.randn(out.shape).bfloat16()
    out.backward(given)
    expected.backward(given.float())
    assert torch.equal(x.grad, y.grad.bfloat16())
    for one, other in zip(narrow.parameters(), wide.parameters(), strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=1 / 128, atol=0.02)


def test_an_fp32_layer_is_not_touched():
    """In fp32 the widened module is the module: the same bits."""
    plain = nn.Linear(4, 4)
    x = torch.randn(3, 4)
    expected = plain(x)
    compute_in_fp32(plain)
    assert torch.equal(plain(x), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_is_widened_too(name):
    """fp32 weights that compute in bf16 give what their bf16 roundings give, and gradients in fp32."""
    make, shape = LAYERS[name]
    torch.manual_seed(1)
    layer = make()
    narrow = nn.Module.to(make(), torch.bfloat16)
    narrow.load_state_dict(layer.state_dict())
    for one in (layer, narrow):
        compute_in_fp32(one)
    x = torch.randn(shape)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    expected = narrow(x.bfloat16())
    assert torch.equal(out, expected)
    given = torch.randn(out.shape).bfloat16()
    out.backward(given)
    expected.backward(given)
    for one, other in zip(layer.parameters(), narrow.parameters(), strict=True):
        assert one.grad.dtype == torch.float32
        assert torch.equal(one.grad, other.grad.float())
