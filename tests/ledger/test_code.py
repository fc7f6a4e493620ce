"""The digest of the code that bits depend on sees statements, not comments."""

import pytest

from astolfo.ledger.code import _PACKAGE, MODULES, _tree

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
    assert _tree(SOURCE.replace(old, new), {}) == _tree(SOURCE, {})


@pytest.mark.parametrize(("old", "new"), [("2 * x", "x * 2"), ("double", "twice"), ("2", "2.0")])
def test_statements_count(old, new):
    """A changed operand, name or constant changes the digest."""
    assert _tree(SOURCE.replace(old, new), {}) != _tree(SOURCE, {})


def test_every_python_reads_the_same_code():
    """A digest is that of Python 3.11, 3.12 or 3.13: an artifact's identity does not depend on which of them built it."""
    source = 'class Pair:\n    def double(self, *, x=1):\n        return f"{2 * x:.3f}"\n\n\nasync def none():\n    pass\n'
    assert _tree(source, {}) == "9f51b7ca6d2014a98a26b9305ca3a4dc6ebe284656bd17724c56627ca9b566e2"


def test_every_named_module_exists():
    """The table of what a verb's bits depend on names modules that are there."""
    assert [name for names in MODULES.values() for name in names if not (_PACKAGE / name).exists()] == []
