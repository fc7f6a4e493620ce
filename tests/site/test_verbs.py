"""The verbs and rules that show what was built of the record, as a user calls them."""

import subprocess
import sys
import tomllib

from astolfo.ledger import load
from tests.conftest import CONFIG, ROOT
from tests.ledger.test_cli import astolfo
from tests.workflow.conftest import jobs, snakemake


def test_the_verb_makes_the_site(outputs, tmp_path):
    """`astolfo site` says where the first page is, how much it shows and how long it took, and imports no torch."""
    code = (
        "import sys; from astolfo.cli import main\n"
        f"sys.argv = ['astolfo', '--config', {str(CONFIG)!r}, 'site', '-d', {str(outputs)!r}, '-o', {str(tmp_path / 'site')!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert f"site/index.html: {len(load(CONFIG).runs)} runs, 4 models, 3 loss curves, 1 evaluation, in" in done.stderr
    assert (tmp_path / "site" / "index.html").exists()


def test_the_verb_draws_an_era(outputs, tmp_path):
    """`astolfo losses ERA` draws what is built of the era, and says where."""
    done = astolfo("losses", "2601", "-d", str(outputs), "-o", str(tmp_path / "x.png"))
    assert done.stderr.strip() == str(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_card_needs_its_evaluation_and_an_era_all_its_runs(tmp_path):
    """The plan of a card has the run's evaluation; that of an era's curves the last state of each of its runs."""
    plan = jobs(snakemake(tmp_path, "results/25112201.md", "losses/2602.png", "-n").stdout)
    assert (plan["card"], plan["evaluation"], plan["era_losses"]) == (1, 1, 1)
    assert plan["segment"] > 15


def test_the_site_is_made_of_what_is_there(tmp_path):
    """`snakemake site` builds nothing else, and makes it again each time."""
    for _ in range(2):
        assert jobs(snakemake(tmp_path, "site").stderr) == {"site": 1, "total": 1}
    assert (tmp_path / "site" / "index.html").exists()


def test_an_installed_package_has_its_pages():
    """Every template and asset is named as package data, so that a wheel has them."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = ROOT / "astolfo" / "site"
    named = {path for pattern in data["astolfo.site"] for path in folder.glob(pattern)}
    assert named == {path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
