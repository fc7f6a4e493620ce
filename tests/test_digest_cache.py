"""A digest is of exactly the file that was hashed, whatever was at its place before; nothing is written beside a user's file."""

import json
import os
import shutil

import numpy as np
import pytest

from astolfo import digest_cache
from astolfo.checkpoint.inspect import inspect, report
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.digest_cache import digest_of, known
from astolfo.errors import InputError
from astolfo.files import sha256_of, sidecar, write_sidecar
from astolfo.merging.mecha import merge_mecha
from astolfo.merging.weighted_sum import merge

KEY = "model.diffusion_model.w"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; every file counts as settled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest_cache, "SETTLED", -1e9)
    monkeypatch.setattr(digest_cache, "_here", {})
    return tmp_path / "cache/astolfo/digests"


@pytest.fixture
def models(tmp_path):
    """A base and two models of the same size, without side-cars; the second is the older file."""
    for number, name in enumerate(("base", "one", "two")):
        path = tmp_path / f"{name}.safetensors"
        write_file(path, {KEY: np.full(8, number, np.float16), "conditioner.embedders.1.model.w": np.zeros(2, np.float16)})
        sidecar(path).unlink()
    os.utime(tmp_path / "two.safetensors", ns=(0, 0))
    return tmp_path


def test_a_file_is_hashed_once_as_long_as_it_stays_the_same(tmp_path, cache, monkeypatch):
    """What is remembered serves another process too; a cache that is damaged or cannot be written costs the hashing only."""
    (tmp_path / "x").write_bytes(b"1")
    expected = sha256_of(tmp_path / "x")
    assert (known(tmp_path / "x"), digest_of(tmp_path / "x"), known(tmp_path / "x")) == (None, expected, expected)
    monkeypatch.setattr(digest_cache, "_here", {})
    monkeypatch.setattr(digest_cache, "sha256_of", lambda path: pytest.fail("hashed again"))
    assert digest_of(tmp_path / "x") == expected
    monkeypatch.undo()
    for damage in ("", "[]", "{}", json.dumps({"identity": [1], "sha256": "0" * 64})):
        next(cache.iterdir()).write_text(damage)
        digest_cache._here.clear()
        assert digest_of(tmp_path / "x") == expected
    shutil.rmtree(cache)
    cache.write_text("no folder")
    (tmp_path / "x").write_bytes(b"2")
    assert digest_of(tmp_path / "x") == sha256_of(tmp_path / "x") != expected


@pytest.mark.parametrize(
    "change",
    [
        lambda path, other: os.replace(other, path),
        lambda path, other: path.write_bytes(other.read_bytes()),
        lambda path, other: shutil.copy2(other, path),
        lambda path, other: (path.write_bytes(other.read_bytes()), os.utime(path, ns=(0, 1))),
    ],
    ids=["moved over it", "written into it", "copied with its times", "written into it and dated back"],
)
def test_another_file_at_the_same_place_has_its_own_digest(tmp_path, change):
    """A file of the same size, older or not, is told apart from the one that was there."""
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "y").write_bytes(b"2")
    os.utime(tmp_path / "y", ns=(0, 1))
    os.utime(tmp_path / "x", ns=(0, 1))
    before = digest_of(tmp_path / "x")
    change(tmp_path / "x", tmp_path / "y")
    assert digest_of(tmp_path / "x") == sha256_of(tmp_path / "x") != before


def test_a_fresh_file_is_remembered_in_this_process_only(tmp_path, cache, monkeypatch):
    """Two changes within one tick of a file system's clock look alike, so only a file that was left alone is written down."""
    monkeypatch.setattr(digest_cache, "SETTLED", 1e9)
    (tmp_path / "x").write_bytes(b"1")
    digest_of(tmp_path / "x")
    assert known(tmp_path / "x")
    assert not cache.exists()


def test_a_missing_file_says_so(tmp_path):
    """What is not there has no digest."""
    with pytest.raises(InputError, match="Expected a file at .*nothing"):
        digest_of(tmp_path / "nothing")


def parents(path):
    return json.loads(open_file(path).metadata["astolfo.parents"])


def mixed(base, trained, out):
    """A merge by sd-mecha of the same two."""
    recipe = out.with_suffix(".mecha")
    recipe.write_text('version 0.1.0\nmodel "base"\nmodel "trained"\nmerge "weighted_sum" &0 &1 alpha=0.5\n')
    merge_mecha(recipe, {"base": base, "trained": trained}, out)


@pytest.mark.parametrize("verb", [lambda a, b, out: merge(a, b, {0.5: out}), mixed], ids=["merge", "mecha"])
@pytest.mark.parametrize("stale", [False, True], ids=["", "a side-car of an older version"])
def test_a_merge_names_the_parents_that_it_read(models, verb, stale):
    """Another model moved over the first one's place, older or newer, is the parent that the merge names."""
    base, model = models / "base.safetensors", models / "model.safetensors"
    shutil.copy(models / "one.safetensors", model)
    if stale:
        write_sidecar(model)
    before = set(models.iterdir())
    verb(base, model, models / "m1.safetensors")
    assert parents(models / "m1.safetensors")["trained"] == sha256_of(models / "one.safetensors")
    other = sha256_of(models / "two.safetensors")
    os.replace(models / "two.safetensors", model)
    verb(base, model, models / "m2.safetensors")
    assert parents(models / "m2.safetensors")["trained"] == other
    made = {path.name for path in set(models.iterdir()) - before if path.suffix != ".mecha" and path.name != "cache"}
    assert made == {f"m{n}.safetensors{suffix}" for n in (1, 2) for suffix in ("", ".sha256")}


def test_inspect_believes_no_side_car(models):
    """A side-car's claim is told as a claim; after a scan, a wrong one is named, and nobody is told to delete the model."""
    path = models / "one.safetensors"
    sidecar(path).write_text(f"{'0' * 64}  {path.name}\n")
    assert inspect(path)["digest"] is None
    assert "by its side-car, which nobody compared" in report(inspect(path))
    said = report(inspect(path, scan=True))
    assert sha256_of(path) in said
    assert f"NOT ITS SIDE-CAR'S: that says {'0' * 64}" in said
    assert "elete" not in said
