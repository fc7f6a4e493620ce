"""The ledger in memory: its files read, checked as a whole, and turned into effective runs.

`load(folder, scale)` reads every file once and raises LedgerError for the first thing that is wrong, with file, line and
remedy (`astolfo.ledger.check`). It imports no torch and takes milliseconds.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml

from astolfo import library
from astolfo.errors import LedgerError
from astolfo.files import read_text
from astolfo.ledger import defaults, schema, standins
from astolfo.ledger.content import count
from astolfo.ledger.evaluations import EvaluationSet, PromptSet
from astolfo.ledger.files import Files, Layer, check_names, unknown, validated
from astolfo.ledger.references import Reference, parse
from astolfo.ledger.yamlfile import Document

SCALES = ("miniature", "full")
INPUTS = "inputs"  # where, in a working directory, what the user brings lies
PINS = "pins.yaml"  # where its digests are recorded
SCORER = "clip-score"  # the pin of the scorer that full-scale evaluations may use


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """An effective run: its entry laid over its era's defaults and those of all runs, and where it stands in the files."""

    id: str
    era: schema.Era
    entry: schema.RunEntry
    fields: schema.RunFields
    document: Document

    def error(self, message: str, key: str | None = None) -> LedgerError:
        """A LedgerError at the line of this run's `key` (or of the era's default, or of the run)."""
        era = key in self.era.defaults.model_fields_set and key not in self.entry.model_fields_set
        return self.document.error(["defaults", str(key)] if era else ["runs", self.id, key or ""], message)

    @property
    def counts(self) -> bool:
        """Whether it is one of the runs that the ledger is about; not so what only supports others, or is set aside."""
        return not (self.era.support or self.entry.aside)

    @property
    def objective(self) -> schema.Objective:
        assert self.fields.objective is not None
        return self.fields.objective


class Ledger:
    """All entries of a ledger at one scale. Construct with `load`."""

    def __init__(self, folder: Path, scale: str, pins: Mapping[str, str]):
        if scale not in SCALES:
            raise LedgerError(f"Unknown scale {scale!r}: expected one of {', '.join(SCALES)}.")
        self.folder, self.scale_name, self._pins = folder, scale, pins
        self.lent: set[str] = set()  # names of the library's runs that make stand-ins, of their bases and datasets
        self.files = files = Files(folder)
        check_names(folder)
        self.about = files.about(schema.About)
        self.scale = files.read("scales", schema.Scale, scale)[scale]
        self.stand_ins = files.read("stand-ins", schema.StandIn)
        bases, datasets = files.read("bases", schema.Base), files.read("datasets", schema.Dataset)
        self.bases = {name: self._with_origins(name, entry, bases) for name, entry in bases.items()}
        sized = {name: standins.dataset(name, self._counted(name, entry)) for name, entry in datasets.items()}
        self.datasets = {name: standins.joined(entry, sized) for name, entry in sized.items()}
        self.evaluations = files.read("evaluations", EvaluationSet)
        self.prompts = files.read("prompts", PromptSet)
        self.hardware = files.read("hardware", schema.Hardware)
        self.runs: dict[str, Run] = {}
        for name, layer in files.eras():
            self._add_era(name, layer)
        if scale == "miniature":
            self._add_makers()
        for run in list(self.runs.values()):
            self.runs[run.id] = replace(run, fields=defaults.filled(run.fields, self._objective(run.fields.base, ())))

    def run(self, run_id: str) -> Run:
        """The run of that name. Raises LedgerError for an unknown one, with near names or with the forms that references have."""
        if run_id in self.runs:
            return self.runs[run_id]
        if (asked := self.reference(run_id)).run in self.runs:
            raise LedgerError(f"Expected a run, found {run_id!r}, which is a model of the run {asked.run}: name the run.")
        if any(run_id.startswith(f"{known}-") for known in self.runs):
            raise LedgerError(
                f"{run_id!r} is no reference: expected RUN, RUN-step<8 digits>, RUN-epoch<6 digits>, each perhaps followed "
                "by an alpha with two decimals such as -0.50."
            )
        problem = unknown("run", run_id, self.runs) + " `astolfo ledger list` shows them all."
        raise LedgerError(self.of_the_library(run_id) or problem)

    def reference(self, name: str) -> Reference:
        """What a name means: a base of this ledger, or a run's model, whether or not there is such a run."""
        return parse(name, self.bases)

    def known(self, name: str) -> Reference:
        """The model of that name. Raises LedgerError where there is no such run or base, with near names or with the forms."""
        reference = self.reference(name)
        if reference.base in self.bases or reference.run in self.runs:
            return reference
        if any(name.startswith(f"{run}-") for run in self.runs):
            self.run(name)
        own = str(reference.base or reference.run)
        raise LedgerError(self.of_the_library(own) or unknown("run or base", name, [*self.runs, *self._models()]))

    def of_the_library(self, name: str) -> str | None:
        """Why no entry can name a run, base or dataset that the library has for making stand-ins; None for any other name."""
        if name not in self.lent and any(name in own for own in (self.runs, self.bases, self.datasets)):
            return None
        if name in self._makers.datasets:
            return f"the dataset {name} is the program's, for making stand-ins. Give the ledger a dataset of its own."
        if name not in self._lends:
            return None
        kind, stand_in = "run" if name in self._makers.runs else "base", self._lends[name]
        return (
            f"the {kind} {name} is the program's: a ledger has it at the miniature alone, while a stand-in is made of it, so no "
            f"entry can name it. Say miniature: {{stand_in: {stand_in}}} in a base's entry, and name that base."
        )

    def base(self, name: str) -> schema.Base:
        """The base of that name. Raises LedgerError with near names for an unknown one."""
        if name not in self.bases:
            raise LedgerError(self.of_the_library(name) or unknown("base", name, self._models()))
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
        origin: schema.Origin = getattr(self.base(name), self.scale_name)
        if origin.sha256 == "unknown" and name in self._pins:
            return origin.model_copy(update={"sha256": self._pins[name]})
        return origin

    def pinned_folder(self, name: str) -> Path:
        """Where the file of a base lies: `inputs/` at full scale, else the `stand-ins/` of the ledger, or of the library."""
        if self.scale_name == "full":
            return Path(INPUTS)
        origin = self.origin(name)
        file = f"{origin.stand_in}.safetensors" if origin.stand_in else str(origin.file)
        found = library.find(self.folder, library.STAND_INS.name, file)
        if not found.exists() and not origin.stand_in and self.files.says("bases", name, self.scale_name):
            return self.folder / library.STAND_INS.name
        return found.parent

    def vocabulary_origin(self) -> schema.Origin:
        """Where the CLIP vocabulary comes from at this ledger's scale, with the user's pin filled in."""
        origin = self.scale.vocabulary
        return origin.model_copy(update={"sha256": self._pins.get("vocabulary", origin.sha256)})

    @cached_property
    def adopted(self) -> dict[str, str]:
        """Models of runs for which the user adopted a file: reference -> sha256."""
        return {name: digest for name, digest in self._pins.items() if self.reference(name).run in self.runs}

    def dataset_digest(self, name: str) -> str:
        """What names the store of a dataset that the user brings: the ledger's digest, else the user's pin, else "unknown"."""
        digest = self.dataset(name).digest
        return self._pins.get(name, digest) if digest == "unknown" else digest

    def parent(self, run: Run) -> Reference | None:
        """What a run's weights start from; None for a run that starts from nothing."""
        return self.reference(run.fields.base) if run.fields.base else None

    def merge_base(self, run: Run) -> Reference:
        """What a merge of this run's result is weighed against: its `merge_base`, else the base it started from."""
        name = run.fields.merge_base or run.fields.base
        if name is None:
            raise run.error(f"Run {run.id} starts from nothing, so it has no base to merge with. Name a merge_base.")
        return self.reference(name)

    def full_scale(self) -> schema.Scale:
        """The scale of the real thing, whichever this ledger is read at."""
        return self.files.read("scales", schema.Scale, "full")["full"]

    def family(self, run: Run) -> schema.Family:
        """The model family of a run: its base's, followed up to a named base; from nothing, its dataset's autoencoder's."""
        reference = self.parent(run)
        if reference is None:
            return self.base(self.datasets[str(run.fields.dataset)].autoencoder).family
        return self.base(reference.base).family if reference.base else self.family(self.run(str(reference.run)))

    def dataset(self, name: str) -> schema.ScaleDataset:
        """The dataset of that name at this scale."""
        entry = self.datasets[name]
        if self.scale_name == "full":
            return schema.ScaleDataset(images=entry.images, digest=entry.digest, folder=entry.folder, store=entry.store)
        assert entry.miniature is not None
        return entry.miniature

    def dataset_source(self, name: str) -> tuple[str, Path]:
        """How a dataset comes to be at this scale ("folder", "store", "drawn", "parts"), and from where."""
        if self.datasets[name].parts:
            return "parts", Path()
        size = self.dataset(name)
        if size.folder is None and size.store is None and self.scale.pictures is not None:
            return "drawn", Path()
        place = size.folder or size.store
        kind = "store" if size.folder is None else "folder"
        return kind, Path(INPUTS, name) if place is None else self._place(place)

    def absent(self, name: str) -> list[Path]:
        """The folders and stores that a dataset's entry, or those of its parts, name at this scale, and that are not here."""
        if parts := self.datasets[name].parts:
            return [place for part in parts for place in self.absent(part)]
        size = self.dataset(name)
        place = self._place(path) if (path := size.folder or size.store) else None
        return [place] if place and not place.is_dir() else []

    def is_drawn(self, name: str) -> bool:
        """Whether a dataset is all procedural pictures at this scale, or others of which each is."""
        return all(map(self.is_drawn, self.datasets[name].parts or ())) and self.dataset_source(name)[0] in ("drawn", "parts")

    def dataset_of(self, run: Run) -> schema.ScaleDataset:
        """The dataset of a run at this scale."""
        return self.dataset(str(run.fields.dataset))

    @cached_property
    def named_checkpoints(self) -> dict[str, list[Reference]]:
        """Run ID -> the intermediate checkpoints that other entries name."""
        found: dict[str, list[Reference]] = {}
        for name in self._all_references():
            reference = self.reference(name)
            if reference.run and (reference.step or reference.epoch):
                plain = Reference(run=reference.run, step=reference.step, epoch=reference.epoch)
                if plain not in found.setdefault(reference.run, []):
                    found[reference.run].append(plain)
        return found

    def evaluated(self, name: str) -> tuple[str, str]:
        """The run and the evaluation set that an evaluation is named by: "my-first", "my-first-course"."""
        run, _, which = name.rpartition("-")
        if name not in self.runs and run in self.runs:
            self.evaluation(which)
            return run, which
        return self.run(name).id, "default"

    def newest(self) -> Run | None:
        """The last run of the last era that is about results; None in a ledger without one."""
        return next((run for run in reversed(self.runs.values()) if not run.era.support), None)

    def _with_origins(self, name: str, entry: schema.Base, others: Mapping[str, schema.Base]) -> schema.Base:
        """A base with an origin at each scale."""
        try:
            return standins.base(name, entry, self.stand_ins, others)
        except LookupError as problem:
            raise self.files.error("bases", name, [], str(problem)) from None

    def _counted(self, name: str, entry: schema.Dataset) -> schema.Dataset:
        """A dataset whose entry does not say how many images it has, with as many as there are where it says they are.

        Where it says them of full scale alone, the miniature's are counted if they are here.
        """
        small = entry.miniature
        if entry.parts or (entry.images and (small is None or small.images or self.scale_name == "full")):
            return entry
        if small and entry.images:
            own = count(self._place(path)) if (path := small.folder or small.store) else None
            return entry.model_copy(update={"miniature": small.model_copy(update={"images": own})})
        own = self._images(name, small.folder or small.store, small.images) if small else None
        images = self._images(name, entry.folder or entry.store) or own or 0
        if small and own:
            small = small.model_copy(update={"images": own})
        return entry.model_copy(update={"images": images, "miniature": small})

    def _images(self, name: str, path: str | None, given: int | None = None) -> int | None:
        """How many images there are at a path of a dataset's entry, unless it is said; None without a path."""
        if path is None:
            return None
        if not (images := given or count(self._place(path))):
            place = self._place(path)
            why = "holds none that can be counted" if place.is_dir() else "is no folder here"
            problem = f"{name} does not say how many images it has, and {place} {why}. Correct the path, or say images: N."
            raise self.files.error("datasets", name, [], problem)
        return images

    def _place(self, path: str) -> Path:
        """A path of the ledger's: a whole one, or one below its folder."""
        return Path(os.path.normpath(self.folder / Path(path).expanduser()))

    def _models(self) -> list[str]:
        return [name for name, base in self.bases.items() if base.kind == "model"]

    def _objective(self, name: str | None, path: tuple[str, ...]) -> schema.ObjectiveKind | None:
        """The objective of the model that a run starts from: the base's, or that which its run says, up to a cycle or an end."""
        reference = None if name is None else self.reference(name)
        if reference is None or reference.base:
            base = self.bases.get(str(name)) if name not in path else None
            return base.objective or self._objective(base.full.made_by, (*path, str(name))) if base and base.full else None
        run = self.runs.get(str(reference.run))
        if run is None or run.id in path:
            return None
        return run.fields.objective.kind if run.fields.objective else self._objective(run.fields.base, (*path, run.id))

    def _add_era(self, name: str, layer: Layer) -> None:
        document, era = layer.document, validated([layer], schema.Era)
        if era.era not in ("", name):
            raise document.error(["era"], f"the file is named {document.path.name}, but its era is {era.era!r}. Make them agree.")
        era = era.model_copy(update={"era": name})
        for run_id, entry in era.runs.items():
            if run_id in self.runs:
                other = self.runs[run_id].document.path
                raise document.error(["runs", run_id], f"run {run_id} stands in {other} already. Remove one.")
            own = {key: getattr(entry, key) for key in entry.model_fields_set if key in schema.RunFields.model_fields}
            fields = era.defaults.model_copy(update=own)
            self.runs[run_id] = Run(id=run_id, era=era, entry=entry, fields=fields, document=document)

    def _add_makers(self) -> None:
        """Adds the runs of the library that make stand-ins which this ledger's bases need, each with its base and its dataset.

        Raises LedgerError where something of the ledger has such a name already.
        """
        if not (wanted := self._made_stand_ins()):
            return
        makers = self._makers
        own = {
            "runs": {*self.runs}, "bases": {*self.bases}, "datasets": {*self.datasets},
            "eras": {run.era.era for run in self.runs.values()},
        }  # fmt: skip
        for run in (makers.runs[name] for name in wanted if name in makers.runs):
            base, dataset = str(run.fields.base), str(run.fields.dataset)
            models = {run.id, base}  # a model is known by its name alone
            for section, names in (("runs", models), ("bases", models), ("datasets", {dataset}), ("eras", {run.era.era})):
                if taken := names & own[section]:
                    raise self._taken(section, min(taken), wanted[run.id])
            self.runs[run.id], self.bases[base], self.datasets[dataset] = run, makers.bases[base], makers.datasets[dataset]
            self.lent |= {run.id, base, dataset}
            self.files.take("bases", base, makers.files)
            self.files.take("datasets", dataset, makers.files)

    @cached_property
    def _makers(self) -> "Ledger":
        """The library's ledger of the runs that make stand-ins."""
        return Ledger(library.MAKERS, "miniature", {})

    @cached_property
    def _lends(self) -> dict[str, str]:
        """The library's runs that make stand-ins, and their bases: name -> the stand-in that it makes, or that it is."""
        makers = self._makers
        made = {str(one.made_by): name for name, one in makers.stand_ins.items() if one.made_by in makers.runs}
        bases = [str(run.fields.base) for run in makers.runs.values()]
        return made | {base: str(makers.origin(base).stand_in) for base in bases}

    def _made_stand_ins(self) -> dict[str, str]:
        """What makes the stand-ins that are not shipped, each with a base that needs it; their origins say it from here on."""
        wanted: dict[str, str] = {}
        for name, base in self.bases.items():
            origin = base.miniature
            if origin is None or origin.stand_in is None:
                continue
            if origin.stand_in not in self.stand_ins:
                problem = unknown("stand-in", origin.stand_in, self.stand_ins)
                raise self.files.error("bases", name, ["miniature", "stand_in"], problem)
            if made_by := self.stand_ins[origin.stand_in].made_by:
                wanted[made_by] = name
                self.bases[name] = base.model_copy(update={"miniature": origin.model_copy(update={"made_by": made_by})})
        return wanted

    def _taken(self, section: str, name: str, base: str) -> LedgerError:
        """A LedgerError at what has a name that the library's runs need."""
        problem = (
            f"the name {name!r} is taken: the program makes the stand-in of {base} under it, because none is shipped for "
            f"{self.bases[base].family} of objective {self.bases[base].objective} ({library.MAKERS}). Name yours otherwise."
        )
        if section == "eras":
            return next(run.document for run in self.runs.values() if run.era.era == name).error([], problem)
        return self.runs[name].error(problem) if section == "runs" else self.files.error(section, name, [], problem)

    def parents(self, reference: Reference) -> list[Reference]:
        """The models that a model is made from, nearest first: none for a pinned base, or for a file that was adopted."""
        if str(reference) in self.adopted:
            return []
        if reference.base:
            origin = self.origin(reference.base)
            return [] if origin.file else [self.reference(name) for name in origin.parents]
        run = self.run(str(reference.run))
        if reference.alpha:
            return [parse(reference.checkpoint), self.merge_base(run)]
        parent = self.parent(run)
        return [parent] if parent else []

    def _all_references(self) -> Iterable[str]:
        for run in self.runs.values():
            yield from (name for name in (run.fields.base, run.fields.merge_base) if name)
        for base in self.bases.values():
            yield from (name for origin in (base.full, base.miniature) if origin for name in origin.parents)


def read_pins(directory: Path) -> dict[str, str]:
    """The user's pins of a working directory: name -> sha256; empty when it has none. Raises LedgerError for another text."""
    path = directory / PINS
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(read_text(path, LedgerError)) or {}
    except yaml.YAMLError as error:
        raise LedgerError(f"{path} is no YAML: {' '.join(str(error).split())}. Expected lines of NAME: SHA256.") from None
    if not isinstance(found, dict):
        raise LedgerError(f"{path}: expected lines of NAME: SHA256, found a {type(found).__name__}.")
    return {str(name): str(digest) for name, digest in found.items()}


def load(folder: Path | str, scale: str = "miniature", pins: Mapping[str, str] | None = None) -> Ledger:
    """Reads and checks the ledger in `folder` at `scale`. Raises LedgerError with file, line and remedy.

    `pins` (base -> sha256) fills in the digests that the ledger leaves `unknown`.
    """
    from astolfo.ledger.check import check

    ledger = Ledger(Path(folder), scale, pins or {})
    check(ledger)
    return ledger
