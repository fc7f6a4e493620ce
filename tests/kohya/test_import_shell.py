"""What a script says besides its options: who launches what, on how many cards, under which name, from which model."""

import pytest

from astolfo.errors import InputError
from tests.kohya.conftest import BASE, LAUNCH


def test_what_needs_no_value_may_be_unknown(read):
    """A value that only the shell knows is no matter where no key needs it."""
    assert not read(train__sh=f'{LAUNCH} --seed 1 --logging_dir="$HOME/$(date)"\n').refusals


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


def test_a_line_in_a_loop_says_what_it_says_once(read):
    """Each round is a run; what is refused, or to be known, of the one line is told once."""
    found = read(
        train__sh=f"for s in 1 2; do {LAUNCH.replace('--num_processes=1 ', '')} --flip_aug --seed $s --output_name r$s; done\n"
    )
    assert [run.name for run in found.runs] == ["r1", "r2"]
    assert (len(found.refusals), len(found.remarks)) == (1, 1)


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


def test_options_on_lines_of_their_own(read):
    """Options after a launch without a mark of continuation are its own, as in lines pasted into a terminal of Windows."""
    text = f"accelerate launch --num_cpu_threads_per_process 4\n    sdxl_train.py\n    {BASE}\n    --in_json /d/pics/m.json\n    --seed 3\n"
    assert read(train__sh=text).runs[0].fields["seed"] == 3
