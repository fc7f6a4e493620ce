"""The graph that Snakemake makes of the ledger: what is planned, what is refused, and what it costs to ask."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT, SMALL
from tests.workflow.conftest import SNAKEMAKE, jobs, snakemake

TARGET, LEDGER = "results/plain.safetensors", f"ledger={SMALL}"


def planned(directory, *arguments, ledger=SMALL, **options):
    """What a dry run with a ledger, the small one without another, would do."""
    return snakemake(directory, *arguments, "-n", config=[f"ledger={ledger}"], **options)


def test_the_plan_of_the_first_command(tmp_path):
    """Of the record: the first command is one job per segment between the base and the result."""
    plan = jobs(snakemake(tmp_path, "results/25112201.safetensors", "-n").stdout)
    assert plan == {"base_pinned": 2, "vocabulary": 1, "dataset_made": 1, "segment": 3, "checkpoint": 1, "total": 8}


def test_the_entry_without_a_target(tmp_path):
    """Of the record: plain `snakemake`, from anywhere, finds the profile beside the entry and plans what the ledger names."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    plan = jobs(done.stdout)
    assert (plan["segment"], plan["checkpoint"], plan["merge"], plan["evaluation"]) == (3, 1, 1, 1)


def test_a_merge_and_an_evaluation_add_one_job_each(tmp_path):
    """Merge and evaluation follow from their names."""
    plan = jobs(planned(tmp_path, "results/plain-0.50.safetensors", "evaluations/plain/index.html").stdout)
    assert (plan["merge"], plan["evaluation"], plan["segment"]) == (1, 1, 3)


def test_an_evaluation_of_its_course_needs_its_checkpoints(tmp_path):
    """The set `course` samples what the run saves: two checkpoints before its result."""
    plan = jobs(planned(tmp_path, "evaluations/plain-course/index.html").stdout)
    assert (plan["checkpoint"], plan["evaluation"], plan["segment"]) == (3, 1, 3)


def test_the_lineage_to_rectified_flow(tmp_path):
    """Of the record: 26022301 needs every run before it: five runs, one merge, two bases made by the graph."""
    plan = jobs(snakemake(tmp_path, "results/26022301.safetensors", "-n").stdout)
    assert plan["segment"] == 15
    assert (plan["merge"], plan["base_made"], plan["base_pinned"], plan["dataset_made"]) == (1, 2, 2, 2)


def test_a_stand_in_that_is_not_shipped_is_made_first(tmp_path):
    """A run from an rf base of which nothing is known needs the stand-in's own run: its dataset, its base and its training, once."""
    config = tmp_path / "config"
    config.mkdir()
    run = "{base: %s, dataset: d, epochs: 1, learning_rate: {unet: 1.0e-5}}"
    runs = f"one: {run % 'mine'}, two: {run % 'other'}"
    bases = "mine: {objective: rf}, other: {objective: rf}"
    (config / "ledger.yaml").write_text(f"bases: {{{bases}}}\ndatasets: {{d: {{images: 32}}}}\nruns: {{{runs}}}\n")
    plan = jobs(
        snakemake(tmp_path, "results/one.safetensors", "results/two.safetensors", "-n", config=[f"ledger={config}"]).stdout
    )
    made = {"base_stand_in": 3, "dataset_made": 2, "segment": 3, "checkpoint": 3}
    assert plan == {"base_pinned": 1, "vocabulary": 1, "total": 13} | made
    models = jobs(snakemake(tmp_path, "ledger", "-n", config=[f"ledger={config}"]).stdout)
    assert {name: models[name] for name in made} == made


def test_the_graph_can_be_drawn(tmp_path):
    """`--dag mermaid-js` prints the graph as Mermaid."""
    out = snakemake(tmp_path, TARGET, "--dag", "mermaid-js", config=[LEDGER]).stdout
    assert "flowchart" in out
    assert "segment" in out


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/plane.safetensors", "unknown run 'plane'. Did you mean plain"),
        ("results/plain-step00800000.safetensors", "there is no step 800,000"),
        ("results/velocity-epoch000009.safetensors", "there is no velocity-epoch000009"),
        ("states/plain/00000027.safetensors", "saves no state at step 27"),
        ("evaluations/plain-corse/index.html", "unknown evaluation set 'corse'. Did you mean course?"),
    ],
)
def test_an_unknown_target_is_explained(tmp_path, target, message):
    """A target that the ledger does not know is refused with the ledger's own words."""
    done = planned(tmp_path, target, check=False)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr


def test_one_directory_one_scale(tmp_path):
    """A working directory that holds the miniature refuses the full scale, also in a dry run."""
    (tmp_path / ".astolfo").mkdir()
    (tmp_path / ".astolfo" / "scale").write_text("miniature\n")
    done = planned(tmp_path, TARGET, scale="full", check=False)
    assert done.returncode == 1
    assert "holds the scale 'miniature', but the scale 'full' was asked for" in done.stdout + done.stderr


def test_the_full_scale_plans_without_its_files(tmp_path):
    """A dry run at full scale needs no file and no GPU: 69 segments for 777,917 steps."""
    plan = jobs(planned(tmp_path, TARGET, scale="full").stdout)
    assert plan["segment"] == 69


def test_a_full_scale_build_says_what_it_lacks(tmp_path):
    """Without its base file a full-scale build stops at once, naming the file, where it belongs and how to pin it."""
    done = snakemake(tmp_path, "bases/one.safetensors", scale="full", config=[LEDGER], check=False)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "inputs/one.safetensors is missing" in said
    assert f"astolfo --config {SMALL} --scale full pin one FILE" in said


def test_a_dry_run_imports_no_torch(tmp_path):
    """Planning imports neither torch nor the libraries above it."""
    code = (
        "import sys; from snakemake.cli import main\n"
        f"sys.argv = {['snakemake', *SNAKEMAKE[3:], 'results/flow.safetensors', '-n', '--quiet', '--directory', str(tmp_path), '--config', LEDGER]!r}\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'bitsandbytes', 'deepspeed'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)


def test_lint_has_one_complaint_only(tmp_path):
    """`snakemake --lint` complains of nothing but missing conda or container environments: the lock pins the environment."""
    done = snakemake(tmp_path, "--lint", check=False)
    found = set(re.findall(r"^    \* (.+):$", done.stdout + done.stderr, re.MULTILINE))
    assert found <= {"Specify a conda environment or container for each rule."}


def test_rules_are_formatted():
    """snakefmt would change nothing."""
    subprocess.run([sys.executable, "-m", "snakefmt", "--check", "workflow"], cwd=ROOT, check=True, capture_output=True)


def test_rules_have_one_param():
    """Every rule that has params has exactly one, the spec: Snakemake stores params unnamed, so two could swap unnoticed."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for block in re.findall(r"^ +params:\n((?: {8,}.*\n)+)", path.read_text(), re.MULTILINE):
            assert len(re.findall(r"^ {8,12}\w+=", block, re.MULTILINE)) == 1, (path, block)


def changed(folder, old, new):
    """A copy of the small ledger with one replacement."""
    ledger = shutil.copytree(SMALL, folder / "config")
    text = (ledger / "ledger.yaml").read_text()
    assert old in text
    (ledger / "ledger.yaml").write_text(text.replace(old, new, 1))
    return ledger


def test_a_chain_of_778_segments_is_planned(tmp_path):
    """A run that saves every thousand steps is a chain far deeper than Python's default recursion limit allows."""
    ledger = changed(tmp_path, "save_every: {steps: 11274}", "save_every: {steps: 1000}")
    plan = jobs(planned(tmp_path, TARGET, scale="full", ledger=ledger).stdout)
    assert plan["segment"] == 778


def test_a_run_that_restarts_takes_its_own_checkpoint(tmp_path):
    """A run began anew from its first epoch's checkpoint: weights alone, so the checkpoint stands between its segments."""
    ledger = changed(tmp_path, "epochs: 8", "epochs: 2\n    restart_epochs: [1]")
    shown = planned(tmp_path, "results/velocity.safetensors", ledger=ledger).stdout
    assert jobs(shown)["checkpoint"] == 2
    assert re.search(r"input: results/velocity-epoch000001.safetensors, .*\n +output: states/velocity/", shown)


def test_the_scheduler_looks_once_per_job(tmp_path):
    """Jobs that wait for a core cost Snakemake nothing: it looks for work when a job ends, and not every second for each that ended."""
    targets = ("vocabulary/vocab.json", "bases/one.safetensors", "bases/older.safetensors")
    shown = snakemake(tmp_path, *targets, "--cores", "1", "--verbose", config=[LEDGER]).stderr
    assert shown.count("Ready jobs: ") == len(targets)
    limited = snakemake(
        tmp_path, *targets, "--forceall", "--cores", "1", "--max-jobs-per-timespan", "1/2s", "--verbose", config=[LEDGER]
    ).stderr
    assert "Job rate limit reached" in limited  # a limit that somebody asks for is kept
