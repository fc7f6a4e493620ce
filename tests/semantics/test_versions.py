"""Semantics as versions of a trainer: what a ledger means by them, and how two of them are compared."""

import shutil
from importlib.metadata import version

import pytest
import yaml

from astolfo.errors import LedgerError
from astolfo.ledger import load, recipe_of
from astolfo.ledger.schema import SEMANTICS, Choices
from astolfo.ledger.show import difference


@pytest.fixture
def mine(tmp_path):
    """A ledger of three runs that differ in their semantics alone."""

    def make(**keys):
        folder = tmp_path / "ledger"
        shutil.rmtree(folder, ignore_errors=True)
        defaults = {"base": "own", "dataset": "pictures", "epochs": 1, "learning_rate": {"unet": 1e-5}, **keys}
        files = {
            "ledger.yaml": {}, "bases.yaml": {"own": {}}, "datasets.yaml": {"pictures": {"images": 200}},
            "runs/one.yaml": {"defaults": defaults, "runs": {name: {"semantics": name, "seed": 1} for name in SEMANTICS}},
        }  # fmt: skip
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_text(yaml.safe_dump(content))
        return load(folder)

    return make


def choices(ledger, name):
    return recipe_of(ledger, ledger.run(name)).canonical()["choices"]


@pytest.mark.parametrize("name", SEMANTICS)
def test_every_choice_is_named(mine, name):
    """A recipe names all choices, and under ftfy its version."""
    ledger = mine()
    assert choices(ledger, name).keys() == Choices.model_fields.keys()
    assert recipe_of(ledger, ledger.run(name)).ftfy == (None if name == "reference" else version("ftfy"))


def test_two_semantics_are_compared(mine):
    """`ledger diff` says in which choices two runs' semantics differ."""
    ledger = mine()
    rows = [line.split() for line in difference(ledger, ledger.run("kohya"), ledger.run("kohya-native")).splitlines()]
    assert rows[1:-1] == [
        ["semantics", "kohya", "kohya-native"], ["choices.schedule_dtype", "compute", "fp32"],
        ["choices.latents", "compute", "fp32"], ["choices.captions", "kohya", "kohya-native"],
        ["choices.clipping", "gradients", "never"], ["choices.lion", "add", "lerp"],
    ]  # fmt: skip


def test_a_separator_joins_where_the_semantics_say_so(mine):
    """A separator that only joins texts is read as sd-scripts does, and refused where tags and sentence are joined otherwise."""
    captions = {"kind": "concat", "separator": ";"}
    with pytest.raises(LedgerError, match="captions.separator is read by shuffle"):
        mine(captions=captions)
