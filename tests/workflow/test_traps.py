"""Where Snakemake by itself says "Nothing to be done", or begins anew for nothing: each case changes something and asks it.

The graph, the specs and the digests of code and lock are the real ones, of a copy of the program; `standin.py` does the jobs.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from astolfo.files import sha256_of, write_json
from astolfo.provenance import attestation
from astolfo.provenance.jobs import read, record_path
from tests.conftest import ROOT, SMALL, STAND_INS
from tests.workflow import warm
from tests.workflow.conftest import jobs

RUN, RESULT = "plain", "results/plain.safetensors"
RECIPE = {"segment": 3, "checkpoint": 1}


@dataclass(frozen=True)
class Copy:
    """A copy of the program and a working directory that it has built."""

    program: Path
    directory: Path

    def call(self, *arguments, config=(), check=True, environment=()):
        """Snakemake of the copy, in its working directory."""
        arguments = ["--snakefile", self.program / "workflow" / "Snakefile", "--workflow-profile",
                     self.program / "workflow/profiles/default", "--directory", self.directory, *arguments,
                     "--config", "scale=miniature", *config]  # fmt: skip
        done = warm.run(arguments, self.directory, os.environ | {"PYTHONPATH": str(self.program)} | dict(environment))
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def astolfo(self, *arguments):
        """The command line of the copy, whose own `__main__` is the stand-in."""
        command = [sys.executable, "-P", "-c", "from astolfo.cli import main; main()", *arguments]
        environment = os.environ | {"PYTHONPATH": str(self.program)}
        return subprocess.run(command, capture_output=True, text=True, cwd=self.directory, env=environment)

    def plan(self, target=RESULT, options=(), **more):
        """Rule -> number of jobs that a dry run would do."""
        planned = jobs(self.call(target, "-n", *options, **more).stdout)
        planned.pop("total", None)
        return planned

    def edit(self, name, old, new):
        """Replaces text, which must be there, in a file of the program."""
        path = self.program / name
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1))

    def rewrite(self, name, data=b"other"):
        """Replaces an artifact and its side-car, as another build of it would; they are new."""
        from astolfo.files import write_sidecar

        path = self.directory / name
        path.chmod(0o644)
        path.write_bytes(data)
        write_sidecar(path)


def program(folder, protect=False):
    """A copy of the program with the stand-in for its jobs; with `protect`, the miniature treats results as full scale does."""
    for name in ("astolfo", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pinned = f"one: {{objective: eps, miniature: {{file: sdxl-eps.safetensors, sha256: {sha256_of(STAND_INS / 'sdxl-eps.safetensors')}}}}}"
    ledger = shutil.copytree(SMALL, folder / "config") / "ledger.yaml"
    ledger.write_text(ledger.read_text().replace("one: {objective: eps}", pinned))
    (folder / "envs").mkdir()
    shutil.copy(ROOT / "envs" / "lock.txt", folder / "envs")
    shutil.copy(Path(__file__).parent / "standin.py", folder / "astolfo" / "__main__.py")
    if protect:
        scale = folder / "astolfo" / "library" / "scales" / "miniature.yaml"
        scale.write_text(scale.read_text().replace("protect_results: false", "protect_results: true"))
    return folder


def copied(built, folder):
    """A copy of a built copy, to be changed by one test; times are kept."""
    shutil.copytree(built.program, folder / "program")
    shutil.copytree(built.directory, folder / "work")
    return Copy(folder / "program", folder / "work")


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    folder = tmp_path_factory.mktemp("miniature")
    (folder / "work").mkdir()
    made = Copy(program(folder / "program"), folder / "work")
    made.call(RESULT)
    return made


@pytest.fixture(scope="module")
def protecting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("protecting")
    (folder / "work").mkdir()
    made = Copy(program(folder / "program", protect=True), folder / "work")
    made.call(RESULT)
    return made


@pytest.fixture
def small(miniature, tmp_path):
    return copied(miniature, tmp_path)


@pytest.fixture
def large(protecting, tmp_path):
    return copied(protecting, tmp_path)


def test_nothing_changed(small):
    """A second call does nothing, also with every file touched: what is compared is content."""
    for path in sorted(small.directory.rglob("*")):
        if ".snakemake" not in path.parts:
            path.touch()
    assert small.plan() == {}


def test_swapped_values(small):
    """Two values of the recipe that are exchanged make another spec."""
    small.edit("config/ledger.yaml", "{unet: 1.5e-6, text_encoders: 1.2e-5}", "{unet: 1.2e-5, text_encoders: 1.5e-6}")
    assert small.plan() == RECIPE


def test_changed_code_that_decides_bits(small):
    """A changed statement of the trainer trains again; nothing else is made again but what follows."""
    small.edit("astolfo/train/objective.py", "import", "UNUSED = 1\nimport")
    assert small.plan() == RECIPE


def test_changed_code_that_decides_none(small):
    """A comment, a docstring, and code of the command line build nothing."""
    small.edit("astolfo/train/objective.py", "import", "# a comment\nimport")
    small.edit("astolfo/train/loop.py", '"""One segment', '"""Still one segment')
    small.edit("astolfo/commands/models.py", "import", "UNUSED = 1\nimport")
    assert small.plan() == {}


def test_a_replaced_big_file(small):
    """Another base of the same size and time, with its side-car: what starts from it is made again, the base is not."""
    base = small.directory / "bases/one.safetensors"
    before = base.stat()
    small.rewrite("bases/one.safetensors", b"x" * before.st_size)
    os.utime(base, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert small.plan() == RECIPE


def test_a_changed_lock(small):
    """Another environment makes everything again that code computes, and nothing that is pinned."""
    small.edit("envs/lock.txt", "numpy", "numpy ")
    assert small.plan() == RECIPE | {"vocabulary": 1, "dataset_made": 1}


def test_placement_builds_nothing(small):
    """The number of cores or GPUs, and a run's placement in the ledger, decide no bit."""
    small.edit("config/ledger.yaml", "placement: {loader_workers: 8}", "placement: {loader_workers: 3}")
    assert small.plan(RESULT, options=("--cores", "1", "--resources", "gpu=2", "--set-resources", "segment:gpu=4")) == {}
    blocks = "placement: {gradient_checkpointing: [mid_block, up_blocks.0], offload_gradients: false}"
    small.edit("config/ledger.yaml", "placement: {loader_workers: 3}", blocks)
    assert small.plan(RESULT) == {}
    for said, options in (
        (blocks, "--keep-gradients --gradient-checkpointing mid_block,up_blocks.0"),
        ("placement: {gradient_checkpointing: true}", "--gradient-checkpointing all"),
        ("placement: {gradient_checkpointing: false, offload_gradients: true}",
         "--offload-gradients --gradient-checkpointing none"),
        ("placement: {ramdisk: true}", "--ramdisk"),
    ):  # fmt: skip
        small.edit("config/ledger.yaml", blocks, said)
        blocks = said
        printed = " ".join(small.call(RESULT, "-n", "-p", "--forceall").stdout.split())
        assert re.search(rf"--run-end [0-9]+ {options} --out states/", printed), said


def test_a_corrupted_result(small):
    """Of a damaged result that nobody reads Snakemake knows nothing; `astolfo verify` names it, with exit status 1."""
    path = small.directory / RESULT
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = small.astolfo("verify")
    assert (small.plan(), done.returncode) == ({}, 1)
    assert f"{RESULT} is damaged: expected sha256" in done.stdout


@pytest.mark.slow
def test_nothing_stale_comes_from_a_cache(small, tmp_path):
    """Snakemake's cache between workflows knows no environment, but the spec does: after a change of the lock it is not used."""
    environment = {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")}
    (tmp_path / "cache").mkdir()
    made = record_path(small.directory / RESULT)
    (small.directory / RESULT).unlink()
    small.call(RESULT, "--cache", "checkpoint", environment=environment)
    first, cached = json.loads(made.read_text())["lock"], sorted((tmp_path / "cache").iterdir())
    assert cached
    small.edit("envs/lock.txt", "numpy", "numpy ")
    small.call(RESULT, "--cache", "checkpoint", environment=environment)
    assert json.loads(made.read_text())["lock"] != first
    assert len(list((tmp_path / "cache").iterdir())) == 2 * len(cached)


@pytest.mark.slow
def test_a_rewritten_segment_in_a_chain_of_778(large):
    """Where segment 5 of 778 was rewritten, all that follow are planned, though the last file alone is the target."""
    large.edit("config/ledger.yaml", "{images: 12446670}", "{images: 12446670, miniature: {images: 12446670}}")
    large.edit("config/ledger.yaml", "save_every: {steps: 11274}", "save_every: {steps: 1000}")
    large.edit("astolfo/library/scales/miniature.yaml", "max_segments:", "max_segments: 800 #")
    names = [f"states/{RUN}/{min(1000 * n, 777917):08d}.safetensors" for n in range(1, 779)]
    inputs = [path for path in large.directory.rglob("*") if path.parent.name in ("bases", "vocabulary", "many")]
    shutil.rmtree(large.directory / ".snakemake")
    shutil.rmtree(large.directory / "states")
    for number, path in enumerate([*inputs, *(large.directory / n for n in [*names, RESULT])]):
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, path.with_name(path.name + ".sha256")):
            file.touch()
            os.utime(file, (1e9 + number, 1e9 + number))
    assert large.plan() == {}
    (large.directory / f"{names[4]}.sha256").touch()
    assert large.plan() == {"segment": 773, "checkpoint": 1}


# ---- where results are kept: as at full scale


def test_changed_code_restarts_nothing(large):
    """A changed trainer, lock or rule plans nothing at full scale: what they made is named as stale, with the two ways on."""
    large.edit("astolfo/train/objective.py", "import", "UNUSED = 1\nimport")
    large.edit("workflow/rules/train.smk", '"train --spec', '"train  --spec')
    done = large.call(RESULT, "-n")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert f"Stale: {RUN}: 3 states made by other code than those in use." in done.stdout + done.stderr
    assert f"`--config rebuild={RUN}` makes it again" in done.stdout + done.stderr
    listed = large.astolfo("stale")
    assert (listed.returncode, listed.stdout) == (1, f"{RUN}: 3 states made by other code\n")


def attest(artifact, record):
    """Writes an attestation beside an artifact with the code and lock of its job's record."""
    made = {key: record[key] for key in ("identity", "code", "lock") if key in record}
    definition = {
        "buildType": "urn:astolfo:job:any:v1", "externalParameters": {"spec": {"verb": record["verb"]}}, "internalParameters": made
    }  # fmt: skip
    statement = {"_type": attestation.STATEMENT, "predicateType": attestation.PREDICATE, "subject": [],
                 "predicate": {"buildDefinition": definition}}  # fmt: skip
    made[attestation._SELF] = attestation._digest(statement)
    write_json(attestation.attestation_path(artifact), statement)


def test_without_records_code_that_was_edited_during_a_build_restarts_nothing(large):
    """Without .astolfo/ an attestation names the code that ran. Where that was edited after the plan, a finished training is kept all
    the same, and named as stale; a rebuild that is asked for is made."""
    for path in large.directory.rglob("*.attestation.json"):
        artifact = path.with_name(path.name.removesuffix(".attestation.json"))
        record = read(artifact)
        attest(artifact, record | ({"code": "1" * 64} if record["verb"] == "train" else {}))
    shutil.rmtree(large.directory / ".astolfo")
    done = large.call(RESULT, "-n")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert f"Stale: {RUN}: 3 states made by other code than those in use." in done.stdout + done.stderr
    large.edit("astolfo/train/objective.py", "import", "UNUSED = 1\nimport")
    assert large.plan() == {}
    assert large.plan(config=[f"rebuild={RUN}"]) == RECIPE


def test_accepted_code_is_on_record(large):
    """`astolfo accept` wants a reason and leaves it beside each artifact, for this change only: the next is stale again."""
    large.edit("astolfo/train/objective.py", "import", "UNUSED = 1\nimport")
    assert large.astolfo("accept", RUN).returncode == 2
    assert large.astolfo("accept", RUN, "--reason", "unused").stdout == f"accepted: {RUN}: 3 states made by other code\n"
    said = json.loads((large.directory / f"states/{RUN}/00000078.safetensors.accepted.json").read_text())
    assert said["reason"] == "unused"
    assert said["made"]["code"] != said["accepted"]["code"]
    assert said["made"]["lock"] == said["accepted"]["lock"]
    assert large.astolfo("stale").stdout == "Nothing is stale.\n"
    large.edit("astolfo/train/objective.py", "UNUSED = 1", "UNUSED = 2")
    assert large.astolfo("stale").returncode == 1


def test_a_rebuild_is_asked_for(large):
    """`--config rebuild=ID` makes again what is stale of that run and what follows; afterwards nothing is stale of it."""
    large.edit("astolfo/train/objective.py", "import", "UNUSED = 1\nimport")
    assert large.plan(config=[f"rebuild={RUN}"]) == RECIPE
    large.call(RESULT, config=[f"rebuild={RUN}"])
    assert large.astolfo("stale").returncode == 0
    assert large.plan(config=[f"rebuild={RUN}"]) == {}
    refused = large.call("-n", config=["rebuild=plane"], check=False)
    assert "plane is no run, base or dataset" in refused.stdout + refused.stderr


def test_other_reasons_to_restart_are_refused(large):
    """Without this program's profile Snakemake would also look at rules' text: at full scale it is told what to say instead."""
    refused = large.call(RESULT, "-n", "--rerun-triggers", "code", check=False)
    assert refused.returncode == 1
    assert "expected the rerun triggers mtime and params" in refused.stdout + refused.stderr


def test_a_run_goes_on_only_from_what_is_accepted(large):
    """A segment refuses the state of other code until that is accepted; then its own record names the code in use."""
    last = large.directory / f"states/{RUN}/00000078.safetensors"
    for path in (last, large.directory / RESULT):
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
    large.edit("astolfo/train/objective.py", "import", "UNUSED = 1\nimport")
    refused = large.call(RESULT, check=False)
    assert refused.returncode == 1
    assert "Going on from it would mix the two in one run" in refused.stderr
    large.astolfo("accept", RUN, "--reason", "unused")
    large.call(RESULT)
    assert read(last)["code"] != read(last.with_name("00000052.safetensors"))["code"]
    assert large.astolfo("stale").stdout == "Nothing is stale.\n"
