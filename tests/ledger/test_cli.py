"""The command line answers from the ledger at once, and says plainly what it does not know."""

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from astolfo.cli import cli
from astolfo.errors import AstolfoError, LedgerError
from tests.conftest import ROOT


def astolfo(*arguments, check=True):
    return subprocess.run([sys.executable, "-m", "astolfo", *arguments], cwd=ROOT, capture_output=True, text=True, check=check)


def test_list_shows_every_run():
    """`ledger list` has a line for each run, below its era."""
    out = astolfo("ledger", "list").stdout
    assert "2511b: Full dataset goes south" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  2601")] == [
        "26011001",
        "26011101",
        "26011102",
        "26011501",
    ]


def test_show_says_where_values_come_from():
    """`ledger show` marks what is the era's default, and gives file, line and recipe digest."""
    out = astolfo("ledger", "show", "25112201").stdout
    assert "runs/2511b.yaml:" in out
    assert "accumulation   4   (era)" in out
    assert "objective      kind eps, zero_terminal_snr False\n" in out


def test_show_knows_eras():
    """`ledger show ERA` is what its runs share and a line for each of them; as JSON too."""
    out = astolfo("ledger", "show", "2601").stdout
    assert out.startswith("2601: ")
    assert "\n  optimizer      kind AdamW8bit" in out
    runs = ["26011001", "26011101", "26011102", "26011501"]
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  2601")] == runs
    found = json.loads(astolfo("ledger", "show", "2601", "--json").stdout)
    assert (found["era"], found["runs"], found["defaults"]["optimizer"]["kind"]) == ("2601", runs, "AdamW8bit")


def test_show_as_json():
    """`ledger show --json` is JSON with the canonical recipe."""
    found = json.loads(astolfo("ledger", "show", "25112201", "--json").stdout)
    assert found["recipe"]["ranks"] == 4
    assert len(found["recipe_digest"]) == 64


def test_lineage_is_a_tree_up_to_the_base(tmp_path):
    """`lineage` shows the whole chain and marks what is built."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "25112201.safetensors").touch()
    out = astolfo("lineage", "26011101", "-d", str(tmp_path)).stdout.splitlines()
    assert out[0].startswith("26011101 (run, v, 6k)")
    assert out[-1].endswith("AK-NIL-1.2 (pinned base)  [not built]")
    assert [line.endswith("[built]") for line in out if "25112201 (run" in line] == [True]


@pytest.mark.parametrize(("verb", "what"), [(("ledger", "show"), "run or era"), (("lineage",), "run or base")])
def test_an_unknown_run_is_one_line(verb, what):
    """A mistyped run is one line on standard error, no traceback, exit status 1."""
    done = astolfo(*verb, "25112202", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"astolfo: unknown {what} '25112202'. Did you mean 25112201")
    assert "Traceback" not in done.stderr


MISTYPED = {  # what is typed, and what is said
    "25112202x": "unknown run or base '25112202x'. Did you mean 25112201",
    "2511220": "unknown run or base '2511220'. Did you mean 25112201",
    "AK-NIL-1.1": "unknown run or base 'AK-NIL-1.1'. Did you mean AK-NIL-1.2",
    "era 3": "unknown run or base 'era 3'. Known: 24120801",
    "": "unknown run or base ''. Known: 24120801",
    "results/25112201.safetensors": "Expected the name of a model, such as RUN, .* found the path 'results/25112201",
    "25112201-epoch000099": "there is no 25112201-epoch000099: run 25112201 trains steps 0 to 78",
}


@pytest.mark.parametrize("verb", [("ledger", "spec"), ("lineage",), ("reproduce",), ("adopt",)])
def test_a_mistyped_model_is_told_by_near_names(verb, tmp_path):
    """Whatever takes a model's name says of one that is not there which are near, and does nothing."""
    file = [str(ROOT / "README.md")] if verb == ("adopt",) else []
    for name, said in MISTYPED.items():
        with pytest.raises(LedgerError, match=said):
            CliRunner().invoke(cli, [*verb, name, *file], catch_exceptions=False)


PINNED = {  # what is typed, and what is said
    "25112201": "25112201 is a run's model, which is adopted, not pinned: `astolfo adopt 25112201 .*README.md -d ",
    "AK-NIL-1.1": "unknown base or dataset 'AK-NIL-1.1'. Did you mean AK-NIL-1.2",
    "12.5M": "unknown base or dataset '12.5M'. Did you mean 12.4M",
    "12.4M": "12.4M is pinned as a folder, and .*README.md is a file",
}


@pytest.mark.parametrize("name", PINNED)
def test_what_cannot_be_pinned_is_told(name, tmp_path):
    """`pin` names near bases and datasets, the verb for a run's model, and what is a folder."""
    with pytest.raises(AstolfoError, match=PINNED[name]):
        CliRunner().invoke(cli, ["pin", name, str(ROOT / "README.md"), "-d", str(tmp_path)], catch_exceptions=False)


def test_no_torch_for_the_ledger():
    """What the ledger answers imports neither torch nor any model library."""
    code = (
        "import sys; sys.argv = ['astolfo', 'lineage', '26022301']\n"
        "from astolfo.cli import main; main()\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'bitsandbytes', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_help_lists_every_verb_once_by_what_it_is_for():
    """`astolfo -h` shows each verb in one section, with a line that is not cut."""
    shown = CliRunner().invoke(cli, ["-h"]).output
    for verb in cli.commands:
        assert len(re.findall(rf"^  {verb}  +\S", shown, re.M)) == 1, verb
    assert {"Look:", "Merge:", "Evidence:", "Publish:"} <= set(shown.splitlines())
    assert "..." not in shown.partition("Ledger and plan:")[2]
    assert max(map(len, shown.splitlines())) <= 80
