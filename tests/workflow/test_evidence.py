"""Adoption, lineage and verification on what the workflow really builds."""

import shutil

import pytest
from click.testing import CliRunner

from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.cli import cli
from astolfo.files import read_sidecar, sha256_of
from astolfo.ledger.ledger import read_pins
from astolfo.program import LOCK
from astolfo.provenance.attestation import attestation_path, read
from tests.conftest import SMALL, STAND_INS
from tests.provenance.standards import valid_attestations
from tests.workflow import conftest
from tests.workflow.conftest import jobs

OWN = STAND_INS / "sdxl-v.safetensors"
MERGE = "results/velocity-0.50.safetensors"


def snakemake(directory, *arguments, **options):
    return conftest.snakemake(directory, *arguments, config=[f"ledger={SMALL}"], **options)


def astolfo(*arguments):
    done = CliRunner().invoke(cli, ["--config", str(SMALL), "--config", str(SMALL), *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def theirs(folder, **metadata):
    """A model that somebody else made: the weights of one of ours, and nothing that says so."""
    path, source = folder / "theirs.safetensors", open_file(OWN)
    write_file(path, {key: source.tensor(key) for key in source.keys()}, metadata)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return theirs(tmp_path_factory.mktemp("theirs"))


def test_an_adopted_run_is_not_planned(file, tmp_path):
    """With a run adopted, none of its segments is planned for what follows from it."""
    before = jobs(snakemake(tmp_path, "results/flow.safetensors", "-n").stdout)
    astolfo("adopt", "velocity", file, "-d", tmp_path)
    after = jobs(snakemake(tmp_path, "results/flow.safetensors", "-n").stdout)
    assert (after["adopted"], after["merge"]) == (1, 1)
    assert before["segment"] - after["segment"] == 3
    assert "adopted, not rebuilt" in astolfo("lineage", "flow", "-d", tmp_path).output


@pytest.fixture(scope="module")
def merged(file, tmp_path_factory):
    """The merge of an adopted result with its base."""
    folder = tmp_path_factory.mktemp("adopted")
    astolfo("adopt", "velocity", file, "-d", folder)
    snakemake(folder, MERGE)
    return folder


@pytest.mark.usefixtures("elsewhere")
def test_an_adopted_result_is_attested_as_such(merged):
    """Its attestation says that it was brought, and which target would build it; the record's digest is not asked of it."""
    found = read(merged / "results/velocity.safetensors")
    assert found.adopted
    assert found.remade_by == "results/velocity.safetensors"
    done = astolfo("verify", merged / MERGE)
    assert "adopted, not rebuilt" in done.output
    valid_attestations(merged.rglob("*.attestation.json"))


def test_the_lineage_of_what_is_built(file, merged):
    """`lineage` reads the attestations: digests, what was adopted, and what would remake it."""
    shown = astolfo("lineage", "velocity-0.50", "-d", merged).output
    assert f"{MERGE}  [sha256 {read_sidecar(merged / MERGE)[:12]}, merge]" in shown
    adopted = f"results/velocity.safetensors  [sha256 {sha256_of(file)[:12]}, adopted, not rebuilt; results/velocity.safetensors"
    assert f"{adopted} makes it]" in shown
    assert "adopted, not rebuilt; results/plain.safetensors makes it" in shown


def test_an_adopted_file_that_changed_is_refused(file, merged, tmp_path):
    """Another file in its place stops the build, with both digests."""
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(file.read_bytes())
    astolfo("adopt", "velocity", copy, "-d", tmp_path)
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    done = snakemake(tmp_path, "results/velocity.safetensors", check=False)
    assert done.returncode == 1
    assert f"is not the adopted velocity: expected sha256 {sha256_of(file)[:8]}" in done.stdout + done.stderr


def test_what_cannot_be_adopted(file, tmp_path):
    """A base, an unknown run, a checkpoint that the run has not, another file for an adopted run: each refused, nothing noted."""
    for name, message in (
        ("one", "A base is pinned"), ("plane", "unknown run"), ("flow-epoch000011", "there is no flow-epoch"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            CliRunner().invoke(
                cli, ["--config", str(SMALL), "adopt", name, str(file), "-d", str(tmp_path)], catch_exceptions=False
            )
    assert read_pins(tmp_path) == {}
    astolfo("adopt", "velocity", file, "-d", tmp_path)
    with pytest.raises(ValueError, match=r"has another file for velocity.*Remove its line first"):
        other = str(theirs(tmp_path, another="file"))
        CliRunner().invoke(cli, ["--config", str(SMALL), "adopt", "velocity", other, "-d", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(ValueError, match="made it as foundation-v"):
        CliRunner().invoke(cli, ["--config", str(SMALL), "adopt", "flow", str(OWN), "-d", str(tmp_path)], catch_exceptions=False)


def test_reproduce_needs_something_to_compare_with(small, tmp_path):
    """Nothing is built when there is neither a result nor a record, or when the folder is not fresh."""
    for arguments, message in (
        (["plain", "-o", str(tmp_path / "fresh")], "nothing to compare with"),
        (["velocity", "-o", str(small)], "nothing to compare with|is not empty"),
    ):
        command = ["reproduce", *arguments, "-d", str(tmp_path)]
        with pytest.raises(ValueError, match=message):
            CliRunner().invoke(cli, ["--config", str(SMALL), *command], catch_exceptions=False)
    assert not (tmp_path / "fresh").exists()


def test_reproduce_finds_the_same_bits(merged, tmp_path):
    """The merge of an adopted result, rebuilt in a fresh folder: identical, and so is its whole chain."""
    done = astolfo("reproduce", "velocity-0.50", "-o", tmp_path / "fresh", "-d", merged)
    assert done.exit_code == 0
    assert "reproduced, identical" in done.output
    assert "and so is its attestation: every ancestor too" in done.output


def test_a_stranger_reproduces_a_published_folder(file, merged, tmp_path, caplog):
    """From a folder with model, attestation, ledger and lock, read in another tree, the model is rebuilt: the same file.

    Attestations of what it comes from are not needed for that; which of them are missing is said.
    """
    folder, own = tmp_path / "downloads" / "model", tmp_path / "own"
    (own / "inputs").mkdir(parents=True)
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"lacks a model .*, the ledger's entries .*, the lock of its environment"):
        CliRunner().invoke(cli, ["--config", str(SMALL), "reproduce", str(folder), "-d", str(own)], catch_exceptions=False)
    shutil.copyfile(merged / MERGE, folder / "theirs.safetensors")
    shutil.copytree(SMALL, folder / "ledger")
    shutil.copyfile(LOCK, folder / "lock.txt")
    with pytest.raises(ValueError, match=r"lacks the model's attestation \(theirs.safetensors.attestation.json\)"):
        CliRunner().invoke(cli, ["--config", str(SMALL), "reproduce", str(folder), "-d", str(own)], catch_exceptions=False)
    shutil.copyfile(attestation_path(merged / MERGE), attestation_path(folder / "theirs.safetensors"))
    shutil.copyfile(merged / "pins.yaml", folder / "pins.yaml")
    shutil.copyfile(file, own / "inputs" / "velocity.safetensors")
    done = astolfo("reproduce", folder, "-o", tmp_path / "fresh", "-d", own)
    assert "lacks the attestations of " in caplog.text
    assert "results/velocity.safetensors" in caplog.text
    assert done.exit_code == 0
    assert "reproduced, identical to" in done.output
    with pytest.raises(ValueError, match="is no folder: expected the name of a model, or a published folder"):
        CliRunner().invoke(cli, ["--config", str(SMALL), "reproduce", "./nowhere", "-d", str(own)], catch_exceptions=False)
    assert "and so is its attestation: every ancestor too" in done.output
