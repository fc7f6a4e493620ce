"""What is trained on: dataset files, folders, and the sizes of pictures."""

from pathlib import Path

import pytest

from astolfo.errors import InputError
from astolfo.kohya import write
from tests.kohya.conftest import BASE


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
        data__toml='[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/a"\nkeep_tokens = 1\ncaption_prefix = "ink"\n[[datasets.subsets]]\nimage_dir = "/b"\n'
        'num_repeats = 2\n[[datasets.subsets]]\nimage_dir = "/c"\nis_reg = true\n',
    )
    assert {one.what.split()[0] for one in found.refusals} == {"--keep_tokens", "--caption_prefix", "--reg_data_dir"}
    assert found.datasets["a-b"].parts == {"a": 1, "b": 2}
    [row] = [row for row in found.runs[0].values.rows.values() if row.option == "caption_prefix"]
    assert (row.becomes, row.text) == ("key", "the first subset's 'ink' for all of them: Subsets differ in it, and a run reads all its "
                                       "captions and pictures in one way")  # fmt: skip
    noted = " ".join(write.era(found, "e", "t", Path()).split())
    assert "The first subset's 'ink' for all of them, for the line's --caption_prefix ink: Subsets differ" in noted


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


def test_what_a_folder_lacks_is_said(read, tmp_path):
    """A folder without a number is left out, which is said; that class tokens were captions is said only where captions are missing."""
    for name in ("img/1_girl/a.png", "img/1_girl/a.txt", "img/2_boy/b.png", "img/2_boy/b.png.txt", "img/more/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    line = f"accelerate launch sdxl_train.py {BASE} --train_data_dir=img --caption_extension=.txt --resolution=1024\n"
    said = "\n".join(read(train__sh=line).remarks)
    assert "img/more has pictures and no number of repeats in its name (1_more)" in said
    assert "as their caption there" not in said
    (tmp_path / "img/2_boy/b.png.txt").unlink()
    assert "without a caption file had 'boy' as their caption there" in "\n".join(read(train__sh=line).remarks)


def test_a_home_folder_is_this_users(read, tmp_path, monkeypatch):
    """~ and $HOME in a line are made whole, so that the commands that follow can be typed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "img/3_girl").mkdir(parents=True)
    (tmp_path / "img/3_girl/a.png").touch()
    found = read(
        train__sh=f"accelerate launch sdxl_train.py {BASE} --train_data_dir=~/img --output_dir='$HOME/out' --enable_bucket\n"
    )
    assert found.datasets["3_girl"].folder == str(tmp_path / "img/3_girl")
    assert found.runs[0].launch.saves == str(tmp_path / "out/last.safetensors")
