"""The shipped base really draws: its pictures show what their prompts ask, and an untrained model's do not."""

import numpy as np
import pytest

from astolfo import numerics
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.standin import vary
from astolfo.data import vocabulary
from astolfo.evaluate.candidate import Candidate
from astolfo.evaluate.metrics import agreements
from astolfo.evaluate.prompts import procedural_prompts
from astolfo.evaluate.sample import Settings, sample
from astolfo.ledger import load
from astolfo.ledger.standins import AMOUNT
from astolfo.train.initialise import initialise
from tests.conftest import SMALL, STAND_INS

COUNT = 24


@pytest.fixture(scope="module")
def candidate(tmp_path_factory):
    numerics.make_deterministic()
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary.write(folder)
    return Candidate(architecture(), None, STAND_INS / "sdxl-eps.safetensors", folder)


def architecture():
    return Architecture.from_mapping(load(SMALL).scale.architectures["sdxl"], "sdxl")


def shown(candidate, count=COUNT):
    """The share of prompts, by attribute, whose picture shows what was asked."""
    prompts = procedural_prompts(7, count, width=48, height=48)
    settings = Settings(runtime="eps", zero_terminal_snr=False, uncond="null", steps=20, cfg=3.0, height=48, width=48, shift=1.0)
    pictures, _ = sample(candidate.at(1.0), candidate.text, [prompt.text for prompt in prompts], settings, seed=7)
    rows = agreements(pictures, [prompt.scene for prompt in prompts])
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def test_the_base_draws_what_is_asked(candidate):
    """Colour, background and position are right in nine pictures of ten, the shape in at least seven of ten."""
    found = shown(candidate)
    assert found["colour"] >= 0.9, found
    assert found["background"] >= 0.9, found
    assert found["position"] >= 0.9, found
    assert found["shape"] >= 0.7, found


def test_a_stand_in_draws_as_the_base_does(tmp_path):
    """A base's stand-in, the shipped model changed by the base's name, still shows what is asked in all of eight pictures."""
    numerics.make_deterministic()
    vary(STAND_INS / "sdxl-eps.safetensors", tmp_path / "mine.safetensors", name="mine", amount=AMOUNT, metadata={})
    vocabulary.write(tmp_path)
    own = Candidate(architecture(), None, tmp_path / "mine.safetensors", tmp_path)
    assert shown(own, count=8)["all"] == 1.0


def test_an_untrained_model_does_not(candidate):
    """With first weights instead of trained ones hardly a picture shows what was asked, and none but by chance."""
    for part in ("unet", "text_encoder", "text_encoder_2"):
        initialise(candidate.parts[part], 1)
    assert shown(candidate)["all"] < 0.1
