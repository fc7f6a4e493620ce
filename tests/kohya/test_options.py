"""The table of options is complete, names keys that there are, and is what the page says."""

from pathlib import Path
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from astolfo.cli import cli
from astolfo.kohya.options import Becomes, accelerate, options
from astolfo.kohya.page import one, page
from astolfo.ledger import schema
from tests.conftest import ROOT

TRAINERS = yaml.safe_load((Path(__file__).parent / "trainers.yaml").read_text())
_SECTIONS = {"choices": schema.Choices, "bases": schema.Base, "datasets": schema.Dataset}


def test_every_option_of_sdxl_train_is_in_the_table():
    """All 176 options of sdxl_train.py at 48d368f, and no other, are said to be that trainer's."""
    assert len(TRAINERS["sdxl"]) == 176
    assert {name for name, option in options().all.items() if "sdxl" in option.of} == set(TRAINERS["sdxl"])


def test_every_option_of_the_other_trainers_is_in_the_table():
    """fine_tune.py's options, and those that the forks add, are in the table as theirs."""
    fine_tune = set(TRAINERS["sdxl"]) - set(TRAINERS["not_of_fine_tune"]) | set(TRAINERS["fine_tune"])
    assert {name for name, option in options().all.items() if "fine_tune" in option.of} == fine_tune
    for fork in ("train-native", "bluvoll"):
        assert not {name for name in TRAINERS[fork] if fork not in options().all[name].of}


def test_defaults_are_the_trainers():
    """Where the table gives a default, it is the one that the trainer's arguments have."""
    every = TRAINERS["sdxl"] | TRAINERS["fine_tune"] | TRAINERS["train-native"] | TRAINERS["bluvoll"]
    silent = {None: ("75", "AdamW", 75), "": ("AdamW",)}  # None and "" are filled in further on in the trainer
    for option in options().all.values():
        if option.default is not None:
            there = every[option.name]
            assert option.default == there or option.default in silent.get(there, ()), option.name


@pytest.mark.parametrize("option", [*options().all.values(), *accelerate().all.values()], ids=lambda option: option.name)
def test_each_entry_says_what_it_must(option):
    """A key is named, a refusal says what comes nearest, and what has no effect says why."""
    assert option.becomes in get_args(Becomes)
    assert bool(option.key) == (option.becomes in ("key", "placement"))
    assert option.nearest or option.becomes != "refused"
    assert option.why or option.becomes not in ("none", "refused")


@pytest.mark.parametrize("key", sorted({option.key for option in [*options().all.values(), *accelerate().all.values()]} - {""}))
def test_each_key_exists(key):
    """Every key that the table names is one of the ledger, or an option of `astolfo dataset import`."""
    section, _, rest = key.partition(".")
    if key.startswith("dataset --"):
        folder = cli.commands["dataset"].commands["import"].commands["folder"]
        assert key.removeprefix("dataset ") in {name for parameter in folder.params for name in parameter.opts}
    elif section in _SECTIONS:
        assert rest in _SECTIONS[section].model_fields
    elif key != "runs":
        assert section in schema.RunFields.model_fields
        assert not rest or any(rest in model.model_fields for model in _models(schema.RunFields.model_fields[section].annotation))


def _models(kind):
    """The entries that a field may hold."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _models(inner)


def test_accelerates_options_are_those_of_the_library():
    """Every option of the installed `accelerate launch` is in its table, and takes a value where that one does."""
    from accelerate.commands.launch import launch_command_parser

    for action in launch_command_parser()._actions:
        for spelt in (text for text in action.option_strings if text.startswith("--") and action.dest != "help"):
            option = accelerate().find(spelt)
            assert option is not None, spelt
            assert option.flag == (action.nargs == 0), spelt


def test_the_page_is_up_to_date():
    """docs/sd-scripts.md is what `make docs/sd-scripts.md` writes."""
    assert (ROOT / "docs/sd-scripts.md").read_text() == page()


def test_one_option_is_told():
    """`astolfo ledger options NAME` says what becomes of it, and names near ones where there is none."""
    assert one("noise_offset") == one("--noise-offset")
    assert "objective.noise_offset" in one("noise_offset")
    found = CliRunner().invoke(cli, ["ledger", "options", "noise_ofset"])
    assert "Did you mean noise_offset" in str(found.exception)
