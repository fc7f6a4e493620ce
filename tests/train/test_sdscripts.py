"""What viewers of models read of a training: sd-scripts' own keys."""

import pytest

from astolfo import deferred_imports
from astolfo.ledger import load, schema
from astolfo.ledger.recipe import recipe_of
from astolfo.ledger.references import parse
from astolfo.ledger.specs import Specs
from astolfo.train.sdscripts import describe
from tests.conftest import CONFIG, SMALL


@pytest.fixture(scope="module")
def ledger():
    return load(SMALL)


def test_viewers_find_what_a_model_was_trained_with(ledger):
    """Base, rates, optimizer, epochs, steps, seed and counts of the dataset are there, all as text, and nothing of two runs' difference."""
    recipe = recipe_of(ledger, ledger.run("plain"))
    said = describe(recipe, name="x", steps=78, resolution=(96, 96), images=1245, base=("AK.safetensors", "0" * 64))
    assert said["ss_base_model_version"] == "sdxl_base_v1-0"
    assert (said["ss_sd_model_name"], said["ss_new_sd_model_hash"]) == ("AK.safetensors", "0" * 64)
    assert float(said["ss_unet_lr"]) == recipe.learning_rate.unet
    assert float(said["ss_text_encoder_lr"]) == recipe.learning_rate.text_encoder
    assert said["ss_optimizer"] == "bitsandbytes.optim.adamw.AdamW8bit(betas=(0.9, 0.999),eps=1e-08,weight_decay=0.01)"
    assert (said["ss_steps"], said["ss_epoch"], said["ss_seed"]) == ("78", "1", str(recipe.seed))
    assert (said["ss_num_train_images"], said["ss_total_batch_size"]) == ("1245", "16")
    assert all(isinstance(value, str) for value in said.values())
    assert not [key for key in said if "started" in key or "finished" in key or "session" in key]


def test_a_checkpoint_names_its_run_s_epochs(ledger):
    """A checkpoint after one epoch of three says so as that trainer does: the epoch that it is from, and the epochs of the run."""
    recipe = recipe_of(ledger, ledger.run("plain"))
    said = describe(recipe, name="x", steps=78, run_steps=3 * 78, resolution=(96, 96), images=1245)
    assert (said["ss_epoch"], said["ss_num_epochs"], said["ss_steps"], said["ss_max_train_steps"]) == ("1", "3", "78", "234")
    specs = Specs(ledger, "lock")
    assert specs.model(parse("flow-epoch000002"))["run_steps"] == 80
    assert "run_steps" not in specs.model(parse("flow"))


def test_every_run_of_the_record_can_be_described():
    """No run's recipe has anything that the keys cannot say."""
    ledger = load(CONFIG)
    for run in ledger.runs.values():
        assert describe(recipe_of(ledger, run), name=run.id, steps=1, resolution=(96, 96))["ss_seed"]


def test_an_export_s_spec_has_the_images(ledger):
    """The dataset's count is in the spec, so that another one is another file."""
    assert Specs(ledger, "lock").model(parse("plain"))["images"] == 1245


@pytest.mark.parametrize("kind", sorted(schema.OPTIMIZERS))
def test_the_optimizer_is_named_by_its_class(ledger, kind):
    """Each kind has the class that sd-scripts makes of it, and it is the real name wherever that library is installed."""
    recipe = recipe_of(ledger, ledger.run("plain"))
    recipe = recipe.model_copy(update={"optimizer": schema.Optimizer(kind=kind)})
    name, _, given = describe(recipe, name="x", steps=1, resolution=(96, 96))["ss_optimizer"].partition("(")
    assert given.endswith(")")
    assert ("cautious=True" in given) == (kind in ("CautiousLion", "C-Lion"))
    module, _, cls = name.rpartition(".")
    if module.partition(".")[0] in ("lion_pytorch", "prodigyopt", "schedulefree"):  # another library computes them here
        return
    found = getattr(deferred_imports.load(module), cls)
    assert f"{found.__module__}.{found.__qualname__}" == name
