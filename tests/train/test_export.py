"""A checkpoint made from a state: trained weights in, everything else byte for byte the base's, and no date."""

import json
import re

import pytest
import torch
from safetensors import safe_open

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.autoencoder import save_autoencoder
from astolfo.checkpoint.model import load
from astolfo.checkpoint.safefile import open_file
from astolfo.errors import StateError
from astolfo.files import read_sidecar
from astolfo.ledger.specs import identity
from astolfo.train import state
from astolfo.train.export import export
from astolfo.train.initialise import initialise


@pytest.fixture
def exported(undisturbed, spec_of, ledger, tmp_path):
    """A base exported from nothing, and a run of one step on it."""
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    save_autoencoder(tmp_path / "vae.safetensors", initialise(architecture.build("vae", "cpu"), 1), architecture)
    spec = spec_of(0, 1)
    path = undisturbed(spec)
    about = {"title": "a test", "semantics": "kohya", "scale": "miniature", "recipe": spec["recipe"], "images": 48}
    about["parents"] = {"state": identity(spec)}
    export(about, path, None, tmp_path / "vae.safetensors", tmp_path / "base.safetensors")
    export(about, path, tmp_path / "base.safetensors", None, tmp_path / "run.safetensors")
    return about, path, tmp_path


def test_what_did_not_train_is_the_bases(exported):
    """The autoencoder and the frozen blocks have the base's bytes."""
    _, _, folder = exported
    base, run = open_file(folder / "base.safetensors"), open_file(folder / "run.safetensors")
    assert base.keys() == run.keys()
    same = [key for key in base.keys() if bytes(base.raw(key)) == bytes(run.raw(key))]
    assert [key for key in base.keys() if key.startswith("first_stage_model.") and key not in same] == []
    assert "model.diffusion_model.input_blocks.1.0.in_layers.2.weight" in same


def test_it_loads_as_what_was_trained(exported, ledger):
    """The file's UNet has the state's weights, rounded to fp16."""
    _, path, folder = exported
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    unet = load(folder / "run.safetensors", architecture, ["unet"], "fp32")["unet"]
    trained = open_file(path).tensor("weights/unet.mid_block.attentions.0.proj_in.weight")
    assert torch.equal(unet.mid_block.attentions[0].proj_in.weight, trained.half().float())


def test_the_metadata_has_no_date(exported):
    """The header names objective, semantics, scale and recipe, and nothing that differs between two builds."""
    metadata = open_file(exported[2] / "run.safetensors").metadata
    assert (metadata["astolfo.semantics"], metadata["modelspec.prediction_type"]) == ("kohya", "epsilon")
    assert len(metadata["astolfo.recipe"]) == 64
    assert not [key for key in metadata if "date" in key]


def test_it_tells_viewers_what_it_was_trained_with(exported):
    """The header has sd-scripts' keys, as its tools/show_metadata.py reads them."""
    about, _, folder = exported
    with safe_open(folder / "run.safetensors", framework="pt") as file:
        shown = file.metadata()
    assert (shown["ss_v2"], shown["ss_base_model_version"]) == ("False", "sdxl_base_v1-0")
    recipe = about["recipe"]
    assert float(shown["ss_unet_lr"]) == recipe["learning_rate"]["unet"]
    assert (int(shown["ss_seed"]), int(shown["ss_steps"]), int(shown["ss_num_train_images"])) == (recipe["seed"], 1, 48)
    assert re.fullmatch(r"[a-z_0-9.]+\.\w+\((\w+=.+)?\)", shown["ss_optimizer"])
    assert shown["ss_new_sd_model_hash"] == read_sidecar(folder / "base.safetensors")


def test_the_state_of_another_recipe_is_refused(exported):
    """A checkpoint is never cut from a state that its spec does not name."""
    about, path, folder = exported
    with pytest.raises(StateError, match="belongs to another recipe"):
        export(about | {"parents": {"state": "0" * 64}}, path, None, folder / "vae.safetensors", folder / "x.safetensors")
    assert not (folder / "x.safetensors").exists()


def test_a_stopped_run_says_so(exported, caplog):
    """A checkpoint of a state that a wrong number ended says it in its title and metadata, and the log warns."""
    about, path, folder = exported
    found = state.load(path)
    found.realised = {"attention": "math"}
    found.stopped = {"step": 1, "why": "loss", "samples": ["5-00000001"], "parameters": []}
    state.save(folder / "stopped.safetensors", found, about["parents"]["state"])
    export(
        about | {"stopped": "NaN"}, folder / "stopped.safetensors", folder / "base.safetensors", None, folder / "x.safetensors"
    )
    metadata = open_file(folder / "x.safetensors").metadata
    assert metadata["modelspec.title"] == "a test (stopped at step 1: loss)"
    assert json.loads(metadata["astolfo.stopped"]) == found.stopped | {"record": "NaN"}
    assert json.loads(metadata["astolfo.realised"]) == found.realised
    assert "stopped early" in caplog.text


def test_a_planned_stop_says_so(exported):
    """A run that the record ended early carries what the record says of it."""
    about, path, folder = exported
    export(about | {"stopped": "stopped at step 5"}, path, folder / "base.safetensors", None, folder / "x.safetensors")
    metadata = open_file(folder / "x.safetensors").metadata
    assert (metadata["modelspec.title"], metadata["astolfo.stopped"]) == ("a test (stopped)", "stopped at step 5")
