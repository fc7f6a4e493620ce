"""The autoencoder: learns, is reproducible, and ends with latents of SDXL's scale."""

import pytest
import torch

from astolfo.data.pixels import encode
from astolfo.data.procedural import draw, scene
from astolfo.errors import NumericsError
from astolfo.train.autoencoder import psnr, standardise, train_autoencoder

CONFIG = {
    "block_out_channels": [8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "scaling_factor": 0.13025,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures():
    return [draw(scene(1, index, sizes=((32, 32), (16, 48)))) for index in range(40)]


@pytest.fixture(scope="module")
def trained(pictures):
    return train_autoencoder(CONFIG, pictures, seed=1, steps=60, batch=4)


def test_it_learns(trained, pictures):
    """Sixty steps reconstruct better than none."""
    assert psnr(trained, pictures) > psnr(train_autoencoder(CONFIG, pictures, seed=1, steps=0), pictures) + 3


def test_two_trainings_are_the_same_bytes(trained, pictures):
    """The same seed gives the same weights to the last bit, whatever torch's generator holds."""
    torch.manual_seed(5)
    again = train_autoencoder(CONFIG, pictures, seed=1, steps=60, batch=4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in trained.state_dict().items())


def test_latents_have_the_scale_of_sdxl(trained, pictures):
    """Each channel of the latents times 0.13025 has mean 0 and standard deviation 1 over the pictures."""
    groups = [torch.from_numpy(p)[None] for p in pictures]
    values = torch.cat([encode(trained, g)[0].flatten(1) for g in groups], 1) * 0.13025
    assert torch.allclose(values.std(1), torch.ones(4), atol=1e-3)
    assert torch.allclose(values.mean(1), torch.zeros(4), atol=1e-3)


def test_the_scale_changes_no_reconstruction(pictures):
    """What is decoded from encoded pictures stays, apart from rounding, when the latents are standardised."""
    autoencoder = train_autoencoder(CONFIG, pictures, seed=1, steps=0)
    x = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    before = autoencoder.decode(autoencoder.encode(x).latent_dist.mean).sample
    autoencoder.register_to_config(scaling_factor=0.5)
    standardise(autoencoder, pictures)
    assert torch.allclose(before, autoencoder.decode(autoencoder.encode(x).latent_dist.mean).sample, atol=1e-4)


def test_a_wrong_number_stops_it(pictures):
    """A loss that is not finite is an error that names the step."""
    with pytest.raises(NumericsError, match="step"):
        train_autoencoder(CONFIG, pictures, seed=1, steps=30, batch=4, learning_rate=1e30)
