"""What viewers of models read of a training: sd-scripts' own keys, behind the version of what a checkpoint says."""

import re

import pytest

from astolfo.checkpoint.metadata import describe as modelspec
from astolfo.ledger import load, specs
from astolfo.ledger.recipe import recipe_of
from astolfo.ledger.references import parse
from astolfo.train.sdscripts import describe
from tests.conftest import CONFIG


@pytest.fixture(scope="module")
def ledger():
    return load(CONFIG)


def test_viewers_find_what_a_model_was_trained_with(ledger):
    """Base, rates, optimizer, epochs, steps, seed and counts of the dataset are there, all as text, and nothing of two runs' difference."""
    recipe = recipe_of(ledger, ledger.run("25112201"))
    said = describe(recipe, name="x", steps=78, resolution=(96, 96), images=1245, base=("AK.safetensors", "0" * 64))
    assert said["ss_base_model_version"] == "sdxl_base_v1-0"
    assert (said["ss_sd_model_name"], said["ss_new_sd_model_hash"]) == ("AK.safetensors", "0" * 64)
    assert float(said["ss_unet_lr"]) == recipe.learning_rate.unet
    assert float(said["ss_text_encoder_lr"]) == recipe.learning_rate.text_encoder
    assert said["ss_optimizer"].startswith("AdamW8bit(betas=[0.9, 0.999],eps=1e-08,weight_decay=0.01")
    assert (said["ss_steps"], said["ss_epoch"], said["ss_seed"]) == ("78", "1", str(recipe.seed))
    assert (said["ss_num_train_images"], said["ss_total_batch_size"]) == ("1245", "16")
    assert all(isinstance(value, str) for value in said.values())
    assert not [key for key in said if "started" in key or "finished" in key or "session" in key]


def test_every_run_of_the_record_can_be_described(ledger):
    """No run's recipe has anything that the keys cannot say."""
    for run in ledger.runs.values():
        assert describe(recipe_of(ledger, run), name=run.id, steps=1, resolution=(96, 96))["ss_seed"]


def test_it_is_one_switch(ledger, monkeypatch):
    """In version 1 an export's spec says nothing of it; version 2 puts its number and the images into the spec."""
    before = specs.Specs(ledger, "lock").model(parse("25112201"))
    assert not {"metadata", "images"} & set(before)
    monkeypatch.setattr(specs, "METADATA", 2)
    after = specs.Specs(ledger, "lock").model(parse("25112201"))
    assert (after["metadata"], after["images"]) == (2, 1245)
    assert specs.identity(before) != specs.identity(after)


MUST = ("sai_model_spec", "architecture", "implementation", "title", "resolution")
KNOWN = {*MUST, "description", "author", "date", "hash_sha256", "implementation_version", "license", "usage_hint", "thumbnail",
         "tags", "merged_from", "trigger_phrase", "prediction_type", "timestep_range", "encoder_layer", "preprocessor",
         "is_negative_embedding", "unet_dtype", "vae_dtype"}  # fmt: skip
FORMS = {
    "sai_model_spec": r"1\.0\.[01]",
    "architecture": r"stable-diffusion-(xl-v1-base|v2-768-v|v2-512)",
    "resolution": r"\d+x\d+",
    "hash_sha256": r"(0x[0-9a-f]{64})?",  # filled in when the file is written
    "prediction_type": r"v|epsilon",
}


@pytest.mark.parametrize("objective", ["eps", "v", "rf"])
@pytest.mark.parametrize("family", ["sdxl", "sd2"])
def test_modelspec_is_as_published(family, objective):
    """Each key that ModelSpec 1.0.1 demands is there, none is that it does not know, and values have the form that it names."""
    said = modelspec(family=family, title="t", objective=objective)
    own = {key.removeprefix("modelspec."): value for key, value in said.items() if key.startswith("modelspec.")}
    assert set(MUST) <= set(own) <= KNOWN
    for key, form in FORMS.items():
        assert key not in own or re.fullmatch(form, own[key]), (key, own[key])
