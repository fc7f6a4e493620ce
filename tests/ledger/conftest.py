"""A ledger of one base, one dataset and one run, for tests of what a run may say."""

import shutil

import pytest
import yaml

from astolfo.ledger import load

DEFAULTS = {
    "base": "own", "dataset": "pictures", "epochs": 2, "objective": "eps", "captions": "tags", "unet": 100,
    "learning_rate": {"unet": 1e-5}, "optimizer": "AdamW", "schedule": "constant", "ranks": 1, "batch_size": 2,
    "accumulation": 1, "max_grad_norm": 1.0, "precision": {}, "semantics": "reference", "seed": 1,
}  # fmt: skip
RUN = "25010101"


@pytest.fixture
def mine(tmp_path):
    """A function that loads that ledger, its run with `keys` of its own."""

    def make(scale="miniature", datasets=None, bases=None, **keys):
        folder = tmp_path / "config"
        shutil.rmtree(folder, ignore_errors=True)
        files = {
            "bases.yaml": bases or {"own": {"objective": "eps"}},
            "datasets.yaml": datasets or {"pictures": {"images": 200}},
            "runs/mine.yaml": {"era": "mine", "title": "Mine", "defaults": DEFAULTS, "runs": {RUN: keys}},
        }
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
        return load(folder, scale)

    return make
