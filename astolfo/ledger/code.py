"""The digest of the code that a verb's bits depend on: its modules as syntax trees, without comments and docstrings.

Editing a comment, a docstring or the layout changes no digest; editing a statement does.
"""

import ast
import contextlib
import functools
import hashlib
import json
import sys
from pathlib import Path

from astolfo.files import write_json

_PACKAGE = Path(__file__).parent.parent
_MEMORY = Path(".astolfo/code.json")
_COMMON = ("elementary.py", "errors.py", "files.py", "numerics.py", "operators.py", "randomness.py", "checkpoint/safefile.py",
           "checkpoint/stream.py")  # fmt: skip
_FILES = (*_COMMON, "checkpoint/layout.py", "checkpoint/metadata.py")
_MODEL = (*_COMMON, "checkpoint/architecture.py", "checkpoint/layout.py", "checkpoint/model.py", "checkpoint/autoencoder.py")
_DATA = (
    "data/captions.py", "data/join.py", "data/merkle.py", "data/order.py", "data/prefetch.py", "data/sdscripts.py",
    "data/store.py", "data/tokens.py", "data/vocabulary.py",
)  # fmt: skip
_IMPORT = ("data/merkle.py", "data/store.py", "data/write.py", "data/ingest/bucketing.py", "data/ingest/listing.py",
         "data/ingest/pictures.py", "data/ingest/run.py", "data/ingest/source.py")  # fmt: skip
_PICTURES = ("data/ingest/colours.py", "data/ingest/folder.py", "data/ingest/images.py", "data/ingest/importing.py",
             "data/pixels.py", "ledger/kinds.py")  # fmt: skip
MODULES: dict[str, tuple[str, ...]] = {
    "vocabulary": ("data/procedural.py", "data/vocabulary.py"),
    "autoencoder": (
        *_MODEL,
        "data/make.py",
        "data/photograph.py",
        "data/pixels.py",
        "data/procedural.py",
        "train/autoencoder.py",
        "train/initialise.py",
    ),
    "dataset": (*_MODEL, *_IMPORT, "data/join.py", "data/make.py", "data/photograph.py", "data/pixels.py", "data/procedural.py"),
    "import": (*_MODEL, *_IMPORT, *_PICTURES, "data/join.py"),
    "joined": (*_COMMON, "data/join.py", "data/merkle.py", "data/store.py", "data/write.py"),
    "train": (*_MODEL, *_DATA, "ledger/recipe.py", "ledger/schema", "ledger/unet.py", "train"),
    "export": (*_MODEL, "checkpoint/metadata.py", "train/export.py", "train/sdscripts.py", "train/state.py", "train/model.py"),
    "merge": (*_FILES, "merging/weighted_sum.py", "merging/kernel.py", "merging/writer.py"),
    "mecha": (*_FILES, "merging"),
    "stand-in": (*_FILES, "checkpoint/standin.py"),
    "evaluate": (
        *_MODEL,
        *_DATA,
        "data/photograph.py",
        "data/pixels.py",
        "data/procedural.py",
        "evaluate",
        "ledger/evaluations.py",
        "ledger/schema",
        "pins.py",
        "train/conditioning.py",
        "train/loss.py",
        "train/objective.py",
    ),
    "losses": ("errors.py", "files.py", "checkpoint/safefile.py", "checkpoint/stream.py", "site/losses.py", "site/plots.py"),
    "card": ("errors.py", "files.py", "checkpoint/hashes.py", "checkpoint/safefile.py", "checkpoint/stream.py", "ledger", "site"),
}
"""Verb -> the modules and packages (below astolfo/) whose code decides its bits."""


@functools.cache
def code_digest(verb: str) -> str:
    """sha256 (hex) over the syntax trees of the verb's modules."""
    known = _remembered()
    before, digest = len(known), hashlib.sha256()
    for path in _files(verb):
        digest.update(f"{path.relative_to(_PACKAGE)}\n{_tree(path.read_text(encoding='utf-8'), known)}\n".encode())
    if len(known) > before:
        with contextlib.suppress(OSError):  # a folder that cannot be written to: parsed again next time
            write_json(_MEMORY, known)
    return digest.hexdigest()


def _files(verb: str) -> list[Path]:
    found: set[Path] = set()
    for name in MODULES[verb]:
        path = _PACKAGE / name
        found |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return sorted(found)


@functools.cache
def _remembered() -> dict[str, str]:
    """Digests of trees by the sha256 of their source, as earlier processes left them in this working directory."""
    try:
        found: dict[str, str] = json.loads(_MEMORY.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def _tree(source: str, known: dict[str, str]) -> str:
    """sha256 (hex) of the syntax tree of `source` without docstrings, looked up in or added to `known`."""
    key = hashlib.sha256(f"any Python\n{source}".encode()).hexdigest()
    if key not in known:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [statement for statement in node.body if not _is_docstring(statement)]
            if not getattr(node, "type_params", True):
                delattr(node, "type_params")
        known[key] = hashlib.sha256(ast.dump(tree, **_AS_BEFORE).encode()).hexdigest()
    return known[key]


# A tree is written as Python 3.11 writes it: 3.12 added empty type parameters, 3.13 leaves empty fields out.
_AS_BEFORE = {"show_empty": True} if sys.version_info >= (3, 13) else {}


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )
