"""sd-scripts' cached latents: one `.npz` per sample, read with its CRCs checked, without pickle, and not beyond its size.

latents       float32 (channels, h, w), unscaled; or latents_<h>x<w>, as newer versions name them
original_size width, height before resizing; crop_ltrb: left, top, right, bottom (suffixed alike)
"""

import re
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np

from astolfo.data.ingest.source import Loaded, Refused


class Missing(Refused):
    """There is no such file."""


_MEMBERS = 64
_HEADER = 1 << 12  # bytes that an array's header may take
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
_SIZED = re.compile(r"latents(?:_(\d+)x(\d+))?\.npy")


def read_npz(path: Path, shape: tuple[int, int, int]) -> Loaded:
    """Latents of `shape` with their sizes. Raises Refused when the file is missing, damaged, or holds something else."""
    with _open(path) as file:
        names = {info.filename: info for info in file.infolist()}
        suffix = next((s for s in (f"_{shape[1]}x{shape[2]}", "") if f"latents{s}.npy" in names), None)
        if suffix is None:
            raise Refused(f"no latents or latents_{shape[1]}x{shape[2]} in its .npz, but {', '.join(sorted(names))[:120]}")
        latents = _array(file, names, f"latents{suffix}", int(np.prod(shape)))
        if latents.shape != shape:
            raise Refused(f"latents of shape {list(latents.shape)} in its .npz, the index says {list(shape)}")
        width, height = _whole(_array(file, names, f"original_size{suffix}", 2), "original_size")
        left, top = _whole(_array(file, names, f"crop_ltrb{suffix}", 4), "crop_ltrb")[:2]
    return Loaded(latents=latents, original_size=(height, width), crop=(top, left))


def latent_size(path: Path) -> tuple[int, int]:
    """Height and width of the latents in a `.npz`, from its headers. Raises Refused, also when it holds several sizes."""
    with _open(path) as file:
        found = [match for info in file.infolist() if (match := _SIZED.fullmatch(info.filename))]
        if len(found) != 1:
            raise Refused(f"{len(found)} sizes of latents in its .npz, and the index has no train_resolution")
        try:
            with file.open(found[0][0]) as member:
                data = member.read(_HEADER)
        except _DAMAGE as error:
            raise Refused(f"its .npz is damaged: {error}") from None
        shape = _header(data)[0]
    if len(shape) != 3:
        raise Refused(f"latents of shape {list(shape)} in its .npz")
    return shape[1], shape[2]


def _open(path: Path) -> zipfile.ZipFile:
    try:
        empty = path.stat().st_size == 0
        file = None if empty else zipfile.ZipFile(path)
    except (FileNotFoundError, NotADirectoryError):
        raise Missing("its .npz is missing") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise Refused(f"its .npz is damaged: {error}") from None
    if file is None:
        raise Refused("its .npz has 0 bytes")
    if len(file.filelist) > _MEMBERS:
        raise Refused(f"its .npz is no cache of latents: it has {len(file.filelist):,} members")
    return file


def _array(file: zipfile.ZipFile, names: dict[str, zipfile.ZipInfo], name: str, most: int) -> np.ndarray:
    """One array of at most `most` elements; its CRC is checked as it is read to its end."""
    info = names.get(f"{name}.npy")
    if info is None:
        raise Refused(f"no {name} in its .npz")
    if info.file_size > 8 * most + _HEADER:
        raise Refused(f"{name} of {info.file_size:,} bytes in its .npz, where {8 * most + _HEADER:,} would do: not unpacked")
    try:
        data = file.read(info)
    except _DAMAGE as error:
        raise Refused(f"its .npz is damaged: {error}") from None
    shape, dtype, start = _header(data)
    if dtype.kind not in "fiu" or len(data) - start != int(np.prod(shape)) * dtype.itemsize:
        raise Refused(f"{name} in its .npz is no plain array of numbers")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and where the numbers begin in a `.npy`."""
    stream = BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream)
    except Exception as error:  # numpy evaluates a header as a literal, which fails in many ways
        raise Refused(f"an array in its .npz has no readable header: {error}") from None
    if fortran and len(shape) > 1:
        raise Refused("an array in its .npz is stored by columns")
    return shape, dtype, stream.tell()


def _whole(values: np.ndarray, name: str) -> list[int]:
    if values.ndim != 1 or not np.isfinite(values).all() or np.abs(values).max(initial=0) > 1 << 24:
        raise Refused(f"{name} in its .npz is {values.tolist()}")
    found = [int(value) for value in values]
    if len(found) != (2 if name == "original_size" else 4):
        raise Refused(f"{name} in its .npz has {len(found)} numbers")
    return found
