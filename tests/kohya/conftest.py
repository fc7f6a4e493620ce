"""Scripts and their files in a folder of their own, and what the import makes of them."""

import pytest

from astolfo.kohya.read import imported


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A function that writes files by name, and returns their paths; the working directory is theirs."""
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        paths = []
        for name, text in texts.items():
            path = tmp_path / name.replace("__", ".")
            path.write_text(text)
            paths.append(path.relative_to(tmp_path))
        return paths

    return write


@pytest.fixture
def read(files):
    """A function that reads files by name as an import does."""
    return lambda **texts: imported(files(**texts))


BASE = "--pretrained_model_name_or_path=/m/base.safetensors"
LAUNCH = f"accelerate launch --num_processes=1 sdxl_train.py {BASE} --in_json=/d/pics/meta.json"
"""The least that trains."""


@pytest.fixture
def fields(read):
    """A function that reads options added to the least line, and returns the run's fields; nothing may be refused."""

    def make(options="", lossy=False):
        found = read(train__sh=f"{LAUNCH} {options}\n")
        assert lossy or not found.refusals, list(map(str, found.refusals))
        return found.runs[0].fields

    return make
