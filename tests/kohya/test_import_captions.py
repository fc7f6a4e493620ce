"""Which captions of a folder a launch reads: those of --caption_extension, whose default is .caption."""

import pytest

from astolfo.kohya import importing
from astolfo.ledger import load
from tests.kohya.conftest import BASE

LINE = f"accelerate launch --num_processes=1 sdxl_train.py {BASE} --dataset_config data.toml --resolution=1024 --enable_bucket --seed=1"
SUBSET = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'pics'\n"
BOTH = ("a.png", "a.txt", "a.caption", "b.png", "b.txt", "b.caption")


@pytest.mark.parametrize(
    ("names", "options", "told", "other"),
    [
        (BOTH, "", ".caption", ".txt"),
        (BOTH, "--caption_extension=.caption", ".caption", ".txt"),
        (BOTH, "--caption_extention=.caption", ".caption", ".txt"),
        (BOTH, "--caption_extension=.txt", ".txt", ".caption"),
        (("a.png", "a.txt"), "", ".caption", ".txt"),
        (("a.png", "a.txt"), "--caption_extension=.txt", "", ""),
        (("a.png", "a.caption"), "", "", ""),
        (("a.png", "a.caption", "README.txt"), "", "", ""),
        (("a.png", "a.png.txt"), "", ".caption", ".txt"),
        (("a.png",), "", "", ""),
        ((), "", ".caption", ""),
        ((), "--caption_extension=.txt", "", ""),
    ],
)
def test_the_captions_that_the_trainer_read(read, tmp_path, names, options, told, other):
    """An import is told the extension where it would read other captions, which is said; a folder of one kind is taken as it is."""
    for name in names:
        (tmp_path / "pics").mkdir(exist_ok=True)
        (tmp_path / "pics" / name).touch()
    found = read(train__sh=f"{LINE} {options}\n", data__toml=SUBSET)
    made = found.datasets["pics"]
    words = dict(zip(made.words, made.words[1:], strict=False))
    assert words.get("--caption-extension", "") == told
    assert bool(made.folder) == (bool(names) and not told)
    assert made.made_from.get("captions", "") == told
    said = [remark for remark in found.remarks if "which that trainer did not read" in remark]
    assert [f"pics has captions in {other}, " in remark for remark in said] == [True] * bool(other)
    assert not said or (", that trainer's default" in said[0]) == (not options)
    assert not found.refusals


def test_two_extensions_are_two_datasets(files, tmp_path):
    """Launches that read other captions of one folder train on two datasets, in one import or in two."""
    for name in BOTH:
        (tmp_path / "pics").mkdir(exist_ok=True)
        (tmp_path / "pics" / name).touch()
    one, two, _ = files(
        one__sh=f"{LINE} --output_name=one --caption_extension=.txt\n", two__sh=f"{LINE} --output_name=two\n", data__toml=SUBSET
    )
    importing.import_files(tmp_path / "both", [one, two])
    for path in (one, two):
        importing.import_files(tmp_path / "apart", [path])
    for name in ("both", "apart"):
        ledger = load(tmp_path / name)
        assert [ledger.run(run).fields.dataset for run in ("one", "two")] == ["pics", "pics-2"]


def test_class_tokens_are_the_captions_of_pictures_without_such_a_file(read, tmp_path):
    """A picture whose caption has another extension had the class tokens there, which is said."""
    (tmp_path / "img/1_girl").mkdir(parents=True)
    for name in ("a.png", "a.txt"):
        (tmp_path / "img/1_girl" / name).touch()
    line = LINE.replace("--dataset_config data.toml", "--train_data_dir=img")
    assert "had 'girl' as their caption there" in "\n".join(read(train__sh=f"{line}\n").remarks)
    assert "caption there" not in "\n".join(read(train__sh=f"{line} --caption_extension=.txt\n").remarks)
