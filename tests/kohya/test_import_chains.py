"""Which file is which: what a launch starts from, across folders, spellings, scripts and imports; and what it is then called."""

import pytest

from astolfo.errors import InputError
from astolfo.kohya.known import Known
from astolfo.kohya.paths import Folder, same_file, whole_path
from astolfo.kohya.read import imported
from astolfo.ledger import load
from tests.kohya.conftest import LAUNCH

EPOCHS = "--output_name=one --seed=1 --max_train_epochs=4 --save_every_n_epochs=1"


def launch(base="/m/base.safetensors", options=""):
    return f"{LAUNCH.replace('/m/base.safetensors', base)} {options} --seed=1\n"


def bases(found):
    """Run -> what it starts from."""
    return {run.name: run.fields["base"] for run in found.runs}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "train__sh",
            f"{LAUNCH} --output_dir=output {EPOCHS}\n" + launch("HERE/output/one-000003.safetensors", "--output_name=two"),
        ),
        (
            "train__sh",
            f"{LAUNCH} --output_dir=output {EPOCHS}\n" + launch("./output//one-000003.safetensors", "--output_name=two"),
        ),
        ("train__sh", f"cd /a\n{LAUNCH} --output_dir=o {EPOCHS}\n" + launch("/a/o/one-000003.safetensors", "--output_name=two")),
        (
            "train__bat",
            f"{LAUNCH} --output_dir=output {EPOCHS}\n" + launch(".\\output\\one-000003.safetensors", "--output_name=two"),
        ),
        ("train__bat", f"{LAUNCH} --output_dir=D:\\o {EPOCHS}\n" + launch("d:/O/one-000003.safetensors", "--output_name=two")),
        ("train__sh", launch("output/one-000003.safetensors", "--output_name=two") + f"{LAUNCH} --output_dir=output {EPOCHS}\n"),
    ],
)
def test_a_checkpoint_is_found_however_it_is_spelt(read, tmp_path, name, text):
    """By relative and whole paths, after `cd`, in either way that Windows writes one, and where the later run stands first."""
    found = read(**{name: text.replace("HERE", str(tmp_path))})
    assert bases(found) == {"one": "base", "two": "one-epoch000003"}
    assert list(found.bases) == ["base"]


def test_runs_of_one_name_in_two_folders(read):
    """A file of the same name in another folder is another run's."""
    lines = [f"cd /{place}\n{LAUNCH} --output_dir=o --output_name=m --seed=1\n" for place in "ab"]
    found = read(one__sh=lines[0], two__sh=lines[1], three__sh="cd /a\n" + launch("o/m.safetensors", "--output_name=n"))
    assert bases(found) == {"m": "base", "m-2": "base", "n": "m"}
    assert [run.launch.saves for run in found.runs] == ["/a/o/m.safetensors", "/b/o/m.safetensors", "/a/n.safetensors"]


def test_a_base_and_a_run_of_one_name(read):
    """The run keeps its name, and the base gets another one, which is said; a launch that starts from what it saves is refused."""
    found = read(train__sh=launch("/m/one.safetensors", "--output_name=two") + launch("/m/one.safetensors", "--output_name=one"))
    assert bases(found) == {"two": "one-2", "one": "one-2"}
    assert any("the base is named one-2, since a run is named one" in remark for remark in found.remarks)
    with pytest.raises(InputError, match="it starts from /m/one.safetensors, which it also saves"):
        read(train__sh=launch("/m/one.safetensors", "--output_name=one --output_dir=/m"))


def test_stages_that_are_imported_in_the_wrong_order(files, tmp_path):
    """The first stage's result is a base by then: its run gets another name, and is said to be that base."""
    first, second = files(
        first__sh=f"{LAUNCH} --output_dir=/o --output_name=one --seed=1\n",
        second__sh=launch("/o/one.safetensors", "--output_name=two"),
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/ledger.yaml").write_text("bases: {one: {full: {file: one.safetensors}}}\ndatasets: {}\nruns: {}\n")
    known = Known(bases={"one": "/o/one.safetensors"})
    assert bases(imported([second], load(tmp_path / "mine"), known=known)) == {"two": "one"}
    found = imported([first], load(tmp_path / "mine"), known=known)
    assert list(bases(found)) == ["one-2"]
    assert any("That base is the file which this run saves" in remark for remark in found.remarks)


def test_entries_that_were_renamed(files, tmp_path):
    """What an earlier import made and the ledger has no more is told where a launch would use it."""
    [script] = files(second__sh=launch("/o/one.safetensors", "--output_name=two"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/ledger.yaml").write_text("bases: {}\ndatasets: {}\nruns: {}\n")
    first = imported([script])
    known = Known(runs={"one": "/o/one.safetensors"}, datasets={"photos": first.datasets["pics"].made_from})
    remarks = imported([script], load(tmp_path / "mine"), known=known).remarks
    assert "second.sh:1: /o/one.safetensors was one in an earlier import, and the ledger has no run of that name" in str(remarks)
    assert "second.sh:1: /d/pics/meta.json was photos in an earlier import, and the ledger has no dataset of" in str(remarks)


def test_a_base_that_would_be_mistaken_for_a_checkpoint(read):
    """A file of another's run is a base with a name that no run's checkpoint has."""
    found = read(train__sh=launch("/q/foo-step00001000.safetensors", "--output_name=foo"))
    assert bases(found) == {"foo": "foo-step00001000-base"}


def test_what_a_base_predicts(read):
    """Its makers' name says it; where that says nothing, the run's own objective is taken, and said to be."""
    for name, objective in (("sd_xl_base_1.0", "eps"), ("noob-vpred-1", "v"), ("mine", "v")):
        found = read(train__sh=launch(f"/m/{name}.safetensors", "--v_parameterization --output_name=one"))
        assert found.bases[name].fields["objective"] == objective
        assert any("write objective: eps" in remark for remark in found.remarks) == (name == "mine")


def test_names_that_are_no_letters_here(read):
    """A file whose name has no letter that a ledger takes is called base."""
    assert bases(read(train__sh=launch("/m/モデル.safetensors", "--output_name=one"))) == {"one": "base"}


def test_autoencoders(read):
    """One entry for each file, whatever they are called; the base's own is none."""
    lines = [launch(options=f"--output_name={name} --vae={vae}") for name, vae in
             (("a", "/m/v.safetensors"), ("b", "/n/v.safetensors"), ("c", "/m/../m/v.safetensors"), ("d", "/m/base.safetensors"))]  # fmt: skip
    found = read(train__sh="".join(lines))
    used = [found.datasets[run.fields["dataset"]].autoencoder for run in found.runs]
    assert used == ["v", "v-2", "v", "sdxl-vae"]
    assert {name: base.whole for name, base in found.bases.items() if name != "base"} == {
        "v": "/m/v.safetensors", "v-2": "/n/v.safetensors",
    }  # fmt: skip


def test_two_spellings_of_one_file(tmp_path):
    """Windows knows neither case nor kind of slash; here a link is what it leads to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert same_file("C:\\sd\\.\\x.safetensors") == same_file("c:/SD/X.safetensors")
    assert same_file(f"{tmp_path}/link/x") == same_file(f"{tmp_path}//real/../real/x")
    assert whole_path("link/x", Folder(script=tmp_path / "train.sh")) == f"{tmp_path}/link/x"
    assert whole_path("out\\x", Folder(script=tmp_path / "train.bat", moved="D:\\sd")) == "D:\\sd\\out\\x"
    assert whole_path("x", Folder(script=tmp_path / "train.sh", moved="$WORK/sd")) == "$WORK/sd/x"


@pytest.mark.parametrize(
    ("before", "ranks"),
    [
        ("python -m torch.distributed.launch --nproc_per_node=4", 4),
        ("torchrun --standalone --rdzv_backend c10d --nproc_per_node 2", 2),
        ("deepspeed --include localhost:0,1", 2),
        ("accelerate launch --num_processes=2 --", 2),
        ("export CUDA_VISIBLE_DEVICES=0,1; unset CUDA_VISIBLE_DEVICES; accelerate launch", 1),
        ("export CUDA_VISIBLE_DEVICES=$1; accelerate launch", 1),
        ("CUDA_VISIBLE_DEVICES=$(seq -s, 0 3) accelerate launch", 1),
        ("CUDA_VISIBLE_DEVICES=0 accelerate launch --gpu_ids 0,1", 2),
    ],
)
def test_ranks_of_other_launchers(read, before, ranks):
    """torchrun's and DeepSpeed's own options, and cards that nobody knows of before the script runs."""
    found = read(train__sh=LAUNCH.replace("accelerate launch --num_processes=1", before) + " --seed=1\n")
    assert found.runs[0].fields["ranks"] == ranks
    assert any("how many cards trained is not said" in remark for remark in found.remarks) == (ranks == 1)


def test_what_names_a_trainer_and_starts_none(read):
    """Commands about a trainer's file are none of ours; one that holds a launch within a word is left out, and says so."""
    about = "while pgrep -f sdxl_train.py; do sleep 60; done\n[ -f sdxl_train.py ] || exit\ncp sdxl_train.py bak/\necho accelerate launch sdxl_train.py\n"
    found = read(train__sh=f"{about}{LAUNCH} --seed=1\nssh host 'accelerate launch sdxl_train.py'\n")
    assert len(found.runs) == 1
    [refusal] = found.refusals
    assert str(refusal).startswith("train.sh:6: the launch: starts a trainer in a way")
    [refusal] = read(train__sh=f"{LAUNCH} --seed=1\npython $T --pretrained_model_name_or_path=x\n").refusals
    assert refusal.place == "train.sh:2"
    with pytest.raises(InputError, match="Line 1 starts one in a way"):
        read(train__sh="ssh host 'accelerate launch sdxl_train.py'\n")


def test_a_file_that_no_launch_names_is_said(files):
    """A dataset's file that is given and that no launch names is not read, and the import says so."""
    script, other = files(train__sh=f"{LAUNCH} --seed=1\n", data__toml='[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/d"\n')
    assert imported([script, other]).remarks == ["data.toml: no launch names this file, so it is not read."]


def test_a_given_file_comes_before_one_that_is_here(files, tmp_path):
    """A file that is given to the import is the one that is meant; of two of one name nobody knows which."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two, tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "data.toml").write_text(f'[[datasets]]\n[[datasets.subsets]]\nimage_dir = "/from/{folder.name}"\n')
    [script] = files(train__sh=f"{LAUNCH.replace('--in_json=/d/pics/meta.json', '--dataset_config=/w/data.toml')} --seed=1\n")
    found = imported([script, two / "data.toml"])
    assert found.datasets["two"].source.subsets[0].folder == "/from/two"
    with pytest.raises(InputError, match="/w/data.toml may be .*, since both are given"):
        imported([script, one / "data.toml", two / "data.toml"])


@pytest.mark.parametrize(
    "text",
    [
        "E=(); if [ $X ]; then E+=(--full_bf16); fi\nLAUNCH ${E[@]}\n",
        'E=""; if [ $X ]; then E="--v_parameterization"; fi\nLAUNCH $E\n',
        'if [ $X ]; then W=weight_decay=0.5; fi\nLAUNCH --optimizer_args=betas=0.9,0.99 "$W"\n',
        "if [ $X ]; then R=9e-5; fi\ncat > c.toml <<E\nlearning_rate = $R\nE\nLAUNCH --config_file=c.toml\n",
        "if [ $X ]; then cat > c.toml <<E\nlearning_rate = 1e-5\nE\nfi\nLAUNCH --config_file=c.toml\n",
        "cat > c.toml <<E\nlearning_rate = 1e-5\nE\nsed -i s/1e/2e/ c.toml\nLAUNCH --config_file=c.toml\n",
        "C=a.toml; if [ $X ]; then C=b.toml; fi\nLAUNCH --config_file=$C\n",
        'L="accelerate launch"; if [ $X ]; then L="accelerate launch --multi_gpu"; fi\n$L sdxl_train.py --seed=1\n',
        "accelerate launch $ARGS sdxl_train.py --seed=1\nLAUNCH\n",
        "accelerate launch $SCRIPT --seed=1\nLAUNCH\n",
        "set_fast() { R=9e-5; }\nR=1e-5\nset_fast\nLAUNCH --learning_rate=$R\n",
        "python check.py && R=9e-5\nLAUNCH --learning_rate=$R\n",
        "for n in a b; do [ $n = b ] && continue; LAUNCH --output_name=$n; done\n",
    ],
)
def test_what_nobody_knows_is_never_taken(read, text):
    """A flag, a file's line, a configuration, a launcher or a loop's round that depends on what only the shell knows."""
    with pytest.raises(InputError, match=r"train\.sh"):
        read(train__sh=text.replace("LAUNCH", f"{LAUNCH} --seed=1"))


def test_what_nobody_knows_and_nothing_needs(read):
    """Cards that a condition chooses are asked for; a line of a file that decides nothing does not matter."""
    line = LAUNCH.replace("--num_processes=1", "--gpu_ids $G")
    found = read(train__sh=f"G=0; if [ $X ]; then G=0,1; fi\n{line} --seed=1\n")
    assert found.runs[0].fields["ranks"] == 1
    assert any("how many cards trained is not said" in remark for remark in found.remarks)
    read(train__sh=f'cat > c.toml <<E\nlogging_dir = "$(date)"\nE\n{LAUNCH} --seed=1 --config_file=c.toml\n')


def test_files_of_one_name_in_two_folders(read):
    """A file that a script writes is found by its whole path."""
    files = "".join(f"cat > {folder}/c.toml <<E\nlearning_rate = {rate}\nE\n" for folder, rate in (("x", "1e-5"), ("y", "9e-5")))
    found = read(train__sh=files + "".join(f"{LAUNCH} --seed=1 --config_file={folder}/c.toml\n" for folder in "xy"))
    assert [run.fields["learning_rate"] for run in found.runs] == [{"unet": 1e-5}, {"unet": 9e-5}]


def test_an_output_folder_that_nobody_knows(read):
    """A run that is saved where only the shell knows is nobody's base, and no file of it is offered."""
    found = read(
        train__sh=f"if [ $X ]; then O=/a; else O=/b; fi\n{LAUNCH} --output_dir=$O --output_name=one --seed=1\n"
        + launch("/b/one.safetensors", "--output_name=two")
    )
    assert bases(found) == {"one": "base", "two": "one-2"}
    assert found.runs[0].launch.saves == ""


def test_launches_of_other_scripts(files, tmp_path):
    """Another script that is at hand and trains is left out with a remark, unless it is given too."""
    (tmp_path / "other.sh").write_text(f"{LAUNCH} --seed=2 --output_name=other\n")
    [script] = files(train__sh=f"bash other.sh a\n{LAUNCH} --seed=1\nssh host <<E\n{LAUNCH}\nE\ncat a | xargs {LAUNCH}\n")
    found = imported([script])
    assert [str(one).partition(": the launch: ")[2][:24] for one in found.refusals] == [
        "It runs other.sh, which ", "starts a trainer in a wa", "xargs gives it options t",
    ]  # fmt: skip
    assert len(imported([script, tmp_path / "other.sh"]).refusals) == 2


def test_a_program_after_a_launch_is_none_of_it(read):
    """A line that begins with a program of Python is no script of the launch above, which has one."""
    assert len(read(train__sh=f"{LAUNCH} --seed=1\n./merge.py a b\n").runs) == 1


@pytest.mark.parametrize("path", ["/m\0/b.safetensors", f"/m/{'b' * 400}.safetensors"])
def test_a_path_that_no_file_can_have(read, path):
    """A NUL, or a name that is too long, is an error that names the option."""
    with pytest.raises(InputError, match="--pretrained_model_name_or_path expects a path"):
        read(train__sh=launch(path))


def test_a_script_that_is_imported_again(files, tmp_path):
    """A run of a launch that an earlier import read is said to be that."""
    [script] = files(one__sh=f"{LAUNCH} --output_dir=/o --output_name=one --seed=1\n")
    (tmp_path / "mine").mkdir()
    run = "one: {base: b, dataset: pics, steps: 1, objective: eps, learning_rate: {unet: 1.0e-5}, seed: 1}"
    (tmp_path / "mine/ledger.yaml").write_text(f"bases: {{b: {{}}}}\ndatasets: {{pics: {{images: 9}}}}\nruns: {{{run}}}\n")
    found = imported([script], load(tmp_path / "mine"), known=Known(runs={"one": "/o/one.safetensors"}))
    assert any("from a launch that saves the same file: if they are one run, delete this one" in one for one in found.remarks)
