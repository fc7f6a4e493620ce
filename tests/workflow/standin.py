"""Stands in for the package's jobs where a test is about the graph: writes at once what a job's spec and inputs determine.

Placed as `astolfo/__main__.py` of a copy of the program. Files are 2 MB, beyond what Snakemake compares by content.
"""

import hashlib
import json
import sys
from pathlib import Path

from astolfo.files import read_sidecar, sha256_of, sidecar, write_sidecar
from astolfo.ledger.specs import identity
from astolfo.provenance import stale
from astolfo.provenance.attestation import attestation_path

arguments = sys.argv[1:]
spec = json.loads(arguments[arguments.index("--spec") + 1])
out = Path(arguments[arguments.index("--out") + 1])
lock = sha256_of(arguments[arguments.index("--lock") + 1])
state = Path(arguments[arguments.index("--state") + 1]) if "--state" in arguments else Path()
before = state if state.name else None

files = [name for name in arguments if name.endswith((".safetensors", ".json"))]
read = [read_sidecar(name) for name in files if sidecar(name).exists()]
known = {key: spec[key] for key in ("code", "lock") if key in spec}
if known:
    spec |= stale.makers(spec["verb"], lock)
if before and known:
    stale.check(before, spec)
name = {"vocabulary": "vocab.json", "dataset": "store.json"}.get(spec["verb"])
artifact = out / name if name else out
artifact.parent.mkdir(parents=True, exist_ok=True)
artifact.write_bytes(hashlib.sha256("".join([identity(spec), *read]).encode()).digest() * (1 << 16))
if name == "vocab.json":
    (out / "merges.txt").touch()
write_sidecar(artifact)
attestation_path(artifact).write_text("{}\n")
stale.record(artifact, spec, known, {})
