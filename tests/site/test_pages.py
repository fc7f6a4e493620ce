"""What the site's files say, and what they promise without a browser."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from astolfo.errors import InputError
from astolfo.site.build import build
from tests.site.conftest import CONTINUED, OTHER, RUN


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
        if path.is_file()
    }


def test_two_builds_are_the_same_files(ledger, outputs, site, tmp_path):
    """The same outputs give the same bytes in every file, over an older site too."""
    build(ledger, outputs, tmp_path / "site")
    (tmp_path / "site" / "runs" / "stale.html").write_text("of another ledger")
    build(ledger, outputs, tmp_path / "site")
    assert contents(tmp_path / "site") == contents(site)
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_every_link_leads_somewhere(site):
    """Each link, picture and script of each page is a file of the site, and each run has a page."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > 70
    for page in pages:
        text = page.read_text()
        assert "http://" not in text
        for target in re.findall(r'(?:href|src)="([^"#]+)(?:#[^"]*)?"', text):
            if not target.startswith("data:"):
                assert (page.parent / target).exists(), (page.name, target)


def test_the_first_page_is_small(site):
    """The first page with all that it loads stays far below a megabyte, however many runs there are."""
    first = [site / "index.html", *(site / "assets").iterdir()]
    assert sum(path.stat().st_size for path in first) < 200_000


def test_a_run_tells_what_is_known(site):
    """The page of a run has its digests, its attestation, its merge's parents by name, and escapes what a prompt holds."""
    text = (site / "runs" / f"{RUN}.html").read_text()
    assert "a &lt;blue&gt; disc &amp; a line" in text
    assert "https://slsa.dev/provenance/v1" in text
    assert "<dt>semantics</dt><dd>kohya</dd>" in text
    assert "<dt>loss up to step 90</dt>" in text
    assert f"parent: trained</dt><dd>{RUN} " in text
    assert "works after merge 0.90" in text


def test_only_what_can_be_chosen_has_buttons(site):
    """Axes with one value, and those that the runtime decides, are not offered."""
    text = (site / "runs" / f"{RUN}.html").read_text()
    assert re.findall(r"<legend>(\w+)</legend>", text) == ["runtime", "uncond"]


def test_a_run_that_stopped_says_so(site):
    """What a result's header says of an early end stands at the head of its page."""
    assert "stopped at step 9: NaN in the loss" in (site / "runs" / f"{OTHER}.html").read_text()


def test_a_run_without_outputs_has_a_page(site):
    """A run that is not built is shown with its entry and how to build it."""
    text = (site / "runs" / "25112201.html").read_text()
    assert "snakemake results/25112201.safetensors" in text
    assert "data-chart" not in text


def test_a_file_of_the_user_is_left_out(site):
    """Models that the ledger does not know are not shown."""
    assert "my own" not in (site / "digests.html").read_text()


def test_losses_are_loaded_apart(site):
    """Each curve is a script of its own, with its steps counted in the data order."""
    assert (site / "data" / f"{CONTINUED}.js").read_text() == (
        f'window.astolfoLoss["{CONTINUED}"] = {{"first":1,"every":1,"steps":3,"values":[0.4,0.3,0.2]}};\n'
    )


def test_an_empty_directory_has_a_site(ledger, tmp_path):
    """Before anything is built the site shows the ledger."""
    build(ledger, tmp_path, tmp_path / "site")
    assert "No run has left a state here yet" in (tmp_path / "site" / "losses.html").read_text()


def test_a_folder_that_is_no_site_is_left_alone(ledger, outputs, tmp_path):
    """A folder with other files is refused and unchanged."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no site"):
        build(ledger, outputs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_scale_is_refused(ledger, tmp_path):
    """A working directory of the full scale is not shown as a miniature."""
    (tmp_path / ".astolfo").mkdir()
    (tmp_path / ".astolfo" / "scale").write_text("full\n")
    with pytest.raises(InputError, match="say --scale full"):
        build(ledger, tmp_path, tmp_path / "site")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (f"evaluations/{RUN}/metrics.json", "{", "is no JSON"),
        (f"evaluations/{RUN}/metrics.json", "{}", "expected an evaluation of format 3, found None"),
        (f"evaluations/{RUN}/metrics.json", f'{{"format": 3, "run": "{RUN}", "set": "default", "summary": []}}', "metrics.json lacks 'cells'"),
        (f"results/{RUN}.safetensors.attestation.json", "[1]", "expected a JSON object, found list"),
        (f"states/{RUN}/00000090.safetensors", "torn", "holds no losses"),
        (f"evaluations/{RUN}/grid.png", None, "grid.png is missing, though"),
    ],
)  # fmt: skip
def test_a_damaged_output_is_named(ledger, outputs, tmp_path, file, text, message):
    """What cannot be read is an error that names the file and what to do; the old site stays."""
    directory = tmp_path / "copy"
    shutil.copytree(outputs, directory)
    (directory / file).unlink()
    if text is not None:
        (directory / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        build(ledger, directory, tmp_path / "site")
    assert not (tmp_path / "site").exists()
