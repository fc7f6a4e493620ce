"""The ledger in memory: config/ read, checked as a whole, and turned into effective runs.

`load(folder, scale)` reads every file once and raises LedgerError for the first thing that is wrong, with file, line and
remedy. It imports no torch and takes milliseconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from astolfo import library
from astolfo.errors import LedgerError
from astolfo.ledger import schema, standins
from astolfo.ledger.evaluations import EvaluationSet, PromptSet
from astolfo.ledger.files import Files, Layer, unknown, validated
from astolfo.ledger.references import Reference, parse
from astolfo.ledger.unet import FIXED, known_blocks, trained, unknown_blocks
from astolfo.ledger.yamlfile import Document

SCALES = ("miniature", "full")
INPUTS = "inputs"  # where, in a working directory, what the user brings lies
PINS = "pins.yaml"  # where its digests are recorded
SCORER = "clip-score"  # the pin of the scorer that full-scale evaluations may use
_OPTIONAL = {
    "until_step", "restart_epochs", "continues", "choices", "merge_base", "placement", "steps", "epochs", "base", "save_every",
    "miniature_steps", "engine", "loss_spike", "on_failure",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """An effective run: its entry laid over its era's defaults, and where it stands in the files."""

    id: str
    era: schema.Era
    entry: schema.RunEntry
    fields: schema.RunFields
    document: Document

    def error(self, message: str, key: str | None = None) -> LedgerError:
        """A LedgerError at the line of this run's `key` (or of the era's default, or of the run)."""
        own, default = ("runs", self.id, key or ""), ("defaults", key or "")
        given = key is None or key in self.entry.model_fields_set
        return self.document.error(own if given else default, message)

    @property
    def objective(self) -> schema.Objective:
        assert self.fields.objective is not None
        return self.fields.objective


class Ledger:
    """All entries of config/ at one scale. Construct with `load`."""

    def __init__(self, folder: Path, scale: str, pins: Mapping[str, str]):
        if scale not in SCALES:
            raise LedgerError(f"Unknown scale {scale!r}: expected one of {', '.join(SCALES)}.")
        self.folder, self.scale_name, self._pins = folder, scale, pins
        self.files = files = Files(folder)
        self.scale = files.read("scales", schema.Scale, scale)[scale]
        self.stand_ins = files.read("stand-ins", schema.StandIn)
        bases, datasets = files.read("bases", schema.Base), files.read("datasets", schema.Dataset)
        self.bases = {name: standins.base(name, entry, self.stand_ins, bases) for name, entry in bases.items()}
        self.datasets = {name: standins.dataset(name, entry) for name, entry in datasets.items()}
        self.evaluations = files.read("evaluations", EvaluationSet)
        self.prompts = files.read("prompts", PromptSet)
        self.hardware = files.read("hardware", schema.Hardware)
        self.runs: dict[str, Run] = {}
        for name, layer in files.eras():
            self._add_era(name, layer)
        self._check()

    def run(self, run_id: str) -> Run:
        """The run of that ID. Raises LedgerError with near names for an unknown one."""
        if run_id not in self.runs:
            raise LedgerError(unknown("run", run_id, self.runs) + " `astolfo ledger list` shows them all.")
        return self.runs[run_id]

    def base(self, name: str) -> schema.Base:
        """The base of that name. Raises LedgerError with near names for an unknown one."""
        if name not in self.bases:
            raise LedgerError(unknown("base", name, self.bases))
        return self.bases[name]

    def evaluation(self, name: str) -> EvaluationSet:
        """The evaluation set of that name. Raises LedgerError with near names for an unknown one."""
        if name not in self.evaluations:
            raise LedgerError(unknown("evaluation set", name, self.evaluations))
        return self.evaluations[name]

    @property
    def scorer(self) -> str | None:
        """The digest of the scorer that the user pinned; None where there is none."""
        return self._pins.get(SCORER)

    def origin(self, name: str) -> schema.Origin:
        """Where a base comes from at this ledger's scale; a digest that the ledger leaves open is the user's pin."""
        origin = getattr(self.base(name), self.scale_name)
        if origin.sha256 == "unknown" and name in self._pins:
            return origin.model_copy(update={"sha256": self._pins[name]})
        return origin

    def pinned_folder(self, name: str) -> Path:
        """Where the file of a base lies: `inputs/` at full scale, else the `stand-ins/` of the ledger, or of the library."""
        if self.scale_name == "full":
            return Path(INPUTS)
        origin = self.origin(name)
        file = f"{origin.stand_in}.safetensors" if origin.stand_in else str(origin.file)
        return library.find(self.folder, library.STAND_INS.name, file).parent

    def vocabulary_origin(self) -> schema.Origin:
        """Where the CLIP vocabulary comes from at this ledger's scale, with the user's pin filled in."""
        origin = self.scale.vocabulary
        return origin.model_copy(update={"sha256": self._pins.get("vocabulary", origin.sha256)})

    @cached_property
    def adopted(self) -> dict[str, str]:
        """Models of runs for which the user adopted a file: reference -> sha256."""
        return {name: digest for name, digest in self._pins.items() if parse(name).run}

    def dataset_digest(self, name: str) -> str:
        """What names the store of a dataset that the user brings: the ledger's digest, else the user's pin, else "unknown"."""
        digest = self.sized(name).digest
        return self._pins.get(name, digest) if digest == "unknown" else digest

    def parent(self, run: Run) -> Reference | None:
        """What a run's weights start from; None for a run that starts from nothing."""
        return parse(run.fields.base) if run.fields.base else None

    def merge_base(self, run: Run) -> Reference:
        """What a merge of this run's result is weighed against: its `merge_base`, else the base it started from."""
        name = run.fields.merge_base or run.fields.base
        if name is None:
            raise run.error(f"Run {run.id} starts from nothing, so it has no base to merge with. Name a merge_base.")
        return parse(name)

    def family(self, run: Run) -> schema.Family:
        """The model family of a run: its base's, followed up to a named base; from nothing, its dataset's autoencoder's."""
        reference = self.parent(run)
        if reference is None:
            return self.base(self.datasets[str(run.fields.dataset)].autoencoder).family
        return self.base(reference.base).family if reference.base else self.family(self.run(str(reference.run)))

    def sized(self, name: str) -> schema.ScaleDataset:
        """The dataset of that name at this scale."""
        entry = self.datasets[name]
        if self.scale_name == "full":
            return schema.ScaleDataset(images=entry.images, digest=entry.digest)
        assert entry.miniature is not None
        return entry.miniature

    def sole_dataset(self, run: Run) -> schema.ScaleDataset:
        """The dataset of a run at this scale."""
        return self.sized(str(run.fields.dataset))

    @cached_property
    def named_checkpoints(self) -> dict[str, list[Reference]]:
        """Run ID -> the intermediate checkpoints that other entries name."""
        found: dict[str, list[Reference]] = {}
        for name in self._all_references():
            reference = parse(name)
            if reference.run and (reference.step or reference.epoch):
                plain = Reference(run=reference.run, step=reference.step, epoch=reference.epoch)
                if plain not in found.setdefault(reference.run, []):
                    found[reference.run].append(plain)
        return found

    # ---- reading and checking

    def _add_era(self, name: str, layer: Layer) -> None:
        document, era = layer.document, validated([layer], schema.Era)
        if era.era != name:
            raise document.error(["era"], f"the file is named {document.path.name}, but its era is {era.era!r}. Make them agree.")
        for run_id, entry in era.runs.items():
            if run_id in self.runs:
                other = self.runs[run_id].document.path
                raise document.error(["runs", run_id], f"run {run_id} stands in {other} already. Remove one.")
            own = {name: getattr(entry, name) for name in entry.model_fields_set if name in schema.RunFields.model_fields}
            fields = era.defaults.model_copy(update=own)
            run = Run(id=run_id, era=era, entry=entry, fields=fields, document=document)
            for name in schema.RunFields.model_fields:
                if getattr(fields, name) is None and name not in _OPTIONAL:
                    raise run.error(f"run {run_id} has no {name}: set it here or in the era's defaults.")
            if (fields.steps is None) == (fields.epochs is None):
                raise run.error(f"run {run_id} needs either epochs or steps, one of the two.")
            if fields.miniature_steps and not fields.steps:
                raise run.error(f"run {run_id} has epochs, which say its length at every scale: leave miniature_steps out.")
            self.runs[run_id] = run

    def _check(self) -> None:
        for run in self.runs.values():
            self._check_run(run)
        for name in self.bases:
            self._check_base(name)
        for name in self.datasets:
            self._check_dataset(name)
        for name in self.evaluations:
            self._check_evaluation(name)
        for run in self.runs.values():
            self._check_cycle(parse(run.id), ())
            self._check_possible(run)

    def _check_run(self, run: Run) -> None:
        if run.fields.dataset not in self.datasets:
            raise run.error(unknown("dataset", str(run.fields.dataset), self.datasets), "dataset")
        for key in ("base", "merge_base"):
            name = getattr(run.fields, key)
            if name is not None:
                self._check_reference(name, lambda message, key=key: run.error(message, key))
        for name, value in (run.fields.choices or {}).items():
            allowed = schema.Choices.model_fields
            if name not in allowed:
                raise run.error(unknown("choice", name, allowed), "choices")
            values = schema.values_of(name)
            if value not in values:
                raise run.error(f"choice {name} cannot be {value!r}: expected {' or '.join(values)}.", "choices")

    def _check_possible(self, run: Run) -> None:
        """Refuses combinations that each are valid but cannot act together."""
        fields = run.fields
        self._check_computed(run)
        if run.objective.contrastive and fields.batch_size == 1 and fields.semantics == "reference":
            raise run.error(
                "objective.contrastive compares the samples of a micro-batch, so at batch_size 1 it cannot act. "
                "Use batch_size 2 or more, or leave contrastive out.",
                "objective",
            )
        self._check_blocks(run)
        encoder = self.base(self.datasets[str(fields.dataset)].autoencoder)
        if encoder.family != self.family(run):
            raise run.error(
                f"dataset {fields.dataset} is encoded for {encoder.family}, but the run's model is {self.family(run)}. "
                "Use the dataset that is encoded for it.",
                "dataset",
            )
        if fields.restart_epochs and (fields.steps or max(fields.restart_epochs) >= (fields.epochs or 0)):
            raise run.error(f"restart_epochs must lie within the run's epochs ({fields.epochs}).", "restart_epochs")

    def _check_computed(self, run: Run) -> None:
        """Refuses keys that the trainer does not compute yet."""
        if run.fields.optimizer and run.fields.optimizer.kind in ("Prodigy", "AdamWScheduleFree"):
            raise run.error(f"{run.fields.optimizer.kind} is not computed yet. Use another optimizer.", "optimizer")

    def _check_blocks(self, run: Run) -> None:
        """Refuses a partial UNet that the run's family does not have, and names of blocks that its UNet does not have."""
        fields, family = run.fields, self.family(run)
        if fields.unet in FIXED and family != "sdxl":
            raise run.error(
                f"unet: {fields.unet} is a set of frozen blocks of SDXL's UNet; {family} has none. Say unet: 100.", "unet"
            )
        config = self.scale.architectures.get(family, {}).get("unet")
        if config is None:
            return
        for key in ("unet", "learning_rate"):
            for block in unknown_blocks(**{key: getattr(fields, key)}, config=config):
                raise run.error(unknown("block of the UNet", block, known_blocks(config)), key)
        assert fields.unet
        assert fields.learning_rate
        if fields.learning_rate.largest["unet"] and not trained(fields.unet, fields.learning_rate, config):
            raise run.error(f"nothing of the UNet trains: unet says {fields.unet}, and what it leaves has no rate.", "unet")

    def _check_base(self, name: str) -> None:
        for scale in SCALES:
            for parent in getattr(self.bases[name], scale).parents:
                self._check_reference(parent, lambda message, at=scale: self.files.error("bases", name, [at], message))

    def _check_dataset(self, name: str) -> None:
        wanted = self.datasets[name].autoencoder
        known = [base for base, entry in self.bases.items() if entry.kind == "autoencoder"]
        if wanted not in known:
            raise self.files.error("datasets", name, ["autoencoder"], unknown("autoencoder", wanted, known))

    def _check_evaluation(self, name: str) -> None:
        wanted = self.evaluations[name].prompts
        if wanted not in self.prompts:
            raise self.files.error("evaluations", name, ["prompts"], unknown("prompt set", wanted, self.prompts))

    def _check_reference(self, name: str, error: Any) -> None:
        try:
            reference = parse(name)
            if reference.base:
                if self.base(reference.base).kind != "model":
                    raise error(f"{name} is an autoencoder, no model: nothing can start from it or be merged with it.")
                return
            target = self.run(str(reference.run))
        except LedgerError as problem:
            raise error(str(problem)) from None
        last = target.fields.until_step
        if reference.step and last and reference.step > last:
            raise error(f"{name}: run {target.id} ends at step {last:,}, so there is no step {reference.step:,}.")
        if reference.epoch and reference.epoch > (target.fields.epochs or 0):
            raise error(f"{name}: run {target.id} has {target.fields.epochs} epochs, so there is no epoch {reference.epoch}.")

    def _check_cycle(self, reference: Reference, path: tuple[str, ...]) -> None:
        name = str(reference)
        if name in path:
            message = f"a cycle: {' <- '.join((*path, name))}. A model cannot be its own ancestor."
            runs = [parse(step).run for step in path]
            first = next(run for run in runs if run)
            raise self.run(first).error(message, "base")
        for parent in self.parents(reference):
            self._check_cycle(parent, (*path, name))

    def parents(self, reference: Reference) -> list[Reference]:
        """The models that a model is made from, nearest first: none for a pinned base, or for a file that was adopted."""
        if str(reference) in self.adopted:
            return []
        if reference.base:
            origin = self.origin(reference.base)
            return [] if origin.file else [parse(name) for name in origin.parents]
        run = self.run(str(reference.run))
        if reference.alpha:
            return [parse(reference.checkpoint), self.merge_base(run)]
        parent = self.parent(run)
        return [parent] if parent else []

    def _all_references(self) -> Iterable[str]:
        for run in self.runs.values():
            yield from (name for name in (run.fields.base, run.fields.merge_base) if name)
        for base in self.bases.values():
            yield from (name for origin in (base.full, base.miniature) for name in origin.parents)


def read_pins(directory: Path) -> dict[str, str]:
    """The user's pins of a working directory: name -> sha256; empty when it has none."""
    path = directory / PINS
    return {str(k): str(v) for k, v in (yaml.safe_load(path.read_text()) or {}).items()} if path.exists() else {}


def load(folder: Path | str, scale: str = "miniature", pins: Mapping[str, str] | None = None) -> Ledger:
    """Reads and checks the ledger in `folder` (a config/) at `scale`. Raises LedgerError with file, line and remedy.

    `pins` (base -> sha256) fills in the digests that the ledger leaves `unknown`.
    """
    return Ledger(Path(folder), scale, pins or {})
