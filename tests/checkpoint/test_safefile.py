"""Reading and writing safetensors files: the bytes of good ones, and a clear refusal of bad ones."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from astolfo.checkpoint import stream
from astolfo.checkpoint.safefile import Pending, open_file, plan, write_file
from astolfo.errors import CheckpointError
from astolfo.files import read_sidecar, sha256_of

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]}}


def raw(path, header, data=b"\0" * 12, claim=None):
    """Writes a file with any header (text, bytes or mapping) and any claimed header length."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes((len(text) if claim is None else claim).to_bytes(8, "little") + text + data)
    return path


def changed(**fields):
    """The good header with fields of its second tensor replaced."""
    return GOOD | {"b": GOOD["b"] | fields}


def test_a_good_header_passes(tmp_path):
    """The files below are refused for their one fault, not for what they have in common."""
    with open_file(raw(tmp_path / "x", GOOD)) as file:
        assert file.keys() == ["a", "b"]
        assert file.shape("a") == (2,)
        assert file.dtype("b") == "F16"


@pytest.mark.parametrize(
    ("header", "data", "claim", "says"),
    [
        ("", b"", None, "JSON"),
        ("{", b"", None, "JSON"),
        ("[" * 100_000, b"", None, "JSON"),
        (b"\xff\xfe{}", b"", None, "JSON"),
        ("[1]", b"", None, "JSON object"),
        (
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            b"\0" * 8,
            None,
            "twice",
        ),
        ('{"__metadata__":{},"__metadata__":{}}', b"", None, "twice"),
        ({"__metadata__": {"a": 1}}, b"", None, "metadata"),
        ({"__metadata__": "text"}, b"", None, "metadata"),
        ({"a": 1}, b"", None, "data_offsets"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8, None, "data_offsets"),
        (changed(dtype="F17"), b"\0" * 12, None, "dtype"),
        (changed(dtype=["F16"]), b"\0" * 12, None, "dtype"),
        (changed(shape=[3]), b"\0" * 12, None, "bytes for 'b'"),
        (changed(shape=[-2]), b"\0" * 12, None, "shape"),
        (changed(shape=[2.0]), b"\0" * 12, None, "shape"),
        (changed(shape=[True, 2]), b"\0" * 12, None, "shape"),
        (changed(shape=[2**62, 2**62]), b"\0" * 12, None, "bytes for 'b'"),
        (changed(shape=[2**64, 0]), b"\0" * 12, None, "shape"),
        (changed(data_offsets=[4, 8]), b"\0" * 12, None, "overlaps"),
        (changed(data_offsets=[9, 13]), b"\0" * 13, None, "unused bytes"),
        (changed(data_offsets=[12, 8]), b"\0" * 12, None, "rising offsets"),
        (changed(data_offsets=[8, 12, 16]), b"\0" * 12, None, "two rising offsets"),
        (changed(shape=[50 * 10**12], data_offsets=[8, 8 + 100 * 10**12]), b"\0" * 12, None, "cut off"),
        (GOOD, b"\0" * 11, None, "cut off"),
        (GOOD, b"\0" * 13, None, "follows the last tensor"),
        (GOOD, b"\0" * 12, 100 * 10**12, "100,000,000,000,000 bytes"),
        (GOOD, b"\0" * 12, 2**64 - 1, "claims"),
        (GOOD, b"", 4000, "claims 4,000 bytes"),
    ],
)
def test_a_bad_header_is_refused(tmp_path, header, data, claim, says):
    """Whatever is wrong with a header, the file is refused with a message that says what."""
    path = raw(tmp_path / "bad.safetensors", header, data, claim)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_file(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("size", [0, 1, 7])
def test_a_stump_is_refused(tmp_path, size):
    """A file too short for a header's length is called cut off."""
    (tmp_path / "x").write_bytes(b"\x10" * size)
    with pytest.raises(CheckpointError, match="cut off"):
        open_file(tmp_path / "x")


def test_every_truncation_is_refused(tmp_path):
    """No prefix of a good file is taken for a file."""
    write_file(tmp_path / "x", {"a": np.arange(5, dtype=np.float32)}, {"k": "v"})
    whole = (tmp_path / "x").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "y").write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            open_file(tmp_path / "y")


def test_pickles_are_refused_unopened(tmp_path):
    """Both kinds of .ckpt are recognised by their first bytes, and nothing in them is run."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for protocol in (2, 3, 4, 5):
        (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"state_dict": Trap()}, protocol))
        with pytest.raises(CheckpointError, match="pickle"):
            open_file(tmp_path / "old.ckpt")
    with zipfile.ZipFile(tmp_path / "new.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match="pickle"):
        open_file(tmp_path / "new.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_header_of_just_the_wrong_length_is_no_pickle(tmp_path):
    """A safetensors file whose header length happens to look like a pickle's first bytes is still read."""
    header = {f"key{'x' * 10}{i:05}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(12)}
    text = json.dumps(header)
    text += " " * (0x0480 - len(text) if len(text) < 0x0480 else 0)
    assert len(text).to_bytes(8, "little")[:2] == b"\x80\x04"
    assert len(open_file(raw(tmp_path / "x", text, b"\0" * 12)).keys()) == 12


def test_other_files_are_refused(tmp_path):
    """A folder, nothing at all, and a picture each get their own message."""
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    for name, says in (("picture", "no safetensors"), ("nothing", "found none"), (".", "found a folder")):
        with pytest.raises(CheckpointError, match=says):
            open_file(tmp_path / name)


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    """The order in which tensors and metadata are given does not reach the file."""
    tensors = {"b": np.zeros(3, np.float16), "a": np.ones((2, 2), np.float32), "c": np.arange(2)}
    first = write_file(tmp_path / "x", tensors, {"k": "1", "j": "2"})
    second = write_file(tmp_path / "y", dict(reversed(tensors.items())), {"j": "2", "k": "1"})
    assert first == second == sha256_of(tmp_path / "x") == read_sidecar(tmp_path / "y")


def test_the_bytes_are_those_of_the_safetensors_library(tmp_path):
    """Our writer and the library's agree to the last byte, where the library's own order is fixed (one metadata key)."""
    library = pytest.importorskip("safetensors.numpy")
    tensors = {
        "b": np.arange(3, dtype=np.float16),
        "a": np.ones((2, 2), np.float32),
        "é": np.arange(2),
        "e": np.empty(0, np.float32),
    }
    library.save_file(tensors, tmp_path / "theirs", {"k": 'ä "quoted" \n'})
    write_file(tmp_path / "ours", tensors, {"k": 'ä "quoted" \n'})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_every_tensor_is_aligned_and_comes_back(tmp_path):
    """numpy arrays come back as they were, at offsets that are multiples of their element size."""
    kinds = ["?", "u1", "i1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8", "<c8"]
    tensors = {f"t{kind}": np.arange(5).astype(kind) for kind in kinds} | {
        "scalar": np.array(3, np.float32),
        "none": np.empty((0, 4), "<f2"),
    }
    write_file(tmp_path / "x", tensors)
    with open_file(tmp_path / "x") as file:
        for key, value in tensors.items():
            assert file.array(key).dtype == value.dtype
            assert np.array_equal(file.array(key), value)
            assert file.entries[key].start % max(1, value.dtype.itemsize) == 0


def test_torch_tensors_of_any_layout_are_written(tmp_path):
    """bf16, transposed, sliced and 0-dimensional torch tensors are written in row-major order and come back as views."""
    torch = pytest.importorskip("torch")
    tensors = {
        "bf16": torch.randn(3, 4).bfloat16().T,
        "slice": torch.arange(10)[::3],
        "scalar": torch.tensor(2.5),
        "f8": torch.ones(3).to(torch.float8_e4m3fn),
    }
    write_file(tmp_path / "x", tensors)
    with open_file(tmp_path / "x") as file:
        for key, value in tensors.items():
            assert file.tensor(key).dtype == value.dtype
            assert torch.equal(file.tensor(key).float(), value.float())


def test_writing_to_a_view_leaves_the_file_alone(tmp_path):
    """The map is private: a training step on mapped weights cannot change the base."""
    digest = write_file(tmp_path / "x", {"a": np.zeros(4, np.float32)})
    with open_file(tmp_path / "x") as file:
        file.array("a")[:] = 1
    assert sha256_of(tmp_path / "x") == digest


def test_a_failing_tensor_leaves_the_old_file(tmp_path):
    """When a tensor cannot be made, the old file and its side-car stay, and nothing lies beside them."""

    def fail():
        raise RuntimeError("no")

    write_file(tmp_path / "x", {"a": np.zeros(4)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError):
        write_file(tmp_path / "x", {"a": np.ones(4), "b": Pending("F16", (2,), fail)})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_hash_that_modelspec_defines(tmp_path):
    """The named metadata key holds 0x and the sha256 of everything behind the header."""
    import hashlib

    digest = write_file(
        tmp_path / "x", {"a": np.arange(9)}, {"modelspec.hash_sha256": "", "b": "c"}, hash_key="modelspec.hash_sha256"
    )
    whole = (tmp_path / "x").read_bytes()
    data = whole[8 + int.from_bytes(whole[:8], "little") :]
    assert open_file(tmp_path / "x").metadata["modelspec.hash_sha256"] == "0x" + hashlib.sha256(data).hexdigest()
    assert digest == sha256_of(tmp_path / "x")


@pytest.mark.parametrize("key", [None, "modelspec.hash_sha256"])
def test_pieces_leave_no_trace(tmp_path, monkeypatch, key):
    """Tensors that begin and end anywhere in the pieces of a file give its bytes and both digests, with a header longer than a piece."""
    tensors = {f"{'long name ' * 20}{n}": np.arange(n * 911, dtype=np.float32) for n in range(30)}
    whole = write_file(tmp_path / "whole", tensors, {"x": "y"}, hash_key=key)
    monkeypatch.setattr(stream, "PIECE", 4096)
    assert write_file(tmp_path / "pieces", tensors, {"x": "y"}, hash_key=key) == whole == sha256_of(tmp_path / "pieces")
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("number", [22, 95])
def test_a_file_system_that_sets_no_place_aside(tmp_path, monkeypatch, number):
    """Where a file's place cannot be reserved, as on NFS, it is written nevertheless."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    write_file(tmp_path / "x", {"a": np.arange(5000)})
    assert open_file(tmp_path / "x").array("a").tolist() == list(range(5000))


def test_the_plan_is_a_function_of_names_dtypes_and_shapes():
    """Larger elements come first, then names; the header's length is a multiple of 8."""
    header, places = plan({"b": ("F16", (3,)), "a": ("F16", (1,)), "z": ("F32", (1,))}, {})
    assert list(places) == ["z", "a", "b"]
    assert len(header) % 8 == 0
    assert places["z"].start == len(header)


def test_misaligned_data_is_read(tmp_path):
    """Files whose header has an odd length exist; their tensors come out right all the same."""
    torch = pytest.importorskip("torch")
    data = np.arange(2, dtype="<f4").tobytes() + np.arange(2, dtype="<f2").tobytes()
    for padding in range(8):
        with open_file(raw(tmp_path / "x", json.dumps(GOOD) + " " * padding, data)) as file:
            assert file.array("a").tolist() == file.tensor("a").tolist() == [0, 1]
            assert torch.equal(file.tensor("b"), torch.arange(2).half())


def test_damage_never_gets_further_than_the_header(tmp_path):
    """Whatever bytes of a header are changed, the file is read within its bounds or refused; nothing else happens."""
    write_file(tmp_path / "x", {"a": np.arange(5, dtype=np.float32), "b": np.arange(3)}, {"k": "v"})
    whole, random = (tmp_path / "x").read_bytes(), np.random.default_rng(0)
    end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(1000):
        broken = bytearray(whole)
        for place in random.integers(0, end, random.integers(1, 4)):
            broken[place] = random.choice(np.frombuffer(b'0123456789{}[]",:\xff\x00 9F', np.uint8))
        (tmp_path / "y").write_bytes(broken)
        try:
            with open_file(tmp_path / "y") as file:
                assert sum(len(file.raw(key)) for key in file) == len(whole) - 8 - int.from_bytes(broken[:8], "little")
        except CheckpointError:
            pass
