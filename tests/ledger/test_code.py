"""The digest of the code that bits depend on: which modules it counts, and what of them."""

import ast
import inspect
import json

import pytest

from astolfo.commands import site
from astolfo.commands.jobs import jobs
from astolfo.ledger import code
from astolfo.ledger.code import _PACKAGE, DECIDES_NO_BIT, VERBS, _files_of, _imported, _parsed, code_digest, modules

JOBS = {verb: jobs.commands.get(verb) for verb in VERBS} | {
    "joined": jobs.commands["joined-dataset"], "losses": site.losses, "card": site.card
}  # fmt: skip

SOURCE = '"""A module."""\n\n\ndef double(x):\n    """Twice x."""\n    return 2 * x  # exact\n'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# exact", "# always exact"),
        ('"""Twice x."""', '"""x + x."""'),
        ("\n\n\n", "\n\n\n\n# between\n\n"),
        ("2 * x", "(2 * x)"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(old, new):
    """A changed comment, docstring, blank line or redundant bracket changes no digest."""
    assert _parsed(SOURCE.replace(old, new), {}) == _parsed(SOURCE, {})


@pytest.mark.parametrize(("old", "new"), [("2 * x", "x * 2"), ("double", "twice"), ("2", "2.0")])
def test_statements_count(old, new):
    """A changed operand, name or constant changes the digest."""
    assert _parsed(SOURCE.replace(old, new), {}) != _parsed(SOURCE, {})


def test_every_python_reads_the_same_code():
    """A digest is that of Python 3.11, 3.12 or 3.13: an artifact's identity does not depend on which of them built it."""
    source = 'class Pair:\n    def double(self, *, x=1):\n        return f"{2 * x:.3f}"\n\n\nasync def none():\n    pass\n'
    assert _parsed(source, {}).tree == "9f51b7ca6d2014a98a26b9305ca3a4dc6ebe284656bd17724c56627ca9b566e2"


def called_by(job):
    """The modules that a job's function imports, or uses of its own module's imports; and so for the functions that it calls."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(job)))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    above = {name.asname or name.name: node for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    found, seen, ahead = set(), set(), [job.__name__]
    while ahead:
        if (name := ahead.pop()) in seen:
            continue
        seen.add(name)
        if name in functions:
            for node in (node for statement in functions[name].body for node in ast.walk(statement)):
                ahead += [node.id] if isinstance(node, ast.Name) else []
                found |= _imported(node)
        elif name in above:
            found |= {dotted for dotted in _imported(above[name]) if dotted.endswith(f".{name}")}
    files = {file for dotted in found for file in _files_of(dotted)}
    return {file for file in files if not file.startswith("commands/") and not file.endswith("__init__.py")}


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_job_calls_counts(verb):
    """Whatever of this program a job calls counts in its verb's digest, or is named with the reason why it decides no bit."""
    called = called_by(inspect.unwrap(JOBS[verb].callback))
    assert called
    assert called - set(modules(verb)) - DECIDES_NO_BIT.keys() == set()


def test_every_named_module_is_there_and_used():
    """The tables name files that are there, and no reason stands beside a module that no job reaches."""
    assert [name for names in VERBS.values() for name in names if not (_PACKAGE / name).exists()] == []
    reached = {file for verb in VERBS for name in modules(verb) if name.endswith(".py") for file in imported_by(name)}
    reached |= {file for job in JOBS.values() for file in called_by(inspect.unwrap(job.callback))}
    assert DECIDES_NO_BIT.keys() - reached == set()


def imported_by(name):
    """The files that a module imports."""
    return {file for dotted in _parsed((_PACKAGE / name).read_text(), {}).imports for file in _files_of(dotted)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a job's module `start`, which imports `near`, inside a function `far`, and `told`, which decides no bit."""
    folder = tmp_path / "astolfo"
    sources = {
        "start": "from astolfo.parts.near import one\nfrom astolfo import told",
        "told": "from astolfo import behind",
        "behind": "x = 1",
        "parts/__init__": "",
        "parts/near": "def one():\n    from astolfo.parts import far\n    return far.x",
        "parts/far": "import json\nimport astolfo.parts.near\nx = 1",
        "unread": "x = 1",
    }
    for name, source in sources.items():
        (folder / f"{name}.py").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "_PACKAGE", folder)
    monkeypatch.setattr(code, "VERBS", {"make": ("start.py",)})
    monkeypatch.setattr(code, "DECIDES_NO_BIT", {"told.py": "what a user is told"})
    forget()
    yield folder
    forget()


def forget():
    """What this process remembers of the package."""
    for remembered in (code_digest, code._files_of, code._module, code._remembered):
        remembered.cache_clear()


def test_all_that_is_imported_counts(package):
    """What a job's module imports counts, and what that imports, inside functions too, with the packages' own modules."""
    assert modules("make") == ["parts/__init__.py", "parts/far.py", "parts/near.py", "start.py"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1}', '{"a": {"tree": "x"}}'])
def test_what_is_remembered_can_be_damaged(package, text):
    """A damaged `.astolfo/code.json` costs the time to read the code again, and changes no digest."""
    before = code_digest("make")
    code._MEMORY.write_text(text)
    forget()
    assert code_digest("make") == before


def test_what_another_version_remembers_is_not_taken(package, monkeypatch):
    """What was remembered by a version of this module that read other things from a source counts no more."""
    before = code_digest("make")
    remembered = json.loads(code._MEMORY.read_text())
    code._MEMORY.write_text(json.dumps({key: module | {"imports": []} for key, module in remembered.items()}))
    forget()
    assert code_digest("make") != before  # what this version remembers is taken
    monkeypatch.setattr(code, "_READER", b"another version")
    forget()
    assert code_digest("make") == before


def test_what_is_gone_is_forgotten(package, monkeypatch):
    """Sources that were edited or removed leave nothing behind in `.astolfo/code.json`; what other verbs read stays remembered."""
    monkeypatch.setattr(code, "VERBS", {"make": ("start.py",), "other": ("unread.py",)})
    assert code_digest("make") != code_digest("other")
    (package / "start.py").write_text("x = 2")
    (package / "parts/far.py").unlink()
    forget()
    code_digest("make")
    there = [(package / name).read_text() for name in ("start.py", "parts/__init__.py", "parts/near.py", "unread.py")]
    assert json.loads(code._MEMORY.read_text()).keys() == {code._key(source) for source in there}


@pytest.mark.parametrize(
    ("changed", "counts"),
    [("start", True), ("parts/far", True), ("parts/__init__", True), ("told", False), ("behind", False), ("unread", False)],
)
def test_a_changed_module_moves_the_digests_of_what_imports_it(package, changed, counts):
    """A changed statement of a module that counts moves the digest; one behind a module that decides no bit does not."""
    before = code_digest("make")
    assert list((package.parent / ".astolfo").iterdir())
    with (package / f"{changed}.py").open("a") as file:
        file.write("\ny = 2\n")
    forget()
    assert (code_digest("make") != before) is counts
