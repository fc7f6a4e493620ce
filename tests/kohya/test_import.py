"""Command lines become runs: every option has a fate, nothing is dropped in silence, and what is written loads."""

import contextlib
import random
import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import AstolfoError, InputError
from astolfo.kohya import write
from astolfo.kohya.options import options
from astolfo.ledger import load, recipe_of, schema

BASE = "--pretrained_model_name_or_path=/m/base.safetensors"
LAUNCH = f"accelerate launch --num_processes=1 sdxl_train.py {BASE} --in_json=/d/pics/meta.json"


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
        ("--nose_offset 3", "Did you mean --noise_offset"),
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


def test_what_needs_no_value_may_be_unknown(read):
    """A value that only the shell knows is no matter where no key needs it."""
    assert not read(train__sh=f'{LAUNCH} --seed 1 --logging_dir="$HOME/$(date)"\n').refusals


def test_a_configuration_file_under_a_line(read):
    """The line is laid over --config_file, whose sections are one; a file is found beside the script by its last name."""
    found = read(
        train__sh=f"{LAUNCH} --config_file=/elsewhere/sdxl --learning_rate 3e-5\n",
        sdxl__toml='[a]\nlearning_rate = 1e-5\nmax_token_length = 150\n[b]\nseed = 9\nxformers = true\nvae = ""\n',
    )
    run = found.runs[0].fields
    assert (run["learning_rate"], run["captions"]["tokens"], run["seed"]) == ({"unet": 3e-5}, 150, 9)
    assert len(found.runs) == 1


def test_a_configuration_file_alone_is_a_launch(read):
    """A TOML file that no line names, and that names a model, is a run; wrong values are named with its line."""
    text = 'pretrained_model_name_or_path = "/m/a.safetensors"\nin_json = "/d/pics/m.json"\nseed = 3\nmax_timestep = 1000\n'
    assert read(sdxl__toml=text).runs[0].name == "sdxl"
    with pytest.raises(InputError, match=r"sdxl\.toml:5: --train_batch_size expects a whole number, found 'two'"):
        read(sdxl__toml=text + 'train_batch_size = "two"\n')


def test_a_dataset_file(read):
    """Options of a dataset file go over the line's: subset over dataset over [general]."""
    found = read(
        train__sh=f"accelerate launch sdxl_train.py {BASE} --dataset_config data.toml --train_batch_size 1 --max_train_epochs 2 --seed 1\n",
        data__toml='[general]\nenable_bucket = true\ncaption_extension = ".txt"\nnum_repeats = 5\n[[datasets]]\nresolution = [1024, 1024]\n'
        'batch_size = 4\nmax_bucket_reso = 2048\n[[datasets.subsets]]\nimage_dir = "/d/girl"\nshuffle_caption = true\n',
    )
    run, dataset = found.runs[0].fields, found.datasets["girl"]
    assert (run["batch_size"], run["epochs"], run["captions"]) == (4, 2, {"kind": "tags", "tokens": 75, "shuffle": True})
    assert (run["dataset"], found.datasets["girl-x5"].parts) == ("girl-x5", {"girl": 5})
    assert dataset.words == [
        "folder",
        "/d/girl",
        "-o",
        "stores/girl",
        "--largest",
        "2048",
        "--autoencoder",
        "/m/base.safetensors",
    ]


def test_a_zero_is_off_only_where_it_says_nothing(read):
    """A zero that changes what the trainer does is a key, in a line and in a file; one that says what silence says is off."""
    zeros = {
        "key": ["max_grad_norm", "learning_rate_te2", "seed", "learning_rate"],
        "none": ["min_snr_gamma", "noise_offset", "save_n_epoch_ratio", "sample_every_n_steps", "lr_warmup_steps"],
    }
    every = [*zeros["key"], *zeros["none"]]
    line = f"{LAUNCH} --train_text_encoder --learning_rate_te1 1e-6"
    for found in (
        read(train__sh=f"{line} {' '.join(f'--{name}=0' for name in every)}\n"),
        read(train__sh=f"{line} --config_file c.toml\n", c__toml="".join(f"{name} = 0\n" for name in every)),
        read(
            train__sh=f"{line} --config_file c.toml\n",
            c__toml="".join(f"{name} = {0 if name == 'seed' else '0.0'}\n" for name in every),
        ),
    ):
        run = found.runs[0]
        assert {name: run.values.rows[name].becomes for name in every} == {
            name: becomes for becomes, names in zeros.items() for name in names
        }
        assert (run.fields["max_grad_norm"], run.fields["seed"]) == (0, 0)
        assert run.fields["learning_rate"] == {"unet": 0, "text_encoder": 1e-6}


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--resolution 1024,1024 --enable_bucket --bucket_no_upscale --max_bucket_reso 2048", ["--no-upscale"]),
        ("--resolution 832,1216 --enable_bucket --bucket_no_upscale --bucket_reso_steps 32",
         ["--resolution", "832x1216", "--step", "32", "--no-upscale"]),
        ("--resolution 960,1024 --enable_bucket", ["--resolution", "960x1024"]),
        ("--resolution 1024 --bucket_no_upscale", ["--smallest", "1024"]),
    ],
)  # fmt: skip
def test_sizes_of_pictures(read, options, words):
    """Areas, steps and what is not enlarged become options of the import; what that trainer would not read has no effect."""
    found = read(
        train__sh=f"accelerate launch sdxl_train.py {BASE} --train_data_dir /d/pics --caption_extension .txt {options}\n"
    )
    assert found.datasets["pics"].words == [
        "folder",
        "/d/pics",
        "-o",
        "stores/pics",
        *words,
        "--autoencoder",
        "/m/base.safetensors",
    ]
    rows = {one.option: one.becomes for one in found.runs[0].values.rows.values()}
    assert rows.get("max_bucket_reso") != "key"
    assert (rows.get("bucket_no_upscale") == "key") == ("--no-upscale" in words)
    assert not found.refusals


@pytest.mark.parametrize(
    ("subsets", "message"),
    [
        (
            'image_dir = "/a"\nshuffel_caption = true',
            r"data\.toml:4: 'shuffel_caption' is no option of a dataset file. Did you mean shuffle_caption",
        ),
        ("keep_tokens = 1", r"data\.toml: subset 1: expected image_dir or metadata_file"),
        ("image_dir = a", r"data\.toml: expected TOML"),
    ],
)
def test_a_wrong_dataset_file_is_named(read, subsets, message):
    """An error in a dataset file names it, with the line of an unknown key."""
    with pytest.raises(InputError, match=message):
        read(
            train__sh=f"accelerate launch sdxl_train.py {BASE} --dataset_config data.toml\n",
            data__toml=f"[[datasets]]\n[[datasets.subsets]]\n{subsets}\n",
        )


def test_subsets_that_differ_are_refused(read):
    """What differs between subsets, and regularization pictures, are refused by name."""
    found = read(
        train__sh=f"accelerate launch sdxl_train.py {BASE} --dataset_config data.toml --seed 1\n",
        data__toml='[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/a"\nkeep_tokens = 1\n[[datasets.subsets]]\nimage_dir = "/b"\n'
        'num_repeats = 2\n[[datasets.subsets]]\nimage_dir = "/c"\nis_reg = true\n',
    )
    assert {one.what.split()[0] for one in found.refusals} == {"--keep_tokens", "--reg_data_dir"}
    assert found.datasets["a-b"].parts == {"a": 1, "b": 2}


def test_folders_of_repeats(read, tmp_path):
    """A DreamBooth folder that is here gives its repeats and its count of pictures."""
    (tmp_path / "img/10_girl").mkdir(parents=True)
    for name in ("a.png", "b.JPG", "a.txt"):
        (tmp_path / "img/10_girl" / name).touch()
    found = read(
        train__sh=f"accelerate launch sdxl_train.py {BASE} --train_data_dir=img --caption_extension=.txt --enable_bucket\n"
    )
    assert found.datasets["10_girl"].images == 2
    assert found.datasets["10_girl"].folder == str((tmp_path / "img/10_girl").resolve())
    assert found.datasets[found.runs[0].fields["dataset"]].parts == {"10_girl": 10}


def test_launches_that_begin_from_each_other(read):
    """A base that an earlier launch saved is that run's checkpoint; --initial_step goes on in its data order."""
    found = read(
        train__sh=f"{LAUNCH} --output_dir=/o --output_name=one --seed 1\n"
        f"{LAUNCH.replace('/m/base', '/o/one-000004')} --output_dir=/o --output_name=two --seed 1\n"
        f"{LAUNCH.replace('/m/base', '/o/two-step00000500')} --output_name=three --seed 1 --initial_step=500 --skip_until_initial_step\n"
    )
    bases = [(run.name, run.fields["base"], run.fields.get("continues")) for run in found.runs]
    assert bases == [("one", "base", None), ("two", "one-epoch000004", None), ("three", "two-step00000500", True)]
    assert list(found.bases) == ["base"]


@pytest.mark.parametrize(
    ("before", "ranks"),
    [
        ("accelerate launch --multi_gpu --num_processes 4", 4),
        ("CUDA_VISIBLE_DEVICES=0,1 accelerate launch", 2),
        ("accelerate launch --config_file acc.yaml", 8),
        ("accelerate launch", 8),
        ("torchrun --nproc-per-node=2", 2),
        ("python", 1),
        ("numactl --cpunodebind=1 --membind=1 accelerate launch --num_processes=1", 1),
    ],
)
def test_ranks(read, before, ranks):
    """Ranks are said by accelerate's options, its configuration, the cards that are visible, or another launcher."""
    texts = {"train__sh": f"{before} sdxl_train.py {BASE} --in_json=/d/pics/m.json --seed 1\n"}
    if "CUDA" not in before:
        texts["acc__yaml"] = "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_processes: 8\n"
    found = read(**texts)
    assert found.runs[0].fields["ranks"] == ranks
    assert found.runs[0].fields.get("placement", {}).get("numa") == (1 if "numactl" in before else None)


def test_three_cards_are_refused_with_what_comes_nearest(read):
    """Three ranks have no counterpart; without them as many pictures a step are taken by accumulation."""
    found = read(train__sh=f"{LAUNCH.replace('=1 ', '=3 ', 1)} --gradient_accumulation_steps 2 --seed 1\n")
    assert "Ranks are 1, 2, 4 or 8, found 3" in str(found.refusals[0])
    assert (found.runs[0].fields["ranks"], found.runs[0].fields["accumulation"]) == (1, 6)


def test_sd2(read):
    """fine_tune.py --v2 is family sd2, with its one text encoder; without --v2 it is SD 1.x, which is refused."""
    line = (
        LAUNCH.replace("sdxl_train.py", "fine_tune.py") + " --train_data_dir=/d/pics --train_text_encoder --learning_rate_te 1e-6"
    )
    found = read(train__sh=f"{line} --v2 --v_parameterization --seed 1\n")
    assert found.bases["base"].fields["family"] == "sd2"
    assert found.runs[0].fields["learning_rate"] == {"unet": 2e-6, "text_encoder": 1e-6}
    assert found.datasets["pics"].autoencoder == "sd2-vae"
    with pytest.raises(InputError, match="without --v2 trains SD 1.x"):
        read(train__sh=f"{line}\n")


def test_what_trains_no_checkpoint_is_refused_with_the_reason(read):
    """A LoRA is refused by the trainer's name; beside it the others are read."""
    found = read(train__sh=f"{LAUNCH} --seed 1\naccelerate launch sdxl_train_network.py --network_dim 8\n")
    assert "sdxl_train_network.py trains a LoRA" in str(found.refusals[0])
    assert len(found.runs) == 1
    with pytest.raises(InputError, match="found no command that trains"):
        read(train__sh="echo hello\n")


def test_a_seed_that_is_not_given_is_always_the_same(read):
    """Without a seed the run gets its ID, or eight digits made of its name; its note says so."""
    lines = {name: f"{LAUNCH} --output_name={name}\n" for name in ("25112201", "mine")}
    seeds = {name: read(train__sh=line).runs[0] for name, line in lines.items()}
    assert seeds["25112201"].fields["seed"] == 25112201
    assert seeds["mine"].fields["seed"] == 64079871
    assert "no seed" in seeds["mine"].notes[0]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("my model", "my-model"),
        ("x/y", "x-y"),
        ("mine-0.50", "mine-0.50-run"),
        ("m-epoch000004", "m-epoch000004-run"),
        ("...", "run-1"),
    ],
)
def test_names_are_the_ledger_s(read, given, name):
    """A name that a ledger cannot have is changed to one that it can, and the import says so."""
    found = read(train__sh=f"{LAUNCH} --output_name='{given}' --seed 1\n")
    assert found.runs[0].name == name
    assert any(f"is named {name}, for {given}" in remark for remark in found.remarks)


def test_every_option_has_a_fate(read):
    """The account has a row for every option that is given, and the secret among them is in no text."""
    options = "--seed 1 --wandb_api_key=hunter2 --log_with wandb --xformers --persistent_data_loader_workers --keep_tokens 3 --config_file c.toml"
    found = read(train__sh=f"{LAUNCH} {options}\n", c__toml='huggingface_token = "hunter3"\nloss_type = "l2"\n')
    run = found.runs[0]
    assert set(run.values.rows) >= set(run.launch.given) | {"accelerate num_processes"}
    text = write.whole(found, "X", Path("config"))
    assert "hunter" not in text
    assert all(f"#     {name} " in text for name in ("wandb_api_key", "keep_tokens", "huggingface_token", "xformers"))


@pytest.fixture
def run(files):
    """A function that runs `astolfo ledger import` as it is typed."""
    return lambda *words: CliRunner().invoke(cli, ["--config", "mine", "ledger", *words], catch_exceptions=True)


def test_an_assumed_number_of_pictures_is_said(files, run, tmp_path):
    """Where pictures cannot be counted the import says that 1000 stands in the entry; where they can, it says nothing of it."""
    there = tmp_path / "pics" / "1_cat"
    there.mkdir(parents=True)
    (there / "a.png").touch()
    line = f"accelerate launch --num_processes=1 sdxl_train.py {BASE} --seed 1"
    away, here = files(away__sh=f"{line} --train_data_dir=/d/gone\n", here__sh=f"{line} --train_data_dir=pics\n")
    assert (
        "Dataset gone: its pictures are not here to be counted, so its entry says images: 1000."
        in run("import", str(away)).output
    )
    assert "1000" not in run("import", str(here)).output


def test_what_is_written_is_a_ledger(files, run, tmp_path):
    """A folder without a ledger becomes one: it loads, and a second import adds files and changes none."""
    one, two = files(
        one__sh=f"{LAUNCH} --output_name=one --output_dir=/o --max_train_steps 10 --seed 1\n",
        two__sh=f"{LAUNCH.replace('/m/base', '/o/other')} --output_name=two --in_json=/d/more/m.json --seed 2\n",
    )
    assert run("import", str(one)).exit_code == 0
    before = (tmp_path / "mine/ledger.yaml").read_bytes()
    assert run("import", str(two)).exit_code == 0
    assert (tmp_path / "mine/ledger.yaml").read_bytes() == before
    assert sorted(path.relative_to(tmp_path / "mine").as_posix() for path in (tmp_path / "mine").rglob("*.yaml")) == [
        "bases/other.yaml", "datasets/more.yaml", "ledger.yaml", "runs/two.yaml",
    ]  # fmt: skip
    ledger = load(tmp_path / "mine")
    assert list(ledger.runs) == ["two", "one"]
    assert recipe_of(ledger, ledger.run("one")).seed == 1
    assert "one" in run("show", "one").output
    assert "is there already" in str(run("import", str(two)).exception)


def test_the_commands_that_follow_can_be_typed(files, run, tmp_path, monkeypatch):
    """They are typed in a folder of their own: each names the ledger, whole paths, and options that its verb has."""
    for name in ("in/pics/a.png", "in/other/b.png", "in/m.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    line = "accelerate launch sdxl_train.py --pretrained_model_name_or_path m.safetensors --output_dir out --seed 1"
    (tmp_path / "in/data.toml").write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "other"\n')
    script = tmp_path / "in/train.sh"
    script.write_text(
        f"{line} --output_name one --dataset_config data.toml --resolution 512 --enable_bucket --bucket_no_upscale\n"
    )
    said = run("import", "in/train.sh").output.partition("What follows")[2].partition("Written:")[0]
    first, *lines = [shlex.split(line, comments=True) for line in said.splitlines()[1:] if line.strip()]
    assert first[:2] == ["mkdir", "-p"]
    assert first[-2:] == ["cd", f"{tmp_path}/mine-full"]
    assert [words[5:] for words in lines] == [
        ["pin", "m", f"{tmp_path}/in/m.safetensors"],
        ["dataset", "import", "folder", f"{tmp_path}/in/other", "-o", "stores/other", "--resolution", "512", "--no-upscale",
         "--autoencoder", f"{tmp_path}/in/m.safetensors"],
        ["pin", "other", "stores/other"],
        ["adopt", "one", f"{tmp_path}/in/out/one.safetensors"],
    ]  # fmt: skip
    elsewhere = tmp_path / "mine-full"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for words in lines:
        assert words[:5] == ["astolfo", "--config", f"{tmp_path}/mine", "--scale", "full"]
        problem = CliRunner().invoke(cli, words[1:]).exception
        assert not isinstance(problem, SystemExit), words  # no usage error: what is wrong is that these files are empty
        assert isinstance(problem, AstolfoError)


def test_parts_are_written_as_the_ledger_has_them(files, run, tmp_path):
    """Subsets and repeats become a dataset with parts, each of which has a store; the ledger that is written loads."""
    script, _ = files(
        one__sh=f"accelerate launch sdxl_train.py {BASE} --dataset_config data.toml --seed 1\n",
        data__toml='[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/a"\nnum_repeats = 3\nflip_aug = true\n[[datasets.subsets]]\nimage_dir = "/b"\n',
    )
    found = run("import", str(script))
    assert found.exit_code == 0, found.exception
    assert "dataset import folder /b" in found.output
    ledger = load(tmp_path / "mine")
    assert ledger.datasets["a-b"].parts == {"a": 3, "b": 1}
    assert [ledger.datasets[part].flip for part in "ab"] == [True, None]
    assert ledger.run("one").fields.dataset == "a-b"


def test_nothing_is_written_where_something_is_refused(files, run, tmp_path):
    """A refusal writes nothing and lists all of it; `--lossy` writes, and `--print` only prints."""
    [path] = files(one__sh=f"{LAUNCH} --flip_aug --resume x --seed 1\n")
    found = run("import", str(path))
    assert "2 things have no counterpart" in str(found.exception)
    assert "--lossy" in str(found.exception)
    assert run("import", str(path), "--lossy", "--print").output.startswith("title: From one.sh")
    assert not (tmp_path / "mine").exists()
    assert run("import", str(path), "--lossy").exit_code == 0
    assert "flip_aug" in load(tmp_path / "mine").run("one").entry.note


def test_the_program_s_own_ledger_is_not_written_to(files):
    """Without a ledger of one's own an import says how to have one."""
    [path] = files(one__sh=f"{LAUNCH} --seed 1\n")
    assert "astolfo init" in str(CliRunner().invoke(cli, ["ledger", "import", str(path)]).exception)


def test_options_on_lines_of_their_own(read):
    """Options after a launch without a mark of continuation are its own, as in lines pasted into a terminal of Windows."""
    text = f"accelerate launch --num_cpu_threads_per_process 4\n    sdxl_train.py\n    {BASE}\n    --in_json /d/pics/m.json\n    --seed 3\n"
    assert read(train__sh=text).runs[0].fields["seed"] == 3


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
