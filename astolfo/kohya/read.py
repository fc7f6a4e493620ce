"""Launches into runs: `imported(paths)` reads files, and returns the runs, bases and datasets that a ledger would have for them.

    found = imported([Path("train.sh"), Path("sdxl.toml")])
    found.runs[0].fields        {"base": "sd_xl_base_1.0", "dataset": "pics", "epochs": 10, ...}: the ledger's words
    found.refusals              what has no counterpart; `lossy` takes the runs without it, and their notes say so

A base or a dataset that several launches share is one entry. A launch that begins from a file which an earlier one saves begins
from that run. Where a line is silent the trainer's defaults stand (kohya-ss/sd-scripts at 48d368f). The line shows whose
semantics it has: `kohya` are upstream's, `kohya-native` those of the fork whose options or script it has.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from astolfo.errors import InputError
from astolfo.kohya import dataset, training
from astolfo.kohya.configuration import Files, launches
from astolfo.kohya.entries import Imported, ImportedRun, free_name, plain_name
from astolfo.kohya.known import Known
from astolfo.kohya.launch import Given, Launch
from astolfo.kohya.paths import is_file, plain_path, same_file, whole_path
from astolfo.kohya.sources import Sources
from astolfo.kohya.values import Refusal, Values
from astolfo.ledger import schema
from astolfo.ledger.ledger import Ledger
from astolfo.ledger.references import mistaken_for


def imported(
    paths: Sequence[Path], ledger: Ledger | None = None, ranks: int | None = None, known: Known | None = None
) -> Imported:
    """Reads files. `ledger` lends its bases, datasets and runs, of which `known` has the files that earlier imports read.

    `ranks` is how many cards trained, where the files do not say.

    Raises InputError, with file, line and option, for what cannot be read.
    """
    found, files = launches(paths, ranks_given=ranks is not None)
    if not found:
        raise InputError(f"Expected scripts or TOML files that train, found none in {', '.join(map(str, paths))}.")
    result = reading(found, files, ledger, ranks, known)
    for path in paths:
        if path.suffix.lower() == ".toml" and path.resolve() not in files.named:
            result.remarks.append(f"{path}: no launch names this file, so it is not read.")
    return result


def reading(
    found: Sequence[Launch],
    files: Files,
    ledger: Ledger | None = None,
    ranks: int | None = None,
    known: Known | None = None,
) -> Imported:
    """What launches say, as a ledger has it."""
    result = Imported(called=frozenset(launch.called for launch in found))
    for number, launch in _in_order(found):
        if other := training.of_no_model(launch):
            reason, given = other
            result.refusals.append(
                Refusal(place=given.place, what="the launch", reason=reason, nearest="leave the launch, or that option, out")
            )
            result.left_out.append(f"{given.place}: {reason}.")
        elif launch.refused:
            result.refusals.append(
                Refusal(place=launch.place, what="the launch", reason=launch.refused, nearest="leave the launch out")
            )
            result.left_out.append(f"{launch.place}: {launch.refused}.")
        else:
            _Reading(result, launch, files, ledger, ranks, known or Known()).run(number, len(found))
    for run in result.runs:
        result.refusals += run.values.refusals
        result.remarks += run.launch.remarks
    result.refusals = list({str(one): one for one in result.refusals}.values())  # a line in a loop says it once a round
    result.remarks = list(dict.fromkeys(result.remarks))
    return result


def _in_order(found: Sequence[Launch]) -> list[tuple[int, Launch]]:
    """Launches with their numbers, as they stand, but for those that start from what a later one saves: these follow it."""
    waiting = list(enumerate(found, 1))
    saves = {number: same_file(launch.saves) for number, launch in waiting}
    ordered: list[tuple[int, Launch]] = []
    while waiting:
        later = {saves[number] for number, _ in waiting}
        free = next((one for one in waiting if not _begins_in(one[1]) & (later - {saves[one[0]]})), waiting[0])
        ordered.append(free)
        waiting.remove(free)
    return ordered


def _begins_in(launch: Launch) -> set[str]:
    """What runs save last, of whose files a launch may begin from one: of any checkpoint its run's."""
    given = launch.given.get("pretrained_model_name_or_path")
    if given is None or not is_file(str(given.value)):
        return set()
    whole = plain_path(whole_path(str(given.value), launch.folder))
    stems = {whole.stem, re.sub(r"-(\d{6}|step\d{8})$", "", whole.stem)}
    runs = ("last" if stem in ("epoch", "at") else stem for stem in stems)
    return {same_file(str(whole.with_name(f"{run}.safetensors"))) for run in runs}


_NATIVE = ("sdxl_train_v2.py", "sdxl_train_native.py")


class _Reading:
    """One launch, read into `result`."""

    def __init__(
        self, result: Imported, launch: Launch, files: Files, ledger: Ledger | None, ranks: int | None, known: Known
    ):  # fmt: skip
        self.result, self.launch, self.files, self.ledger, self.ranks_given = result, launch, files, ledger, ranks
        self.known = known
        self.values = Values(launch=launch)
        self.notes: list[str] = []
        self.called = ""  # as the line calls the run, before another one's name is avoided

    def run(self, number: int, of: int) -> None:
        values = self.values
        family = self._family()
        values.get("output_dir")  # raises InputError for what can be no path
        source = dataset.source(values, self.files, family)
        name = self._name(number, of)
        objective = training.objective(values)
        optimizer = training.optimizer(values)
        ranks = self._ranks()
        schedule = training.schedule(values, optimizer)
        semantics = self._semantics()
        sources = Sources(result=self.result, ledger=self.ledger, known=self.known, values=values, name=name, called=self.called)
        reference, continues = sources.base(family, objective)
        fields: dict[str, Any] = {
            "base": reference,
            **({"continues": True} if continues else {}),
            "dataset": sources.dataset(source),
            **self._length(),
            "objective": objective,
            "captions": dataset.captions(values, source),
            "unet": 100,
            "learning_rate": training.one_rate(values, optimizer, training.rates(values, family, semantics)),
            "optimizer": optimizer,
            "schedule": schedule,
            **ranks,
            "batch_size": values.get("train_batch_size"),
            "accumulation": values.get("gradient_accumulation_steps"),
            "max_grad_norm": training._plain(values.get("max_grad_norm")),
            "precision": training.precision(values),
            **self._saves(),
            "semantics": semantics,
            "choices": self._choices(),
            "seed": self._seed(self.called),
            "engine": training.engine(values),
            "placement": self._placement(),
        }
        self._accumulated(fields)
        _lay_over(fields, self.launch.ledger_keys)
        run = ImportedRun(
            name=name,
            fields={key: value for key, value in fields.items() if value not in (None, {})},
            values=values,
            notes=self.notes,
        )
        _checked(run)
        self.result.runs.append(run)

    def _family(self) -> str:
        values = self.values
        if self.launch.trainer == "sdxl":
            if values.get("v2"):
                values.refuse("v2", "sdxl_train.py trains SDXL; that trainer stops at it", "fine_tune.py")
            return "sdxl"
        if not values.get("v2"):
            raise InputError(
                f"{self.launch.place}: fine_tune.py without --v2 trains SD 1.x. A ledger's families are sdxl and sd2; "
                "no SD 1.x model can be trained here."
            )
        if values.on("clip_skip"):
            values.refuse("clip_skip", "SD 2.x reads the layer that its model has", "without it")
        return "sd2"

    def _semantics(self) -> str:
        """Which trainer's arithmetic: the fork's where the line starts its script or has an option that it alone has."""
        launch = self.launch
        if launch.trainer != "sdxl":
            return "kohya"
        own = next((one for one in launch.given.values() if one.option.of == ("train-native",)), None)
        if launch.script in _NATIVE:
            if launch.script == "sdxl_train_v2.py":
                launch.remarks.append(f"{launch.place}: sdxl_train_v2.py is not public; it is read as the fork's native trainer.")
        elif own is None:
            return "kohya"
        return "kohya-native"

    def _name(self, number: int, of: int) -> str:
        """The run's name: --output_name, else an ID of eight digits (the script's, in --log_prefix ...), else the script's."""
        given = str(self.values.get("output_name") or "")
        if not given and re.fullmatch(r"\d{8}", self.launch.path.stem) and of == 1:
            given = self.launch.path.stem
        if not given:
            for option in ("log_prefix", "wandb_run_name", "output_dir"):
                if found := re.findall(
                    r"(?<!\d)\d{8}(?!\d)", str(self.launch.given[option].value if option in self.launch.given else "")
                ):
                    given = found[-1]
                    break
        given = given or self.launch.path.stem + (f"-{number}" if of > 1 else "")
        plain = plain_name(given) or f"run-{number}"
        plain = plain.removesuffix(".safetensors")
        if mistaken_for(plain):  # a merge's or a checkpoint's name: one-0.50, one-epoch000004
            plain = f"{plain}-run"
        self.called = plain
        runs = {run.name for run in self.result.runs} | set(self.ledger.runs if self.ledger else ())
        bases = {*self.result.bases, *(self.ledger.bases if self.ledger else ())}
        name = free_name(plain, runs | bases)
        if name != given:
            why = f", since {plain} is a base" if plain in bases else f", since a run is named {plain}" if plain in runs else ""
            self.launch.remarks.append(
                f"{self.launch.place}: the run is named {name}, for {given}{why}.{self._saved_before(plain)}"
            )
        return name

    def _saved_before(self, name: str) -> str:
        """That the ledger's base or run of that name is the very file that this run saves, where it is."""
        saved = same_file(self.launch.saves)
        if not saved:
            return ""
        if same_file(self.known.bases.get(name, "")) == saved:
            return (
                f" That base is the file which this run saves: write its name in place of {name} in the runs that start from it."
            )
        if same_file(self.known.runs.get(name, "")) == saved:
            return f" An earlier import read {name} from a launch that saves the same file: if they are one run, delete this one."
        return ""

    def _seed(self, name: str) -> int:
        values = self.values
        if values.get("seed") is not None:
            return values.get("seed")
        made = int(name) if re.fullmatch(r"\d{8}", name) else int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10**8
        why = "the run's ID" if re.fullmatch(r"\d{8}", name) else "made of the run's name"
        self.notes.append(f"The line has no seed, so that trainer drew another at every start; this one is {why}.")
        return made

    def _length(self) -> dict[str, int]:
        values, epochs = self.values, self.values.get("max_train_epochs")
        if epochs is not None:
            if "max_train_steps" in self.launch.given:
                values.none("max_train_steps", "--max_train_epochs is laid over it")
            return {"epochs": epochs}
        return {"steps": values.get("max_train_steps")}

    def _ranks(self) -> dict[str, int]:
        """How many processes train together, and who says so."""
        given = self.values.runner("num_processes") if self.launch.runs_by != "python" else None
        if given is None:
            seen = self.launch.environment.get("CUDA_VISIBLE_DEVICES")
            ids = self.launch.runner.get("gpu_ids")
            asked = ids if ids else seen  # what one says of the cards; nobody knows their number where it has trouble
            cards = "" if asked is None or asked.trouble else asked.value if isinstance(asked, Given) else asked.text
            if cards and cards != "all" and self.launch.runs_by != "python":
                given = len([one for one in str(cards).split(",") if one.strip()])
        if given is None and self.launch.runs_by != "python":
            given = self.ranks_given
            if given is None:
                self.launch.remarks.append(
                    f"{self.launch.place}: how many cards trained is not said: 1 is taken. `--ranks N`, or accelerate's "
                    "configuration file given to the import, says it."
                )
        given = given or 1
        if given in (1, 2, 4, 8):
            return {"ranks": given}
        self.values.refuse(
            "accelerate num_processes", f"Ranks are 1, 2, 4 or 8, found {given}", f"1 rank, with {given} times the accumulation"
        )
        return {"ranks": 1, "_times": given}

    def _accumulated(self, fields: dict[str, Any]) -> None:
        """As many pictures a step where the ranks are others."""
        fields["accumulation"] *= fields.pop("_times", 1)

    def _saves(self) -> dict[str, Any]:
        values = self.values
        epochs, steps, ratio = (values.get(f"save_{name}") for name in ("every_n_epochs", "every_n_steps", "n_epoch_ratio"))
        if ratio and values.get("max_train_epochs"):
            epochs = max(1, math.floor(values.get("max_train_epochs") / ratio))
        elif ratio:
            values.none("save_n_epoch_ratio", "It counts epochs, and the length is in steps")
        if epochs and values.get("max_train_epochs"):
            if steps:
                values.none("save_every_n_steps", "The ledger saves by epochs or by steps; epochs are taken")
            return {"save_every": {"epochs": epochs}}
        if epochs:
            values.none(
                "save_every_n_epochs", "The run's length is in steps, and so is what it saves: say save_every: {steps: N}"
            )
            self.launch.remarks.append(
                f"{values.place('save_every_n_epochs')}: the run keeps no checkpoint of every {epochs} epochs, since its length "
                "is in steps. Write save_every: {steps: N} in it, N being the steps of so many epochs."
            )
        return {"save_every": {"steps": steps}} if steps else {}

    def _placement(self) -> dict[str, Any]:
        values = self.values
        found: dict[str, Any] = {}
        if any(str(one.value).startswith(("/dev/shm", "/mnt/ramdisk", "/ramdisk")) for one in self.launch.given.values()):
            found["ramdisk"] = True
        if self.launch.numa.isdecimal():
            found["numa"] = int(self.launch.numa)
        if values.on("max_data_loader_n_workers"):
            found["loader_workers"] = values.get("max_data_loader_n_workers")
        else:
            values.none("max_data_loader_n_workers", "0: the trainer's own process loads")
        if values.get("gradient_checkpointing"):
            found["gradient_checkpointing"] = True
        if values.get("sample_every_n_steps"):
            found["sample_every"] = values.get("sample_every_n_steps")
        if values.get("save_last_n_epochs_state"):
            found["keep_states"] = values.get("save_last_n_epochs_state")
        return found

    def _choices(self) -> dict[str, str]:
        """Choices that the line makes otherwise than its trainer does as a rule."""
        found = {}
        path = str(self.values.get("pretrained_model_name_or_path"))
        if self.launch.trainer == "sdxl" and not is_file(path):  # it transposes the projection of a folder, not of a file
            self.notes.append(
                "The line's base is a Diffusers folder, whose pooled projection that trainer reads as inference does."
            )
            found["pooled_projection"] = "reference"
        if self.values.get("no_half_vae"):
            if training.precision(self.values)["compute"] == "fp32":
                self.values.none("no_half_vae", "Without --mixed_precision nothing is rounded")
            else:
                found["untrained"] = "compute-but-vae"
        return found


def _lay_over(fields: dict[str, Any], ledger_keys: dict[str, Any]) -> None:
    """Lays what comments say over what options say: `captions.kind: pick` changes that one value, null takes it away."""
    for key, value in ledger_keys.items():
        *places, name = key.split(".")
        target = fields
        for place in places:
            inner = target.get(place)
            target[place] = {"kind": inner} if isinstance(inner, str) else dict(inner) if isinstance(inner, dict) else {}
            target = target[place]
        target[name] = value
        if value is None:
            del target[name]


def _checked(run: ImportedRun) -> None:
    """Raises InputError where a launch says what the ledger finds impossible."""
    try:
        schema.RunFields.model_validate(run.fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{run.launch.place}: the ledger's {where} cannot be {first['input']!r}: {message}") from None
