"""What a working directory holds of a ledger, as plain facts: files with their digests and attestations, losses, evaluations.

    found = gather(ledger, Path("."))

Nothing is built or changed. Digests are those of the side-cars (`astolfo verify` compares the bytes); a model that changed after
its side-car was written is hashed. Metadata are those of the files' headers. What is absent is absent; what is damaged is an
error that says which file.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from astolfo.checkpoint.safefile import open_file
from astolfo.digest_cache import digest_of, recorded
from astolfo.errors import InputError, LedgerError
from astolfo.files import read_text
from astolfo.ledger.ledger import Ledger, Run
from astolfo.provenance.digests import NOT_BUILT, records, verdict_of
from astolfo.site.losses import Curve, read

FORMAT = 3  # of metrics.json
ATTESTATION = ".attestation.json"  # behind the name of the file that it attests


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model file: what its side-car, its header and its attestation say; `verdict` against the recorded digests."""

    name: str
    path: str
    bytes: int
    sha256: str | None
    metadata: Mapping[str, str]
    attestation: Mapping[str, Any] | None
    verdict: str

    @property
    def stopped(self) -> str | None:
        """Why the run ended early, as the file says it."""
        label = self.metadata.get("astolfo.stopped")
        if label is None or not label.startswith("{"):
            return label
        found = json.loads(label)
        return f"at step {found['step']}: {found['why']}"

    @property
    def adopted(self) -> bool:
        """Whether the file was brought, and not rebuilt here, as its attestation says."""
        definition = (self.attestation or {}).get("predicate", {}).get("buildDefinition", {})
        return ":adopt:" in definition.get("buildType", "")

    @property
    def parents(self) -> dict[str, str]:
        """The digests of what it was made from, by role, as the file itself names them."""
        return json.loads(self.metadata.get("astolfo.parents", "{}"))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that is known of a ledger's outputs in one directory."""

    ledger: Ledger
    directory: Path
    models: Mapping[str, Model]
    curves: Mapping[str, Curve]
    evaluations: Mapping[str, Mapping[str, Mapping[str, Any]]]  # run -> folder below evaluations/ -> its metrics.json

    def evaluation(self, run: str) -> Mapping[str, Any] | None:
        """The evaluation of a run under the default set."""
        return self.evaluations.get(run, {}).get(run)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The records of the ledger's scale, each {"numerics", "sha256", "stopped"}."""
        return records(self.ledger)

    def of(self, run: Run) -> list[Model]:
        """The models that are built of a run: its result first, then its merges and checkpoints."""
        own = [model for name, model in self.models.items() if self.ledger.reference(name).run == run.id]
        return sorted(own, key=lambda model: (model.name != run.id, model.name))

    def verdict(self, name: str) -> str:
        """How a model stands against the recorded digests."""
        return self.models[name].verdict if name in self.models else NOT_BUILT


def gather(ledger: Ledger, directory: Path, only: str | None = None) -> Facts:
    """Looks at everything of the ledger that `directory` holds, or at what belongs to the run `only`.

    Raises InputError (and its kin) for what cannot be read.
    """
    _check(ledger, directory)
    known, models = records(ledger), {}
    for folder in ("bases", "results"):
        for path in sorted((directory / folder).glob("*.safetensors")):
            if _belongs(ledger, path.stem) and only in (None, ledger.reference(path.stem).run):
                models[path.stem] = _model(path, directory, [*known, _pinned(ledger, path.stem)])
    runs = list(ledger.runs) if only is None else [only]
    curves = {run: curve for run in runs if (curve := read(directory, run)) is not None}
    evaluations = _evaluations(directory, "*" if only is None else f"{only}*", runs)
    return Facts(ledger=ledger, directory=directory, models=models, curves=curves, evaluations=evaluations)


def _check(ledger: Ledger, directory: Path) -> None:
    if not directory.is_dir():
        raise InputError(f"There is no folder {directory}: expected the working directory that holds the outputs.")
    record = directory / ".astolfo" / "scale"
    held = read_text(record).strip() if record.exists() else ledger.scale_name
    if held != ledger.scale_name:
        raise InputError(f"{directory} holds the scale {held!r}, but {ledger.scale_name!r} was asked for: say --scale {held}.")


def attestation_path(model: str) -> str:
    """Where the attestation of the model at that path lies."""
    return model + ATTESTATION


def _belongs(ledger: Ledger, name: str) -> bool:
    """Whether the ledger knows a model by this name; other files of the user are not the site's business."""
    try:
        reference = ledger.reference(name)
    except LedgerError:
        return False
    return reference.run in ledger.runs if reference.run else name in ledger.bases and ledger.bases[name].kind == "model"


def _pinned(ledger: Ledger, name: str) -> dict[str, Any]:
    """The ledger's own digest of a base that is a file, as a record."""
    digest = ledger.origin(name).sha256 if name in ledger.bases else None
    return {"sha256": {name: digest} if digest not in (None, "unknown") else {}}


def _model(path: Path, directory: Path, known: list[dict[str, Any]]) -> Model:
    digest = recorded(path) or digest_of(path)
    with open_file(path) as file:
        metadata = dict(file.metadata)
    return Model(
        name=path.stem, path=str(path.relative_to(directory)), bytes=os.path.getsize(path), sha256=digest, metadata=metadata,
        attestation=_json(Path(attestation_path(str(path)))), verdict=verdict_of(path.stem, digest, known),
    )  # fmt: skip


def _evaluations(directory: Path, folders: str, runs: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The evaluations of each run by folder: that of the default set, named like the run, first."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted((directory / "evaluations").glob(f"{folders}/metrics.json")):
        report = _json(path) or {}
        if report.get("format") != FORMAT:
            raise InputError(
                f"{path}: expected an evaluation of format {FORMAT}, found {report.get('format')}. Move its folder away, and "
                "evaluate again where you want it."
            )
        if report["run"] in runs:
            found.setdefault(report["run"], {})[path.parent.name] = report
    return found


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}). Move it away and build it again.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(found).__name__}. Move it away and build it again.")
    return found
