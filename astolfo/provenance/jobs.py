"""Records of jobs: what a working directory remembers of the jobs that made its artifacts, a file each in `.astolfo/jobs/`.

    .astolfo/jobs/results/my-first.safetensors.json     the job of results/my-first.safetensors

A record says who made the artifact (`astolfo.provenance.stale`) and what that cost (`astolfo.provenance.meter`). It is different
every time and no evidence, so it does not lie beside the artifact. It counts while the artifact is the one that the job made, by
its digest. Imports nothing heavy.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from astolfo import program
from astolfo.errors import InputError
from astolfo.files import read_sidecar, sha256_of, sidecar, write_json
from astolfo.provenance.attestation import name_of, root_of

_JOBS = program.MEMORY / "jobs"


def record_path(artifact: Path) -> Path:
    """Where the record of the job that made an artifact lies."""
    return root_of(artifact) / _JOBS / f"{name_of(artifact)}.json"


def write(artifact: Path, record: Mapping[str, Any]) -> None:
    """Writes the record of the job that made `artifact`; it replaces that of an earlier one."""
    write_json(record_path(artifact), {**record, "sha256": _digest(artifact)})


def read(artifact: Path) -> dict[str, Any]:
    """The record of the job that made an artifact; empty when there is none, or one of another file of that name.

    Raises InputError when it is no JSON.
    """
    found = read_json(record_path(artifact))
    digest = _digest(artifact) if found else None
    return found if digest is not None and found.get("sha256") == digest else {}


def _digest(artifact: Path) -> str | None:
    """What the side-car says, which stays when a state is deleted; of an evaluation's page, which has none, its own digest; else
    None."""
    if sidecar(artifact).exists():
        return read_sidecar(artifact)
    return sha256_of(artifact) if artifact.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty when there is no file. Raises InputError when it is something else."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: expected a JSON object ({error}). Move it away: what it said of the artifact is then unknown."
        ) from None


def recorded(directory: Path, place: str) -> Iterator[Path]:
    """The artifacts of a working directory that a record tells of and whose names match `place`, such as "states/*/*"."""
    for path in (directory / _JOBS).glob(f"{place}.json"):
        yield directory / path.relative_to(directory / _JOBS).with_suffix("")
