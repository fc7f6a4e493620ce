"""Tiny models with the real block structure, and their files."""

import pytest

from astolfo.checkpoint.architecture import Architecture

TEXT = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 77, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}  # fmt: skip
VAE = {
    "block_out_channels": [8, 16, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
UNET = {
    "block_out_channels": [8, 16, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "in_channels": 4,
    "out_channels": 4,
}
SDXL_UNET = UNET | {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 1, 2],
    "attention_head_dim": [1, 2, 2],
    "cross_attention_dim": 40,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 48,
}
SD2_UNET = UNET | {
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": [1, 2, 2],
    "cross_attention_dim": 16,
}
SDXL = {"unet": SDXL_UNET, "text_encoder": TEXT, "text_encoder_2": TEXT | {"hidden_size": 24, "projection_dim": 24}, "vae": VAE}
SD2 = {"unet": SD2_UNET, "text_encoder": TEXT, "vae": VAE}


def random_states(architecture, seed=0):
    """State dicts of all parts with small random float32 weights, the same for the same seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return {
        part: {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in architecture.shapes(part).items()}
        for part in architecture.parts
    }


@pytest.fixture(params=["sdxl", "sd2"])
def architecture(request):
    """Either family at toy size."""
    return Architecture.from_mapping({"sdxl": SDXL, "sd2": SD2}[request.param], request.param)


@pytest.fixture
def sdxl():
    """SDXL at toy size."""
    return Architecture.from_mapping(SDXL, "sdxl")


@pytest.fixture
def states():
    """The function that makes random state dicts."""
    return random_states


@pytest.fixture
def another():
    """The function that gives the other family at toy size."""
    return lambda one: Architecture.from_mapping(SD2, "sd2") if one.family == "sdxl" else Architecture.from_mapping(SDXL, "sdxl")
