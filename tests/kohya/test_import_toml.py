"""Configuration files of the trainer: alone, and under a line."""

import pytest

from astolfo.errors import InputError
from tests.kohya.conftest import LAUNCH


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
