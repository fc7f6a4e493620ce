"""Values as that trainer takes them: zeros that say something, wrong types, and what trains no whole model."""

from dataclasses import replace

import pytest

from astolfo.errors import InputError
from astolfo.kohya.export import exported, read_back
from astolfo.ledger import load, schema
from tests.conftest import CONFIG
from tests.kohya.conftest import BASE, LAUNCH


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ("--optimizer_args weight_decay=0", "optimizer", {"kind": "AdamW", "weight_decay": 0}),
        ("--optimizer_args weight_decay=0.0 eps=0 betas=0,0.99", "optimizer", {"kind": "AdamW", "betas": [0, 0.99], "weight_decay": 0, "eps": 0}),
        ("--optimizer_type AdamWScheduleFree --optimizer_args weight_lr_power=0 r=0", "optimizer", {"kind": "AdamWScheduleFree", "rate_power": 0}),
        ("--optimizer_type Adafactor --optimizer_args relative_step=0 scale_parameter=0 warmup_init=False", "optimizer",
         {"kind": "AdaFactor", "relative_step": False, "scale_parameter": False}),
        ("--optimizer_type Prodigy --optimizer_args decouple=False weight_decay=0 growth_rate=1e999 beta3=None", "optimizer",
         {"kind": "Prodigy", "coupled_decay": True}),
        ("--optimizer_type Lion --optimizer_args weight_decay=0 cautious=False", "optimizer", "Lion"),
        ("--noise_offset 0.1 --adaptive_noise_scale 0", "objective", {"kind": "eps", "noise_offset": 0.1, "adaptive_noise_scale": 0}),
        ("--flow_model --contrastive_flow_matching --cfm_lambda 0", "objective", "rf"),
        ("--max_timestep 0", "objective", {"kind": "eps", "max_timestep": 0}),
        ("--lr_scheduler polynomial --lr_scheduler_args lr_end=0", "schedule", {"kind": "polynomial", "power": 1, "end": 0}),
    ],
)  # fmt: skip
def test_a_zero_that_says_something_is_a_key(fields, options, key, value):
    """0 is kept where that trainer would take something else without it, and dropped where it would not."""
    found = fields(options)[key]
    assert found == value
    assert isinstance(found, str) or all(isinstance(found[name], bool) == isinstance(value[name], bool) for name in value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max_train_epochs 0", "the ledger's epochs cannot be 0"),
        ("--max_train_steps 0", "the ledger's steps cannot be 0"),
        ("--dataset_repeats 0", "--dataset_repeats expects 1 or more, found 0"),
        ("--optimizer_type Prodigy --optimizer_args d0=0", "the ledger's optimizer.d0 cannot be 0"),
        ("--optimizer_type Prodigy --optimizer_args d_coef=0", "the ledger's optimizer.d_coef cannot be 0"),
    ],
)
def test_a_zero_with_which_nothing_trains_is_an_error(read, options, message):
    """Where the ledger has no such 0, a line with it is not read as one without it."""
    with pytest.raises(InputError, match=rf"^train\.sh:\d: {message}"):
        read(train__sh=f"{LAUNCH} {options}\n")


@pytest.mark.parametrize(
    "runner", ["accelerate launch --use_deepspeed --zero_stage 0", "accelerate launch --use_deepspeed --zero_stage=3"]
)
def test_another_stage_of_deepspeed_is_refused(read, runner):
    """Stage 0 is another stage as 3 is, and not the one that is taken where none is given."""
    [refusal] = read(train__sh=f"{LAUNCH.replace('accelerate launch', runner)} --seed 1\n").refusals
    assert "DeepSpeed is stage 2 here" in str(refusal)


@pytest.mark.parametrize(
    "said",
    [
        {"optimizer": {"kind": "AdamW", "weight_decay": 0}}, {"optimizer": {"kind": "AdamW8bit", "eps": 0, "betas": [0, 0.9]}},
        {"optimizer": {"kind": "AdamWScheduleFree", "rate_power": 0}}, {"objective": {"kind": "eps", "max_timestep": 0}},
        {"objective": {"kind": "eps", "noise_offset": 0.1, "adaptive_noise_scale": 0}},
    ],
)  # fmt: skip
def test_zeros_are_said_in_the_line(said):
    """An export has zeros among its options, and no comment that says that the trainer cannot be told; they come back."""
    ledger = load(CONFIG, "full")
    run = ledger.run("25112201")
    fields = schema.RunFields.model_validate(run.fields.model_dump() | said)
    text = exported(ledger, replace(run, fields=fields))
    assert not [line for line in text.splitlines() if line.startswith(tuple(f"# astolfo: {key}" for key in said))]
    back = schema.RunFields.model_validate(read_back(ledger, text).runs[0].fields)
    assert back.model_dump() == fields.model_dump()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--optimizer_type Adafactor --optimizer_args eps=1e-30", "eps of AdaFactor expects 2 numbers, such as 1e-30,0.001; found 1e-30"),
        ("--optimizer_args betas=0.9", "betas of AdamW expects 2 numbers, such as 0.9,0.999; found 0.9"),
        ("--optimizer_args betas=1,2,3", r"betas of AdamW expects 2 numbers, such as 0.9,0.999; found \(1, 2, 3\)"),
        ("--optimizer_args \"weight_decay='x'\"", "weight_decay of AdamW expects a number; found 'x'"),
        ("--optimizer_args weight_decay=None", "weight_decay of AdamW expects a number; found None"),
        ("--optimizer_type Prodigy --optimizer_args use_bias_correction=2", "use_bias_correction of Prodigy expects True or False; found 2"),
        ("--optimizer_args 'weight_decay={[]:1}'", "expects NAME=VALUE words"),
        ("--lr_scheduler polynomial --lr_scheduler_args lr_end=None", "lr_end expects a number, found None"),
        ("--seed inf", "--seed expects a whole number, found 'inf'"),
        ("--learning_rate nan", "--learning_rate expects a number, found 'nan'"),
        ("--lr_warmup_steps inf", "--lr_warmup_steps expects a whole number, a fraction"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named(read, options, message):
    """What an option or an optimizer's argument cannot be is an error with its place, and what was expected and found."""
    with pytest.raises(InputError, match=rf"^train\.sh:2: .*{message}"):
        read(train__sh=f"{LAUNCH} \\\n {options}\n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("optimizer_args = 3", "--optimizer_args expects a list of texts, found 3"),
        ("optimizer_args = {a = 1}", "--optimizer_args expects a list of texts"),
        ("output_name = true", "--output_name expects a path, found True"),
        ("seed = inf", "--seed expects a whole number, found inf"),
        ("train_batch_size = 2020-01-01", "--train_batch_size expects a whole number"),
        ("caption_prefix = \"a\\u0000\"", "--caption_prefix expects text"),
        (f"output_dir = '/o/{'x' * 256}'", "--output_dir expects a path"),
    ],
)  # fmt: skip
def test_a_configuration_file_s_value_of_another_type_is_named(read, given, message):
    """A wrong value of a --config_file is an error at its line."""
    with pytest.raises(InputError, match=rf"c\.toml:2: {message}"):
        read(train__sh=f"{LAUNCH} --config_file c.toml\n", c__toml=f"[all]\n{given}\n")


def test_false_for_a_text_is_silence(read):
    """vae = false, and an optimizer that is false, are options that are not given."""
    found = read(
        train__sh=f"{LAUNCH} --seed 1 --config_file c.toml\n",
        c__toml="vae = false\noptimizer_type = false\nsave_precision = false\n",
    )
    assert list(found.bases) == ["base"]
    assert (found.runs[0].fields["optimizer"], found.runs[0].fields["precision"]["save"]) == ("AdamW", "fp32")


@pytest.mark.parametrize("given", ["big", ",", "1024,", "0", "1024,0", "-1", "1024,1024,1024", "1e3", "9" * 20])
def test_a_resolution_that_is_none_is_named(read, given):
    """--resolution is a side or two; nothing else is taken for one."""
    line = f"accelerate launch sdxl_train.py {BASE} --train_data_dir /d/pics --resolution={given}"
    with pytest.raises(InputError, match=rf"^train\.sh:1: --resolution expects a side, or WIDTH,HEIGHT, found '{given}'"):
        read(train__sh=f"{line}\n")


@pytest.mark.parametrize("name", ["min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"])
def test_a_bucket_has_a_size(read, name):
    """Sides and steps of buckets are 1 or more."""
    line = f"accelerate launch sdxl_train.py {BASE} --train_data_dir /d/pics --resolution=1024 --enable_bucket"
    with pytest.raises(InputError, match=rf"^train\.sh:1: --{name} expects 1 or more, found 0"):
        read(train__sh=f"{line} --{name}=0\n")


HEAD = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/a'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[datasets.subsets]]\nimage_dir = '/a'\n", r"1: expected \[\[datasets\]\] above \[\[datasets.subsets\]\], found"),
        ("[datasets]\nresolution = 3\n", r"1: expected \[\[datasets\]\] above .*, found one table, \[datasets\]"),
        (f"general = 3\n{HEAD}", r"1: expected a table, \[general\], found general = 3"),
        ("\ndatasets = 3\n", r"2: expected tables, \[\[datasets\]\], found datasets = 3"),
        ("[[datasets]]\nsubsets = [3]\n", r"2: expected tables, \[\[datasets.subsets\]\], found subsets = \[3\]"),
        (f"{HEAD}num_repeats = '3'\n", "4: num_repeats expects a whole number, found '3'"),
        (f"{HEAD}num_repeats = true\n", "4: num_repeats expects a whole number, found True"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 3\n", "3: image_dir expects a path in quotes, found 3"),
        (f"{HEAD}[[datasets.subsets]]\nimage_dir = [1]\n", r"5: image_dir expects a path in quotes, found \[1\]"),
        (f"{HEAD}flip_aug = 'yes'\n", "4: flip_aug expects true or false, found 'yes'"),
        (f"{HEAD}is_reg = 1\n", "4: is_reg expects true or false, found 1"),
        (f"{HEAD}class_tokens = ['a']\n", "4: class_tokens expects text in quotes"),
        (f"[general]\nbatch_size = 'x'\n{HEAD}", "2: batch_size expects a whole number, found 'x'"),
        (f"[general]\nresolution = 'a'\n{HEAD}", r"2: resolution expects a side, or \[WIDTH, HEIGHT\].*, found 'a'"),
        (f"[general]\nresolution = [1024]\n{HEAD}", r"2: resolution expects a side, .* found \[1024\]"),
        (f"[general]\nresolution = [1, 2, 3]\n{HEAD}", r"2: resolution expects a side, .* found \[1, 2, 3\]"),
        (f"{HEAD}caption_dropout_rate = nan\n", "4: caption_dropout_rate expects a number, found nan"),
        (f"{HEAD}caption_extension = false\n", "4: caption_extension expects text in quotes, found False"),
        (f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/a/{'x' * 256}'\n", "3: image_dir expects a path in quotes"),
    ],
)
def test_a_dataset_file_s_value_of_another_type_is_named(read, text, message):
    """A table that is none, and a value of another type than that trainer demands, are errors with file and line."""
    with pytest.raises(InputError, match=rf"data\.toml:{message}"):
        read(train__sh=f"accelerate launch sdxl_train.py {BASE} --dataset_config data.toml\n", data__toml=text)


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "[]",
        "[" * 100_000,
        '{"datasets": 3}',
        '{"datasets": [{"subsets": [{"image_dir": null}]}]}',
        '{"datasets": [{"subsets": [{"image_dir": "\\ud800"}]}]}',
    ],
)
def test_a_dataset_file_of_json_that_is_none_is_named(read, tmp_path, text):
    """The same of a dataset file of JSON."""
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(InputError, match=r"data\.json:"):
        read(train__sh=f"accelerate launch sdxl_train.py {BASE} --dataset_config data.json\n")


def test_a_subset_that_is_taken_no_times_is_left_out(read):
    """num_repeats = 0 leaves a subset out there, so it does here, and the import says so."""
    found = read(
        train__sh=f"accelerate launch sdxl_train.py {BASE} --dataset_config data.toml --seed 1\n",
        data__toml=f"{HEAD}num_repeats = 0\n[[datasets.subsets]]\nimage_dir = '/b'\n",
    )
    assert list(found.datasets) == ["b"]
    assert any("/a is taken 0 times an epoch, so that trainer leaves it out" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("given", "what"),
    [('network_module = "networks.lora"\nnetwork_dim = 32', "LoRA"), ('token_string = "x"', "embedding"), ("cond_emb_dim = 32", "ControlNet")],
)  # fmt: skip
def test_what_trains_no_whole_model_is_left_out(read, given, what):
    """A LoRA's configuration file is no run, `--lossy` or not: it is left out as its trainer's lines are."""
    text = f'pretrained_model_name_or_path = "/m/a.safetensors"\nin_json = "/d/pics/m.json"\nseed = 3\n{given}\n'
    found = read(lora__toml=text)
    assert not found.runs
    [refusal], [left] = found.refusals, found.left_out
    assert "lora.toml:4: the launch: --" in str(refusal)
    assert f"is of a trainer of a{'n' if what == 'embedding' else ''} {what}" in left
    assert read(lora__toml=text.replace(given, 'network_module = ""')).runs
