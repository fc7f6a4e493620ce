"""Who made what is on record, and a run goes on only from what is in use or accepted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from astolfo.checkpoint.safefile import write_file
from astolfo.cli import cli
from astolfo.errors import AstolfoError, InputError, StateError
from astolfo.files import canonical_json, sha256_of, write_sidecar
from astolfo.program import LOCK
from astolfo.provenance import attestation, jobs, stale
from tests.conftest import SMALL

STATE = "states/plain/00000026.safetensors"
SPEC = {"verb": "train", "scale": "miniature", "parents": {}, "recipe": {"ranks": 4}, "from": 0, "to": 26}


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "lock.txt"
    path.write_text("numpy==2.4.6\n")
    return path


@pytest.fixture
def made(tmp_path, lock):
    """A state that the code and the lock in use have made."""
    path = tmp_path / STATE
    path.parent.mkdir(parents=True)
    path.touch()
    write_sidecar(path)
    now = stale.makers("train", sha256_of(lock))
    stale.record(path, SPEC | now, now, {})
    return path


def aged(path):
    """Makes an artifact's record say that other code made it."""
    record = jobs.record_path(path)
    record.write_text(record.read_text().replace(json.loads(record.read_text())["code"], "0" * 64))


def test_what_is_in_use_is_not_stale(tmp_path, made, lock):
    """A state by the code and lock in use is continued without a word; so is one of which nothing says who made it."""
    spec = SPEC | stale.makers("train", sha256_of(lock))
    stale.check(made, spec)
    stale.check(tmp_path / "unknown.safetensors", spec)
    assert stale.find(tmp_path, sha256_of(lock)) == []


def test_stale_is_refused_until_accepted(tmp_path, made, lock):
    """The refusal names both ways on; what is accepted goes on, and only for the code and lock that it was accepted for."""
    aged(made)
    spec = SPEC | stale.makers("train", sha256_of(lock))
    with pytest.raises(StateError, match="other code: expected code .*accept plain --reason.*rebuild=plain"):
        stale.check(made, spec)
    assert stale.lines(stale.accept(tmp_path, "plain", sha256_of(lock), "a log line")) == ["plain: 1 state made by other code"]
    stale.check(made, spec)
    lock.write_text("numpy==2.4.7\n")
    with pytest.raises(StateError, match="other code and another lock"):
        stale.check(made, spec | {"lock": sha256_of(lock)})


def test_accepting_needs_a_reason_and_something_stale(tmp_path, made, lock):
    """An empty reason, or an ID of which nothing is stale, is an error that says what is."""
    with pytest.raises(InputError, match="Nothing of plain is stale in .*; what is: nothing"):
        stale.accept(tmp_path, "plain", sha256_of(lock), "why not")
    aged(made)
    with pytest.raises(InputError, match="Say why"):
        stale.accept(tmp_path, "plain", sha256_of(lock), "  ")
    with pytest.raises(InputError, match="what is: plain"):
        stale.accept(tmp_path, "velocity", sha256_of(lock), "why not")


def test_accepting_something_unknown_names_near_ones(tmp_path, made, lock):
    """An ID that is no run, base or dataset is told by near names; a known one of which nothing is stale, as that."""
    known = {"plainx": "unknown run, base or dataset 'plainx'. Did you mean plain", "plain": "Nothing of plain"}
    for name, said in known.items():
        command = ["--config", str(SMALL), "accept", name, "-d", str(tmp_path), "--lock", str(lock), "--reason", "why not"]
        with pytest.raises(AstolfoError, match=said):
            CliRunner().invoke(cli, command, catch_exceptions=False)


def test_a_damaged_record_is_named(tmp_path, made, lock):
    """A record that is no JSON stops the question, with the file and what to do."""
    jobs.record_path(made).write_text("{")
    with pytest.raises(InputError, match="00000026.safetensors.json is damaged: expected a JSON object"):
        stale.find(tmp_path, sha256_of(lock))


def test_records_lie_in_one_folder(tmp_path, made):
    """Beside an artifact stands what vouches for it; the record of its job is below .astolfo/."""
    assert jobs.record_path(made) == tmp_path / ".astolfo/jobs/states/plain/00000026.safetensors.json"
    assert {path.name for path in made.parent.iterdir()} == {made.name, f"{made.name}.sha256"}


def test_without_records_the_attestations_tell(built, lock):
    """In a folder whose .astolfo/ was deleted what another lock made is stale all the same, and the plan goes on naming that lock."""
    directory = built["merge"].parent.parent
    assert not (directory / ".astolfo").exists()
    found = stale.find(directory, sha256_of(lock))
    assert {directory / one.path for one in found} == set(built.values()) - {built["base"]}  # which was brought
    assert stale.named(built["state 2"]) == stale.makers("train", sha256_of(LOCK))
    with pytest.raises(StateError, match="was made by another lock"):
        stale.check(built["state 2"], SPEC | stale.makers("train", sha256_of(lock)))
    stale.accept(directory, "plain", sha256_of(lock), "a log line")
    stale.check(built["state 2"], SPEC | stale.makers("train", sha256_of(lock)))


def test_a_record_of_another_file_does_not_count(made, lock):
    """A file that was put in an artifact's place, with its own side-car, is not what the record tells of."""
    aged(made)
    assert stale.named(made)
    made.write_bytes(b"another")
    write_sidecar(made)
    assert stale.named(made) == {}


def test_a_record_of_another_page_does_not_count(tmp_path):
    """An evaluation's page, which has no side-car, is the one that its record tells of by its bytes; without a page none is told of."""
    page = tmp_path / "evaluations/plain/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("drawn")
    now = {"code": "1" * 64, "lock": "2" * 64}
    stale.record(page, {"verb": "evaluate"} | now, now, {})
    assert stale.named(page) == now
    page.write_text("brought from another folder")
    assert stale.named(page) == {}
    page.unlink()
    assert stale.named(page) == {}


@pytest.mark.parametrize("text", ["{}", '{"cost": {}}', '{"sha256": null}'])
def test_a_record_that_names_no_file_does_not_count(made, text):
    """A record without the digest of its artifact tells of none."""
    jobs.record_path(made).write_text(text)
    assert jobs.read(made) == {}


def test_a_record_that_cannot_be_written_fails_no_job(tmp_path, made, lock, caplog):
    """A working directory whose .astolfo/ takes nothing costs the record, with a line in the log, and not the artifact."""
    shutil.rmtree(tmp_path / ".astolfo")
    (tmp_path / ".astolfo").touch()
    now = stale.makers("train", sha256_of(lock))
    stale.record(made, SPEC | now, now, {})
    assert "the record of its job cannot be written" in caplog.text


def test_what_is_gone_asks_nothing(tmp_path, lock):
    """Of an artifact that is not there any more neither record nor attestation is read, whatever is in them."""
    gone = tmp_path / "results/plain.safetensors"
    for left in (jobs.record_path(gone), attestation.attestation_path(gone)):
        left.parent.mkdir(parents=True)
        left.write_text("{")
    assert stale.find(tmp_path, sha256_of(lock)) == []


def test_a_training_job_asks_and_records(tmp_path, made, lock, monkeypatch):
    """`astolfo job train` refuses a stale state, trains from an accepted one, and what it makes attests that."""
    from astolfo.commands.jobs import training
    from astolfo.train import segment

    def trained(spec, inputs, before, out, placement):
        write_file(out, {"loss": np.zeros(52, np.float32)}, {"astolfo.position": "52"})

    monkeypatch.setattr(segment, "train_segment", trained)
    monkeypatch.setattr(training, "_train", lambda work, given: work(*given))  # this recipe says too little to ask for memory
    for parent in (tmp_path / "datasets/6k/store.json", tmp_path / "vocabulary/vocab.json"):
        parent.parent.mkdir(parents=True, exist_ok=True)
        parent.touch()
        write_sidecar(parent)
    out = made.with_name("00000052.safetensors")
    arguments = ["--config", str(SMALL), "job", "--lock", str(lock), "train", "--spec", canonical_json(SPEC | {"from": 26, "to": 52}), "--base", "",
                 "--state", str(made), "--dataset", str(tmp_path / "datasets/6k"),
                 "--vocabulary", str(tmp_path / "vocabulary"), "--out", str(out)]  # fmt: skip
    aged(made)
    refused = CliRunner().invoke(cli, arguments)
    assert isinstance(refused.exception, StateError)
    assert not out.exists()
    stale.accept(tmp_path, "plain", sha256_of(lock), "a log line")
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    attested = attestation.read(out).definition["resolvedDependencies"][0]["annotations"]
    assert attested["accepted"]["reason"] == "a log line"
    record = jobs.read(out)
    assert {key: record[key] for key in ("code", "lock")} == record["named"] == stale.makers("train", sha256_of(lock))
    assert record["cost"]["seconds"] > 0


@pytest.mark.parametrize(("place", "owner"), [
    ("states/foundation-eps/00000026.safetensors", "foundation-eps"),
    ("results/foundation-eps.safetensors", "foundation-eps"),
    ("results/plain.safetensors", "plain"),
    ("results/25010101-step00011274-0.75.safetensors", "25010101"),
    ("evaluations/foundation-eps/index.html", "foundation-eps"),
    ("datasets/2.4M/store.json", "2.4M"),
    ("bases/one-1.2.safetensors", "one-1.2"),
])  # fmt: skip
def test_an_artifact_belongs_to_what_the_ledger_names(place, owner):
    """The run of a checkpoint, merge or evaluation, whatever the form of its ID; otherwise the dataset or base."""
    assert stale.owner_of(Path(place)) == owner


def test_an_evaluation_belongs_to_the_run_that_its_numbers_name(tmp_path):
    """Names of runs have dashes, as evaluations under another set do: the numbers beside a page say which run it judged."""
    page = tmp_path / "evaluations" / "my-first-course" / "index.html"
    page.parent.mkdir(parents=True)
    page.with_name("metrics.json").write_text('{"run": "my-first"}')
    assert stale.owner_of(page) == "my-first"
