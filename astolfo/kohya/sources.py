"""What a launch starts from and trains on, by the ledger's names: entries that are there already, or new ones of the import."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya import dataset
from astolfo.kohya.dataset import AUTOENCODERS, DatasetEntry, Source
from astolfo.kohya.entries import BaseEntry, Imported
from astolfo.kohya.launch import Launch, last, plain_path, whole_path
from astolfo.kohya.values import Values
from astolfo.ledger import parse
from astolfo.ledger.ledger import Ledger

_MODELS = (".safetensors", ".ckpt", ".pt")


@dataclass(kw_only=True)
class Sources:
    """The bases and datasets of one launch, which are looked for in, and added to, `result`."""

    result: Imported
    ledger: Ledger | None
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
        """The run that saved a file: one that was read before, or one whose ID the folder's name ends with."""
        whole = plain_path(path)
        stem, folder = whole.stem, whole.parent
        for run in reversed(self.result.runs):
            if plain_path(run.folder or "?") == folder and (kind := _saved_as(stem, run.stem)) is not None:
                return run.name + kind
        for name in [*(run.name for run in self.result.runs), *(self.ledger.runs if self.ledger else ())]:
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
        file = last(path)
        for entry in self.result.bases.values():
            if entry.path == path:
                return entry.name
        for known, base in (self.ledger.bases if self.ledger else {}).items():
            if base.full and base.full.file == file:
                return known
        stem = file[: -len(Path(file).suffix)] if Path(file).suffix.lower() in _MODELS else file
        name = self._free(_plain(stem), {*self.result.bases, *(self.ledger.bases if self.ledger else ())})
        fields: dict[str, Any] = {"family": family, "objective": objective}
        if not can_be_pinned(path):
            what = "a pickle, which can hold code" if is_file(path) else "no single file"
            place = self.values.place("pretrained_model_name_or_path")
            self.launch.remarks.append(f"{place}: {path} is {what}. Convert it to .safetensors, and pin that.")
            file = f"{name}.safetensors"
        fields["full"] = {"file": file}
        self.result.bases[name] = BaseEntry(name=name, fields=fields, path=path, file=self._pinned(path))
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
        for known, entry in self.result.datasets.items():
            if entry.parts == parts:
                return known
        name = "-".join(f"{part}-x{repeats}" for part, repeats in parts.items()) if len(parts) == 1 else _plain(source.proposal)
        name = self._free(name, {*self.result.datasets, *(self.ledger.datasets if self.ledger else ())})
        self.result.datasets[name] = DatasetEntry(name=name, source=source, parts=parts)
        repeated = ", ".join(f"{part} {repeats} times" if repeats > 1 else part for part, repeats in parts.items())
        self.values.key("dataset_config" if self.values.on("dataset_config") else "train_data_dir", f"datasets.parts: {repeated}")
        return name

    def _store(self, source: Source) -> str:
        """A dataset of one store."""
        for known, entry in self.result.datasets.items():
            if not entry.parts and dataset.same(entry.source, source):
                return known
        name = _plain(source.proposal) or "dataset"
        if self.ledger and name in self.ledger.datasets:
            self.launch.remarks.append(f"{self.launch.place}: {name} is a dataset of the ledger already, and that one is taken.")
            return name
        name = self._free(name, set(self.result.datasets))
        autoencoder = self._autoencoder(source) if source.autoencoder else AUTOENCODERS[source.family]
        encoder = self._pinned(source.autoencoder or str(self.values.get("pretrained_model_name_or_path")))
        self.result.datasets[name] = dataset.entry(name, source, self.launch.path.parent, autoencoder, encoder)
        return name

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
            name, BaseEntry(name=name, fields=fields, path=source.autoencoder, file=self._pinned(source.autoencoder))
        )
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
