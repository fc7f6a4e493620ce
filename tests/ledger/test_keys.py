"""What a run may say of optimizer, rates and schedule together, and what becomes of it in its recipe."""

import re

import pytest
from pydantic import ValidationError

from astolfo.errors import LedgerError
from astolfo.ledger import recipe_of, schema
from astolfo.ledger.specs import Specs, identity
from tests.ledger.conftest import RUN


def recipe(ledger):
    return recipe_of(ledger, ledger.run(RUN))


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"learning_rate": {"unet": 1.5}}, "a learning rate of 1.5 is a slip: expected one below 1 for AdamW"),
     ({"optimizer": "Prodigy", "learning_rate": {"unet": 1, "text_encoders": 0.5}}, "Prodigy has one step size"),
     ({"optimizer": "Prodigy", "learning_rate": {"unet": 1, "blocks": {"up_blocks": 2}}}, "Prodigy has one step size"),
     ({"learning_rate": {"unet": 1e-5, "text_encoders": 0, "text_encoder": 0, "text_encoder_2": 0}}, "text_encoders is the rate of both"),
     ({"outcome": {"kind": "works-after-merge", "alpha": 1.5}}, "outcome.alpha: .*a number of at most 1, found 1.5"),
     ({"optimizer": "Prodigy", "engine": "deepspeed"}, "Prodigy needs whole weights, which deepspeed cuts"),
     ({"optimizer": "AdamWScheduleFree", "engine": "deepspeed"}, "AdamWScheduleFree needs whole weights"),
     ({"engine": "deepspeed", "choices": {"clipping": "never"}}, "choice clipping does not act under engine: deepspeed"),
     ({"optimizer": {"kind": "AdamW", "d_coef": 2}}, "AdamW has no d_coef"),
     ({"optimizer": {"kind": "Prodigy", "growth_rate": 1.0}}, "a number above 1, found 1"),
     ({"learning_rate": {"unet": 0}}, "nothing trains: every rate is 0. Give the UNet or a text encoder a rate"),
     ({"learning_rate": {"unet": 0, "blocks": {"mid_block": 0}}}, "nothing trains: every rate is 0"),
     ({"max_grad_norm": float("inf")}, "max_grad_norm: expected a finite number, found inf"),
     ({"optimizer": {"kind": "AdamW", "betas": [True, 0.9]}}, "betas: expected a number"),
     ({"schedule": {"kind": "cosine", "warmup_ratio": 1.0}}, "a number below 1, found 1")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(mine, keys, message):
    """A rate that is a slip, and optimizers in a way in which they would be others, are errors with file and line."""
    with pytest.raises(LedgerError, match=rf"mine\.yaml:\d+: .*{message}"):
        mine(**keys)


def test_prodigy_and_updates(mine):
    """Prodigy is refused with a master or stochastic rounding where the scale leaves a run its precision."""
    with pytest.raises(LedgerError, match="Prodigy does not work with update: master"):
        mine("full", optimizer="Prodigy", precision={"update": "master"})


def test_prodigys_rates_stay(mine):
    """Scales multiply rates, but not Prodigy's, which are factors of what it estimates."""
    ledger = mine(optimizer="Prodigy", learning_rate={"unet": 1, "text_encoders": 1})
    assert ledger.scale.learning_rate_multiplier != 1
    assert recipe(ledger).learning_rate.parts == {"unet": 1, "text_encoder": 1, "text_encoder_2": 1}


def test_a_ratio_becomes_steps(mine):
    """warmup_ratio is of the run's steps, and of the ranks' times as many where a schedule counts as the original's."""
    keys = {"schedule": {"kind": "cosine", "warmup_ratio": 0.25}, "ranks": 2, "batch_size": 1}
    ledger = mine(**keys)
    found = recipe(ledger)
    length = found.last_step - found.first_step
    assert found.schedule.warmup_steps == int(0.25 * length)
    assert "warmup_ratio" not in found.canonical()["schedule"]
    kohya = recipe(mine(**keys, semantics="kohya"))
    assert kohya.schedule.warmup_steps == int(0.25 * length * 2)


def test_only_what_falls_depends_on_the_end(mine):
    """A recipe names its last step where the schedule falls towards it, and only there."""
    assert recipe(mine(schedule="warmup")).last_step is None
    assert recipe(mine(schedule="linear")).last_step > 0


def test_a_polynomials_end_scales_as_rates_do(mine):
    """The rate that a polynomial falls to is a rate: scales multiply it."""
    ledger = mine(schedule="polynomial", precision={"weights": "fp32"})
    assert recipe(ledger).schedule.end == pytest.approx(1e-7 * ledger.scale.learning_rate_multiplier)


@pytest.mark.parametrize("value", ["kohya", "reference"])
def test_the_way_a_schedule_counts_is_a_choice(mine, value):
    """A run's choice is laid over its semantics', and stands in the recipe; another value is refused with those that are."""
    assert recipe(mine(choices={"warmup": value})).canonical()["choices"]["warmup"] == value
    assert recipe(mine(semantics=value)).canonical()["choices"]["warmup"] == value
    with pytest.raises(LedgerError, match="choice warmup cannot be 'x': expected reference or kohya"):
        mine(choices={"warmup": "x"})


PICTURES = {"images": 200_000}


def test_a_dataset_of_parts_counts_each_as_often(mine):
    """Its images, at both scales, are its parts' times their repeats; its steps follow; its spec names the parts."""
    datasets = {
        "pictures": {"parts": {"a": 3, "b": 1}},
        "a": {"images": 10_000},
        "b": {"images": 200_000, "miniature": {"images": 40}},
    }
    for scale, images in (("full", 230_000), ("miniature", 32 * 3 + 40)):
        ledger = mine(scale, datasets)
        assert ledger.dataset("pictures").images == images
        assert recipe_of(ledger, ledger.run(RUN)).steps_per_epoch is None  # batches of two depend on the buckets
        one = mine(scale, datasets, batch_size=1)
        assert recipe_of(one, one.run(RUN)).steps_per_epoch == images
        spec = Specs(ledger, "lock").dataset("pictures")
        assert (spec["verb"], spec["repeats"]) == ("joined", {"a": 3, "b": 1})
        assert spec["parents"] == {name: identity(Specs(ledger, "lock").dataset(name)) for name in "ab"}


@pytest.mark.parametrize(
    ("datasets", "message"),
    [({"pictures": {"parts": {"a": 1}}}, "unknown dataset 'a'"),
     ({"pictures": {"parts": {"a": 1}}, "a": {"parts": {"b": 1}}, "b": PICTURES}, "a has parts itself"),
     ({"pictures": {"parts": {"pictures": 2}}}, "pictures has parts itself"),
     ({"pictures": {"parts": {"a": 1, "b": 1}}, "a": PICTURES, "b": {**PICTURES, "autoencoder": "sd2-vae"}}, "b is encoded by sd2-vae, the first part by sdxl-vae"),
     ({"pictures": {"parts": {"a": 0}}, "a": PICTURES}, "a number above 0, found 0"), ({"pictures": {}}, "give one of images"),
     ({"pictures": {"parts": {"a": 1}, "images": 5}, "a": PICTURES}, "give one of images"),
     ({"pictures": {"parts": {"a": 1}, "digest": "0" * 64}, "a": PICTURES}, "with parts, digest is theirs")],
)  # fmt: skip
def test_what_cannot_be_a_part_is_refused(mine, datasets, message):
    """Unknown parts, parts of parts, other autoencoders and values that parts decide are errors with file and line."""
    with pytest.raises(LedgerError, match=rf"datasets\.yaml:\d+: .*{message}"):
        mine(datasets=datasets)


def test_no_boolean_is_a_number():
    """Whatever key of a schema takes numbers alone, alone or in a list, refuses what YAML makes of yes and no."""
    kinds, refused = [schema.Entry], 0
    for kind in kinds:
        kinds += kind.__subclasses__()
        for name, field in kind.model_fields.items():
            if re.search(r"\b(int|float)\b|Literal\[\d", str(field.annotation)) and "bool" not in str(field.annotation):
                for value in (True, [False], {"a": True}):
                    with pytest.raises(ValidationError) as error:
                        kind.model_validate({name: value})
                    assert any(one["loc"][:1] in ((name,), ()) for one in error.value.errors()), (kind, name, value)
                    refused += 1
    assert refused > 150


def test_sd2_has_one_text_encoder(mine):
    """A rate of an encoder that the family lacks trains nothing."""
    base = {"own": {"family": "sd2", "objective": "v"}}
    datasets = {"pictures": {"images": 200, "autoencoder": "sd2-vae"}}
    with pytest.raises(LedgerError, match="nothing trains: every rate is 0. Give the UNet or the text encoder a rate"):
        mine(bases=base, datasets=datasets, learning_rate={"unet": 0, "text_encoder_2": 1e-6}, objective="v")
