"""The scorer: used when its pinned files are there, refused when they are others, and said when it is missing."""

import pytest

from astolfo.errors import InputError
from astolfo.evaluate.scorer import scorer_of
from astolfo.pins import SCORER_FILES, scorer_digest


@pytest.fixture
def folder(tmp_path):
    """A folder with the names of a CLIP model's files."""
    for name in SCORER_FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


def test_where_the_truth_is_known_nothing_is_missing():
    """Procedural prompts need no scorer, and nothing is said about it."""
    found = scorer_of(None, None, known=True)
    assert (found.name, found.skipped, found.score([], [])) == (None, None, None)


def test_a_missing_scorer_says_what_to_do():
    """Without a folder nothing is scored, and the reason names the verb that pins one."""
    assert "pin clip-score FOLDER" in scorer_of(None, None, known=False).skipped


def test_another_scorer_than_the_pinned_is_refused(folder):
    """A folder that is unpinned, changed or incomplete is an error that says which."""
    with pytest.raises(InputError, match="is not pinned"):
        scorer_of(folder, None, known=False)
    with pytest.raises(InputError, match=f"expected sha256 {'0' * 64}, found {scorer_digest(folder)}"):
        scorer_of(folder, "0" * 64, known=False)
    (folder / "vocab.json").unlink()
    with pytest.raises(InputError, match=r"lacks vocab\.json"):
        scorer_of(folder, "0" * 64, known=False)
