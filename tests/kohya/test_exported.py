"""Every run of the record as a command line: its import is the same recipe, whatever the ledger says of it."""

import random
from dataclasses import replace

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.kohya.export import exported, read_back
from astolfo.ledger import load, schema
from astolfo.ledger.recipe import recipe_of
from tests.conftest import CONFIG

LEDGER = load(CONFIG, "full")
PARTS = {
    "objective": [
        "eps", "v", {"kind": "v", "zero_terminal_snr": True, "min_snr_gamma": 2.5}, {"kind": "rf", "shift": 2.5}, {"kind": "rf", "contrastive": 0.1},
        {"kind": "eps", "noise_offset": 0.0357, "noise_offset_random": True, "min_timestep": 10, "max_timestep": 900},
        {"kind": "eps", "multires_noise": {"iterations": 6, "discount": 0.25}, "ip_noise_gamma": 0.1, "v_pred_like_loss": 0.5},
        {"kind": "v", "scale_v_pred_loss_like_noise_pred": True, "debiased_estimation_loss": True, "loss": {"kind": "huber", "c": 0.2}},
        {"kind": "eps", "loss": {"kind": "smooth_l1", "schedule": "constant", "c": 0.3, "scale": 1.5}}, {"kind": "eps", "loss": "l1"},
    ],
    "captions": [
        {"kind": "concat", "tokens": 225, "wildcards": True}, {"kind": "tags"}, {"kind": "pick", "tokens": 150, "dropout": 0.1},
        {"kind": "concat", "shuffle": True, "keep_tokens": 2, "tag_dropout": 0.05, "prefix": "it's a $ \"x\", ", "suffix": " # end"},
        {"kind": "concat", "shuffle": True, "keep_tokens_separator": "|||", "separator": ";", "secondary_separator": ";;;"},
    ],
    "unet": [100, 71, {"freeze": ["mid_block"]}, {"train": ["attn2"]}],
    "learning_rate": [
        {"unet": 1e-5}, {"unet": 0, "text_encoders": 3e-6}, {"unet": 1.23e-5, "text_encoder": 1e-6}, {"unet": 1e-5, "text_encoder_2": 2e-7},
        {"unet": 1e-5, "blocks": [1e-6 * number for number in range(23)]}, {"unet": 1e-5, "blocks": {"mid_block": 0.0}},
    ],
    "optimizer": [
        "AdamW", "AdamW8bit", "PagedAdamW8bit", "AdamW4bit", "Lion8bit", "C-Lion", "CAME", {"kind": "CautiousLion", "weight_decay": 0.1},
        {"kind": "AdaFactor", "relative_step": True, "warmup_init": True}, {"kind": "AdaFactor", "relative_step": False, "scale_parameter": False},
        {"kind": "AdamW", "betas": [0.9, 0.95], "eps": 1e-6}, {"kind": "Prodigy", "d_coef": 2, "coupled_decay": True, "bias_correction": True},
        {"kind": "AdamWScheduleFree", "averaging_power": 1.0, "weight_decay": 0.02}, {"kind": "Lion", "betas": [0.95, 0.98]},
    ],
    "schedule": [
        "constant", {"kind": "warmup", "warmup_steps": 100}, {"kind": "warmup-linear", "warmup_steps": 10}, "cosine", "linear",
        {"kind": "cosine-with-restarts", "cycles": 3, "warmup_ratio": 0.05}, {"kind": "polynomial", "power": 2, "end": 1e-9},
    ],
    "ranks": [1, 2, 4, 8], "batch_size": [1, 3], "accumulation": [1, 16], "max_grad_norm": [0, 1, 0.35],
    "precision": [{}, {"weights": "fp32", "compute": "bf16", "save": "fp32"}, {"weights": "fp32", "compute": "fp32"}, {"update": "stochastic"}],
    "save_every": [{"epochs": 2}, {"steps": 500}, None],
    "semantics": ["kohya", "reference"], "choices": [None, {"warmup": "kohya"}, {"pooled_projection": "reference"}],
    "engine": [None, {"kind": "deepspeed"}, {"kind": "deepspeed", "compile": "inductor", "attention": "memory-efficient"}],
    "loss_spike": [None, 5], "on_failure": [None, "keep"], "seed": [0, 25112201, 2**31],
    "placement": [None, {"numa": 1, "loader_workers": 4}, {"gradient_checkpointing": ["mid_block"], "keep_states": 2}, {"ramdisk": True}],
}  # fmt: skip
"""Values of every key, among them those that sd-scripts cannot be told."""


def back(run):
    """The run's fields as the import of its export has them, the run in the same ledger."""
    found = read_back(LEDGER, exported(LEDGER, run))
    assert not found.refusals, list(map(str, found.refusals))
    return schema.RunFields.model_validate(found.runs[0].fields)


@pytest.mark.parametrize("name", LEDGER.runs)
def test_the_import_of_an_export_is_the_same_recipe(name):
    """Every run of the record comes back from its command line with all that it says, and so with the same recipe."""
    run = LEDGER.run(name)
    fields = back(run)
    assert fields.model_dump() == run.fields.model_dump()
    assert recipe_of(LEDGER, replace(run, fields=fields)).digest == recipe_of(LEDGER, run).digest


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_run_says_comes_back(seed):
    """Runs of values drawn from every key come back as they were, those that sd-scripts cannot be told among them."""
    draw = random.Random(seed)
    run = LEDGER.run("25112201")
    drawn = {key: draw.choice(values) for key, values in PARTS.items()}
    if isinstance(drawn["optimizer"], dict) and drawn["optimizer"]["kind"] == "Prodigy":
        drawn["learning_rate"] = {"unet": 1, "text_encoders": 1}  # a ledger has one rate for it, too
    length = draw.choice([{"epochs": 3}, {"steps": 1234}])
    said = run.fields.model_dump(include={"base", "dataset"}) | drawn | length
    fields = schema.RunFields.model_validate(said)
    assert back(replace(run, fields=fields)).model_dump() == fields.model_dump()


def test_what_the_line_cannot_say_stands_above_it():
    """Each thing that sd-scripts cannot be told is one comment, with a reason; the record's have the UNet's percent and the fork."""
    lines = exported(LEDGER, LEDGER.run("25112201")).splitlines()
    said = [line for line in lines if line.startswith("# astolfo: ")]
    assert [line.split()[2] for line in said] == ["unet:", "semantics:"]
    assert all("  # " in line for line in said)


def test_what_an_index_does_not_have_of_a_dataset_is_said(tmp_path):
    """Repeats of parts and mirrored pictures are named above the line; a dataset without them has no such comment."""
    (tmp_path / "ledger.yaml").write_text(
        "bases: {base: {}}\n"
        "datasets: {plain: {images: 9}, turned: {images: 9, flip: true}, both: {parts: {plain: 1, turned: 5}}}\n"
        "defaults: {base: base, epochs: 1, learning_rate: {unet: 1.0e-5}}\n"
        "runs: {one: {dataset: both}, two: {dataset: plain}}\n"
    )
    ledger = load(tmp_path, "full")
    said = exported(ledger, ledger.run("one"))
    assert "taken so many times an epoch: plain 1, turned 5. An index has no repeats" in said
    assert "taken mirrored (turned)" in said
    assert not [word for word in ("repeats", "mirrored") if word in exported(ledger, ledger.run("two"))]


def test_the_verb_prints_it():
    """`astolfo ledger export ID` prints the line; an unknown run is named with near ones."""
    found = CliRunner().invoke(cli, ["ledger", "export", "26011101"])
    assert found.exit_code == 0
    assert "--pretrained_model_name_or_path=bases/AK-Evo-2EP.safetensors" in found.output
    assert "26011101" in str(CliRunner().invoke(cli, ["ledger", "export", "26011100"]).exception)
