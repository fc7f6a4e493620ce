"""A chain of artifacts with attestations, as the jobs leave it, and a ledger of runs that somebody judged.

The chain is vocabulary and base, two states, a checkpoint and its merge.
"""

import numpy as np
import pytest

from astolfo.checkpoint.safefile import write_file
from astolfo.files import write_sidecar
from astolfo.ledger import load
from astolfo.provenance import attestation

PINNED = {"verb": "pinned", "sha256": "0" * 64, "file": "x", "family": "sdxl", "kind": "model"}


def spec(verb, **content):
    return {"verb": verb, "scale": "miniature", "parents": {}, "code": "c" * 64, "lock": "d" * 64, **content}


def chain(folder, device="cpu"):
    """Writes the chain into `folder`, trained on a kind of device, and returns the paths by a short name."""
    paths = {
        "vocabulary": folder / "vocabulary/vocab.json", "base": folder / "bases/AK.safetensors",
        "state 1": folder / "states/plain/00000001.safetensors", "state 2": folder / "states/plain/00000002.safetensors",
        "result": folder / "results/plain.safetensors", "merge": folder / "results/plain-0.50.safetensors",
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
    attestation.write("export", paths["result"], spec("export", semantics="kohya", title="plain"), parents)
    write_file(paths["merge"], {"x": np.ones(3, np.float16) / 2})
    parents = {"base": paths["base"], "trained": paths["result"]}
    attestation.write("merge", paths["merge"], spec("merge", alpha="0.50", title="plain-0.50"), parents)
    return paths


JUDGED = """\
bases:
  own: {objective: v}
  made: {objective: v, miniature: &made {merge: {trained: merged, base: own, alpha: "0.50"}}, full: *made}
datasets: {pictures: {images: 6224}}
defaults:
  base: own
  dataset: pictures
  epochs: 1
  learning_rate: {unet: 1.0e-5}
  precision: {weights: bf16, compute: bf16, save: fp16}
runs:
  good: {outcome: {kind: success, text: Success.}}
  blurred: {outcome: {kind: failure, text: Failure with blur image.}}
  grey: {outcome: {kind: failure, text: Failed.}}
  merged: {outcome: {kind: works-after-merge, alpha: 0.55, text: Success after merge (0.55).}}
  nearly: {outcome: {kind: partial, text: Kinda works.}}
  first: {outcome: {kind: unstated, text: Very first run.}}
  ended: {until_step: 3112, outcome: {kind: stopped, text: Stopped half way.}}
  wrong: {base: made, on_failure: keep, outcome: {kind: nan, text: Got nan.}}
"""
HELPERS = "support: true\nruns: {helper: {base: own, dataset: pictures, epochs: 1, learning_rate: {unet: 1.0e-5}}}\n"


@pytest.fixture
def ledger(tmp_path):
    """A ledger of eight runs with outcomes of every kind, a base that is merged from one, and a run that only supports others."""
    (tmp_path / "config" / "runs").mkdir(parents=True)
    (tmp_path / "config" / "ledger.yaml").write_text(JUDGED)
    (tmp_path / "config" / "runs" / "helpers.yaml").write_text(HELPERS)
    return load(tmp_path / "config")


@pytest.fixture
def built(tmp_path):
    return chain(tmp_path / "work")
