"""The command line answers from the ledger at once, and says plainly what it does not know."""

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import AstolfoError, LedgerError
from tests.conftest import CONFIG, ROOT, SMALL

pytestmark = pytest.mark.usefixtures("elsewhere")
LEDGER = ("--config", str(SMALL))
ALIKE = ["near", "near-0", "near-1", "near-2"]


def astolfo(*arguments, check=True, cwd=None):
    return subprocess.run(
        [sys.executable, "-P", "-m", "astolfo", *arguments], capture_output=True, text=True, check=check, cwd=cwd
    )


def test_list_shows_every_run():
    """`ledger list` has a line for each run, below its era."""
    out = astolfo(*LEDGER, "ledger", "list").stdout
    assert "alike: Runs that differ in little" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  near")] == ALIKE


def test_show_says_where_values_come_from():
    """`ledger show` marks what is the era's default, and gives file, line and recipe digest."""
    out = astolfo(*LEDGER, "ledger", "show", "velocity").stdout
    assert "ledger.yaml:" in out
    assert "accumulation   4   (era)" in out
    assert "base           two\n" in out


def test_show_knows_eras():
    """`ledger show ERA` is what its runs share and a line for each of them; as JSON too."""
    out = astolfo(*LEDGER, "ledger", "show", "alike").stdout
    assert out.startswith("alike: ")
    assert "\n  optimizer      kind AdamW8bit" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  near")] == ALIKE
    found = json.loads(astolfo(*LEDGER, "ledger", "show", "alike", "--json").stdout)
    assert (found["era"], found["runs"], found["defaults"]["optimizer"]["kind"]) == ("alike", ALIKE, "AdamW8bit")


def test_show_as_json():
    """`ledger show --json` is JSON with the canonical recipe."""
    found = json.loads(astolfo(*LEDGER, "ledger", "show", "plain", "--json").stdout)
    assert found["recipe"]["ranks"] == 4
    assert len(found["recipe_digest"]) == 64


def test_lineage_is_a_tree_up_to_the_base(tmp_path):
    """`lineage` shows the whole chain and marks what is built."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "velocity.safetensors").touch()
    out = astolfo(*LEDGER, "lineage", "flow", "-d", str(tmp_path)).stdout.splitlines()
    assert out[0].startswith("flow (run, rf, few)")
    assert out[-1].endswith("two (pinned base)  [not built]")
    assert [line.endswith("[built]") for line in out if "velocity (run" in line] == [True]


@pytest.mark.parametrize(("verb", "what"), [(("ledger", "show"), "run or era"), (("lineage",), "run or base")])
def test_an_unknown_run_is_one_line(verb, what):
    """A mistyped run is one line on standard error, no traceback, exit status 1."""
    done = astolfo(*LEDGER, *verb, "velocty", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"astolfo: unknown {what} 'velocty'. Did you mean velocity")
    assert "Traceback" not in done.stderr


def test_the_ledger_of_the_program_is_named_where_it_is_not_at_home(tmp_path):
    """In a folder without a ledger a line says that the program's own is used; in the checkout, or where one is named, none does."""
    assert f"the one that comes with the program is used: {CONFIG}" in astolfo("ledger", "list", cwd=tmp_path).stderr
    assert astolfo("ledger", "list", cwd=ROOT).stderr == ""
    assert astolfo(*LEDGER, "ledger", "list", cwd=tmp_path).stderr == ""


def test_an_option_in_the_wrong_place_is_told_its_own():
    """--scale and --config stand before the verb."""
    done = astolfo(*LEDGER, "plan", "plain", "--scale", "full", check=False)
    assert "--scale is an option of astolfo itself: `astolfo --scale ... plan`." in done.stderr


def test_what_is_no_yaml_is_told_with_its_line(tmp_path):
    """File, line and column, and what the parser found."""
    (tmp_path / "ledger.yaml").write_text("title: mine\nbases: {a: [}\n")
    with pytest.raises(
        LedgerError, match=r"ledger.yaml:2: column 13: this is not valid YAML: did not find expected node content"
    ):
        CliRunner().invoke(cli, ["--config", str(tmp_path), "ledger", "list"], catch_exceptions=False)


MISTYPED = {  # what is typed, and what is said
    "velocityx": "unknown run or base 'velocityx'. Did you mean velocity",
    "velocit": "unknown run or base 'velocit'. Did you mean velocity",
    "oldr": "unknown run or base 'oldr'. Did you mean older",
    "era 3": "unknown run or base 'era 3'. Known: near, near-0",
    "": "unknown run or base ''. Known: near, near-0",
    "results/plain.safetensors": "Expected the name of a model, such as RUN, .* found the path 'results/plain",
    "plain-epoch000099": "there is no plain-epoch000099: run plain trains steps 0 to 78",
}


@pytest.mark.parametrize("verb", [("ledger", "spec"), ("lineage",), ("reproduce",), ("adopt",)])
def test_a_mistyped_model_is_told_by_near_names(verb, tmp_path):
    """Whatever takes a model's name says of one that is not there which are near, and does nothing."""
    file = [str(ROOT / "README.md")] if verb == ("adopt",) else []
    for name, said in MISTYPED.items():
        with pytest.raises(LedgerError, match=said):
            CliRunner().invoke(cli, [*LEDGER, *verb, name, *file], catch_exceptions=False)


PINNED = {  # what is typed, and what is said
    "plain": "plain is a run's model, which is adopted, not pinned: `astolfo .*adopt plain .*README.md -d ",
    "oldr": "unknown base or dataset 'oldr'. Did you mean older",
    "manny": "unknown base or dataset 'manny'. Did you mean many",
    "many": "many is pinned as a folder, and .*README.md is a file",
}


@pytest.mark.parametrize("name", PINNED)
def test_what_cannot_be_pinned_is_told(name, tmp_path):
    """`pin` names near bases and datasets, the verb for a run's model, and what is a folder."""
    with pytest.raises(AstolfoError, match=PINNED[name]):
        CliRunner().invoke(cli, [*LEDGER, "pin", name, str(ROOT / "README.md"), "-d", str(tmp_path)], catch_exceptions=False)


def test_no_torch_for_the_ledger():
    """What the ledger answers imports neither torch nor any model library."""
    code = (
        f"import sys; sys.argv = ['astolfo', '--config', {str(SMALL)!r}, 'lineage', 'flow']\n"
        "from astolfo.cli import main; main()\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'bitsandbytes', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_lists_every_verb_once_by_what_it_is_for():
    """`astolfo -h` shows each verb in one section, with a line that is not cut."""
    shown = CliRunner().invoke(cli, ["-h"]).output
    for verb in cli.commands:
        assert len(re.findall(rf"^  {verb}  +\S", shown, re.M)) == 1, verb
    assert {"Look:", "Merge:", "Evidence:", "Publish:"} <= set(shown.splitlines())
    assert "..." not in shown.partition("Ledger and plan:")[2]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", ["noise_offset", "--noise_offset", "--noise_offset=0.05"])
def test_an_option_is_named_with_or_without_dashes(name):
    """`ledger options` takes a name as it stands in a command line."""
    assert astolfo("ledger", "options", name).stdout.startswith("--noise_offset: a key: objective.noise_offset.")


@pytest.mark.parametrize("verb", [("ledger",), ("dataset",), ("dataset", "import")])
def test_each_verb_of_a_group_has_a_whole_line(verb):
    """The help of a group cuts no line."""
    assert "..." not in astolfo(*verb, "-h").stdout.partition("Commands:")[2]
