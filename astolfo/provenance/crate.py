"""`astolfo crate ID -o DIR`: a built model as a Workflow Run RO-Crate, the form in which journals and archives take it.

It follows the Provenance Run Crate profile 0.5 (https://w3id.org/ro/wfrun/provenance/0.5): the workflow, each job that the
attestations tell of with what it read and made, and the environment. In it lie the model, the ledger, the workflow's files, the
lock and every attestation; what a run started from is named by its digest, since it is rarely the author's to give away.
"""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import astolfo
from astolfo.errors import InputError
from astolfo.files import verified
from astolfo.ledger.files import IMPORTED
from astolfo.ledger.ledger import PINS, Ledger
from astolfo.ledger.references import Reference
from astolfo.program import LOCK, SNAKEFILE, build_command
from astolfo.provenance import attestation, jobs
from astolfo.provenance.attestation import Attestation
from astolfo.provenance.extra import needed
from astolfo.provenance.sign import envelope_path, signature_path

_PROFILES = {"process": "Process Run Crate", "workflow": "Workflow Run Crate", "provenance": "Provenance Run Crate"}
_VERSION = "0.5"
_TERMS = "https://w3id.org/ro/terms/workflow-run#"
_WORKFLOW = SNAKEFILE.parent
_UNITS = {"seconds": "s", "cpu_seconds": "s", "peak_memory_mib": "MiB"}
NO_LICENSE = "Not stated by the author; it follows from those of the base model and of the data."


def crate(ledger: Ledger, reference: Reference, directory: Path, out: Path, license: str = NO_LICENSE) -> Path:
    """Writes the crate of the built model `reference` of `directory` into the new folder `out`, and returns it.

    Raises InputError when the model is not built or damaged, when its chain of attestations has a gap, or when `out` holds
    something; PlacementError without the library.
    """
    with needed("A crate"):
        from rocrate.rocrate import ROCrate
    path = directory / reference.path
    if not path.exists():
        first = build_command(reference.path, directory=directory)
        raise InputError(f"{path} is missing: a crate is of a built model. Build it (`{first}`) first.")
    verified(path)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty: a crate is made in a folder of its own. Name another one with -o.")
    found = ROCrate(version="1.1")
    _Writer(found, ledger, path, license, directory / PINS).write()
    found.write(out)
    return out


def chain(path: Path) -> list[Attestation]:
    """The attestations of the artifact `path` and of all that it comes from, parents first, each once.

    Raises InputError where one is missing or damaged.
    """
    found, missing = attestation.ancestry(path)
    for parent in missing:
        attestation.read(attestation.root_of(path) / parent.name)  # raises, and says what is missing
    ordered: dict[str, Attestation] = {}

    def visit(name: str) -> None:
        for parent in found[name].parents:
            if parent.name not in ordered:
                visit(parent.name)
        ordered.setdefault(name, found[name])

    visit(attestation.name_of(path))
    return list(ordered.values())


class _Writer:
    """One crate being filled."""

    def __init__(self, crate: Any, ledger: Ledger, path: Path, license: str, pins: Path):
        self.crate, self.ledger, self.path = crate, ledger, path
        self.root, self.chain = attestation.root_of(path), chain(path)
        self.jobs = [one for one in self.chain if not one.adopted]
        self.license, self.pins = license, pins
        self.artifacts: dict[str, Any] = {}

    def write(self) -> None:
        name, run = attestation.name_of(self.path), self.path.stem
        self.crate.name = f"{run}, rebuilt by astolfo"
        self.crate.description = f"The model {run}, with the workflow that makes it, each job that did, and their attestations."
        self.crate.license = self.license
        self.crate.datePublished = max(filter(None, (_times(self.root / _name(one))[1] for one in self.jobs)), default=_EPOCH)
        self.crate.metadata.extra_terms.update({term: _TERMS + term for term in ("resourceUsage", "environment", "sha256")})
        self._profiles()
        self._files()
        workflow = self._workflow()
        for one in self.chain:
            self._artifact(one)
        self._actions(workflow, self.artifacts[name])

    def _add(self, place: str, kind: Any, **properties: Any) -> Any:
        """A contextual entity."""
        from rocrate.model.contextentity import ContextEntity

        return self.crate.add(ContextEntity(self.crate, place, properties={"@type": kind, **properties}))

    def _profiles(self) -> None:
        profiles = [
            self._add(f"https://w3id.org/ro/wfrun/{key}/{_VERSION}", "CreativeWork", name=name, version=_VERSION)
            for key, name in _PROFILES.items()
        ]
        workflow = self._add(
            "https://w3id.org/workflowhub/workflow-ro-crate/1.0", "CreativeWork", name="Workflow RO-Crate", version="1.0"
        )
        self.crate.root_dataset["conformsTo"] = [*profiles, workflow]

    def _files(self) -> None:
        """The lock, the digests of what was brought, and the ledger's own texts."""
        self.lock = self.crate.add_file(LOCK, "lock.txt", properties={
            "name": "the locked environment", "description": "Every package of the environment with its version and sha256.",
            "encodingFormat": "text/plain",
        })  # fmt: skip
        if self.pins.exists():
            about = {"name": "the pinned files", "description": "The sha256 of each file that was brought."}
            self.crate.add_file(self.pins, PINS, properties=about | {"encodingFormat": "text/plain"})
        for file in texts(self.ledger.folder):
            about = {"name": f"ledger: {file.relative_to(self.ledger.folder)}", "encodingFormat": "text/plain"}
            self.crate.add_file(file, f"ledger/{file.relative_to(self.ledger.folder)}", properties=about)

    def _workflow(self) -> Any:
        """The Snakefile as the main entity, its rules' files, a step and a tool for each verb that a job called."""
        from rocrate.model.computationalworkflow import ComputationalWorkflow

        class Steps(ComputationalWorkflow):
            """A workflow whose steps are named."""

            TYPES: ClassVar = [*ComputationalWorkflow.TYPES, "HowTo"]

        workflow = self.crate.add_workflow(SNAKEFILE, "workflow/Snakefile", main=True, lang="snakemake", cls=Steps)
        workflow["name"] = "astolfo's workflow"
        for file in sorted(_WORKFLOW.rglob("*.smk")):
            about = {"name": f"rules: {file.name}", "encodingFormat": "text/plain"}
            self.crate.add_file(file, f"workflow/{file.relative_to(_WORKFLOW)}", properties=about)
        program = self._add("#astolfo", "SoftwareApplication", name="astolfo", softwareVersion=astolfo.__version__)
        program["softwareRequirements"] = self.lock
        self.tools, self.steps = {}, {}
        for number, verb in enumerate(dict.fromkeys(one.job for one in self.jobs), start=1):
            tool = self._add(
                f"#tool-{verb}", "SoftwareApplication", name=f"astolfo job {verb}", softwareVersion=astolfo.__version__
            )
            tool["isPartOf"] = program
            step = self._add(f"workflow/Snakefile#{verb}", "HowToStep", position=str(number), name=verb)
            step["workExample"] = tool
            workflow.append_to("hasPart", tool)
            workflow.append_to("step", step)
            self.tools[verb], self.steps[verb] = tool, step
        return workflow

    def _artifact(self, one: Attestation) -> None:
        """The artifact as an entity, the file itself only when it is the crate's model; and its attestation, as a file."""
        name, digest = next(iter(one.subjects.items()))
        about = {"name": name, "sha256": digest}
        if name == attestation.name_of(self.path):
            entity = self.crate.add_file(
                self.path.resolve(), name, properties=about | {"encodingFormat": "application/octet-stream"}
            )
        else:
            note = "Not in the crate: named by its sha256." + (" It was brought, not made here." if one.adopted else "")
            entity = self._add(_by_digest(digest), "CreativeWork", description=note, identifier=f"sha256:{digest}", **about)
        self.artifacts[name] = entity
        file = self.crate.add_file(one.path, attestation.name_of(one.path), properties={
            "name": f"attestation of {name}", "encodingFormat": "application/vnd.in-toto+json",
        })  # fmt: skip
        file["about"] = entity
        if name == attestation.name_of(self.path):
            for beside, what, form in _BESIDE:
                if (found := beside(self.path)).exists():
                    about = {"name": f"{what} {name}", "encodingFormat": form}
                    self.crate.add_file(found, attestation.name_of(found), properties=about)["about"] = entity

    def _actions(self, workflow: Any, model: Any) -> None:
        """The run of the workflow, a job's action for each attestation, and what the engine controlled."""
        controls = []
        for number, one in enumerate(self.jobs):
            action = self._action(f"#job-{number}", one)
            control = self._add(f"#control-{number}", "ControlAction", name=f"Snakemake ran {_name(one)}")
            control["instrument"], control["object"] = self.steps[one.job], action
            controls.append(control)
        run = self._add("#run", "CreateAction", name=f"the making of {self.path.name}")
        run["instrument"], run["result"] = workflow, model
        given = [self.artifacts[_name(one)] for one in self.chain if one.adopted]
        run["object"] = given
        times = [moment for one in self.jobs for moment in _times(self.root / _name(one)) if moment]
        if times:
            run["startTime"], run["endTime"] = min(times).isoformat(), max(times).isoformat()
        engine = self._add("#snakemake", "SoftwareApplication", name="Snakemake", url="https://snakemake.github.io")
        organised = self._add("#engine-run", "OrganizeAction", name="Snakemake's run")
        organised["instrument"], organised["result"], organised["object"] = engine, run, controls
        self.crate.root_dataset["mentions"] = [run]

    def _action(self, identifier: str, one: Attestation) -> Any:
        """What made one artifact: from its parents, by its spec, in which numerics class, at what cost."""
        action = self._add(identifier, "CreateAction", name=f"astolfo job {one.job}: {_name(one)}")
        action["instrument"] = self.tools[one.job]
        action["object"] = [self.artifacts[parent.name] for parent in one.parents]
        action["result"] = self.artifacts[_name(one)]
        spec = self._add(f"{identifier}-spec", "PropertyValue", name="spec")
        spec["value"] = json.dumps(one.definition["externalParameters"]["spec"], sort_keys=True)
        action.append_to("object", spec)
        begun, ended = _times(self.root / _name(one))
        if begun and ended:
            action["startTime"], action["endTime"] = begun.isoformat(), ended.isoformat()
        for key, value in (one.numerics or {}).items():
            pair = self._add(f"{identifier}-{key}", "PropertyValue", name=key, value=str(value))
            action.append_to("environment", pair)
        for key, spent in _cost(self.root / _name(one)):
            usage = self._add(
                f"{identifier}-{key}", "PropertyValue", name=key, value=str(spent), propertyID=f"urn:astolfo:cost:{key}"
            )
            if key in _UNITS:
                usage["unitText"] = _UNITS[key]
            action.append_to("resourceUsage", usage)
        return action


_BESIDE = (  # path of the model -> what may lie beside it, what that is of the model, and its form
    (lambda path: path.with_suffix(".md"), "the card of", "text/markdown"),
    (signature_path, "the signature of", "application/vnd.dev.sigstore.bundle+json"),
    (envelope_path, "the signed attestation of", "application/vnd.in-toto+json"),
)
_EPOCH = datetime(1980, 1, 1, tzinfo=UTC)  # where no job left a time: the same crate twice


def texts(folder: Path) -> Iterator[Path]:
    """The texts of a ledger: what says what is built, and nothing that was."""
    files = (file for kind in ("*.yaml", "*.mecha") for file in folder.rglob(kind) if file.is_file())
    yield from sorted(file for file in files if file.name != IMPORTED)  # it has paths of this machine


def _name(one: Attestation) -> str:
    return next(iter(one.subjects))


def _by_digest(sha256: str) -> str:
    """The name of bytes by their digest, wherever they lie: RFC 6920."""
    return "ni:///sha-256;" + base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")


def _cost(path: Path) -> Iterator[tuple[str, float]]:
    """What the job of an artifact took, where its record is here."""
    cost = jobs.read(path).get("cost", {})
    yield from ((key, cost[key]) for key in _UNITS if key in cost)
    yield from ((f"joules {name}", value) for name, value in cost.get("joules", {}).items())


def _times(path: Path) -> tuple[datetime | None, datetime | None]:
    """When the job of an artifact began and ended, where its record is here."""
    cost = jobs.read(path).get("cost")
    if cost is None:
        return None, None
    begun = datetime.fromisoformat(cost["started"])
    return begun, begun + timedelta(seconds=round(cost["seconds"]))
