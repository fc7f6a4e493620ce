"""safetensors files, read and written byte by byte.

`open_file` checks the whole header before anything else looks at the file: what passes has no overlap, no hole, no
claim beyond its end. Tensors are views of a private memory map; nothing is read until it is touched.

`write_file` is deterministic: the same tensors and metadata give the same bytes. Data and header keys are ordered by
element size (largest first, so that every tensor is aligned), then by name; metadata keys are sorted; the header is padded
with spaces to a multiple of 8. This is also the order of the safetensors library. The file is whole or absent, and its
sha256 side-car is written with it.
"""

import contextlib
import json
import math
import mmap
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from astolfo.checkpoint.stream import Output, produce
from astolfo.errors import CheckpointError
from astolfo.files import sha256_of, sidecar, write_sidecar, written

SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}
"""Bytes per element of each dtype, by its name in the file."""


def is_float(dtype: str) -> bool:
    """Whether a dtype, by its name in the file, is one that weights have."""
    return dtype == "BF16" or dtype.startswith("F")


_SURROGATE = re.compile("[\ud800-\udfff]")

_NUMPY = {"BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "I32": "<i4", "U32": "<u4",
          "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8", "C64": "<c8"}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _NUMPY.items()}
_TORCH = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "F16": "float16",
          "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32", "I64": "int64", "U64": "uint64",
          "F64": "float64", "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
          "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"}  # fmt: skip
_OTHERS = {
    b"<!doctype html": "a web page, such as a site shows in place of a download",
    b"<html": "a web page, such as a site shows in place of a download",
    b"version https://": "a pointer of Git LFS, whose file was not fetched",
    b"gguf": "a GGUF file",
    b"\x89hdf": "an HDF5 file",
}
"""How other files begin that are taken for models, in lower case."""
_LARGEST_HEADER = 100_000_000  # the safetensors library's own limit


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: dtype by its name in the file, shape, and its bytes as absolute offsets [start, end)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Pending:
    """A tensor to write whose bytes are made when their turn comes: `make()` returns a buffer of the right length."""

    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], Any]


class SafeFile:
    """An open safetensors file with a checked header. Made by `open_file`; also a context manager."""

    def __init__(self, path: Path, entries: dict[str, Entry], metadata: dict[str, str], buffer: mmap.mmap):
        self.path, self.metadata, self.entries, self._map = path, metadata, entries, buffer

    def __enter__(self) -> "SafeFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def close(self) -> None:
        """Releases the map, unless a view of it is still alive; then the last view releases it."""
        with contextlib.suppress(BufferError):
            self._map.close()

    def keys(self) -> list[str]:
        """Names of the tensors, in the order of their data."""
        return list(self.entries)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return self._entry(key).shape

    def dtype(self, key: str) -> str:
        """Dtype of one tensor by its name in the file: "F16", "BF16", "F32", "I64" ..."""
        return self._entry(key).dtype

    def raw(self, key: str) -> memoryview:
        """The bytes of one tensor, without copying."""
        entry = self._entry(key)
        return memoryview(self._map)[entry.start : entry.end]

    def array(self, key: str) -> np.ndarray:
        """One tensor as numpy array, without copying; BF16 and F8 come as unsigned integers of their bits.

        The map is private: writing to the array never changes the file.
        """
        entry = self._entry(key)
        code = _NUMPY.get(entry.dtype, f"<u{SIZES[entry.dtype]}")
        count = math.prod(entry.shape)
        return np.frombuffer(self._map, code, count, entry.start).reshape(entry.shape)

    def tensor(self, key: str) -> Any:
        """One tensor as torch tensor on the CPU, without copying (a misaligned or empty one is copied)."""
        import torch

        entry = self._entry(key)
        dtype = getattr(torch, _TORCH[entry.dtype])
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        data = np.frombuffer(self._map, np.uint8, entry.end - entry.start, entry.start)  # keeps the map open, as torch would not
        return torch.from_numpy(data.copy() if entry.start % SIZES[entry.dtype] else data).view(dtype).reshape(entry.shape)

    def release(self, key: str) -> None:
        """Takes one tensor's pages out of this process's memory; who looks at it again reads the file again.

        Whole pages alone, so that neighbours keep theirs. What was written to a view of the tensor is lost.
        """
        entry = self._entry(key)
        first, end = -(-entry.start // mmap.PAGESIZE) * mmap.PAGESIZE, entry.end // mmap.PAGESIZE * mmap.PAGESIZE
        if end > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, end - first)

    def _entry(self, key: str) -> Entry:
        if key not in self.entries:
            raise CheckpointError(f"{self.path} has no tensor {key!r}; `astolfo inspect` lists what it has.")
        return self.entries[key]


def open_file(path: Path | str) -> SafeFile:
    """Opens a safetensors file and checks its whole header.

    Raises CheckpointError for a missing or truncated file, a pickle, a header that is not JSON, has duplicate keys, unknown
    dtypes, overlapping or missing bytes, or claims more than the file holds.
    """
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device, which cannot be read twice"
            raise CheckpointError(f"Expected a safetensors file at {path}, found {what}.")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            entries, metadata = _read_header(path, file, size)
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        raise CheckpointError(f"Expected a safetensors file at {path}, found none. Check the path or build it first.") from None
    except OSError as error:
        raise CheckpointError(f"Expected a safetensors file at {path}, which cannot be opened: {error.strerror}.") from None
    return SafeFile(path, entries, metadata, buffer)


def _read_header(path: Path, file: Any, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    start = file.read(16)
    if start[:4] == b"PK\x03\x04" or (len(start) > 1 and start[0] == 0x80 and start[1] <= 5 and start[8:9] != b"{"):
        raise CheckpointError(
            f"{path} is a pickle (.ckpt, .pt): opening one runs whatever code it holds, so astolfo never does. "
            "Use the model's .safetensors release, or convert it in a place you can throw away."
        )
    for magic, what in _OTHERS.items():
        if start.lower().startswith(magic):
            raise CheckpointError(f"{path} is {what}, and no safetensors file. Get the model's .safetensors release.")
    if len(start) < 8:
        raise _damaged(path, "at least 8 bytes", f"{size}: it is empty or was cut off")
    length = int.from_bytes(start[:8], "little")
    if length > _LARGEST_HEADER and start[8:9] != b"{":
        raise _damaged(path, "the length of a header in its first 8 bytes", f"{length:,}: this is no safetensors file")
    if length > min(size - 8, _LARGEST_HEADER):
        raise _damaged(path, f"a header within the file's {size:,} bytes", f"one that claims {length:,} bytes")
    file.seek(8)
    header = _parse(path, file.read(length))
    return _check(path, header, 8 + length, size)


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise _damaged(path, "each key once", f"{twice[:200]!r} twice")
        return result

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "a header in JSON", f"{text[:60]!r} ({str(error)[:200]})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "a JSON object as header", f"a {type(header).__name__}")
    return header


def _check(path: Path, header: dict[str, Any], data: int, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    if (odd := next((key for key in header if not key.isprintable()), None)) is not None:
        raise _damaged(path, "names of tensors in plain text", f"{odd[:200]!a}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "metadata that maps text to text", f"{str(metadata)[:200]!a}")
    if (odd := next((key for key, value in metadata.items() if _SURROGATE.search(key + value)), None)) is not None:
        raise _damaged(path, "metadata in valid Unicode", f"half a character in {odd[:200]!a}")
    entries = {key: _entry_of(path, key, value, data) for key, value in header.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end, item[0])))
    position, before = data, "the header"
    for key, entry in entries.items():
        if entry.start != position:
            what = "overlaps" if entry.start < position else f"leaves {entry.start - position:,} unused bytes after"
            raise _damaged(path, "tensors side by side", f"{key!r} {what} {before}")
        position, before = entry.end, repr(key)
    if position > size:
        raise _damaged(path, f"{position:,} bytes by its header", f"{size:,}: the file was cut off")
    if position < size:
        raise _damaged(path, f"{position:,} bytes by its header", f"{size:,}: something follows the last tensor")
    return entries, metadata


def _entry_of(path: Path, key: str, value: Any, data: int) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"dtype, shape and data_offsets for {key!r}", f"{str(value)[:200]}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise _damaged(path, f"one of {', '.join(SIZES)} as dtype of {key!r}", f"{str(dtype)[:80]!r}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(path, f"a shape and two rising offsets for {key!r}", f"{str(shape)[:80]} and {str(offsets)[:80]}")
    if offsets[1] - offsets[0] != math.prod(shape) * SIZES[dtype]:
        raise _damaged(path, f"{math.prod(shape) * SIZES[dtype]:,} bytes for {key!r} ({dtype}, {shape})",
                       f"{offsets[1] - offsets[0]:,}")  # fmt: skip
    return Entry(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 64 and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _damaged(path: Path, expected: str, found: str) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read: expected {expected}, found {found}. Get the file again, or rebuild it.")


def plan(specs: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, Entry]]:
    """Header bytes (length prefix and padding included) and the place of each tensor, in the order of the data.

    `specs` gives dtype and shape by name. The result depends on nothing else, not even on the mapping's order.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    places, position = {}, 0
    for key in sorted(specs, key=lambda key: (-SIZES[specs[key][0]], key)):
        dtype, shape = specs[key]
        end = position + math.prod(shape) * SIZES[dtype]
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        places[key] = Entry(dtype, tuple(shape), position, end)
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    base = 8 + len(text)
    moved = {key: Entry(e.dtype, e.shape, base + e.start, base + e.end) for key, e in places.items()}
    return len(text).to_bytes(8, "little") + text, moved


def write_file(
    path: Path | str, tensors: dict[str, Any] | Mapping[str, Any], metadata: Mapping[str, str] | None = None,
    hash_key: str | None = None, give_back: bool = False,
) -> str:  # fmt: skip
    """Writes tensors (numpy arrays, torch tensors, `Pending`) and metadata, whole or not at all; returns the file's sha256.

    The side-car is written too. `hash_key` names a metadata key that receives "0x" and the sha256 of the data section, as
    ModelSpec defines it. Peak memory is that of the largest tensor; with `give_back`, `tensors` is emptied on the way, each
    let go once it is written. Raises ValueError for a dtype without a name in the format.
    """
    pending = {key: value if isinstance(value, Pending) else _pending(key, value) for key, value in tensors.items()}
    specs = {key: (value.dtype, value.shape) for key, value in pending.items()}
    if give_back:
        cast("dict[str, Any]", tensors).clear()
    about = dict(metadata or {}) | ({hash_key: "0x" + "0" * 64} if hash_key else {})
    header, places = plan(specs, about)
    size = max((place.end for place in places.values()), default=len(header))
    source = _Source(header, pending, places)
    with written(path) as beside:
        with contextlib.closing(Output(beside, size, skip=len(header) if hash_key else 0)) as output:
            produce([output], source.fill, lambda piece: None, threads=1, digests=True)
            output.finish()
        digest = output.digest.hexdigest()
        if hash_key:
            with open(beside, "r+b") as file:
                file.write(plan(specs, about | {hash_key: "0x" + digest})[0])
            digest = sha256_of(beside)
        sidecar(path).unlink(missing_ok=True)  # never an old digest beside a new file
    return write_sidecar(path, digest)


class _Source:
    """The bytes of a file from its first to its last; each tensor's are made when their turn comes, and let go."""

    def __init__(self, header: bytes, pending: dict[str, Pending], places: Mapping[str, Entry]):
        self._blocks = self._all(header, pending, places)
        self._rest = memoryview(b"")

    def fill(self, piece: int, buffers: list[np.ndarray]) -> None:
        """Fills the buffer with the next bytes; pieces must come in order."""
        (buffer,), done = buffers, 0
        while done < len(buffer):
            if not self._rest:
                self._rest = next(self._blocks, self._rest)
                if not self._rest:
                    return
            taken = self._rest[: len(buffer) - done]
            buffer[done : done + len(taken)] = np.frombuffer(taken, np.uint8)
            done, self._rest = done + len(taken), self._rest[len(taken) :]

    @staticmethod
    def _all(header: bytes, pending: dict[str, Pending], places: Mapping[str, Entry]) -> Iterator[memoryview]:
        yield memoryview(header)
        for key, place in places.items():
            data = memoryview(pending.pop(key).make())
            assert data.nbytes == place.end - place.start, f"{key}: {data.nbytes} bytes made, {place.end - place.start} promised"
            if data.nbytes:
                yield data.cast("B")


def _pending(key: str, value: Any) -> Pending:
    if isinstance(value, (np.ndarray, np.generic)):
        little = value.dtype.newbyteorder("<")
        if little not in _NAMES:
            raise ValueError(f"{key}: safetensors has no name for the dtype {value.dtype}.")
        return Pending(_NAMES[little], value.shape, lambda: np.ascontiguousarray(value, little).reshape(-1).view("u1"))
    names = {f"torch.{torch_name}": name for name, torch_name in _TORCH.items()}
    if str(value.dtype) not in names:
        raise ValueError(f"{key}: safetensors has no name for the dtype {value.dtype}.")
    return Pending(names[str(value.dtype)], tuple(value.shape), lambda: bytes_of(value))


def bytes_of(tensor: Any) -> np.ndarray:
    """The bytes of a torch tensor in row-major order, without copying where it already lies so on the CPU."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def torch_dtype(name: str) -> Any:
    """The torch dtype of a dtype name of the format ("BF16" -> torch.bfloat16)."""
    import torch

    return getattr(torch, _TORCH[name])
