"""A file is whole or absent, its digest stands beside it, and locks end with their process."""

import errno
import hashlib
import subprocess
import sys

import pytest

from astolfo import files
from astolfo.errors import InputError, PlacementError, StateError


def test_canonical_json_is_one_spelling():
    """Key order and spacing of the source do not show in canonical JSON."""
    assert files.canonical_json({"b": 1.50, "a": [True, None, "ä"]}) == '{"a":[true,null,"ä"],"b":1.5}'


def test_canonical_json_refuses_nan():
    """A NaN never gets into a digest."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical_json({"a": float("nan")})


def test_a_failed_write_keeps_the_old_file(tmp_path):
    """When writing fails half-way the old file stays and nothing lies beside it."""
    path = tmp_path / "a"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.written(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    """Half a file of a process that is gone is swept up by the next write; one of a living process is not."""
    (tmp_path / ".a.999999999.part").write_text("half")
    (tmp_path / ".a.1.part").write_text("still being written by process 1")
    files.write_text(tmp_path / "a", "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.1.part", "a"]


def test_a_full_disk_says_so(tmp_path):
    """A full disk is reported as such, with the place and what to do, and leaves nothing behind."""
    with pytest.raises(PlacementError, match="disk is full.*free some space"), files.written(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_sidecar_is_what_sha256sum_writes(tmp_path):
    """`sha256sum -c` accepts the side-car."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"abc")
    files.write_sidecar(path)
    subprocess.run(["sha256sum", "-c", "a.safetensors.sha256"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert files.read_sidecar(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 6000, 6001, 20_000])
def test_a_digest_is_sha256_whatever_the_pieces(tmp_path, monkeypatch, size):
    """Pieces that several threads read, and the end of the file wherever it lies among them, give sha256 of all bytes in order."""
    monkeypatch.setattr(files, "_PIECE", 1000)
    data = bytes(n * n % 251 for n in range(size))
    (tmp_path / "x").write_bytes(data)
    assert files.sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()


def test_damage_is_found_before_use(tmp_path):
    """A file whose bytes are not its side-car's is refused with both digests, and its side-car stays as it was."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"abc")
    recorded = files.write_sidecar(path)
    assert files.verified(path) == recorded
    path.write_bytes(b"abd")
    with pytest.raises(InputError, match=f"is damaged: expected sha256 {recorded}, found [0-9a-f]{{64}}"):
        files.verified(path)
    assert files.read_sidecar(path) == recorded


def test_a_malformed_sidecar_is_refused(tmp_path):
    """A side-car that holds no sha256 is an error that names it."""
    (tmp_path / "a.sha256").write_text("nonsense\n")
    with pytest.raises(InputError, match=r"a\.sha256 does not hold a sha256"):
        files.read_sidecar(tmp_path / "a")


def test_a_lock_ends_with_its_process(tmp_path, monkeypatch):
    """A lock held by a living process is refused; one whose holder was killed is free."""
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    code = f"import sys; from astolfo import files\nwith files.exclusive({str(tmp_path / 'lock')!r}, 'x'): print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(StateError, match="in use by another process"), files.exclusive(tmp_path / "lock", "The segment"):
            pass
        holder.kill()
    with files.exclusive(tmp_path / "lock", "The segment"):
        pass


@pytest.mark.parametrize(
    ("raw", "message"), [(b"a\nb\xe9\n", "byte 0xe9 at line 2"), ("a".encode("utf-16"), "byte 0xff at line 1")]
)
def test_a_text_of_another_encoding_is_named(tmp_path, raw, message):
    """What is not UTF-8 is refused with the first byte that is none, and its line."""
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(InputError, match=f"a: expected text in UTF-8, found {message}. Save it as UTF-8"):
        files.read_text(tmp_path / "a")


def test_a_record_with_a_conflict_is_named(tmp_path):
    """A JSON file that a merge left half done is refused with its line."""
    (tmp_path / "a.json").write_text("{\n<<<<<<< HEAD\n}")
    with pytest.raises(InputError, match=r"a\.json:2: this is not valid JSON"):
        files.read_json(tmp_path / "a.json")
