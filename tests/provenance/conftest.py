"""A chain of artifacts with attestations, as the jobs leave it: vocabulary and base, two states, a checkpoint and its merge."""

import numpy as np
import pytest

from astolfo.checkpoint.safefile import write_file
from astolfo.files import write_sidecar
from astolfo.provenance import attestation

PINNED = {"verb": "pinned", "sha256": "0" * 64, "file": "x", "family": "sdxl", "kind": "model"}


def spec(verb, **content):
    return {"verb": verb, "scale": "miniature", "parents": {}, "code": "c" * 64, "lock": "d" * 64, **content}


def chain(folder, device="cpu"):
    """Writes the chain into `folder`, trained on a kind of device, and returns the paths by a short name."""
    paths = {
        "vocabulary": folder / "vocabulary/vocab.json", "base": folder / "bases/AK.safetensors",
        "state 1": folder / "states/25112201/00000001.safetensors", "state 2": folder / "states/25112201/00000002.safetensors",
        "result": folder / "results/25112201.safetensors", "merge": folder / "results/25112201-0.50.safetensors",
    }  # fmt: skip
    paths["vocabulary"].parent.mkdir(parents=True)
    for name in ("vocab.json", "merges.txt"):
        (folder / "vocabulary" / name).write_text(f"words of {name}")
    write_sidecar(paths["vocabulary"])
    attestation.write("vocabulary", paths["vocabulary"], spec("vocabulary"), {}, also=[folder / "vocabulary/merges.txt"])
    write_file(paths["base"], {"x": np.zeros(3, np.float16)})
    attestation.write("adopt", paths["base"], PINNED, {}, remade_by="results/foundation-eps.safetensors")
    before = None
    for number, name in enumerate(("state 1", "state 2"), start=1):
        loss = np.arange(number, dtype=np.float32)
        write_file(paths[name], {"weights/x": np.ones(3, np.float32) * number, "loss": loss}, {"astolfo.position": str(number)})
        parents = {"state": before, "base": paths["base"], "vocabulary": paths["vocabulary"]}
        attestation.write(
            "train", paths[name], spec("train", recipe={"seed": 1}) | {"from": number - 1, "to": number}, parents, device=device
        )
        before = paths[name]
    write_file(paths["result"], {"x": np.ones(3, np.float16)})
    parents = {"state": before, "base": paths["base"]}
    attestation.write("export", paths["result"], spec("export", semantics="kohya", title="25112201"), parents)
    write_file(paths["merge"], {"x": np.ones(3, np.float16) / 2})
    parents = {"base": paths["base"], "trained": paths["result"]}
    attestation.write("merge", paths["merge"], spec("merge", alpha="0.50", title="25112201-0.50"), parents)
    return paths


@pytest.fixture
def built(tmp_path):
    return chain(tmp_path / "work")
