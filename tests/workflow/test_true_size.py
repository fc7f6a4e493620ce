"""At the full scale, on a CPU: random bases through the whole graph. Reduced shapes every day, the true ones in a stage of their own.

A ledger of two runs (the whole UNet behind frozen text encoders; 71 % of it with both encoders), four samples with latents of
16x16, CLIP's own vocabulary. Random weights learn nothing: what is shown is that the graph carries such a model from its base to
its card, and that a training takes the memory that it said.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch
import yaml

from astolfo.checkpoint import model
from astolfo.checkpoint.safefile import open_file
from astolfo.data.ingest.run import run as ingest
from astolfo.ledger import load, recipe_of
from astolfo.provenance import jobs
from astolfo.train.host_memory import available
from astolfo.train.model import architecture_of
from benchmarks.train_sdxl import Synthetic, write_base
from tests.conftest import ROOT, SMALL
from tests.train.conftest import in_child

LEDGER = """\
bases: {random: {family: sdxl, objective: eps}}
datasets: {few: {images: 4}}
prompts: {one: {full: {texts: [a red star]}, miniature: {procedural: 1}}}
evaluations:
  default:
    {prompts: one, seed: 1, sampler: DDIM, steps: {full: 1, miniature: 1}, cfg: 4, grids: {sweep: {x: {alpha: [0.5, 1]}}}}
defaults:
  {base: random, dataset: few, ranks: 1, optimizer: AdamW8bit, captions: {kind: concat, tokens: 225},
   precision: {weights: bf16, compute: bf16, save: fp16}}
runs:
  whole: {unet: 100, learning_rate: {unet: 1.0e-5}, steps: 2, save_every: {steps: 1}, placement: {keep_states: 1}}
  both: {unet: 71, learning_rate: {unet: 1.0e-5, text_encoders: 1.0e-5}, steps: 1, optimizer: Lion8bit}
"""
SIDE = 16  # of latents; in pixels eight times that
TRUE = {"unet": {"sample_size": SIDE}, "vae": {"sample_size": 8 * SIDE}}
ENCODER = {"hidden_size": 64, "intermediate_size": 128, "projection_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
REDUCED = {
    "unet": TRUE["unet"] | {
        "block_out_channels": [32, 64, 64], "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 128,
        "transformer_layers_per_block": [1, 1, 1], "attention_head_dim": [2, 4, 4], "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 112,
    },
    "vae": TRUE["vae"] | {"block_out_channels": [16, 32, 32, 32], "layers_per_block": 1, "norm_num_groups": 4},
    "text_encoder": ENCODER,
    "text_encoder_2": ENCODER,
}  # fmt: skip
MEMORY, DISK = 21e9, 60e9  # bytes that the true size takes


@pytest.mark.slow
@pytest.mark.parametrize("shapes", [REDUCED, TRUE], ids=["reduced", "true"])
def test_from_random_weights_to_a_card(shapes, tmp_path):
    """Two segments with a kill between, a merge, pictures, a card, and a second run of one segment: built and verified."""
    if shapes is TRUE:
        _enough(tmp_path)
    home = _prepared(tmp_path, shapes)
    _killed_in(home, "whole", 2)
    first = home.folder / "states/whole/00000001.safetensors.attestation.json"
    made = first.stat().st_mtime_ns
    _build(home, "results/whole-0.50.safetensors", "evaluations/whole/index.html", "results/whole.md", "results/both.safetensors")
    assert first.stat().st_mtime_ns == made, "the segment before the kill was trained again"

    base, whole, merged, both = (
        open_file(home.folder / name)
        for name in ("bases/random.safetensors", "results/whole.safetensors", "results/whole-0.50.safetensors",
                     "results/both.safetensors")
    )  # fmt: skip
    for file in (whole, merged, both):
        model.check(file.path, architecture_of(home.recipe))
    parts = {"conditioner.embedders.0": "text encoder", "conditioner.embedders.1": "text encoder 2", "first_stage": "autoencoder"}
    moved = {name: {_part(key, parts) for key in base if bytes(base.raw(key)) != bytes(file.raw(key))}
             for name, file in (("whole", whole), ("both", both))}  # fmt: skip
    assert moved == {"whole": {"UNet"}, "both": {"UNet", "text encoder", "text encoder 2"}}
    key = next(key for key in base if bytes(base.raw(key)) != bytes(whole.raw(key)))
    middle = (base.tensor(key).float() + whole.tensor(key).float()) / 2
    assert torch.equal(merged.tensor(key), middle.half())

    report = json.loads((home.folder / "evaluations/whole/metrics.json").read_text())
    assert [(cell["alpha"], cell["finite"]) for cell in report["cells"]] == [(0.5, 1), (1.0, 1)]
    assert "whole" in (home.folder / "results/whole.md").read_text()
    verified = _called(home, "astolfo", "--scale", "full", "verify").stdout
    assert "damaged" not in verified, verified
    for log in (home.folder / "logs/train").glob("*.log") if shapes is TRUE else ():
        _took_what_it_said(home.folder, log)


def _enough(folder):
    """Skips where the true size does not fit."""
    memory, disk = available() or 0.0, shutil.disk_usage(folder).free
    if memory < MEMORY or disk < DISK:
        pytest.skip(
            f"the true size takes {MEMORY / 1e9:.0f} GB of free memory and {DISK / 1e9:.0f} GB of disk; "
            f"{memory / 1e9:.0f} and {disk / 1e9:.0f} are here"
        )


def _prepared(tmp_path, shapes):
    """A working directory with the ledger, and a base and a store that are pinned."""
    home = SimpleNamespace(folder=tmp_path / "work")
    (home.folder / "config").mkdir(parents=True)
    full = load(SMALL, "full").scale.architectures["sdxl"]
    sdxl = {part: about | shapes.get(part, {}) for part, about in full.items()}
    scales = yaml.safe_dump({"scales": {"full": {"architectures": {"sdxl": sdxl}}}})
    (home.folder / "config" / "ledger.yaml").write_text(LEDGER + scales)
    ledger = load(home.folder / "config", "full")
    home.recipe = recipe_of(ledger, ledger.run("whole"))
    assert in_child(lambda: write_base(home.recipe, tmp_path / "random.safetensors")) == 0  # gives its memory back
    ingest(Synthetic(4, SIDE, 8 * SIDE), tmp_path / "few")
    _called(home, "astolfo", "--scale", "full", "pin", "random", tmp_path / "random.safetensors")
    _called(home, "astolfo", "--scale", "full", "pin", "few", tmp_path / "few")
    return home


def _called(home, *command):
    path = os.pathsep.join([str(ROOT / ".venv" / "bin"), os.environ["PATH"]])
    done = subprocess.run([*map(str, command)], cwd=home.folder, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def _snakemake(home, *targets):
    """The command that `make` gives; one job at a time, since two would not fit."""
    return [str(ROOT / "envs/snakemake"), *targets, "--snakefile", str(ROOT / "Snakefile"), "--directory", str(home.folder),
            "--workflow-profile", str(ROOT / "workflow/profiles/default"), "--cores", "1",
            "--config", "scale=full", "device=cpu"]  # fmt: skip


def _build(home, *targets):
    done = _called(home, *_snakemake(home, *targets))
    assert "a proof that the graph works, not a way to train" in done.stdout + done.stderr


def _killed_in(home, run, step):
    """Builds a run's result until the segment that ends at `step` has begun, and then kills everything that builds."""
    command, said = _snakemake(home, f"results/{run}.safetensors"), home.folder.with_name("said")
    with said.open("w") as file:
        process = subprocess.Popen(command, start_new_session=True, stdout=file, stderr=subprocess.STDOUT)
    try:
        while not (home.folder / f"states/{run}/.{step:08d}.lock").exists():
            assert process.poll() is None, said.read_text()
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended already; why, the assertion says
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (home.folder / f"states/{run}/{step:08d}.safetensors").exists()


def _part(key, parts):
    return next((name for start, name in parts.items() if key.startswith(start)), "UNet")


def _took_what_it_said(folder, log):
    """The memory that a segment announced, and took at most, differ by at most 10 %."""
    said = float(re.search(r"about ([\d.]+) of [\d.]+ GB of free memory are needed", log.read_text())[1])
    run, step = log.stem.split("-")
    cost = jobs.read(folder / f"states/{run}/{step}.safetensors")["cost"]
    took = cost["peak_memory_mib"] * 2**20 / 1e9
    print(f"{log.stem}: {said:.1f} GB said, {took:.1f} taken, {cost['seconds']:.0f} s")
    assert took == pytest.approx(said, rel=0.1)
