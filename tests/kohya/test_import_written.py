"""What an import writes is a ledger that loads, and the commands that follow can be typed."""

import re
import shlex

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import AstolfoError
from astolfo.ledger import load, recipe_of
from tests.kohya.conftest import BASE, LAUNCH


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
    assert "Dataset gone: /d/gone is not here to be counted, so its entry says images: 1000." in run("import", str(away)).output
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
        "bases/other.yaml", "datasets/more.yaml", "imported.yaml", "ledger.yaml", "runs/two.yaml",
    ]  # fmt: skip
    ledger = load(tmp_path / "mine")
    assert list(ledger.runs) == ["two", "one"]
    assert recipe_of(ledger, ledger.run("one")).seed == 1
    assert "one" in run("show", "one").output
    assert "is there already" in str(run("import", str(two)).exception)


LINES = {  # each in a script of its own; what a later one shares with an earlier one is one entry, and what only looks so is not
    "first": f"{LAUNCH} --output_dir=/o",
    "again": f"{LAUNCH} --output_dir=/o",
    "flipped": f"accelerate launch --num_processes=1 sdxl_train.py {BASE} --train_data_dir=/d/pics --flip_aug --resolution=1024",
    "smaller": f"accelerate launch --num_processes=1 sdxl_train.py {BASE} --train_data_dir=/d/pics --resolution=512",
    "other_base": f"{LAUNCH.replace('/m/base', '/elsewhere/base')} --v_parameterization",
    "encoded": f"accelerate launch --num_processes=1 sdxl_train.py {BASE} --train_data_dir=/d/pics --vae=/m/fix.safetensors "
    "--resolution=1024",
    "older": "accelerate launch --num_processes=1 fine_tune.py --v2 --pretrained_model_name_or_path=/m/base21.safetensors "
    "--in_json=/d/pics/meta21.json --train_data_dir=/d/pics",
    "second_stage": f"{LAUNCH.replace('/m/base', '/o/first')}",
}


def test_an_import_knows_what_earlier_ones_read(files, run, tmp_path):
    """Scripts imported one by one give the recipes that they give together: a name alone makes no two files the same."""
    lines = {name: f"{line} --output_name={name} --max_train_steps=10 --seed=1\n" for name, line in LINES.items()}
    paths = files(**{f"{name}__sh": line for name, line in lines.items()})
    for path in paths:
        done = run("import", str(path))
        assert done.exit_code == 0, done.exception
    CliRunner().invoke(cli, ["--config", "together", "ledger", "import", *map(str, paths)], catch_exceptions=False)
    apart, together = load(tmp_path / "mine"), load(tmp_path / "together")
    for name in LINES:
        one, other = (ledger.run(name).fields for ledger in (apart, together))
        assert (one.base, one.dataset) == (other.base, other.dataset), name
    assert apart.run("second_stage").fields.base == "first"
    assert apart.run("again").fields.dataset == apart.run("first").fields.dataset
    assert len({apart.run(name).fields.dataset for name in ("first", "flipped", "smaller", "encoded", "older")}) == 5
    assert apart.run("other_base").fields.base == "base-2"


def test_an_entry_that_was_written_by_hand_is_taken_where_nothing_is_otherwise(files, run, tmp_path):
    """A dataset of the line's name is the ledger's own, which is said; one that is encoded otherwise is another, which is said too."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/ledger.yaml").write_text("bases: {base: {}}\ndatasets: {pics: {images: 20}}\nruns: {}\n")
    indexed, flipped = files(
        one__sh=f"{LAUNCH} --output_name=one --seed=1\n", two__sh=f"{LINES['flipped']} --output_name=two --seed=1\n"
    )
    assert "one.sh:1: pics is a dataset of the ledger, and that one is taken." in run("import", str(indexed)).output
    said = run("import", str(flipped)).output
    assert "pics is another dataset of the ledger, so this one is pics-2. If they are the same, delete pics-2" in said
    ledger = load(tmp_path / "mine")
    assert (ledger.run("one").fields.dataset, ledger.run("two").fields.dataset) == ("pics", "pics-2")


def test_a_damaged_table_of_imports_is_named(files, run, tmp_path):
    """What is no such table is an error that says what to do, and nothing is written."""
    [one] = files(one__sh=f"{LAUNCH} --output_name=one --seed=1\n")
    run("import", str(one))
    for wrong in ("[1, 2]\n", "bases: 3\n", "runs: {one: 5}\n", "others: {}\n", "runs: [\n"):
        (tmp_path / "mine/imported.yaml").write_text(wrong)
        assert "imported.yaml: expected names and files below" in str(run("import", str(one), "--era", "two").exception)
        assert (tmp_path / "mine/imported.yaml").read_text() == wrong


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


def test_a_fused_backward_pass_becomes_stochastic_rounding(files, run, tmp_path):
    """It is refused; `--lossy` takes what comes nearest, and both the table and the run's note say so."""
    [path] = files(
        one__sh=f"{LAUNCH} --mixed_precision=bf16 --full_bf16 --optimizer_type=adafactor --fused_backward_pass --seed 1\n"
    )
    assert "--fused_backward_pass: Each weight is updated as soon" in str(run("import", str(path)).exception)
    said = run("import", str(path), "--lossy").output
    assert re.search(
        r"fused_backward_pass +key +stochastic rounding \(precision\.update\), after the backward pass: Each weight", said
    )
    one = load(tmp_path / "mine").run("one")
    assert one.fields.precision.update == "stochastic"
    assert one.entry.note.startswith(
        "Stochastic rounding (precision.update), after the backward pass, for the line's --fused_backward_pass"
    )


def test_two_runs_that_saved_one_file_are_offered_it_once(files, run):
    """A file that two launches saved, one over the other, is the later one's."""
    [path] = files(one__sh=f"{LAUNCH} --output_dir=/o --output_name=one --seed=1\n" * 2)
    said = run("import", str(path)).output
    [offered] = [line for line in said.splitlines() if " adopt " in line]
    assert "adopt one-2 /o/one.safetensors" in offered


def test_the_program_s_own_ledger_is_not_written_to(files):
    """Without a ledger of one's own an import says how to have one."""
    [path] = files(one__sh=f"{LAUNCH} --seed 1\n")
    assert "astolfo init" in str(CliRunner().invoke(cli, ["ledger", "import", str(path)]).exception)
