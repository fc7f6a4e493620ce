"""What sd-scripts makes of parts that do not train, in its result files: values that its own code wrote.

Made by kohya-ss/sd-scripts at 48d368f: a VAE and text encoders with these values in fp16, `.to(torch.bfloat16)` as
`sdxl_train.py:272` and `:314-315` have it without `--no_half_vae`, then `sdxl_model_util.save_stable_diffusion_checkpoint` to fp16.
"""

import pytest
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.extras import POSITIONS
from astolfo.checkpoint.model import save
from astolfo.checkpoint.safefile import open_file
from astolfo.ledger import load, recipe_of
from astolfo.ledger.schema import SEMANTICS, Precision
from astolfo.ledger.specs import identity
from astolfo.train import state
from astolfo.train.export import export
from astolfo.train.initialise import initialise
from tests.conftest import SMALL

BASE = [0.0999755859375, -0.300048828125, 1.0009765625, 3.140625, 0.0010004043579101562, -7.62939453125e-06,
        6.097555160522461e-05, 0.333251953125, -2.71875, 5.960464477539063e-08]  # fmt: skip
THEIRS = [0.10009765625, -0.30078125, 1.0, 3.140625, 0.00099945068359375, -7.62939453125e-06, 6.103515625e-05, 0.333984375,
          -2.71875, 5.960464477539063e-08]  # fmt: skip
VAE, TEXT = "first_stage_model.encoder.conv_in.bias", "conditioner.embedders.1.model.ln_final.bias"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that gives the result of a run, under a choice, which trained one bias of the UNet."""
    folder, ledger = tmp_path_factory.mktemp("results"), load(SMALL)
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    models = {part: initialise(architecture.build(part, "cpu"), 1) for part in architecture.parts}
    with torch.no_grad():
        for values in (models["vae"].encoder.conv_in.bias, models["text_encoder_2"].text_model.final_layer_norm.bias):
            values[: len(BASE)] = torch.tensor(BASE)
    save(folder / "base.safetensors", models, architecture, markers={POSITIONS: torch.arange(77)[None].numpy()})
    precision = Precision(weights="bf16", compute="bf16", save="fp16")

    def make(choices):
        recipe = recipe_of(ledger, ledger.run("plain")).model_copy(update={"choices": choices, "precision": precision})
        spec = {"verb": "train", "parents": {}, "recipe": recipe.canonical(), "from": 0, "to": 1}
        about = {"title": "a test", "semantics": "kohya", "scale": "miniature", "recipe": spec["recipe"], "images": 1}
        about["parents"] = {"state": identity(spec)}
        weights = {"unet.conv_in.bias": torch.ones_like(models["unet"].conv_in.bias).bfloat16()}
        trained = state.State(position=1, weights=weights, optimizer={}, loss=[0.0])
        state.save(folder / "00000001.safetensors", trained, identity(spec))
        export(about, folder / "00000001.safetensors", folder / "base.safetensors", None, folder / "run.safetensors")
        return open_file(folder / "run.safetensors")

    return make


def values(file, key):
    return file.tensor(key)[: len(BASE)].tolist()


@pytest.mark.parametrize("semantics", ["kohya", "kohya-native"])
def test_what_does_not_train_is_rounded(made, semantics):
    """VAE and text encoders go through bf16, and position ids are left out, as in that trainer's files."""
    file = made(SEMANTICS[semantics])
    assert values(file, VAE) == values(file, TEXT) == THEIRS
    assert POSITIONS not in file
    assert set(file.tensor("model.diffusion_model.input_blocks.0.0.bias").tolist()) == {1.0}


def test_the_vae_may_stay(made):
    """With `--no_half_vae`, `untrained: compute-but-vae`, the VAE is the base's."""
    file = made(SEMANTICS["kohya"].model_copy(update={"untrained": "compute-but-vae"}))
    assert (values(file, VAE), values(file, TEXT)) == (BASE, THEIRS)


def test_the_reference_keeps_the_bases_bytes(made):
    """Under `reference` nothing that did not train changes, and position ids stay."""
    file = made(SEMANTICS["reference"])
    assert values(file, VAE) == values(file, TEXT) == BASE
    assert POSITIONS in file
