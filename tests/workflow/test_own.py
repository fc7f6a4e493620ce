"""A ledger of one's own is built through the same doors: the tutorial's commands, a module beside other rules, a deployment."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from astolfo.ledger import load
from astolfo.site.publish import collect
from tests.conftest import CONFIG, ROOT, SMALL

HERE = Path(sys.executable).parent
LEAST = """\
bases: {my-base: {}}
datasets: {my-pictures: {images: 16}}
runs:
  my-first: {base: my-base, dataset: my-pictures, epochs: 1, learning_rate: {unet: 1.0e-5}}
  my-second: {base: my-first, dataset: my-pictures, steps: 3, learning_rate: {unet: 1.0e-5}}
"""
MODULE = f"""\
module astolfo:
    snakefile:
        "{ROOT / "workflow" / "Snakefile"}"
    config:
        config


use rule * from astolfo as training_*


rule mine:
    output:
        "mine.txt",
    shell:
        "job() {{{{ echo mine; }}}}; job > {{output}}"
"""


def call(*command, cwd, check=True):
    """A command as a user types it, with astolfo's environment first on the path."""
    path = os.pathsep.join([str(HERE), os.environ["PATH"]])
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


@pytest.fixture
def folder(tmp_path):
    """A folder with a ledger in one file."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "ledger.yaml").write_text(LEAST)
    return tmp_path


def commands():
    """The tutorial's commands, in order."""
    text = (ROOT / "docs" / "your-own.md").read_text()
    return [line[2:] for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def follow(wanted, folder):
    """Runs commands as one shell session does."""
    return call("bash", "-ec", "\n".join(wanted), cwd=folder)


def test_the_tutorial_begins_as_it_says(tmp_path):
    """`init` makes what the page shows, and what looks things up works as it stands there; a bare `snakemake` plans the run."""
    quick = [
        line for line in commands() if not line.startswith(("snakemake", "astolfo rehearse", "astolfo card", "astolfo site"))
    ]
    said = follow([*quick, "snakemake -n"], tmp_path).stdout
    assert f"ledger {tmp_path / 'my-runs' / 'config'}, scale miniature" in said
    assert re.search(r"^my-first ", said, re.MULTILINE)
    assert re.search(r"^evaluation +1$", said, re.MULTILINE)
    text = (ROOT / "docs" / "your-own.md").read_text()
    shown = [Path(tmp_path, "my-runs/config", name).read_text() for name in ("bases.yaml", "datasets.yaml", "runs/first.yaml")]
    for block, file in zip(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL), shown, strict=True):
        plain = [re.sub(r" +#.*", "", line) for line in file.splitlines() if not line.startswith("#")]
        assert block.splitlines() == plain


@pytest.mark.slow
def test_the_tutorial_leads_to_pictures(tmp_path):
    """Every command of the tutorial, as it stands: from an empty folder to an evaluation and a site."""
    follow(commands(), tmp_path)
    assert (tmp_path / "my-runs" / "evaluations" / "my-first" / "grid.png").exists()
    assert "my-first" in (tmp_path / "my-runs" / "site" / "index.html").read_text()
    other = call("astolfo", "--config", SMALL, "site", cwd=tmp_path / "my-runs", check=False)
    assert "holds the ledger" in other.stderr


@pytest.mark.slow
def test_strangers_reproduce_what_was_published(folder, tmp_path_factory):
    """Built in one tree, published and packed: `astolfo reproduce` of either folder, in another tree, makes the same file and chain."""
    build = ("snakemake", "-s", ROOT / "workflow" / "Snakefile", "--cores", "2")
    call(*build, "results/my-first.safetensors", cwd=folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    call("astolfo", "crate", "my-first", "-o", elsewhere / "crate", cwd=folder)
    ledger = load(folder / "config", "miniature")
    for item in collect(ledger, folder, ledger.run("my-first")):
        path = elsewhere / "published" / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.source.read_bytes() if item.source else item.text.encode())
    shutil.rmtree(folder)
    for name in ("crate", "published"):
        (model,) = (elsewhere / name).rglob("my-first.safetensors")
        checked = call("astolfo", "verify", model, "--attestations-only", cwd=elsewhere).stdout
        assert "my-first.safetensors: verified" in checked
        assert "attested but not re-hashed: states/my-first/" in checked
        work = tmp_path_factory.mktemp("stranger")
        done = call("astolfo", "reproduce", elsewhere / name, cwd=work)
        assert (
            f"my-first.safetensors: reproduced, identical to {model}, and so is its attestation: every ancestor too"
            in done.stdout
        )
        assert "done    results/my-first.safetensors" in done.stderr  # a line per job, as `make` says it
        assert "--spec" not in done.stderr


def test_init_overwrites_nothing(tmp_path):
    """A second `init` in the same folder names what is there, and changes nothing."""
    call("astolfo", "init", "x", cwd=tmp_path)
    (tmp_path / "x" / "config" / "bases.yaml").write_text("mine: {}\n")
    done = call("astolfo", "init", "x", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "already; nothing was changed" in done.stderr
    assert (tmp_path / "x" / "config" / "bases.yaml").read_text() == "mine: {}\n"


def test_a_module_stands_beside_other_rules(folder):
    """As a module under names of its own the workflow plans and runs, and neither other rules nor others' configuration is in the way.

    A misspelt key of its own is refused all the same.
    """
    (folder / "Snakefile").write_text(MODULE)
    planned = call("snakemake", "-n", "results/my-second.safetensors", "--cores", "1", "--config", "other=1", cwd=folder).stdout
    assert re.search(r"^training_segment +2$", planned, re.MULTILINE)
    misspelt = call("snakemake", "-n", "mine.txt", "--cores", "1", "--config", "scal=full", cwd=folder, check=False)
    assert "unknown config scal: expected scale" in misspelt.stderr + misspelt.stdout
    call("snakemake", "mine.txt", "vocabulary/vocab.json", "--cores", "1", cwd=folder)
    assert (folder / "mine.txt").read_text() == "mine\n"
    assert (folder / ".astolfo" / "ledger").read_text() == "config\n"


def test_the_catalogs_deployment_builds_what_its_ledger_says(tmp_path):
    """The record, deployed as the workflow catalog says (a module in workflow/Snakefile, config/ copied), a bare `snakemake` plans the targets."""
    shutil.copytree(CONFIG, tmp_path / "config")
    (tmp_path / "workflow").mkdir()
    entry = 'configfile: "config/config.yaml"\n\n\n' + MODULE.partition("rule mine")[0].replace(" as training_*", "")
    (tmp_path / "workflow" / "Snakefile").write_text(entry)
    done = call("snakemake", "-n", "--cores", "1", cwd=tmp_path)
    assert f"ledger {tmp_path / 'config'}" in done.stdout + done.stderr
    assert "results/25112201-0.50.safetensors" in done.stdout


def test_the_ledger_is_named_the_same_way_everywhere(folder):
    """`--config`, ./config, `ledger=` and a remembered one lead `astolfo` and `snakemake` to the same ledger."""
    snakefile, work = ROOT / "workflow" / "Snakefile", folder / "work"
    work.mkdir()
    by = {
        "here": call("astolfo", "--version", cwd=folder),
        "option": call("astolfo", "--config", folder / "config", "--version", cwd=work),
        "snakemake": call("snakemake", "-s", snakefile, "-n", cwd=folder),
        "ledger=": call("snakemake", "-s", snakefile, "-n", "--config", f"ledger={folder / 'config'}", cwd=work),
    }
    assert [key for key, done in by.items() if f"ledger {folder / 'config'}" not in done.stdout + done.stderr] == []
    call("snakemake", "-s", snakefile, "vocabulary/vocab.json", "--config", f"ledger={folder / 'config'}", cwd=work)
    assert f"ledger {folder / 'config'}" in call("astolfo", "--version", cwd=work).stdout
    refused = call("snakemake", "-s", snakefile, "-n", "--config", f"ledger={SMALL}", cwd=work, check=False)
    assert "One directory holds one ledger" in refused.stdout + refused.stderr
