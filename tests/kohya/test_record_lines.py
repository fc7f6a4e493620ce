"""The record's own command lines, imported, give the record's runs: what differs is named by a note."""

import re
from pathlib import Path

import pytest
import yaml

from astolfo.kohya import shell
from astolfo.kohya.configuration import Files
from astolfo.kohya.launch import launches_in
from astolfo.kohya.read import reading
from astolfo.ledger import load, schema
from tests.conftest import CONFIG

FACTS = yaml.safe_load((Path(__file__).parent / "record.yaml").read_text())["runs"]
LEDGER = load(CONFIG, "full")
_NAMES = {
    "max_epochs": "max_train_epochs", "batch_size": "train_batch_size", "gradient_accumulation": "gradient_accumulation_steps",
    "data_loader_workers": "max_data_loader_n_workers",
}  # fmt: skip
_WORDS = {
    "captions.kind": "kind of captions", "captions.tokens": "token count", "ranks": "GPUs", "unet": "UNet", "dataset": "dataset",
    "epochs": "epochs", "steps": "steps", "until_step": "topped", "merge_base": "merge is weighed", "on_failure": "nan",
    "restart_epochs": "restart", "objective.shift": "shift", "accumulation": "accumulation", "optimizer.kind": "here CautiousLion",
    "choices": "captions: kohya-native", "learning_rate": "rate|1e-6|1e-5|text encoder|TTE", "base": "continues|restart|author's file|starts from|takes", "continues": "continues|takes",
}  # fmt: skip
"""A key in which a command line differs from the record -> what a note that names the difference says."""


def line(name, facts):
    """The command line that facts were read off, with its folders' names made up."""
    second, te = facts.get("v2"), facts.get("learning_rate_te")
    words = [f"numactl --cpunodebind={facts['numa']}"] if "numa" in facts else []
    script = "sdxl_train_v2.py" if name >= "25022301" else "sdxl_train.py"
    words += ["accelerate launch", "fine_tune.py" if second else script, f"--log_prefix=trial_{name}_"]
    words.append(f"--pretrained_model_name_or_path=/models/{facts['starts_from']}")
    folder = facts["dataset"] + ("-sd2" if second else "")  # its index was another, meta_lat_sd1.json
    words += [
        f"--in_json=/data/{folder}/meta_lat.json",
        f"--train_data_dir={'/mnt/ramdisk' if facts.get('ramdisk') else '/data'}/{folder}",
    ]
    words.append("--use_8bit_adam" if facts["optimizer"] == "AdamW8bit" else f"--optimizer_type={facts['optimizer']}")
    words += [f"--optimizer_args {' '.join(facts['optimizer_args'])}"] if "optimizer_args" in facts else []
    precision = facts["precision"]
    words += [f"--mixed_precision={precision['compute']} --full_bf16 --save_precision={precision['save']}"]
    words.append(f"--learning_rate={facts['learning_rate_unet']}")
    words += [f"--learning_rate_te{number}={te}" for number in (("",) if second else ("1", "2")) if te]
    special = {
        "starts_from",
        "dataset",
        "optimizer",
        "optimizer_args",
        "precision",
        "learning_rate_unet",
        "learning_rate_te",
        "numa",
        "ramdisk",
    }
    for key, value in ((key, value) for key, value in facts.items() if key not in special):
        words.append(f"--{_NAMES.get(key, key)}" + ("" if value is True else f"={value}"))
    return " ".join(words + (["--skip_until_initial_step"] if "initial_step" in facts else []))


def differences(name):
    """Keys (with dots) in which the imported line and the record's run differ."""
    files = Files([])
    launch = launches_in(shell.parse(Path(f"{name}.sh"), line(name, FACTS[name])))
    found = schema.RunFields.model_validate(reading(launch, files, LEDGER).runs[0].fields).model_dump()
    record = LEDGER.run(name).fields.model_dump()
    for key in record:
        one, other = found[key], record[key]
        if isinstance(one, dict) and isinstance(other, dict):
            yield from (f"{key}.{inner}" for inner in other if one.get(inner) != other[inner])
        elif one != other:
            yield key


def notes(name):
    """All that the ledger's notes say of a run: its own, its era's, what became of it, and of the base that it starts from."""
    run = LEDGER.run(name)
    base = LEDGER.bases.get(run.fields.base)
    return " ".join([run.entry.note, run.era.note, run.entry.outcome.text, base.note if base else ""])


@pytest.mark.parametrize("name", FACTS)
def test_what_differs_is_named_by_a_note(name):
    """An imported command line of the record is its run, but for differences that the run's notes, or its era's, name."""
    for key in differences(name):
        pattern = _WORDS.get(key) or _WORDS.get(key.partition(".")[0])
        assert re.search(pattern or "(?!)", notes(name)), f"{name}: {key} differs, and no note says so"


def test_lines_without_a_difference_in_their_rates_have_the_record_s():
    """Seeds, rates, batches, precision and cadence of the big production run come out as recorded."""
    assert set(differences("25112201")) == {"captions.tokens", "ranks", "unet"}


def test_each_line_shows_its_trainer():
    """sdxl_train_v2.py is the fork's native trainer, all that came before it upstream's."""
    files = Files([])
    for name, facts in FACTS.items():
        launch = launches_in(shell.parse(Path(f"{name}.sh"), line(name, facts)))
        found = reading(launch, files, LEDGER).runs[0].fields["semantics"]
        assert found == ("kohya-native" if name >= "25022301" else "kohya"), name
