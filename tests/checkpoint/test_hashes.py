"""The short hashes that other programs show."""

import hashlib
import shutil

import numpy as np

from astolfo.checkpoint import hashes
from astolfo.checkpoint.inspect import inspect, report
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.files import write_sidecar
from tests.conftest import STAND_INS


def addnet(path):
    """AutoV3 as sd-scripts and Civitai compute it (`addnet_hash_safetensors`): sha256 from the header's end on."""
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def test_they_are_those_of_other_programs(tmp_path):
    """AutoV2 is the file's own digest, AutoV3 that of what follows the header; the metadata names the latter whole."""
    path = shutil.copyfile(STAND_INS / "sdxl-v.safetensors", tmp_path / "model.safetensors")
    write_sidecar(path)
    assert hashes.of_data(path) == addnet(path) == hashes.data_sha256_in(open_file(path).metadata)
    expected = {"AutoV2": hashlib.sha256(path.read_bytes()).hexdigest()[:10], "AutoV3": addnet(path)[:12]}
    assert inspect(path)["hashes"] == inspect(path, scan=True)["hashes"] == expected
    assert f"AutoV2 {expected['AutoV2']}, AutoV3 {expected['AutoV3']}" in report(inspect(path))


def test_metadata_that_lies_is_found(tmp_path):
    """The data's hash is computed by --scan, whatever the metadata say; nothing is said where nothing is known."""
    path = tmp_path / "other.safetensors"
    write_file(path, {"a": np.ones(5, np.float32)}, {"modelspec.hash_sha256": "0x" + "0" * 64})
    assert inspect(path, scan=True)["hashes"]["AutoV3"] == addnet(path)[:12]
    assert hashes.short(None, None) == {}
