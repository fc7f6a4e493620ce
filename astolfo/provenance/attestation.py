"""Attestations: beside each artifact `X` stands `X.attestation.json`, which says what it is made from and how.

The form is an in-toto Statement (v1) with a SLSA provenance predicate (v1): https://slsa.dev/spec/v1.0/provenance. The parents
are its `resolvedDependencies`, each with its digest and, as an annotation, the digest of its own attestation; so one file
pins the whole chain up to the bases. Nothing in it changes between two equal builds: no date, no host, no folder, no
placement. `astolfo_digest`, the last of its internal parameters, is the digest of all the rest, so that a flipped bit shows.
Nothing stands outside the fields that the two standards name: `in-toto-attestation`'s own classes read every one whole.

A job's time and energy stand in its record (`astolfo.provenance.jobs`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import astolfo
from astolfo.errors import InputError
from astolfo.files import json_digest, read_sidecar, sha256_of, write_json
from astolfo.ledger import schema
from astolfo.ledger.code import VERBS, code_digest
from astolfo.ledger.references import FOLDERS, parse
from astolfo.ledger.specs import identity

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "urn:astolfo:program:v1"
ADOPT, LINK, EXPORT, TRAIN = "adopt", "link", "export", "train"
ACCEPTED = ".accepted.json"  # behind an artifact's name: that it is kept though code or lock changed since, and why
_SELF = "astolfo_digest"
_LOCK = Path(__file__).parent.parent.parent / "envs" / "lock.txt"


def attestation_path(path: Path | str) -> Path:
    """Where the attestation of the artifact `path` lies."""
    path = Path(path)
    return path.with_name(path.name + ".attestation.json")


def attested(directory: Path, place: str) -> Iterator[Path]:
    """The artifacts of a working directory that have an attestation and whose names match `place`, such as "states/*/*"."""
    for path in directory.glob(f"{place}.attestation.json"):
        yield path.with_name(path.name.removesuffix(".attestation.json"))


def name_of(path: Path | str) -> str:
    """An artifact's name, the same in every working directory: its path from `results/`, `states/` ... on, else its file name."""
    parts = Path(path).parts
    starts = [index for index, part in enumerate(parts[:-1]) if part in FOLDERS]
    return "/".join(parts[starts[-1] :]) if starts else parts[-1]


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A direct parent as an attestation names it. `attestation` is None when the parent had none."""

    role: str
    name: str
    sha256: str
    attestation: str | None


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """A read attestation whose own digest is right."""

    path: Path
    statement: Mapping[str, Any]

    @property
    def definition(self) -> Mapping[str, Any]:
        """SLSA's buildDefinition."""
        return self.statement["predicate"]["buildDefinition"]

    @property
    def job(self) -> str:
        """What made the artifact: train, export, merge, mecha, dataset, vocabulary, autoencoder, link or adopt."""
        return self.definition["buildType"].split(":")[3]

    @property
    def adopted(self) -> bool:
        """Whether the artifact is a file that was brought, and not rebuilt here."""
        return self.job == ADOPT

    @property
    def remade_by(self) -> str | None:
        """For an adopted file: what in the graph would make it, if anything does."""
        return self.definition["externalParameters"].get("remade_by")

    @property
    def subjects(self) -> dict[str, str]:
        """Name -> sha256 of what it attests, the artifact first."""
        return {subject["name"]: subject["digest"]["sha256"] for subject in self.statement["subject"]}

    @cached_property
    def parents(self) -> tuple[Parent, ...]:
        """The direct parents."""
        rows = self.definition.get("resolvedDependencies", [])
        return tuple(
            Parent(
                role=row["annotations"]["role"],
                name=row["name"],
                sha256=row["digest"]["sha256"],
                attestation=row["annotations"].get("attestation", {}).get("sha256"),
            )
            for row in rows
        )

    @property
    def numerics(self) -> dict[str, str] | None:
        """The numerics class in which it was computed; None where nothing was computed."""
        return self.definition["internalParameters"].get("numerics")

    @property
    def losses(self) -> dict[int, str]:
        """Step -> sha256 of the losses (float32, little endian) from the run's first step up to there, segment by segment."""
        rows = self.statement["predicate"]["runDetails"].get("byproducts", [])
        return {row["annotations"]["step"]: row["digest"]["sha256"] for row in rows if row["name"] == "loss"}


def read(path: Path) -> Attestation:
    """Reads the attestation of the artifact `path`.

    Raises InputError when there is none, and when it is not, to the last byte, what was written.
    """
    file = attestation_path(path)
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} has no attestation beside it ({file.name}), so where it comes from is not known.") from None
    try:
        statement = json.loads(text)
        found = _digest(statement)
        expected = _named(statement)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged: it is no attestation of astolfo ({type(error).__name__}: {error}).") from None
    if found != expected or text != _text(statement).encode():
        raise InputError(f"{file} is damaged: expected the digest {expected} that it names, found {found}.")
    if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
        raise InputError(f"{file} is no {STATEMENT} with {PREDICATE}: it was written by another program.")
    return Attestation(path=file, statement=statement)


def write(
    job: str, out: Path, spec: Mapping[str, Any], parents: Mapping[str, Path | None], *, also: Iterable[Path] = (),
    device: str = "cpu", **parameters: Any,
) -> Path:  # fmt: skip
    """Writes the attestation of the artifact `out`, which `job` made of `parents` (role -> path) by `spec`; returns its path.

    `also` are further files that belong to the artifact, `device` is the kind that computed it; `parameters` join the external
    ones where they are not None. Raises InputError when an artifact or a parent has no side-car.
    """
    given = {role: path for role, path in parents.items() if path is not None}
    digests = {name_of(out): read_sidecar(out)} | {name_of(path): sha256_of(path) for path in also}
    statement: dict[str, Any] = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"urn:astolfo:job:{job}:v1",
                "externalParameters": _external(out, spec) | {key: value for key, value in parameters.items() if value},
                "internalParameters": _internal(spec, job not in (ADOPT, LINK), device, given),
                "resolvedDependencies": [_dependency(role, path) for role, path in given.items()],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"astolfo": astolfo.__version__}},
                "byproducts": _losses(job, out, given),
            },
        },
    }
    statement["predicate"]["buildDefinition"]["internalParameters"][_SELF] = _digest(statement)
    write_json(attestation_path(out), statement)
    return attestation_path(out)


def _digest(statement: Mapping[str, Any]) -> str:
    """The digest of a statement without the one that it names."""
    predicate = {key: value for key, value in statement["predicate"].items() if key != _SELF}
    definition = predicate["buildDefinition"]
    internal = {key: value for key, value in definition["internalParameters"].items() if key != _SELF}
    return json_digest({**statement, "predicate": predicate | {"buildDefinition": definition | {"internalParameters": internal}}})


def _named(statement: Mapping[str, Any]) -> str:
    """The digest that a statement names; the first ones had it beside SLSA's own fields, and are still read."""
    predicate = statement["predicate"]
    return predicate[_SELF] if _SELF in predicate else predicate["buildDefinition"]["internalParameters"][_SELF]


def _text(statement: Any) -> str:
    """The one spelling of an attestation: `astolfo.files.write_json`'s."""
    return json.dumps(statement, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _external(out: Path, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for: the spec, and what a reader looks for first."""
    found = {"spec": dict(spec), "scale": spec.get("scale"), "semantics": spec.get("semantics") or _semantics(spec)}
    found["run"] = _run(name_of(out))
    if "recipe" in spec and isinstance(spec["recipe"], dict):
        found["recipe_sha256"] = json_digest(spec["recipe"])
    return {key: value for key, value in found.items() if value is not None}


def _run(name: str) -> str | None:
    """The run that a state, a checkpoint or a merge belongs to; None for a base, a dataset or a vocabulary."""
    folder, _, rest = name.partition("/")
    if folder == "states":
        return rest.partition("/")[0]
    return parse(rest.removesuffix(".safetensors")).run if folder == "results" else None


def _semantics(spec: Mapping[str, Any]) -> str | None:
    """The semantics whose choices a segment's recipe has, if it has those of one."""
    recipe = spec.get("recipe")
    choices = recipe.get("choices") if isinstance(recipe, dict) else None
    return next((name for name, one in schema.SEMANTICS.items() if one.model_dump() == choices), None)


def _internal(spec: Mapping[str, Any], computed: bool, device: str, parents: Mapping[str, Path]) -> dict[str, Any]:
    """What it was made with: this program's code and lock, and the numerics class, where anything was computed."""
    found: dict[str, Any] = {"identity": identity(dict(spec))}
    if computed and spec["verb"] in VERBS:
        found |= {"code": code_digest(spec["verb"]), "lock": sha256_of(_LOCK), "numerics": _numerics(device, parents)}
    return found


def _numerics(device: str, parents: Mapping[str, Path]) -> dict[str, str]:
    """The class of what was computed on `device`. What a CPU casts and sums of a GPU's weights has those weights' class."""
    from astolfo.numerics import numerics_class

    for path in parents.values() if device == "cpu" else ():
        known = read(path).numerics if attestation_path(path).exists() else None
        if known and known["device"] != "cpu":
            return dict(known)
    return dict(numerics_class(device))


def _dependency(role: str, path: Path) -> dict[str, Any]:
    """A parent: its digests, and what was accepted of it when other code or another lock had made it."""
    file, accepted = attestation_path(path), path.with_name(path.name + ACCEPTED)
    annotations: dict[str, Any] = {"attestation": {"sha256": sha256_of(file)}} if file.exists() else {}
    if accepted.exists():
        annotations["accepted"] = json.loads(accepted.read_text(encoding="utf-8"))
    return {"name": name_of(path), "digest": {"sha256": read_sidecar(path)}, "annotations": {"role": role, **annotations}}


def _losses(job: str, out: Path, parents: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Digests of the loss curve: a state's own, and for a checkpoint those of every state that led to it."""
    if job == TRAIN:
        return [_loss(out)]
    if job != EXPORT:
        return []
    rows: list[Any] = []
    state = parents.get("state")
    while state is not None and attestation_path(state).exists():
        found = read(state)
        rows = list(found.statement["predicate"]["runDetails"]["byproducts"]) + rows
        before = next((parent for parent in found.parents if parent.role == "state"), None)
        state = None if before is None else root_of(state) / before.name
    return rows


def _loss(state: Path) -> dict[str, Any]:
    from astolfo.checkpoint.safefile import open_file

    with open_file(state) as file:
        digest = hashlib.sha256(file.raw("loss")).hexdigest()
        return {"name": "loss", "digest": {"sha256": digest}, "annotations": {"step": int(file.metadata["astolfo.position"])}}


def ancestry(path: Path) -> tuple[dict[str, Attestation], list[Parent]]:
    """The attestations of the artifact `path` and of all that it comes from, by name, and those ancestors that have none there.

    Raises InputError where the artifact's own is missing, or any is damaged.
    """
    top = read(path)
    root, found, missing, waiting = root_of(path), {name_of(path): top}, {}, [*top.parents]
    while waiting:
        parent = waiting.pop()
        if parent.name in found:
            continue
        if attestation_path(root / parent.name).exists():
            found[parent.name] = read(root / parent.name)
            waiting += found[parent.name].parents
        else:
            missing[parent.name] = parent
    return found, list(missing.values())


def root_of(path: Path) -> Path:
    """The working directory that an artifact lies in, as its name tells; its own folder where it does not."""
    return Path(*path.absolute().parts[: -len(name_of(path).split("/"))])
