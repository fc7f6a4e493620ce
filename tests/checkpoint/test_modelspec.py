"""ModelSpec, validated against its published text: there is no machine-readable schema, so its tables are read."""

import hashlib
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from astolfo.checkpoint.metadata import HASH_KEY, describe
from astolfo.checkpoint.safefile import open_file, write_file
from tests.conftest import STAND_INS

TEXT = (Path(__file__).parent / "modelspec-1.0.1.md").read_text(encoding="utf-8")
PREFIX = "modelspec."


def keys(*headings):
    """Key -> MUST, SHOULD or CAN, of the tables below these headings."""
    found = {}
    for heading in headings:
        section = TEXT.partition(f"{heading}\n")[2].partition("\n#")[0]
        for name, kind in re.findall(r"^\| (`[a-z_0-9` ]+`) \| \*\*(MUST|SHOULD|CAN)\*\* \|", section, re.MULTILINE):
            found[name.replace("`", "").replace(" ", "")] = kind
    return found


KEYS = keys("## Specification", "#### Image Generation Models")


def architectures():
    """The identifiers of the published listing that name whole image models."""
    (row,) = re.findall(r"^- \*\*Stable Diffusion:\*\* (.*)$", TEXT, re.MULTILINE)
    first, *others = re.findall(r"`([^`]+)`", row)
    return {first, *(first.replace("v1", one) for one in others)}


def faults(metadata):
    """What of a file's metadata is not as the text demands."""
    own = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    said = [f"{key} is missing" for key, kind in KEYS.items() if kind == "MUST" and not own.get(key)]
    said += [f"{key} is no key of it" for key in own.keys() - KEYS.keys()]
    forms = {
        "sai_model_spec": r"1\.0\.[01]", "resolution": r"[1-9]\d*x[1-9]\d*", "hash_sha256": r"0x[0-9a-f]{64}",
        "prediction_type": "v|epsilon",
    }  # fmt: skip
    said += [f"{key}: {own[key]!r}" for key, form in forms.items() if key in own and not re.fullmatch(form, own[key])]
    return said + ([] if own.get("architecture") in architectures() else [f"architecture: {own.get('architecture')!r}"])


def test_the_published_text_is_read_whole():
    """Five keys are demanded of an image model, and the listing has the architectures of both families."""
    assert {key for key, kind in KEYS.items() if kind == "MUST"} == {
        "sai_model_spec", "architecture", "implementation", "title", "resolution",
    }  # fmt: skip
    assert {"description", "hash_sha256", "implementation_version", "merged_from", "vae_dtype"} <= KEYS.keys()
    assert {"stable-diffusion-xl-v1-base", "stable-diffusion-v2-512", "stable-diffusion-v2-768-v"} <= architectures()


@pytest.mark.parametrize("objective", ["eps", "v", "rf"])
@pytest.mark.parametrize("family", ["sdxl", "sd2"])
def test_what_a_checkpoint_says_is_valid(tmp_path, family, objective):
    """Every family and objective: written as a checkpoint is, nothing in the file's header contradicts the text."""
    said = describe(family=family, title="t", objective=objective)
    write_file(tmp_path / "x", {"a": np.arange(9)}, said, hash_key=HASH_KEY)
    assert faults(open_file(tmp_path / "x").metadata) == []


@pytest.mark.parametrize("name", ["sdxl-eps", "sdxl-v", "sd2-v"])
def test_the_shipped_models_are_valid(name):
    """The models that this program made and ships have valid headers; where a hash is named, it is that of the data."""
    path = STAND_INS / f"{name}.safetensors"
    metadata = open_file(path).metadata
    assert faults(metadata) == []
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])  # as the published example finds the content
    assert json.loads(data[8 : 8 + length])["__metadata__"] == metadata
    if HASH_KEY in metadata:
        assert metadata[HASH_KEY] == "0x" + hashlib.sha256(data[8 + length :]).hexdigest()


def test_sd2_of_either_objective_is_told_apart():
    """The text demands that 2.1's eps and v models have architectures of their own."""
    found = {one: describe(family="sd2", title="t", objective=one)["modelspec.architecture"] for one in ("eps", "v")}
    assert found == {"eps": "stable-diffusion-v2-512", "v": "stable-diffusion-v2-768-v"}
