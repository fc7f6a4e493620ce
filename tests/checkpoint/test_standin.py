"""A base that says nothing of the miniature is a model of its own there: by its name, of its family and objective."""

import numpy as np
import pytest

from astolfo.checkpoint.safefile import open_file
from astolfo.checkpoint.standin import vary
from astolfo.ledger import load
from astolfo.ledger.schema import Base
from astolfo.ledger.standins import AMOUNT, base, dataset
from tests.conftest import SMALL, STAND_INS

SHIPPED = STAND_INS / "sdxl-eps.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stand-ins by name, each made once: name -> (path, sha256)."""
    folder, known = tmp_path_factory.mktemp("bases"), {}

    def make(name, copy=""):
        if name + copy not in known:
            path = folder / f"{name}{copy}.safetensors"
            known[name + copy] = path, vary(SHIPPED, path, name=name, amount=AMOUNT, metadata={"modelspec.title": name})
        return known[name + copy]

    return make


def tensors(path):
    with open_file(path) as file:
        return {key: np.array(file.array(key)) for key in file.keys()}, dict(file.metadata)


def test_a_name_is_a_model(made):
    """The same name gives the same bytes, another name other ones, and none those of the shipped model."""
    assert made("mine")[1] == made("mine", copy="-again")[1] != made("other")[1]
    assert tensors(made("mine")[0])[1]["modelspec.title"] == "mine"


def test_matrices_change_by_a_twentieth_and_nothing_else_does(made):
    """Matrices of UNet and text encoders differ by noise of 5 % of their spread; vectors and the autoencoder are the same bytes."""
    (before, shipped), (after, about) = tensors(SHIPPED), tensors(made("mine")[0])
    assert about["astolfo.objective"] == "eps"
    assert "astolfo.recipe" not in about
    assert "ss_seed" in shipped
    assert not [key for key in about if key.startswith("ss_")]
    assert before.keys() == after.keys()
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    assert changed
    assert not any(key.startswith("first_stage_model.") or before[key].ndim < 2 for key in changed)
    kernel = "model.diffusion_model.input_blocks.3.1.proj_in.weight"
    moved, whole = (np.float64(after[kernel]) - before[kernel], np.float64(before[kernel]))
    assert np.median(abs(moved)) / np.median(abs(whole)) == pytest.approx(AMOUNT, rel=0.05)


@pytest.mark.parametrize(
    ("said", "stand_in"),
    [
        ({"objective": "eps"}, "sdxl-eps"),
        ({"objective": "v"}, "sdxl-v"),
        ({}, "sdxl-eps"),
        ({"objective": "rf"}, "sdxl-rf"),
        ({"family": "sd2", "objective": "v"}, "sd2-v"),
        ({"family": "sd2"}, "sd2-v"),
        ({"family": "sd2", "objective": "eps"}, "sd2-eps"),
        ({"family": "sd2", "objective": "rf"}, "sd2-rf"),
    ],
)
def test_a_base_has_one_of_its_family_and_objective(said, stand_in):
    """Every family has a stand-in of every objective; a base without an objective has the family's first."""
    ledger = load(SMALL)
    assert base("mine", Base(**said), ledger.stand_ins, ledger.bases).miniature.stand_in == stand_in


def test_an_autoencoder_has_that_of_its_family():
    """An autoencoder of one's own is, at the miniature, the family's there."""
    ledger = load(SMALL)
    own = base("my-vae", Base(kind="autoencoder"), ledger.stand_ins, ledger.bases).miniature
    assert own == ledger.bases["sdxl-vae"].miniature


@pytest.mark.parametrize(
    ("images", "expected"), [(1, 1), (20, 20), (500, 32), (640_000, 64), (12_446_670, 1245), (400_000_000, 3000)]
)
def test_a_dataset_is_smaller_in_proportion(images, expected):
    """A ten-thousandth of the pictures, from 32 to 3,000; a dataset with fewer keeps them all, and each name has its own seed."""
    from astolfo.ledger.schema import Dataset

    one, other = (dataset(name, Dataset(images=images)).miniature for name in ("one", "other"))
    assert one.images == other.images == expected
    assert one.seed != other.seed
