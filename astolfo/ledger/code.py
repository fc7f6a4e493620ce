"""The digest of the code that a verb's bits depend on: its modules as syntax trees, without comments and docstrings.

Which modules these are follows from the code: those that the verb's job calls, what they import, inside functions too, what that
imports, and so on. Editing a comment, a docstring or the layout changes no digest; editing a statement of any of them does. The
job's own lines (`astolfo.commands.jobs`) do not count: they parse options and hand the spec on.
"""

import ast
import contextlib
import functools
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from astolfo.errors import PlacementError
from astolfo.files import write_json

_PACKAGE = Path(__file__).parent.parent
_MEMORY = Path(".astolfo/code.json")
VERBS: dict[str, tuple[str, ...]] = {
    "vocabulary": ("data/vocabulary.py",),
    "autoencoder": ("checkpoint/autoencoder.py", "data/make.py", "data/photograph.py", "numerics.py", "train/autoencoder.py"),
    "dataset": ("checkpoint/autoencoder.py", "data/make.py", "numerics.py"),
    "import": ("checkpoint/autoencoder.py", "data/ingest/folder.py", "data/ingest/importing.py", "numerics.py"),
    "joined": ("data/join.py",),
    "train": ("numerics.py", "train/segment.py"),
    "export": ("numerics.py", "train/export.py"),
    "merge": ("merging/weighted_sum.py",),
    "mecha": ("merging/mecha.py",),
    "stand-in": ("checkpoint/standin.py",),
    "evaluate": ("evaluate/evaluate.py", "numerics.py"),
    "losses": ("site/plots.py",),
    "card": ("ledger", "site/card.py", "site/templates/card.md"),
}
"""Verb -> what its job calls: modules, folders of modules and other files, below astolfo/. What they import counts with them."""

_OF_A_SPEC = "read while a spec is made, and the spec says what was found"
DECIDES_NO_BIT: dict[str, str] = {
    "__init__.py": "names for scripts",
    "devices.py": "counts GPUs and waits for free ones",
    "errors.py": "the classes of errors",
    "liveness.py": "ends a process whose parent is gone",
    "program.py": "the ledger in use, and commands as a user types them",
    "library/__init__.py": "where the shipped files lie; specs name their digests",
    "ledger/__init__.py": "names for other modules",
    "ledger/content.py": "compares a folder of pictures with the digest in the spec",
    "ledger/ledger.py": _OF_A_SPEC,
    "ledger/rates.py": _OF_A_SPEC,
    "ledger/references.py": _OF_A_SPEC,
    "ledger/specs.py": "a spec says what was found; the identity that it gives a state is checked by the segment that goes on",
    "ledger/steps.py": _OF_A_SPEC,
    "pins.py": "compares what the user brought with the digest in the spec",
    "plan/memory.py": "predicts memory",
    "train/placement.py": "where a segment is computed",
    "train/progress.py": "progress bar, log and heartbeat",
    "train/retention.py": "deletes old states",
    "train/host_memory.py": "compares the memory that is needed with the memory that is there",
    "evaluate/preview.py": "pictures during a training, from which nothing is made",
    "provenance/stale.py": "refuses a state that other code made",
}
"""Module -> why a change of it moves no digest. Modules that only it imports do not count either; `VERBS` goes before."""


@dataclass(frozen=True)
class _Module:
    """A file: the digest of its syntax tree, and the dotted names below astolfo that it imports."""

    tree: str
    imports: tuple[str, ...]


@functools.cache
def code_digest(verb: str) -> str:
    """sha256 (hex) over the verb's modules: their names and syntax trees."""
    known = _remembered()
    before, digest = len(known), hashlib.sha256()
    for name in modules(verb):
        digest.update(f"{name}\n{_module(name).tree}\n".encode())
    if len(known) > before:
        there = {_key(path.read_text(encoding="utf-8")) for path in _PACKAGE.rglob("*.py")}
        with contextlib.suppress(OSError, PlacementError):  # a folder that cannot be written to, a full disk: parsed again
            write_json(_MEMORY, {key: asdict(module) for key, module in known.items() if key in there})
    return digest.hexdigest()


def modules(verb: str) -> list[str]:
    """The files, below astolfo/, whose code decides the bits of a verb."""
    found: set[str] = set()
    ahead = [name for called in VERBS[verb] for name in _within(called)]
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += [one for dotted in _module(name).imports for one in _files_of(dotted) if one not in DECIDES_NO_BIT]
    return sorted(found)


def _within(called: str) -> list[str]:
    """A file by its name, or the modules of a folder."""
    path = _PACKAGE / called
    return [str(one.relative_to(_PACKAGE)) for one in path.rglob("*.py")] if path.is_dir() else [called]


@functools.cache
def _files_of(dotted: str) -> tuple[str, ...]:
    """The files that Python runs to import "astolfo.data.make" or, from it, "astolfo.data.make.scenes": the packages' own too."""
    package = dotted.rpartition(".")[0]
    above = _files_of(package) if package else ()
    if above and not above[-1].endswith("__init__.py"):
        return above  # a name within a module
    place = "/".join(dotted.split(".")[1:])
    found = (f"{place}/__init__.py".removeprefix("/"), f"{place}.py")
    return above + tuple(one for one in found if (_PACKAGE / one).is_file())[:1]


@functools.cache
def _module(name: str) -> _Module:
    """The file of that name below astolfo/. What is no Python is taken by its bytes."""
    source = (_PACKAGE / name).read_text(encoding="utf-8")
    return _parsed(source, _remembered()) if name.endswith(".py") else _Module(hashlib.sha256(source.encode()).hexdigest(), ())


@functools.cache
def _remembered() -> dict[str, _Module]:
    """Modules by `_key`, as earlier processes left them in this working directory: those whose sources were there then."""
    try:
        found = json.loads(_MEMORY.read_text(encoding="utf-8"))
        return {key: _Module(module["tree"], tuple(module["imports"])) for key, module in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _key(source: str) -> str:
    """What a source is remembered by: its sha256 together with this module's own."""
    return hashlib.sha256(_READER + source.encode()).hexdigest()


def _parsed(source: str, known: dict[str, _Module]) -> _Module:
    """What counts of a module's `source`, looked up in or added to `known`."""
    key = _key(source)
    if key not in known:
        tree = ast.parse(source)
        imports: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [statement for statement in node.body if not _is_docstring(statement)]
            if not getattr(node, "type_params", True):
                delattr(node, "type_params")
            imports |= _imported(node)
        digest = hashlib.sha256(ast.dump(tree, **_AS_BEFORE).encode()).hexdigest()
        known[key] = _Module(digest, tuple(sorted(imports)))
    return known[key]


def _imported(node: ast.AST) -> set[str]:
    """What a statement imports of this package, by dotted names."""
    names: set[str] = set()
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute (ruff's TID252)"
        names = {f"{node.module}.{name.name}" for name in node.names}
    elif isinstance(node, ast.Import):
        names = {name.name for name in node.names}
    return {name for name in names if name.split(".")[0] == "astolfo"}


_READER = Path(__file__).read_bytes()  # what this module makes of a source counts too: another one's is not taken from memory
# A tree is written as Python 3.11 writes it: 3.12 added empty type parameters, 3.13 leaves empty fields out.
_AS_BEFORE = {"show_empty": True} if sys.version_info >= (3, 13) else {}


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )
