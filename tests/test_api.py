"""What `import astolfo` gives to scripts: the names of its docstring, and nothing heavy before one is asked for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import astolfo

LEAST = """\
bases: {my-base: {}}
datasets: {my-pictures: {images: 16}}
runs:
  my-first: {base: my-base, dataset: my-pictures, epochs: 1, learning_rate: {unet: 1.0e-5}}
"""


def test_importing_it_costs_nothing():
    """`import astolfo` imports no library and no module of its own; the first name that is asked for imports what it needs."""
    program = (
        "import sys, astolfo; print(sorted(name for name in sys.modules if name.split('.')[0] in ('astolfo', 'torch', 'numpy')))"
    )
    found = subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout == "['astolfo']\n"


def test_every_name_is_there_and_says_what_it_is():
    """Each public name has a docstring with its errors; another one is an AttributeError."""
    for name in astolfo.__all__:
        assert getattr(astolfo, name).__doc__, name
    assert set(astolfo.__all__) <= set(dir(astolfo))
    with pytest.raises(AttributeError, match="no attribute 'mrege'"):
        astolfo.mrege  # noqa: B018


def test_a_ledger_is_loaded_and_a_recipe_read(tmp_path):
    """`load` checks a ledger, `recipe` gives a run's by its ID, with near names for a wrong one."""
    (tmp_path / "ledger.yaml").write_text(LEAST)
    ledger = astolfo.load(tmp_path)
    assert astolfo.recipe(ledger, "my-first").optimizer.kind == ledger.run("my-first").fields.optimizer.kind
    with pytest.raises(astolfo.AstolfoError, match="my-first"):
        astolfo.recipe(ledger, "my-frst")


def test_files_are_merged_inspected_and_verified(tmp_path):
    """`merge` writes the weighted sum, `inspect` says what it is, `verify` hashes it."""
    key = "model.diffusion_model.input_blocks.0.0.weight"
    for name, value in {"a": 1.0, "b": 3.0}.items():
        save_file({key: np.full((2, 4, 3, 3), value, np.float32)}, tmp_path / f"{name}.safetensors")
    out = tmp_path / "half.safetensors"
    astolfo.merge(tmp_path / "a.safetensors", tmp_path / "b.safetensors", {0.5: out})
    assert astolfo.inspect(out)["parameters"] == 72
    from safetensors.numpy import load_file

    assert (load_file(out)[key] == 2.0).all()
    found = astolfo.verify(str(out))
    assert (found.rehashed, Path(found.name).name) == (["half.safetensors"], "half.safetensors")
