"""What an entry leaves out of its optimizer is the default of the library that computes it, by that library's own signature."""

import inspect
import math

import pytest
import pytorch_optimizer
import torch
from transformers.optimization import Adafactor

from astolfo import deferred_imports
from astolfo.ledger.schema import OPTIMIZERS, Optimizer

LIBRARY = {
    "AdamW": lambda: torch.optim.AdamW,
    "AdamW8bit": lambda: deferred_imports.load("bitsandbytes").optim.AdamW8bit,
    "PagedAdamW8bit": lambda: deferred_imports.load("bitsandbytes").optim.PagedAdamW8bit,
    "Lion8bit": lambda: deferred_imports.load("bitsandbytes").optim.Lion8bit,
    "AdamW4bit": lambda: deferred_imports.load("torchao.optim").AdamW4bit,
    "Lion": lambda: pytorch_optimizer.Lion,
    "CautiousLion": lambda: pytorch_optimizer.Lion,
    "C-Lion": lambda: pytorch_optimizer.Lion,
    "CAME": lambda: pytorch_optimizer.CAME,
    "AdaFactor": lambda: Adafactor,
    "Prodigy": lambda: pytorch_optimizer.Prodigy,
    "AdamWScheduleFree": lambda: pytorch_optimizer.ScheduleFreeAdamW,
}
THEIR_NAME = {"averaging_power": "r", "rate_power": "weight_lr_power", "coupled_decay": "weight_decouple"}
UNSAID = {
    "scale_parameter": True,
    "growth_rate": math.inf,
    "bias_correction": False,
    "safeguard_warmup": False,
    "coupled_decay": True,
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_is_left_out_is_the_librarys_default(kind):
    """Every value that a kind has, left out, is its library's; C-Lion's betas alone are its authors' (c_lion.py)."""
    theirs = {name: one.default for name, one in inspect.signature(LIBRARY[kind]()).parameters.items()}
    ours = Optimizer(kind=kind)
    for name in OPTIMIZERS[kind]:
        value = getattr(ours, name)
        expected = (0.95, 0.98) if (kind, name) == ("C-Lion", "betas") else theirs[THEIR_NAME.get(name, name)]
        assert (UNSAID.get(name) if value is None else value) == expected, name


def test_every_value_of_the_schema_is_somebodys():
    """No field of an optimizer's entry is without a kind that has it."""
    assert {name for values in OPTIMIZERS.values() for name in values} == set(Optimizer.model_fields) - {"kind"}


def test_adafactors_scale_has_one_form():
    """`scale_parameter: true` is the default, so it is the same recipe as leaving it out; false is another."""
    assert Optimizer(kind="AdaFactor", scale_parameter=True) == Optimizer(kind="AdaFactor")
    assert Optimizer(kind="AdaFactor", scale_parameter=False) != Optimizer(kind="AdaFactor")
    with pytest.raises(ValueError, match="Lion has no scale_parameter"):
        Optimizer(kind="Lion", scale_parameter=False)
