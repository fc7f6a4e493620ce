"""First weights as a function of (seed, parameter name): no generator of torch takes part.

`initialise(module, seed)` fills every parameter of a UNet, text encoder or autoencoder, whatever it held before and in
whatever order it was built. The same name, shape and seed give the same bytes on every machine.
"""

import math

import torch
from torch import nn

from astolfo import randomness

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDING_STD = 0.02


@torch.no_grad()
def initialise(module: nn.Module, seed: int, silent: tuple[str, ...] = ()) -> nn.Module:
    """Fills the parameters of `module` in place and returns it.

    Linear and convolution weights: uniform with variance 1 / fan in, which keeps the signal's size (torch's default
    has a third of that, and an autoencoder learns several times slower from it). Biases: zeros. Norms: ones and zeros.
    Embeddings: normal with standard deviation 0.02, which is CLIP's. Layers whose last name is in `silent` are all zeros.
    Raises TypeError for another kind of layer.
    """
    for path, layer in module.named_modules():
        if path.rpartition(".")[2] in silent:
            for parameter in layer.parameters():
                parameter.zero_()
            continue
        for name, parameter in layer.named_parameters(recurse=False):
            values = _values(layer, name, parameter.shape, seed, f"initialise:{path}.{name}")
            parameter.copy_(values.reshape(parameter.shape))
    return module


def _values(layer: nn.Module, name: str, shape: torch.Size, seed: int, purpose: str) -> torch.Tensor:
    if isinstance(layer, _NORMS):
        return torch.ones(shape) if name == "weight" else torch.zeros(shape)
    if isinstance(layer, nn.Embedding):
        return EMBEDDING_STD * torch.from_numpy(randomness.normal(seed, purpose, 0, tuple(shape)))
    if isinstance(layer, _LAYERS):
        if name == "bias":
            return torch.zeros(shape)
        bound = math.sqrt(3.0 / layer.weight[0].numel())
        numbers = randomness.uniform(seed, purpose, 0, shape.numel())
        return torch.from_numpy((2.0 * numbers - 1.0) * bound).float()
    raise TypeError(f"no rule for the parameter {purpose.partition(':')[2]} of a {type(layer).__name__}")
