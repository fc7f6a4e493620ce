"""Every command that a page shows is one that the program has: verbs, options, targets of make, rules of the workflow."""

import re
import shlex
import subprocess

import click
import pytest

from astolfo.cli import cli
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name != "log.md"]  # what was typed once
BLOCK = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`((?:astolfo|make) [^`\n]+)`")


def commands(program):
    """(page, command) of every command of `program` in a block or between backticks, comments cut off."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line.removeprefix("$ ") for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        lines += [line for line in re.findall(r"^    (?:\$ )?(\S.*)$", text, re.M) if line.split()[0] == program]
        for command in [part for line in lines for part in line.split(" && ")] + INLINE.findall(text):
            words = shlex.split(re.split(r"\s+#|\s{2,}", command.strip())[0])
            if words and words[0] == program and "..." not in words:
                found.append(pytest.param(words[1:], id=f"{page.name}: {' '.join(words)}"[:120]))
    return list({param.id: param for param in found}.values())


@pytest.mark.parametrize("words", commands("astolfo"))
def test_a_page_shows_verbs_and_options_that_there_are(words):
    """A verb, and each option that it is shown with, exists; what it is given is not looked at."""
    command, context, rest = cli, click.Context(cli, help_option_names=["-h", "--help"]), list(words)
    while isinstance(command, click.Group):
        _, rest, _ = command.make_parser(context).parse_args(rest)
        if not rest or rest[0] == "VERB":
            return
        command = command.get_command(context, rest.pop(0))
        assert command is not None, f"there is no such verb: astolfo {' '.join(words)}"
        context = click.Context(command, parent=context)
    command.make_parser(context).parse_args(rest)  # raises click.NoSuchOption


@pytest.mark.parametrize("words", commands("make"))
def test_a_page_shows_targets_that_make_has(words):
    """make knows what to do for each target that a page names."""
    targets = [word for word in words if "=" not in word and word != "..."]
    for target in targets:
        found = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr


def test_pages_link_to_files_that_there_are():
    """Every relative link of a page leads to a file, and its anchor to a heading."""
    missing = []
    for page in [*PAGES, ROOT / "docs" / "log.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                missing.append(f"{page.name}: {link}")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                missing.append(f"{page.name}: {link} (no such heading)")
    assert missing == []


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_map_names_every_page():
    """docs/README.md leads to every page of the folder."""
    known = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and f"({page.name})" not in known
    ] == []


@pytest.mark.parametrize(
    "page", [*PAGES[1:], ROOT / "docs" / "log.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"], ids=lambda page: page.name
)
def test_a_page_says_first_whom_it_is_for(page):
    """The first sentence under a page's title names its readers."""
    assert re.match(r"# .+\n\nThis page is for ", page.read_text(encoding="utf-8"))


def test_the_files_that_a_build_leaves_have_the_names_that_the_code_gives_them():
    """Each file name of docs/files.md stands in the program's own source."""
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    names = {name for name in re.findall(r"[`/]X?\.?([a-z.]+\.(?:html|jsonl?|yaml|zip))\b", page)}
    code = [path for folder in ("astolfo", "workflow") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".smk")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in (*code, ROOT / "Makefile"))
    assert {"store.json", "pins.yaml"} <= names
    assert sorted(name for name in names if name not in source) == []
