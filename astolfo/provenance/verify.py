"""Verifies one artifact: its bytes, and the chain of attestations and files that it comes from, up to its bases.

    found = verify(Path("results/my-first.safetensors"), ledger)
    found.verdict, found.problems

Each attestation names its parents' digests and the digests of their attestations, so one flipped bit in any file, side-car or
attestation of the chain is found and named. A parent that is no longer there (states are large) is vouched for by the
attestations alone, and the result says so. What this does not show: that nobody rewrote the whole chain. That is what a
signature (`astolfo sign`) or the ledger's recorded digests are for.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astolfo.data.store import MANIFEST, Store
from astolfo.errors import AstolfoError, InputError
from astolfo.files import read_sidecar, sha256_of, sidecar
from astolfo.ledger.ledger import Ledger
from astolfo.provenance import attestation, digests
from astolfo.provenance.attestation import ACCEPTED, Attestation, Parent

_THREADS = 4  # sha256 lets others run meanwhile; more would only fight over the disk


@dataclass(kw_only=True)
class Verification:
    """What was found of an artifact and its ancestors. Names are those of the attestations."""

    name: str
    sha256: str = ""
    problems: list[str] = field(default_factory=list)
    rehashed: list[str] = field(default_factory=list)  # artifacts whose bytes were read
    absent: list[str] = field(default_factory=list)  # ancestors whose bytes are not there (or were not asked for)
    adopted: list[str] = field(default_factory=list)  # files that were brought, not built
    accepted: dict[str, str] = field(default_factory=dict)  # artifact -> why it stands although code or lock changed
    recorded: str = digests.UNRECORDED  # the artifact against the ledger's records
    signed_by: str | None = None

    @property
    def good(self) -> bool:
        """Whether every byte and every link of the chain is right, as far as they are there."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """One line."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more: --json lists them)" if len(self.problems) > 1 else ""
            return f"{self.name}: NOT VERIFIED. {self.problems[0]}{more}"
        parts = [f"sha256 {self.sha256}", f"{len(self.rehashed)} files re-hashed"]
        if self.recorded == digests.IDENTICAL:
            parts.insert(0, "the recorded file")
        if self.recorded == digests.DIFFERS:
            parts.insert(0, "not the recorded file, and made in a numerics class that is not on record")
        for names, what in ((self.absent, "attested but not re-hashed"), (self.adopted, "adopted, not rebuilt")):
            if names:
                parts.append(f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}")
        parts += [f"{name} was accepted: {why}" for name, why in self.accepted.items()]
        parts += [f"signed by {self.signed_by}"] if self.signed_by else []
        return f"{self.name}: verified, {'; '.join(parts)}"

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {**vars(self), "verified": self.good, "verdict": self.verdict}


def verify(path: Path | str, ledger: Ledger | None = None, *, parents: bool = True) -> Verification:
    """Verifies the artifact at `path` and its chain; with `ledger`, also against the recorded digests.

    `parents=False` follows the chain by its attestations without reading the parents' bytes. Raises InputError when there is no
    such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is no file. Name an artifact, such as results/RUN.safetensors.")
    return _Walk(path, ledger, parents).found


class _Walk:
    """One pass over the chain, nearest first, each artifact once."""

    def __init__(self, path: Path, ledger: Ledger | None, parents: bool):
        self.root, self.parents = attestation.root_of(path), parents
        self.records = digests.records(ledger) if ledger else []
        self.found = Verification(name=attestation.name_of(path))
        self.files: list[tuple[str, Path, str]] = []  # name, path, expected sha256
        self.numerics: dict[str, str] | None = None
        self.noted: list[tuple[str, Attestation]] = []
        waiting = [*self._first(path)]
        seen: set[tuple[str, str]] = set()
        while waiting:
            parent = waiting.pop(0)
            if (parent.name, parent.sha256) not in seen:
                seen.add((parent.name, parent.sha256))
                waiting += self._visit(parent)
        # What comes from a brought model is not what the record built, and is not asked to be.
        if not any(name.startswith("results/") for name in self.found.adopted):
            for name, found in self.noted:
                self._record(name, found)
        self._hash()

    def _first(self, path: Path) -> tuple[Parent, ...]:
        """The artifact itself; returns its parents."""
        top = self._read(path)
        if top is None:
            self._side_car(self.found.name, path, None)
            self.files.append((self.found.name, path, read_sidecar(path) if sidecar(path).exists() else ""))
            return ()
        name, digest = next(iter(top.subjects.items()))
        self.found.name, self.numerics = name, top.numerics
        self._note(name, path, top)
        self._side_car(name, path, digest)
        self.files.append((name, path, digest))
        self._others(top)
        return top.parents

    def _visit(self, parent: Parent) -> tuple[Parent, ...]:
        """One ancestor; returns its parents."""
        path = self.root / parent.name
        self._bytes(parent.name, path, parent.sha256)
        file = attestation.attestation_path(path)
        if parent.attestation is None:
            return self._problem(f"{parent.name} had no attestation when it was used: where it comes from is not known")
        if not file.exists():
            return self._problem(f"{attestation.name_of(file)} is missing: the chain above it cannot be followed")
        if (digest := sha256_of(file)) != parent.attestation:
            return self._problem(f"{attestation.name_of(file)} is damaged: expected sha256 {parent.attestation}, found {digest}")
        found = self._read(path)
        if found is None:
            return ()
        if found.subjects.get(parent.name) != parent.sha256:
            self._problem(f"{attestation.name_of(file)} is of another file: expected sha256 {parent.sha256}")
        self._note(parent.name, path, found)
        self._others(found)
        return found.parents

    def _bytes(self, name: str, path: Path, digest: str) -> None:
        """Notes that an artifact's bytes are to be read, or that they are not there."""
        if not path.exists() or not self.parents:
            if name not in self.found.absent:
                self.found.absent.append(name)
            return
        self._side_car(name, path, digest)
        self.files.append((name, path, digest))

    def _side_car(self, name: str, path: Path, digest: str | None) -> None:
        try:
            if sidecar(path).exists() and (kept := read_sidecar(path)) != digest and digest is not None:
                self._problem(f"{name}.sha256 says {kept}, its attestation {digest}")
        except InputError as error:
            self._problem(str(error))

    def _others(self, found: Attestation) -> None:
        """What belongs to an artifact besides itself: further subjects of its attestation, and the files of a store."""
        for name, digest in list(found.subjects.items())[1:]:
            self._bytes(name, self.root / name, digest)

    def _note(self, name: str, path: Path, found: Attestation) -> None:
        """What is worth saying about an artifact whose attestation is sound."""
        if found.adopted:
            self.found.adopted.append(name)
        accepted = path.with_name(path.name + ACCEPTED)
        if accepted.exists():
            try:
                acceptance = json.loads(accepted.read_text(encoding="utf-8"))
                self.found.accepted[name] = str(acceptance.get("reason") or "no reason given")
            except (ValueError, AttributeError):
                self._problem(f"{attestation.name_of(accepted)} is damaged: it is not JSON")
        self.noted.append((name, found))

    def _record(self, name: str, found: Attestation) -> None:
        """Compares with the recorded digests. A difference is a fault where the class that made it is on record."""
        numerics, folder = found.numerics or self.numerics, name.partition("/")[0]
        if not self.records or numerics is None or folder not in ("results", "bases") or found.adopted:
            return
        model, digest = Path(name).name.removesuffix(".safetensors"), found.subjects[name]
        verdict = digests.verdict_of(model, digest, self.records)
        if name == self.found.name and verdict in (digests.IDENTICAL, digests.DIFFERS):
            self.found.recorded = verdict
        promised = digests.of_class(self.records, numerics).get(model)
        if verdict == digests.DIFFERS and promised is not None:
            self._problem(f"{name} differs from the record: expected sha256 {promised}, found {digest}")

    def _read(self, path: Path) -> Attestation | None:
        try:
            return attestation.read(path)
        except InputError as error:
            self._problem(str(error))
            return None

    def _problem(self, problem: str) -> tuple[Parent, ...]:
        self.found.problems.append(problem)
        return ()

    def _hash(self) -> None:
        """Reads every file of the chain."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for (name, path, expected), digest in zip(
                self.files, pool.map(lambda row: sha256_of(row[1]), self.files), strict=True
            ):
                self.found.rehashed.append(name)
                if expected and digest != expected:
                    self._problem(f"{name} is damaged: expected sha256 {expected}, found {digest}")
                if path == self.files[0][1]:
                    self.found.sha256 = digest
                if path.name == MANIFEST:
                    self._store(path)

    def _store(self, path: Path) -> None:
        """The files of a dataset store against its manifest."""
        try:
            for line in Store(path.parent).verify():
                self._problem(f"{attestation.name_of(path)}: {line}")
        except AstolfoError as error:
            self._problem(str(error))
