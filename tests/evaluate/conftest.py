"""A tiny model of SDXL's structure, its vocabulary, and the spec of its evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from astolfo import numerics
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.model import save
from astolfo.data import vocabulary
from astolfo.data.procedural import draw
from astolfo.evaluate import evaluate as evaluation
from astolfo.evaluate.prompts import procedural_prompts
from astolfo.ledger import load
from astolfo.train.initialise import initialise
from tests.conftest import SMALL, STAND_INS

TEXT = {
    "vocab_size": 640, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 77, "projection_dim": 16, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
ARCHITECTURE = {
    "unet": {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16, 16], "layers_per_block": 1,
        "norm_num_groups": 4, "use_linear_projection": True,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 1, 1],
        "attention_head_dim": [1, 2, 2], "cross_attention_dim": 32, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 40,
    },
    "text_encoder": TEXT,
    "text_encoder_2": TEXT,
    "vae": {
        "block_out_channels": [8, 8, 8], "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3, "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4,
        "scaling_factor": 0.13025,
    },
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def pinned():
    """One thread and deterministic kernels, as every verb has them, and few drawn pictures; what was before afterwards."""
    threads, drawn = torch.get_num_threads(), evaluation.DRAWN
    numerics.make_deterministic()
    evaluation.DRAWN = 16
    yield
    evaluation.DRAWN = drawn
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def architecture():
    """SDXL at toy size."""
    return Architecture.from_mapping(ARCHITECTURE, "sdxl")


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """The folder of a CLIP vocabulary."""
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary.write(folder)
    return folder


@pytest.fixture(scope="session")
def models(architecture, tmp_path_factory):
    """Two untrained models in files: (base, trained)."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "trained")):
        parts = {part: initialise(architecture.build(part, "cpu"), seed) for part in architecture.parts}
        save(folder / f"{name}.safetensors", parts, architecture)
    return folder / "base.safetensors", folder / "trained.safetensors"


@pytest.fixture(scope="session")
def new_spec():
    """The function that makes what the workflow hands to the verb, as small as it can be."""

    def make():
        settings = {
            "set": "default",
            "prompts": {"procedural": 2},
            "seed": 7,
            "sampler": "DDIM",
            "steps": 2,
            "cfg": 4.0,
            "runtime": "eps",
            "grids": [
                {"name": "sweep", "x": {"alpha": [0.0, 0.5, 1.0]}, "z": {"uncond": ["null", "zero"]}},
                {"name": "runtimes", "x": {"runtime": ["eps", "v", "rf"]}, "z": {"alpha": [0.0, 1.0]}},
            ],
        }
        recipe = {"family": "sdxl", "architecture": ARCHITECTURE, "objective": {"kind": "eps"}}
        return {
            "run": "plain",
            "scale": "miniature",
            "outcome": "Works <after> merge.",
            "settings": settings,
            "recipe": recipe,
        }

    return make


@pytest.fixture
def spec(new_spec):
    """A spec of the test's own."""
    return new_spec()


@pytest.fixture(scope="session")
def pictures():
    """Seven pictures of the procedural dataset."""
    return [draw(prompt.scene) for prompt in procedural_prompts(1, 7, width=48, height=48)]


@pytest.fixture(scope="session")
def blurred():
    """The function that blurs a picture with a box of size x size pixels, edges repeated."""

    def blur(picture, size):
        half = size // 2
        padded = np.pad(picture.astype(float), ((half, half), (half, half), (0, 0)), mode="edge")
        height, width = picture.shape[:2]
        shifts = [padded[y : y + height, x : x + width] for y in range(size) for x in range(size)]
        return np.rint(sum(shifts) / size**2).astype(np.uint8)

    return blur


@pytest.fixture(scope="session")
def shipped():
    """The shipped miniature bases, and their architecture."""
    ledger = load(SMALL)
    folder = STAND_INS
    found = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    return SimpleNamespace(architecture=found, eps=folder / "sdxl-eps.safetensors", v=folder / "sdxl-v.safetensors")
