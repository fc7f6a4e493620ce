"""Real photographs all the way: from files with captions, through the autoencoder and the store, into a training step."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from astolfo.checkpoint.architecture import Architecture
from astolfo.data.ingest.bucketing import Bucketing
from astolfo.data.ingest.folder import Folder
from astolfo.data.ingest.pictures import encoder
from astolfo.data.ingest.run import run
from astolfo.data.store import Store
from astolfo.train import state
from astolfo.train.initialise import initialise
from astolfo.train.loop import Inputs

SHIPPED = Path(matplotlib.get_data_path(), "sample_data")
SIZES = Bucketing(resolution=64, smallest=48, largest=80, step=16)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A portrait (512 x 600) and a wide detail of it, as JPEG, and a PNG, with captions beside them."""
    folder = tmp_path_factory.mktemp("photographs")
    portrait = Image.open(SHIPPED / "grace_hopper.jpg")
    (folder / "portrait.jpg").write_bytes((SHIPPED / "grace_hopper.jpg").read_bytes())
    portrait.crop((60, 100, 460, 360)).save(folder / "detail.jpg", quality=95)
    (folder / "pack.png").write_bytes((SHIPPED / "Minduka_Present_Blue_Pack.png").read_bytes())
    (folder / "portrait.txt").write_text("1woman, uniform, hat, flag")
    (folder / "portrait.caption").write_text("a portrait of a woman in uniform before a flag")
    (folder / "detail.txt").write_text("1woman, glasses, close-up")
    return folder


@pytest.fixture(scope="module")
def autoencoder(ledger):
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    return initialise(architecture.build("vae", "cpu"), 1).eval().requires_grad_(False)


def imported(photographs, autoencoder, out, draw="sample", batch=2, seed=0):
    source = Folder([photographs], SIZES, crop="kohya", draw=draw, factor=4)
    run(source, out, encoding=encoder(autoencoder, draw=draw, seed=seed, batch=batch), workers=2)
    return Store(out)


@pytest.mark.alone
def test_to_a_training_step(photographs, autoencoder, inputs, spec_of, train, undisturbed, tmp_path):
    """Three pictures of three aspect ratios become a store that a run trains on; every number is finite and weights move."""
    store = imported(photographs, autoencoder, tmp_path / "store")
    found = {one.id: one for one in map(store.sample, range(len(store)))}
    assert found["portrait"].original_size == (600, 512)
    assert found["portrait"].target_size == (64, 64)
    assert found["detail"].target_size == (48, 80)
    assert found["portrait"].sentence.startswith("a portrait")
    given = Inputs(base=None, dataset=tmp_path / "store", vocabulary=inputs.vocabulary)
    spec = spec_of(end=1, steps_per_epoch=None)
    after = state.load(train(spec, given=given), None)
    assert len(after.loss) == 1
    assert np.isfinite(after.loss).all()
    other = state.load(undisturbed(spec_of(end=1)), None)
    assert any(not np.array_equal(after.weights[name], other.weights[name]) for name in after.weights)


@pytest.mark.alone
def test_draws_belong_to_pictures(photographs, autoencoder, tmp_path):
    """A draw from the posterior is a picture's own: copies get the same, whatever comes before them; the mean is another choice."""
    (photographs / "a-copy.jpg").write_bytes((photographs / "portrait.jpg").read_bytes())
    store = imported(photographs, autoencoder, tmp_path / "one")
    latents = {store.sample(row).id: store.latents(row) for row in range(len(store))}
    assert np.abs(latents["a-copy"] - latents["portrait"]).max() < 1e-4  # the encoder's own sums differ by what stands beside
    mean = imported(photographs, autoencoder, tmp_path / "mean", draw="mean")
    seeded = imported(photographs, autoencoder, tmp_path / "seeded", seed=1)
    row = store.find("portrait")
    assert np.abs(mean.latents(row) - store.latents(row)).max() > 1e-3
    assert np.abs(seeded.latents(row) - store.latents(row)).max() > 1e-3
    assert mean.manifest["about"]["latents"] == "mean"
