"""What a launch starts from and trains on, by the ledger's names: entries that are there already, or new ones of the import."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya import dataset
from astolfo.kohya.dataset import AUTOENCODERS
from astolfo.kohya.entries import BaseEntry, DatasetEntry, Imported, Source, free_name, plain_name
from astolfo.kohya.known import Known
from astolfo.kohya.launch import Launch
from astolfo.kohya.paths import can_be_pinned, is_file, last, plain_path, same_file, whole_path
from astolfo.kohya.values import Values
from astolfo.ledger import parse, schema
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.references import mistaken_for


@dataclass(kw_only=True)
class Sources:
    """The bases and datasets of one launch, which are looked for in, and added to, `result`."""

    result: Imported
    ledger: Ledger | None
    known: Known
    values: Values
    name: str  # the run's
    called: str  # the same as its line has it

    @property
    def launch(self) -> Launch:
        return self.values.launch

    def base(self, family: str, objective: Any) -> tuple[str, bool]:
        """What the run starts from, and whether it goes on in that run's data order."""
        values = self.values
        path = str(values.get("pretrained_model_name_or_path") or "")
        if not path:
            raise InputError(
                f"{self.launch.place}: expected --pretrained_model_name_or_path, the model to start from; found none."
            )
        reference = self._checkpoint(path) or self._built(path)
        step = values.get("initial_step")
        if step and not (reference and reference.endswith(f"-step{step:08d}")):
            values.refuse(
                "initial_step",
                f"The base is no run's checkpoint at step {step:,}"
                + ("" if reference else ": no run that is known here saved it"),
                f"the checkpoint's weights as base, with a new data order; or `continues: true` and base: RUN-step{step:08d}",
            )
            step = None
        if values.get("skip_until_initial_step") and not values.on("initial_step"):
            values.none("skip_until_initial_step", "Of --initial_step, which is not given")
        if step and not values.get("skip_until_initial_step"):
            values.none("initial_step", "Without --skip_until_initial_step it only numbers the steps")
            step = None
        if reference:
            return reference, bool(step)
        return self._named_base(path, family, objective if isinstance(objective, str) else objective["kind"]), False

    def _checkpoint(self, path: str) -> str | None:
        """The run that saved a file: one that this import or an earlier one read, or one whose ID ends the folder's name."""
        whole = plain_path(self._whole(path))
        runs = [*self.known.runs.items(), *((run.name, run.launch.saves) for run in self.result.runs)]
        for name, saved in reversed(runs):
            there = plain_path(saved)
            kind = _saved_as(whole.stem, "" if there.stem == "last" else there.stem)
            if kind is None or same_file(str(whole.parent)) != same_file(str(there.parent)):
                continue
            if name in self._runs or any(run.name == name for run in self.result.runs):
                return name + kind
            self._gone("run", name, path)
        for name in [*(run.name for run in self.result.runs), *self._runs]:
            if name != self.called and whole.parent.name.endswith(f"_{name}") and (kind := _saved_as(whole.stem, "")):
                return name + kind
        return None

    def _built(self, path: str) -> str | None:
        """The model of the ledger that lies in bases/ or results/ of a working directory."""
        whole = plain_path(path)
        if self.ledger and whole.parent.name == "bases" and whole.stem in self.ledger.bases:
            return whole.stem
        if self.ledger and whole.parent.name == "results" and parse(whole.stem).run in self.ledger.runs:
            return whole.stem
        return None

    def _named_base(self, path: str, family: str, objective: str) -> str:
        if known := self._entry_of(path, family, "model"):
            return known
        whole = self._whole(path)
        if same_file(whole) == same_file(self.launch.saves):
            raise InputError(
                f"{self.launch.place}: it starts from {whole}, which it also saves. Give it another --output_name, or the file "
                "from which it started at first."
            )
        fields: dict[str, Any] = {"family": family, "objective": _objective(last(path)) or objective}
        if fields["objective"] != "eps" and not _objective(last(path)):
            self.launch.remarks.append(
                f"{self.values.place('pretrained_model_name_or_path')}: {last(path)} is taken for a model of the run's own "
                f"objective, {objective}. If it is an eps model, write objective: eps in its entry."
            )
        return self._new_base(path, "pretrained_model_name_or_path", fields)

    def _entry_of(self, path: str, family: str, kind: str) -> str | None:
        """The base that a file is: one of this import, or one of the ledger that an import read from it or that may be it."""
        whole = same_file(self._whole(path))
        for entry in self.result.bases.values():
            if same_file(entry.whole) == whole and entry.fields.get("kind", "model") == kind:
                return entry.name
        for name, base in self._bases.items():
            if base.kind != kind or base.family != family or not base.full:
                continue
            read = self.known.bases.get(name)
            if read and same_file(read) == whole:
                return name
            if not read and base.full.file == last(path):
                self.launch.remarks.append(
                    f"{self.launch.place}: {name} is a base of the ledger, and is taken for {path}, since its file is called so."
                )
                return name
        return None

    def _new_base(self, path: str, option: str, fields: dict[str, Any]) -> str:
        """An entry for a model of which the ledger knows nothing."""
        file = last(path)
        stem = file[: -len(Path(file).suffix)] if is_file(file) else file
        wanted = plain_name(stem) or "base"
        name = free_name(f"{wanted}-base" if mistaken_for(wanted) else wanted, self._taken())
        if not can_be_pinned(path):
            what = "a pickle, which can hold code" if is_file(path) else "no single file"
            self.launch.remarks.append(
                f"{self.values.place(option)}: {path} is {what}. Convert it to .safetensors, and pin that."
            )
            file = f"{name}.safetensors"
        fields["full"] = {"file": file}
        self.result.bases[name] = BaseEntry(name=name, fields=fields, path=path, whole=self._whole(path), file=self._pinned(path))
        self._told("base", wanted, name)
        return name

    def dataset(self, source: Source) -> str:
        """The dataset that a launch trains on: one with parts where pictures repeat, or lie in several places."""
        if len(source.subsets) == 1 and source.subsets[0].repeats == 1:
            return self._store(source)
        parts: dict[str, int] = {}
        for subset in source.subsets:
            place = plain_name(
                plain_path(subset.index).parent.name or last(subset.folder) if subset.index else last(subset.folder)
            )
            name = self._store(replace(source, subsets=(replace(subset, repeats=1),), proposal=place))
            parts[name] = parts.get(name, 0) + subset.repeats
        there = {name: entry.parts for name, entry in self._datasets.items()}
        for known, others in (there | {name: entry.parts for name, entry in self.result.datasets.items()}).items():
            if others == parts:
                return known
        wanted = (
            "-".join(f"{part}-x{repeats}" for part, repeats in parts.items()) if len(parts) == 1 else plain_name(source.proposal)
        )
        name = free_name(wanted, self._taken())
        self._told("dataset", wanted, name)
        self.result.datasets[name] = DatasetEntry(name=name, source=source, parts=parts)
        repeated = ", ".join(f"{part} {repeats} times" if repeats > 1 else part for part, repeats in parts.items())
        self.values.key("dataset_config" if self.values.on("dataset_config") else "train_data_dir", f"datasets.parts: {repeated}")
        return name

    def _store(self, source: Source) -> str:
        """A dataset of one store."""
        if source.autoencoder and same_file(self._whole(source.autoencoder)) == same_file(self._whole(self._base_path)):
            self.values.none("vae", "It is the base's own")
            source = replace(source, autoencoder="")
        made_from = dataset.made_from(source, self.launch.folder)
        made = {name: entry.made_from for name, entry in self.result.datasets.items() if not entry.parts}
        for known, read in (self.known.datasets | made).items():
            if _same_source(read, made_from):
                if known in self._datasets or known in made:
                    return known
                self._gone("dataset", known, source.subsets[0].index or source.subsets[0].folder)
        wanted = plain_name(source.proposal) or "dataset"
        if wanted in self._datasets and (self._exported(wanted, source) or self._may_be(wanted, source, made_from)):
            self.launch.remarks.append(f"{self.launch.place}: {wanted} is a dataset of the ledger, and that one is taken.")
            return wanted
        name = free_name(wanted, self._taken())
        self._told("dataset", wanted, name)
        autoencoder = self._autoencoder(source) if source.autoencoder else AUTOENCODERS[source.family]
        encoder = self._pinned(source.autoencoder or self._base_path)
        self.result.datasets[name] = dataset.entry(name, source, self.launch.folder, autoencoder, encoder, made_from)
        return name

    def _gone(self, what: str, name: str, path: str) -> None:
        """Says that an entry which an earlier import made is no longer in the ledger."""
        self.launch.remarks.append(
            f"{self.launch.place}: {path} was {name} in an earlier import, and the ledger has no {what} of that name any more. "
            "If you renamed it, write its new name here."
        )

    def _taken(self) -> set[str]:
        """Every base's, dataset's and run's name: `astolfo pin` takes the first two, and a model is known by its name alone."""
        return {*self.result.bases, *self.result.datasets, *self._datasets, *self._bases, *self._run_names()}

    def _run_names(self) -> set[str]:
        return {self.name, *self.result.called, *(run.name for run in self.result.runs), *self._runs}

    @property
    def _base_path(self) -> str:
        return str(self.values.get("pretrained_model_name_or_path") or "")

    @property
    def _bases(self) -> Mapping[str, schema.Base]:
        return self.ledger.bases if self.ledger else {}

    @property
    def _datasets(self) -> Mapping[str, schema.Dataset]:
        return self.ledger.datasets if self.ledger else {}

    @property
    def _runs(self) -> Mapping[str, Run]:
        return self.ledger.runs if self.ledger else {}

    @staticmethod
    def _exported(name: str, source: Source) -> bool:
        """Whether a source is what `astolfo dataset export` wrote of a dataset, as a run's exported line names it."""
        return plain_path(source.subsets[0].index).parts[-3:-1] == ("exported", name)

    def _may_be(self, name: str, source: Source, made_from: Mapping[str, Any]) -> bool:
        """Whether an entry that was written by hand may be what a line trains on: as far as it says, nothing is otherwise."""
        entry = self._datasets[name]
        if name in self.known.datasets or entry.parts or not self.ledger:
            return False
        encoder = self.ledger.bases.get(entry.autoencoder)
        folder = entry.folder and same_file(str(self.ledger.dataset_source(name)[1]))
        return (
            (encoder is None or encoder.family == source.family)
            and bool(entry.flip) == source.subsets[0].flip
            and (not folder or folder == same_file(made_from["folder"]))
        )

    def _told(self, what: str, wanted: str, name: str) -> None:
        """Says that another entry of the ledger, or a run, has a name already."""
        entries = {"base": self._bases, "dataset": self._datasets}[what]
        if name != wanted and wanted in self._run_names():
            self.launch.remarks.append(f"{self.launch.place}: the {what} is named {name}, since a run is named {wanted}.")
        elif name != wanted and wanted in entries:
            self.launch.remarks.append(
                f"{self.launch.place}: {wanted} is another {what} of the ledger, so this one is {name}. If they are the same, "
                f"delete {name} and write {wanted} in the run."
            )

    def _whole(self, path: str) -> str:
        """The path of a model made whole; a name on the Hub is as the line has it."""
        return whole_path(path, self.launch.folder) if is_file(path) or (self.launch.folder.here / path).exists() else path

    def _pinned(self, path: str) -> str:
        """The whole path of a file that can be pinned; "" for any other."""
        return whole_path(path, self.launch.folder) if can_be_pinned(path) else ""

    def _autoencoder(self, source: Source) -> str:
        path = source.autoencoder
        if (name := plain_name(Path(last(path)).stem)) in AUTOENCODERS.values():
            return name  # of the library
        fields = {"family": source.family, "kind": "autoencoder"}
        return self._entry_of(path, source.family, "autoencoder") or self._new_base(path, "vae", fields)


def _same_source(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two datasets are made from the same files in the same way."""
    files = ("index", "folder", "autoencoder")
    first, second = ({key: same_file(value) if key in files else value for key, value in each.items()} for each in (one, other))
    return first == second


def _objective(file: str) -> str | None:
    """What a model predicts, by the name that its makers gave it: None where it says nothing."""
    if re.search(r"v[-_ ]?pred", file, re.IGNORECASE):
        return "v"
    return "eps" if re.search(r"sd_?xl[-_](base|refiner|turbo)|[-_ ]eps(?=[-_. ]|$)", file, re.IGNORECASE) else None


def _saved_as(stem: str, output_name: str) -> str | None:
    """What of a run a saved file is, as a reference's end: "", "-epoch000005", "-step00010000"; None for another's file.

    That trainer names files OUTPUT_NAME, OUTPUT_NAME-000005 and OUTPUT_NAME-step00010000; without --output_name they are last,
    epoch-000005 and at-step00010000.
    """
    if stem == (output_name or "last"):
        return ""
    if match := re.fullmatch(re.escape(output_name or "epoch") + r"-(\d{6})", stem):
        return f"-epoch{match[1]}"
    if match := re.fullmatch(re.escape(output_name or "at") + r"-step(\d{8})", stem):
        return f"-step{match[1]}"
    return None
