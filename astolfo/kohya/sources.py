"""What a launch starts from and trains on, by the ledger's names: entries that are there already, or new ones of the import."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya import dataset
from astolfo.kohya.dataset import AUTOENCODERS, DatasetEntry, Source
from astolfo.kohya.entries import BaseEntry, Imported
from astolfo.kohya.known import Known
from astolfo.kohya.launch import Launch, last, plain_path, whole_path
from astolfo.kohya.values import Values
from astolfo.ledger import parse, schema
from astolfo.ledger.ledger import Ledger, Run

_MODELS = (".safetensors", ".ckpt", ".pt")


@dataclass(kw_only=True)
class Sources:
    """The bases and datasets of one launch, which are looked for in, and added to, `result`."""

    result: Imported
    ledger: Ledger | None
    known: Known
    values: Values
    called: str  # the run's name as its line has it

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
        whole = plain_path(path)
        stem, folder = whole.stem, whole.parent
        for run in reversed(self.result.runs):
            if plain_path(run.folder or "?") == folder and (kind := _saved_as(stem, run.stem)) is not None:
                return run.name + kind
        for name, saved in reversed(self.known.runs.items()):
            there = plain_path(saved)
            kind = _saved_as(stem, "" if there.stem == "last" else there.stem)
            if name in self._runs and kind is not None and plain_path(self._whole(path)).parent == there.parent:
                return name + kind
        for name in [*(run.name for run in self.result.runs), *self._runs]:
            if name != self.called and folder.name.endswith(f"_{name}") and (kind := _saved_as(stem, "")):
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
        file, whole = last(path), self._whole(path)
        for entry in self.result.bases.values():
            if entry.whole == whole:
                return entry.name
        for known, base in self._bases.items():
            read = self.known.bases.get(known)
            same = base.full and base.full.file == file and base.family == family
            if read == whole if read else same:
                return known
        stem = file[: -len(Path(file).suffix)] if Path(file).suffix.lower() in _MODELS else file
        name = self._free(_plain(stem), self._taken())
        fields: dict[str, Any] = {"family": family, "objective": objective}
        if not can_be_pinned(path):
            what = "a pickle, which can hold code" if is_file(path) else "no single file"
            place = self.values.place("pretrained_model_name_or_path")
            self.launch.remarks.append(f"{place}: {path} is {what}. Convert it to .safetensors, and pin that.")
            file = f"{name}.safetensors"
        fields["full"] = {"file": file}
        self.result.bases[name] = BaseEntry(name=name, fields=fields, path=path, whole=whole, file=self._pinned(path))
        self._told("base", _plain(stem), name)
        return name

    def dataset(self, source: Source) -> str:
        """The dataset that a launch trains on: one with parts where pictures repeat, or lie in several places."""
        if len(source.subsets) == 1 and source.subsets[0].repeats == 1:
            return self._store(source)
        parts: dict[str, int] = {}
        for subset in source.subsets:
            place = _plain(plain_path(subset.index).parent.name or last(subset.folder) if subset.index else last(subset.folder))
            name = self._store(replace(source, subsets=(replace(subset, repeats=1),), proposal=place))
            parts[name] = parts.get(name, 0) + subset.repeats
        there = {name: entry.parts for name, entry in self._datasets.items()}
        for known, others in (there | {name: entry.parts for name, entry in self.result.datasets.items()}).items():
            if others == parts:
                return known
        wanted = "-".join(f"{part}-x{repeats}" for part, repeats in parts.items()) if len(parts) == 1 else _plain(source.proposal)
        name = self._free(wanted, self._taken())
        self._told("dataset", wanted, name)
        self.result.datasets[name] = DatasetEntry(name=name, source=source, parts=parts)
        repeated = ", ".join(f"{part} {repeats} times" if repeats > 1 else part for part, repeats in parts.items())
        self.values.key("dataset_config" if self.values.on("dataset_config") else "train_data_dir", f"datasets.parts: {repeated}")
        return name

    def _store(self, source: Source) -> str:
        """A dataset of one store."""
        made_from = dataset.made_from(source, self.launch.path.parent)
        there = {name: read for name, read in self.known.datasets.items() if name in self._datasets}
        for known, read in (there | {name: entry.made_from for name, entry in self.result.datasets.items()}).items():
            if read == made_from:
                return known
        wanted = _plain(source.proposal) or "dataset"
        if wanted in self._datasets and (self._exported(wanted, source) or self._may_be(wanted, source, made_from)):
            self.launch.remarks.append(f"{self.launch.place}: {wanted} is a dataset of the ledger, and that one is taken.")
            return wanted
        name = self._free(wanted, self._taken())
        self._told("dataset", wanted, name)
        autoencoder = self._autoencoder(source) if source.autoencoder else AUTOENCODERS[source.family]
        encoder = self._pinned(source.autoencoder or str(self.values.get("pretrained_model_name_or_path")))
        self.result.datasets[name] = dataset.entry(name, source, self.launch.path.parent, autoencoder, encoder)
        return name

    def _taken(self) -> set[str]:
        """Every base's and dataset's name: `astolfo pin` takes either, so none is both."""
        return {*self.result.bases, *self.result.datasets, *self._datasets, *self._bases}

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
        folder = entry.folder and str(self.ledger.dataset_source(name)[1].resolve())
        return (
            (encoder is None or encoder.family == source.family)
            and bool(entry.flip) == source.subsets[0].flip
            and (not folder or folder == made_from.get("folder"))
        )

    def _told(self, what: str, wanted: str, name: str) -> None:
        """Says that another entry of the ledger has a name already."""
        entries = {"base": self._bases, "dataset": self._datasets}[what]
        if name != wanted and wanted in entries:
            self.launch.remarks.append(
                f"{self.launch.place}: {wanted} is another {what} of the ledger, so this one is {name}. If they are the same, "
                f"delete {name} and write {wanted} in the run."
            )

    def _whole(self, path: str) -> str:
        """The path of a model made whole; a name on the Hub is as the line has it."""
        beside = self.launch.path.parent
        return whole_path(path, beside) if is_file(path) or (beside / path).exists() else path

    def _pinned(self, path: str) -> str:
        """The whole path of a file that can be pinned; "" for any other."""
        return whole_path(path, self.launch.path.parent) if can_be_pinned(path) else ""

    def _autoencoder(self, source: Source) -> str:
        file = last(source.autoencoder)
        name = _plain(Path(file).stem)
        if name in AUTOENCODERS.values():
            return name  # of the library
        file = file if can_be_pinned(file) else f"{name}.safetensors"
        fields = {"family": source.family, "kind": "autoencoder", "full": {"file": file}}
        self.result.bases.setdefault(
            name,
            BaseEntry(
                name=name, fields=fields, path=source.autoencoder, whole=self._whole(source.autoencoder),
                file=self._pinned(source.autoencoder),
            ),
        )  # fmt: skip
        return name

    @staticmethod
    def _free(name: str, taken: set[str]) -> str:
        found, again = name, 2
        while found in taken:
            found, again = f"{name}-{again}", again + 1
        return found


def _plain(text: str) -> str:
    """A text as a name of the ledger."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")


def can_be_pinned(path: str) -> bool:
    """Whether a path is that of a .safetensors file."""
    return plain_path(path).suffix.lower() == ".safetensors"


def is_file(path: str) -> bool:
    """Whether a path is that of a model in a single file, and not of a Diffusers folder or a name on the Hub."""
    return plain_path(path).suffix.lower() in _MODELS


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
