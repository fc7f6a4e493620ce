"""Options of a line become keys of a run: every option has a fate, and nothing is dropped in silence."""

import contextlib
import random
import re
from pathlib import Path

import pytest
import yaml

from astolfo.errors import AstolfoError, InputError
from astolfo.kohya import write
from astolfo.kohya.options import options
from astolfo.ledger import schema
from tests.kohya.conftest import BASE, LAUNCH


def test_a_silent_line_has_the_trainer_s_defaults(fields):
    """What a line leaves out is what sd-scripts' own defaults are, with its semantics."""
    assert fields("--seed 7") == {
        "base": "base", "dataset": "pics", "steps": 1600, "objective": "eps", "captions": {"kind": "concat", "tokens": 75},
        "unet": 100, "learning_rate": {"unet": 2e-6}, "optimizer": "AdamW", "schedule": "constant", "ranks": 1, "batch_size": 1,
        "accumulation": 1, "max_grad_norm": 1, "precision": {"weights": "fp32", "compute": "fp32", "save": "fp32"},
        "semantics": "kohya", "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ("--train_text_encoder --learning_rate 1e-5", "learning_rate", {"unet": 1e-5, "text_encoders": 1e-5}),
        ("--train_text_encoder --learning_rate_te1=0 --learning_rate=0", "learning_rate", {"unet": 0.0}),
        ("--learning_rate_te1 1e-5", "learning_rate", {"unet": 2e-6}),
        ("--mixed_precision bf16", "precision", {"weights": "fp32", "compute": "bf16", "save": "fp32"}),
        ("--mixed_precision bf16 --full_bf16 --save_precision float", "precision", {"weights": "bf16", "compute": "bf16", "save": "fp32"}),
        ("--optimizer_type adafactor", "optimizer", {"kind": "AdaFactor", "relative_step": True}),
        ("--optimizer_type Adafactor --optimizer_args warmup_init=True relative_step=False", "optimizer",
         {"kind": "AdaFactor", "relative_step": True, "warmup_init": True}),
        ("--optimizer_type PagedLion8bit --optimizer_args betas=.9,.99", "optimizer", "Lion8bit"),
        ("--use_lion_optimizer --optimizer_args weight_decay=0.1", "optimizer", {"kind": "Lion", "weight_decay": 0.1}),
        ("--lr_scheduler cosine --lr_warmup_steps 0.05", "schedule", {"kind": "cosine", "warmup_ratio": 0.05}),
        ("--lr_scheduler constant_with_warmup --lr_warmup_steps 5%", "schedule", {"kind": "warmup", "warmup_ratio": 0.05}),
        ("--lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 3 --lr_warmup_steps 9", "schedule",
         {"kind": "cosine-with-restarts", "warmup_steps": 9, "cycles": 3}),
        ("--lr_scheduler polynomial --lr_scheduler_power 2", "schedule", {"kind": "polynomial", "power": 2}),
        ("--lr_scheduler linear", "semantics", "kohya"),
        ("--pin_memory", "semantics", "kohya-native"),
        ("--pin_memory --train_text_encoder --learning_rate_te1=0", "learning_rate", {"unet": 2e-6}),
        ("--train_text_encoder --learning_rate_te1=0", "learning_rate", {"unet": 2e-6, "text_encoder_2": 2e-6}),
        ("--caption_separator=/ --enable_wildcard", "captions", {"kind": "concat", "tokens": 75, "wildcards": True, "separator": "/"}),
        ("--skip_until_initial_step", "semantics", "kohya-native"),
        ("--no_half_vae --mixed_precision bf16", "choices", {"untrained": "compute-but-vae"}),
        ("--v_parameterization --zero_terminal_snr --min_snr_gamma=5", "objective",
         {"kind": "v", "zero_terminal_snr": True, "min_snr_gamma": 5}),
        ("--noise_offset 0.0357 --adaptive_noise_scale 0.00357", "objective",
         {"kind": "eps", "noise_offset": 0.0357, "adaptive_noise_scale": 0.00357}),
        ("--loss_type huber --huber_c 0.2", "objective", {"kind": "eps", "loss": {"kind": "huber", "schedule": "snr", "c": 0.2}}),
        ("--flow_model --flow_uniform_shift --flow_uniform_static_ratio 3 --contrastive_flow_matching", "objective",
         {"kind": "rf", "shift": 3, "contrastive": 0.05}),
        ("--flow_model --flow_uniform_shift", "objective", "rf"),
        ("--max_token_length 225 --enable_wildcard --shuffle_caption --keep_tokens 2", "captions",
         {"kind": "concat", "tokens": 225, "wildcards": True, "shuffle": True, "keep_tokens": 2}),
        ("--deepspeed --torch_compile --mem_eff_attn", "engine",
         {"kind": "deepspeed", "stage": 2, "compile": "inductor", "attention": "memory-efficient"}),
        ("--max_train_epochs 10 --save_n_epoch_ratio 4", "save_every", {"epochs": 2}),
        ("--max_train_epochs 3 --dataset_repeats 10", "dataset", "pics-x10"),
        ("--max_data_loader_n_workers 4 --gradient_checkpointing --sample_every_n_steps 500", "placement",
         {"loader_workers": 4, "gradient_checkpointing": True, "sample_every": 500}),
        ("--max_train_epoch 4", "epochs", 4),
    ],
)  # fmt: skip
def test_options_become_keys(fields, options, key, value):
    """An option, or several together, as the ledger's words."""
    assert fields(options)[key] == value


def test_block_rates_are_those_of_the_blocks(fields):
    """--block_lr is the rates of its 23 blocks, in that trainer's order."""
    rates = [round(1e-6 * number, 9) for number in range(23)]
    assert fields("--block_lr " + ",".join(map(str, rates)))["learning_rate"]["blocks"] == rates


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("--flip_aug", "--flip_aug: An index's latents are taken as they are"),
        ("--mixed_precision fp16", "--mixed_precision fp16: .* nearest: bf16"),
        ("--fused_backward_pass", "--fused_backward_pass: "),
        ("--optimizer_type DAdaptAdam", "--optimizer_type DAdaptAdam: The ledger has no DAdaptAdam. .* nearest: Prodigy"),
        ("--optimizer_args momentum=0.9", "--optimizer_args momentum=0.9: AdamW has no momentum"),
        ("--lr_scheduler inverse_sqrt", "The ledger has no schedule inverse_sqrt. .* nearest: linear"),
        ("--lr_warmup_steps 100", "constant has no warm-up"),
        ("--zero_terminal_snr", "--zero_terminal_snr: At the last timestep"),
        ("--torch_compile", "--torch_compile: Nothing is compiled"),
        ("--deepspeed --zero_stage 3", "--zero_stage 3: DeepSpeed is stage 2"),
        ("--initial_step 500 --skip_until_initial_step", "--initial_step 500: The base is no run's checkpoint at step 500"),
        ("--resume /s", "--resume /s: Another trainer's state"),
        (
            "--optimizer_type Prodigy --learning_rate 1 --train_text_encoder --learning_rate_te1 .5",
            "Prodigy stops at rates that differ",
        ),
        ("--blocks_to_swap 3", "--blocks_to_swap 3: No trainer that is known here has it"),
        ("--nose_offset 3", "What comes nearest is --noise_offset"),
        ("--use_8bit_adam --optimizer_type Lion", "Two optimizers are named"),
        ("--full_bf16", "stops at it without --mixed_precision bf16"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(read, options, what):
    """What a ledger cannot say is refused with its place, what comes nearest, and, taken `--lossy`, in the run's note."""
    found = read(train__sh=f"{LAUNCH} --seed 1 \\\n {options}\n")
    [refusal] = found.refusals
    assert str(refusal).startswith("train.sh:2: ")
    assert re.search(what, str(refusal)), str(refusal)
    era = yaml.safe_load(write.era(found, "x", "X", Path("config")))
    assert refusal.what in " ".join(str(era["runs"]["train"]["note"]).split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--learning_rate fast", r"train\.sh:2: --learning_rate expects a number, found 'fast'"),
        ("--block_lr fast", r"--block_lr expects 23 rates"),
        ("--block_lr 1e-5,1e-5", r"has sd-scripts' 23 values, found 2"),
        ("--seed 1.5", r"--seed expects a whole number, found '1.5'"),
        ("--loss_type l3", r"--loss_type expects l1, l2, huber, smooth_l1, found 'l3'"),
        ("--learning_rate_t 1", r"--learning_rate_t could be --learning_rate_te1 or --learning_rate_te2"),
        ("--optimizer_args weight_decay", r"--optimizer_args expects NAME=VALUE words"),
        ("--seed", r"--seed expects a value, found the end"),
        ("--xformers=1", r"--xformers takes no value"),
        ("stray", r"expected an option, --name, found 'stray'"),
        ("--learning_rate=$LR", r"--learning_rate \$LR: the script does not set LR, and it is needed here"),
        ("--dataset_config no.toml", r"--dataset_config no.toml is not here. Give that file to the import too"),
        ("--config_file no", r"--config_file no.toml is not here"),
        ("--min_timestep 900 --max_timestep 100", r"the ledger's objective cannot be .*: min_timestep \(900\) is above"),
    ],
)
def test_a_wrong_line_is_named(read, options, message):
    """An error names file, line and option, and says what was expected."""
    with pytest.raises(InputError, match=message):
        read(train__sh=f"{LAUNCH} \\\n {options}\n")


@pytest.mark.parametrize(
    ("options", "saves", "other"),
    [
        ("--max_train_steps 900 --save_every_n_steps 300 --save_every_n_epochs 1", {"steps": 300}, "save_every_n_epochs"),
        ("--max_train_epochs 9 --save_every_n_steps 300 --save_every_n_epochs 3", {"epochs": 3}, "save_every_n_steps"),
        ("--max_train_steps 900 --save_every_n_epochs 1", None, "save_every_n_epochs"),
    ],
)
def test_of_two_cadences_one_is_a_key(read, options, saves, other):
    """A run saves by its length's unit; of what is given in the other the table says that it has no effect."""
    run = read(train__sh=f"accelerate launch sdxl_train.py {BASE} --in_json /d/m.json --train_data_dir /d {options}\n").runs[0]
    assert run.fields.get("save_every") == saves
    assert run.values.rows[other].becomes == "none"


def test_every_option_has_a_fate(read):
    """The account has a row for every option that is given, and the secret among them is in no text."""
    options = "--seed 1 --wandb_api_key=hunter2 --log_with wandb --xformers --persistent_data_loader_workers --keep_tokens 3 --config_file c.toml"
    found = read(train__sh=f"{LAUNCH} {options}\n", c__toml='huggingface_token = "hunter3"\nloss_type = "l2"\n')
    run = found.runs[0]
    assert set(run.values.rows) >= set(run.launch.given) | {"accelerate num_processes"}
    text = write.whole(found, "X", Path("config"))
    assert "hunter" not in text
    assert all(f"#     {name} " in text for name in ("wandb_api_key", "keep_tokens", "huggingface_token", "xformers"))


VALUES = {
    "flag": [""], "int": ["0", "7", "-3"], "float": ["0", "0.5", "3e9"], "number": ["0", "0.1", "100", "5%", "-1"],
    "text": ["x", "", "/a b/c.safetensors", "1,2"], "words": ["a=1", "weight_decay=0.1 betas=0.9,0.99", "x", ""],
}  # fmt: skip


def spelt(option, value):
    """An option as a line has it."""
    return f"--{option.name}" if option.flag else f"--{option.name} {value if option.takes == 'words' else repr(value)}"


def test_every_option_is_read_or_refused(read):
    """Every option of the table, with any value of its kind and some that are none, is a run or an error for the user."""
    for option in options().all.values():
        for value in VALUES[option.takes] if isinstance(option.takes, str) else (*option.takes, "other"):
            with contextlib.suppress(AstolfoError):
                write.whole(read(train__sh=f"{LAUNCH} {spelt(option, value)}\n"), "X", Path("config"))


@pytest.mark.parametrize("seed", range(30))
def test_options_together_are_read_or_refused(read, seed):
    """Up to twelve options together are runs that the ledger's schema takes, or errors for the user."""
    draw = random.Random(seed)
    for _ in range(10):
        drawn = draw.sample(list(options().all.values()), draw.randint(2, 12))
        words = [spelt(one, draw.choice(VALUES[one.takes] if isinstance(one.takes, str) else one.takes)) for one in drawn]
        with contextlib.suppress(AstolfoError):
            line = LAUNCH if draw.random() < 0.7 else LAUNCH.replace("sdxl_train.py", "fine_tune.py --v2")
            found = read(train__sh=f"{line} {' '.join(words)}\n")
            schema.Era.model_validate(yaml.safe_load(write.era(found, "x", "X", Path("config"))))
