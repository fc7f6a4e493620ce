"""The command line answers from the ledger at once, and says plainly what it does not know."""

import json
import subprocess
import sys

import pytest

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
    assert "objective      kind eps\n" in out


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


@pytest.mark.parametrize("verb", [("ledger", "show"), ("lineage",)])
def test_an_unknown_run_is_one_line(verb):
    """A mistyped run is one line on standard error, no traceback, exit status 1."""
    done = astolfo(*verb, "25112202", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("astolfo: unknown run '25112202'. Did you mean 25112201")
    assert "Traceback" not in done.stderr


def test_no_torch_for_the_ledger():
    """What the ledger answers imports neither torch nor any model library."""
    code = (
        "import sys; sys.argv = ['astolfo', 'lineage', '26022301']\n"
        "from astolfo.cli import main; main()\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'bitsandbytes', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
