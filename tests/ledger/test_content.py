"""The digest of a folder of pictures: over names and bytes of pictures and captions, remembered for what stays as it is."""

import os

import pytest

from astolfo.ledger import content as module
from astolfo.ledger.content import content


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two pictures with a caption and a note, long since written, and a working directory."""
    (tmp_path / "work").mkdir()
    (tmp_path / "in/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    for name, text in (("a.png", "one"), ("sub/b.JPG", "two"), ("a.txt", "tag"), ("note.md", "mine")):
        path = tmp_path / "in" / name
        path.write_text(text)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return tmp_path / "in"


def test_pictures_and_captions_count(folder):
    """A picture's or a caption's bytes and name change the digest, another file and times do not."""
    first = content(folder)
    assert first.pictures == 2
    (folder / "note.md").write_text("other")
    os.utime(folder / "a.png")
    assert content(folder) == first
    (folder / "a.txt").write_text("gat")
    changed = content(folder)
    assert changed.digest != first.digest
    (folder / "a.png").rename(folder / "c.png")
    assert content(folder).digest not in (first.digest, changed.digest)


def test_what_was_hashed_is_not_read_again(folder, monkeypatch):
    """Only files that are new or have changed are read; what cannot be remembered is read, and no error."""
    monkeypatch.setattr(module, "SETTLED", -1e9)
    read = []
    real = module.sha256_of
    monkeypatch.setattr(module, "sha256_of", lambda path: read.append(path.name) or real(path))
    first = content(folder)
    assert sorted(read) == ["a.png", "a.txt", "b.JPG"]
    read.clear()
    assert content(folder) == first
    assert read == []
    (folder / "a.txt").write_text("changed")
    content(folder)
    assert read == ["a.txt"]
    module.MEMORY.write_text("{")
    assert content(folder).pictures == 2


def test_links_are_followed_and_lead_nowhere_twice(folder, tmp_path):
    """A link to a folder is read, one that leads back does not go round, and a broken one is nothing."""
    first = content(folder)
    (folder / "sub/back").symlink_to(folder)
    (folder / "gone.png").symlink_to(tmp_path / "nothing.png")
    assert content(folder).pictures == first.pictures
    (tmp_path / "more").mkdir()
    (tmp_path / "more/c.png").write_text("three")
    (folder / "more").symlink_to(tmp_path / "more")
    assert content(folder).digest != first.digest


def test_no_folder_has_no_content(tmp_path):
    """A folder that is not there is no content, which is no error: a plan needs no files."""
    assert content(tmp_path / "nothing") is None
