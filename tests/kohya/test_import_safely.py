"""What an import writes loads as YAML whatever a line holds, has every run's keys, and no secret."""

import contextlib

import pytest
import yaml
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import LedgerError
from astolfo.kohya import importing, write
from astolfo.ledger import load
from tests.kohya.conftest import BASE, LAUNCH


@pytest.fixture
def run(files):
    """A function that runs `astolfo ledger import` into the folder `mine`, as it is typed."""
    return lambda *words: CliRunner().invoke(cli, ["--config", "mine", "ledger", "import", *map(str, words)])


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_runs_that_differ_in_nothing_but_their_names(files, run, tmp_path, names):
    """Launches with the same options and seed are runs that each have a key, and the ledger loads."""
    paths = files(train__sh="".join(f"{LAUNCH} --seed=1 --output_name={name}\n" for name in names))
    assert run(*paths).exit_code == 0
    ledger = load(tmp_path / "mine")
    assert sorted(ledger.runs) == list(names)
    assert {ledger.run(name).fields.seed for name in names} == {1}
    assert yaml.safe_load((tmp_path / "mine/ledger.yaml").read_text())["runs"] == {name: {"seed": 1} for name in names}


def test_what_comments_say_is_written(files, run, tmp_path):
    """Every key that a comment above a line says stands in the ledger, also those that no option has."""
    said = "# astolfo: on_failure: keep\n# astolfo: loss_spike: 5\n# astolfo: until_step: 50\n"
    paths = files(train__sh=f"{said}{LAUNCH} --seed=1 --max_train_steps=100 --output_name=a\n")
    assert run(*paths).exit_code == 0
    fields = load(tmp_path / "mine").run("a").fields
    assert (fields.on_failure, fields.loss_spike, fields.until_step) == ("keep", 5, 50)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("broken", ["runs:\n  a:\n", "runs: {a: {sede: 1}}\n", "runs: [\n", "runs: {a: {note: \x1b}}\n"])
def test_what_is_no_ledger_is_not_printed(files, monkeypatch, tmp_path, there, broken):
    """`--print` fails where what it would print is no ledger, as a whole or as files of one."""
    if there:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/ledger.yaml").write_text("runs: {}\n")
    paths = files(train__sh=f"{LAUNCH} --seed=1\n")
    monkeypatch.setattr(write, "era" if there else "whole", lambda *_: broken)
    with pytest.raises(LedgerError, match="What was read is no ledger"):
        importing.import_files(tmp_path / "mine", paths, write=False)


def test_what_is_printed_is_what_is_written(files, run, tmp_path):
    """`--print` prints files that a ledger takes: a whole one, and an era with its entries."""
    one, two = files(
        one__sh=f"{LAUNCH} --seed=1\n",
        ledger__sh=f"{LAUNCH.replace('/m/base', '/m/other').replace('/d/pics', '/d/more')} --seed=2\n",
    )
    printed = run(one, "--print")
    assert printed.exit_code == 0
    assert run(one).exit_code == 0
    assert (tmp_path / "mine/ledger.yaml").read_text().strip() == printed.output.strip()
    printed = run(two, "--print").output
    assert [line for line in printed.splitlines() if line.startswith("# mine")] == [
        "# mine/runs/ledger.yaml", "# mine/bases/other.yaml", "# mine/datasets/more.yaml",
    ]  # fmt: skip


CONTROL = [
    "line one\nline: two", "\x1b[31mred", "a\rb", "a\x0bb\x0cc", "a\x85b", "a\u2028b", "\x07", "a: b # c", "- x", "\ufeffx", "😀",
    "12345678", "2020-13-45", "2020-01-01", "1e5", "on", "~",
]  # fmt: skip


@pytest.mark.parametrize("value", CONTROL)
@pytest.mark.parametrize("option", ["metadata_description", "caption_prefix", "optimizer_type", "no_such_option"])
def test_control_characters_stay_in_their_place(read, tmp_path, option, value):
    """Ends of lines and control characters end no comment and no note: the file is YAML, and a value is what it was."""
    found = read(train__sh=f'{LAUNCH} --seed=1 --{option}="{value}"\n')
    text = write.whole(found, f"From {value}", tmp_path / "mine")
    ledger = yaml.load(text, yaml.CSafeLoader)
    assert ledger["title"] == f"From {value}"
    assert set(ledger) <= {"title", "bases", "datasets", "defaults", "runs"}
    assert list(ledger["runs"]) == ["train"]
    if option == "caption_prefix":
        assert ledger["defaults"]["captions"]["prefix"] == value
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/ledger.yaml").write_text(text)
    assert list(load(tmp_path / "mine", "full").runs) == ["train"]
    assert not [sign for sign in str([str(one) for one in found.refusals]) if not sign.isprintable()]


@pytest.mark.parametrize("name", ["123", "true", "null", "1e5", "25112201", "2020-13-45"])
def test_names_that_look_like_something_else(files, run, tmp_path, name):
    """A folder, an autoencoder and a base that are called as a number or true are entries of that name."""
    line = f"accelerate launch --num_processes=1 sdxl_train.py --seed=1 --resolution=1024 --vae=/m/{name}x/v{name}.safetensors"
    paths = files(
        train__sh=f"{line} --pretrained_model_name_or_path=/m/b{name}.safetensors --dataset_config d.toml\n",
        d__toml=f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = '/d/{name}'\nnum_repeats = 3\n",
    )
    assert run(paths[0]).exit_code == 0
    ledger = load(tmp_path / "mine", "full")
    assert ledger.datasets[ledger.run("train").fields.dataset].parts == {name: 3}
    assert ledger.datasets[name].autoencoder == f"v{name}"


SECRETS = [
    "WANDB_API_KEY=SEKRET1 HF_TOKEN='SEK RET' MY_PASSWORD=\"SEKRET3\" {line}",
    "env AWS_SECRET_ACCESS_KEY=SEKRET {line}",
    "{line} --wandb_api_key=SEKRET1 --wandb_api_key=OTHER",
    "{line} --wandb_api_key=OTHER --wandb_api_key SEKRET",
    "{line} --wandb_api_key=SEK\"RET\"9",
    "{line} \"--wandb_api_key=SEK RET\" --lowram",
    "{line} '--huggingface_token' 'SEK RET'",
    "{line} --huggingface_token \\\n  SEK",
    "{line} --huggingface_tok=SEK",
    "{line} --hf_token=SEKRET",
    "{line} --wandb-api-key SEKRET1",
    "HF_AUTH=SEKRET1 GITHUB_PAT=SEKRET1 SSHPASS=SEKRET1 DB_PWD=SEKRET1 {line}",
    "https_proxy=http://me:SEKRET1@proxy:80 {line}",
    "{line} --some_api_key SEKRET",
    "{line} --metadata_title=\"it's\" --wandb_api_key=SEK --metadata_author=\"it's\"",
]  # fmt: skip


@pytest.mark.parametrize("line", SECRETS)
def test_no_secret_is_written(files, tmp_path, capsys, line):
    """Values of options and variables of a secret's name are in no text, wherever and however often they stand."""
    paths = files(train__sh=line.format(line=f"{LAUNCH} --seed=1 --keep_tokens=3 --max_token_length=225") + "\n")
    report = importing.import_files(tmp_path / "mine", paths, lossy=True)
    written = "".join(path.read_text() for path in (tmp_path / "mine").rglob("*.yaml"))
    assert "(not shown)" in written
    for text in (report, written):
        assert not [part for part in ("SEK", "RET", "OTHER") if part in text.replace("SECRET", "")]
    assert "--keep_tokens=3 --max_token_length=225" in " ".join(written.replace("#", " ").split())
    with contextlib.suppress(LedgerError):
        importing.import_files(tmp_path / "other", paths)
    assert "SEK" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("train__bat", "set WANDB_API_KEY=SEKRET\n{line} ^\n  --wandb_api_key=SEKRET ^\n  --seed=1\n"),
        ("train__ps1", "$env:WANDB_API_KEY = 'SEKRET'\n{line} `\n  --wandb_api_key 'SEK RET' `\n  --seed=1\n"),
    ],
)
def test_no_secret_of_windows_is_written(read, tmp_path, script, text):
    """The same in Windows' shells."""
    written = write.whole(read(**{script: text.format(line=LAUNCH)}), "X", tmp_path)
    assert "SEK" not in written
    assert "--seed=1" in written


def test_a_secret_of_a_configuration_file_is_not_written(read, tmp_path):
    """A --config_file's secrets are in no text."""
    found = read(
        train__sh=f"{LAUNCH} --seed=1 --config_file c.toml\n", c__toml='wandb_api_key = "SEKRET"\nhuggingface_token = "SEKRET"\n'
    )
    assert "SEK" not in write.whole(found, "X", tmp_path)


def test_an_export_of_a_title_of_lines_is_a_script(tmp_path):
    """A title of two lines ends no comment of an exported line."""
    (tmp_path / "ledger.yaml").write_text(
        "bases: {base: {}}\ndatasets: {d: {images: 9}}\n"
        "defaults: {base: base, dataset: d, epochs: 1, learning_rate: {unet: 1.0e-5}}\nruns: {}\n"
    )
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/e.yaml").write_text(
        'title: "one\\ntwo"\ndefaults: {base: base, dataset: d, epochs: 1, learning_rate: {unet: 1.0e-5}}\nruns: {one: {seed: 1}}\n'
    )
    found = CliRunner().invoke(cli, ["--config", str(tmp_path), "ledger", "export", "one"])
    assert found.exit_code == 0, found.exception
    lines = found.output.splitlines()
    assert all(line.startswith(("#", "accelerate", "  --")) for line in lines)
    assert BASE not in lines
