"""What launches train on: dataset entries of the ledger, and the `astolfo dataset import` that makes each of their stores.

A dataset is named by --in_json and --train_data_dir, by a folder of folders REPEATS_NAME, or by a dataset TOML, whose options are
laid over the line's: subset over dataset over [general], as that trainer does it.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya.configuration import Files, toml, toml_line
from astolfo.kohya.launch import Given
from astolfo.kohya.options import options
from astolfo.kohya.paths import Folder, last, plain_path, whole_path
from astolfo.kohya.values import Values, is_path, is_text
from astolfo.ledger.content import captioned, count, extensions, holds_pictures
from astolfo.ledger.file_kinds import CAPTIONS

_ALSO = {"batch_size": "train_batch_size", "num_repeats": "dataset_repeats"}  # names of the TOML that the line spells otherwise
_OWN = {
    "image_dir": "path", "metadata_file": "path", "is_reg": "flag", "class_tokens": "text", "subsets": "tables",
    "custom_attributes": "table", "network_multiplier": "float", "conditioning_data_dir": "path",
}  # fmt: skip
"""Names that the TOML alone has, with what each takes."""
_EXPECTED = {
    "flag": "true or false", "int": "a whole number", "float": "a number", "number": "a number", "text": "text in quotes",
    "path": "a path in quotes", "words": "a list of texts", "table": "a table", "range": "a list of two numbers",
    "side": "a side, or [WIDTH, HEIGHT] in whole numbers",
}  # fmt: skip
_PAIRS = {"resolution": "side", "face_crop_aug_range": "range"}
AUTOENCODERS = {"sdxl": "sdxl-vae", "sd2": "sd2-vae"}  # of the library, by family
_EACH = ("dataset_repeats", "flip_aug")  # options that each subset may have its own way
_LARGEST_INDEX = 64 << 20  # bytes of an index that is read only to count its samples


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A folder of pictures, or an index with its folder."""

    folder: str
    index: str = ""
    repeats: int = 1
    flip: bool = False  # encoded both ways round
    words: str = ""  # class tokens: the caption of a picture without one


@dataclass(frozen=True, kw_only=True)
class Source:
    """All that one launch trains on, before it has a name."""

    subsets: tuple[Subset, ...]
    family: str
    bucketing: tuple[tuple[str, Any], ...] = ()  # options of `dataset import`
    autoencoder: str = ""  # a file in the place of the family's
    extension: str = ""  # of the captions beside pictures; "" where an index has them
    proposal: str = "dataset"


@dataclass(kw_only=True)
class DatasetEntry:
    """A dataset of the ledger that is to be written."""

    name: str
    source: Source
    images: int | None = None
    autoencoder: str = "sdxl-vae"
    parts: dict[str, int] = field(default_factory=dict)  # names of other datasets, and how often each is taken
    folder: str = ""  # of pictures that the graph imports as they are
    words: list[str] = field(default_factory=list)  # of the `astolfo dataset import` that makes its store
    made_from: dict[str, Any] = field(default_factory=dict)  # what tells it from every other one of a single store
    encoder: str = ""  # the file whose autoencoder that trainer encodes with: its own, or the base's; "" where it is none

    @property
    def store(self) -> str:
        """Where its store is to lie."""
        return f"stores/{self.name}"

    @property
    def pictures(self) -> bool:
        """Whether its store is made of pictures, which are encoded first."""
        return not self.parts and not self.source.subsets[0].index


def source(values: Values, files: Files, family: str) -> Source:
    """What a launch trains on. Lays a dataset TOML over the launch's own options."""
    if values.on("dataset_config"):
        subsets, proposal = _from_toml(values, files)
    elif values.on("in_json"):
        index, folder = str(values.get("in_json")), str(values.get("train_data_dir") or "")
        if (repeats := values.get("dataset_repeats")) < 1:
            raise InputError(f"{values.place('dataset_repeats')}: --dataset_repeats expects 1 or more, found {repeats}.")
        subsets = (Subset(folder=folder, index=index, repeats=repeats),)
        proposal = plain_path(index).parent.name or last(folder)
    elif values.on("train_data_dir"):
        folder = str(values.get("train_data_dir"))
        if values.launch.trainer == "fine_tune":
            raise InputError(f"{values.place('train_data_dir')}: fine_tune.py needs --in_json beside --train_data_dir. Add it.")
        subsets, proposal = _dreambooth(values, folder), last(folder)
    else:
        raise InputError(
            f"{values.launch.place}: expected what to train on, --dataset_config, or --train_data_dir with or without --in_json; "
            "found none of them."
        )
    if values.get("flip_aug") and all(one.index for one in subsets):
        values.refuse(
            "flip_aug", "An index's latents are taken as they are", "the pictures as they are, or an import of their folder"
        )
    indexed = all(one.index for one in subsets)
    return Source(
        subsets=subsets, family=family, bucketing=_bucketing(values, family, indexed=indexed),
        autoencoder=str(values.get("vae") or ""), extension="" if indexed else _extension(values), proposal=proposal,
    )  # fmt: skip


def _extension(values: Values) -> str:
    return str(values.get("caption_extention") or values.get("caption_extension"))


def captions(values: Values, found: Source) -> dict[str, Any]:
    """How captions are read."""
    indexed = all(one.index for one in found.subsets)
    kind = "concat" if indexed else "tags"
    if indexed:
        for name in ("caption_extension", "caption_extention"):
            values.none(name, "The index has the captions")
    elif found.extension not in CAPTIONS:
        values.refuse("caption_extension", "The import of a folder reads .txt and .caption", "the files, renamed to .txt")
    result: dict[str, Any] = {"kind": kind, "tokens": int(values.get("max_token_length"))}
    if values.get("enable_wildcard"):
        result["wildcards"] = True
    result |= _pieces(values, kind)
    for name, key in (("caption_dropout_rate", "dropout"), ("caption_dropout_every_n_epochs", "dropout_every_epochs"),
                      ("caption_prefix", "prefix"), ("caption_suffix", "suffix")):  # fmt: skip
        if values.get(name):
            result[key] = values.get(name)
    _words(values, found)
    return result


def _pieces(values: Values, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if values.get("shuffle_caption"):
        found["shuffle"] = True
    if values.get("caption_tag_dropout_rate"):
        found["tag_dropout"] = values.get("caption_tag_dropout_rate")
    for name, key in (("keep_tokens", "keep_tokens"), ("keep_tokens_separator", "keep_tokens_separator")):
        if values.get(name) and found:
            found[key] = values.get(name)
        elif values.on(name):
            values.none(name, "Pieces are neither shuffled nor dropped")
    if values.get("secondary_separator"):
        found["secondary_separator"] = values.get("secondary_separator")
    if values.get("caption_separator") != "," and (found or kind == "concat"):
        found["separator"] = values.get("caption_separator")
    return found


def _words(values: Values, found: Source) -> None:
    """Class tokens caption pictures that have no caption; say so."""
    beside = values.launch.folder
    pictured = [one for one in found.subsets if not one.index]
    for one in pictured:
        there = extensions(Path(whole_path(one.folder, beside))) or set()
        if found.extension in CAPTIONS and (others := sorted(there - {found.extension})):
            default = "" if values.on("caption_extension") or values.on("caption_extention") else ", that trainer's default"
            values.launch.remarks.append(
                f"{values.place('caption_extension')}: {one.folder} has captions in {' and '.join(others)}, which that trainer "
                f"did not read: it read {found.extension}{default}. So does the import of the folder."
            )
    spoken = [one for one in pictured if one.words]
    read = found.extension if found.extension in CAPTIONS else ""
    if words := sorted({one.words for one in spoken if not captioned(Path(whole_path(one.folder, beside)), read)}):
        values.launch.remarks.append(
            f"{values.launch.place}: pictures without a caption file had {' or '.join(map(repr, words))} as their caption there. "
            "Here they have none: give them caption files."
        )


def _dreambooth(values: Values, folder: str) -> tuple[Subset, ...]:
    """The folders REPEATS_NAME below a folder, where it is here."""
    here = Path(whole_path(folder, values.launch.folder))
    if not here.is_dir():
        values.launch.remarks.append(
            f"{values.place('train_data_dir')}: {folder} is not here, so its folders REPEATS_NAME are not known; "
            "one repeat is taken. Import it where the folder is, or correct the dataset."
        )
        return (Subset(folder=folder, flip=values.get("flip_aug")),)
    found = []
    try:
        inside = sorted(here.iterdir())
    except OSError as error:
        raise InputError(f"{values.place('train_data_dir')}: {here} cannot be read: {error.strerror}.") from None
    for one in inside:
        number, _, words = one.name.partition("_")
        repeats = int(number) if number.isdecimal() else 0
        if one.is_dir() and repeats:
            found.append(Subset(folder=str(Path(folder) / one.name), repeats=repeats, flip=values.get("flip_aug"), words=words))
        elif one.is_dir() and holds_pictures(one):
            values.launch.remarks.append(
                f"{values.place('train_data_dir')}: {Path(folder) / one.name} has pictures and no number of repeats in its name "
                f"(1_{one.name}), so that trainer leaves it out, and so does this."
            )
    if not found:
        raise InputError(
            f"{values.place('train_data_dir')}: expected folders named REPEATS_NAME (10_astolfo) in {here}, found none."
        )
    return tuple(found)


# ---- dataset TOML


def _from_toml(values: Values, files: Files) -> tuple[tuple[Subset, ...], str]:
    name = str(values.get("dataset_config"))
    for ignored in ("train_data_dir", "in_json", "reg_data_dir"):
        if values.on(ignored):
            values.withdraw(ignored)
            values.none(ignored, "--dataset_config is read in its place")
    found = files.find(name, values.launch)
    if found is None:
        raise InputError(
            f"{values.place('dataset_config')}: --dataset_config {name} is not here. Give that file to the import too."
        )
    text, label = found.known().text, found.label
    content = _json(text, label) if name.lower().endswith(".json") else toml(text, label)
    general, datasets = _tables(content, text, label)
    each = [(general | dataset | one) for dataset in datasets for one in dataset.get("subsets") or [{}]]
    if not each:
        raise InputError(f"{label}: expected [[datasets]] with [[datasets.subsets]], found none.")
    _known([general, *(one for dataset in datasets for one in (dataset, *dataset.get("subsets", [])))], text, label)
    subsets = tuple(_subset(values, one, number, text, label) for number, one in enumerate(each))
    _laid_over(values, each, text, label)
    kept = tuple(one for one in subsets if one)
    if not kept:
        raise InputError(f"{label}: expected pictures to train on, found subsets alone that are none of that or are left out.")
    stem = Path(last(name)).stem
    if re.fullmatch(r"(?i)(dataset|data)?[_-]?(config|dataset)?", stem):  # a name that says nothing
        stem = "-".join(last(one.folder or one.index) for one in kept[:3])
    return kept, stem


def _json(text: str, label: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{label}: expected JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f'{label}: expected {{"general": ..., "datasets": [...]}}, found {found!r:.48}.')
    return found


def _tables(content: dict[str, Any], text: str, label: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """[general] and [[datasets]] with their subsets. Raises InputError where they are no such tables."""
    for key in content.keys() - {"general", "datasets"}:
        raise InputError(f"{label}:{_line(text, key)}: expected [general] and [[datasets]], found {key!r}.")
    general, datasets = content.get("general", {}), content.get("datasets", [])
    if not isinstance(general, dict):
        raise InputError(f"{label}:{_line(text, 'general')}: expected a table, [general], found general = {general!r:.48}.")
    if isinstance(datasets, dict):
        what = "[[datasets.subsets]] without it" if "subsets" in datasets else "one table, [datasets]"
        raise InputError(f"{label}:{_line(text, 'datasets')}: expected [[datasets]] above [[datasets.subsets]], found {what}.")
    for key, found in [("datasets", datasets), *(("subsets", one.get("subsets", [])) for one in _every(datasets))]:
        if not isinstance(found, list) or len(_every(found)) != len(found):
            name = "datasets.subsets" if key == "subsets" else key
            raise InputError(f"{label}:{_line(text, key)}: expected tables, [[{name}]], found {key} = {found!r:.48}.")
    return general, datasets


def _every(found: Any) -> list[dict[str, Any]]:
    """The tables of a list."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _line(text: str, key: str, nth: int = 0) -> int:
    """The line where a key, or a table of that name, stands for the nth time (from 0)."""
    name = re.escape(key)
    found = [one.start() for one in re.finditer(rf'(?m)^[ \t]*(?:"?{name}"?\s*[=:.]|\[+\s*(?:\w+\.)*{name}\s*[\].])', text)]
    return text.count("\n", 0, found[min(nth, len(found) - 1)]) + 1 if found else 1


def _known(sections: list[dict[str, Any]], text: str, label: str) -> None:
    """Raises InputError for a key that sd-scripts' dataset files do not have, and for a value of another type."""
    before: dict[str, int] = {}
    for section in sections:
        for key, value in section.items():
            name, nth = _ALSO.get(key, key), before.get(key, 0)
            before[key] = nth + 1
            if key not in _OWN and name not in options().all:
                close = options().close_matches(key)
                hint = f" Did you mean {' or '.join(close)}?" if close else ""
                raise InputError(f"{label}:{_line(text, key, nth)}: {key!r} is no option of a dataset file.{hint}")
            takes = _OWN.get(key) or _PAIRS.get(key) or options().all[name].takes
            if not _takes(takes, value):
                expected = _EXPECTED[takes] if isinstance(takes, str) else " or ".join(takes)
                raise InputError(f"{label}:{_line(text, key, nth)}: {key} expects {expected}, found {value!r:.48}.")


def _takes(takes: str | tuple[str, ...], value: Any) -> bool:
    """Whether a value of the TOML is of the type that sd-scripts demands there."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or isinstance(value, float)
    if isinstance(takes, tuple):
        return (whole or isinstance(value, str)) and str(value) in takes
    match takes:
        case "flag":
            return isinstance(value, bool)
        case "int":
            return whole
        case "float" | "number":
            return number and math.isfinite(value)
        case "text":
            return isinstance(value, str) and is_text(value)
        case "path":
            return isinstance(value, str) and is_path(value)
        case "words":
            return isinstance(value, list) and all(isinstance(one, str) for one in value)
        case "side":
            pair = value if isinstance(value, list) and len(value) == 2 else [value]
            return all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in pair)
        case "range":
            return isinstance(value, list) and len(value) == 2 and all(_takes("float", one) for one in value)
        case "table":
            return isinstance(value, dict)
    return True  # tables, which are checked already


def _laid_over(values: Values, each: list[dict[str, Any]], text: str, label: str) -> None:
    """Gives the launch the options that its subsets agree on, and refuses those in which they differ."""
    for key in dict.fromkeys(key for one in each for key in one if key not in _OWN):
        name = _ALSO.get(key, key)
        option = options().all[name]
        given = [one.get(key, values.get(name)) for one in each]
        place = f"{label}:{toml_line(text, key)}"
        value: Any = given[0]
        if name == "resolution" and isinstance(value, list):
            value = ",".join(map(str, value))
        values.launch.given[name] = Given(option=option, value=value, place=place)
        values.rows.pop(name, None)
        values.withdraw(name)
        values._by_table(name, values.launch.given[name])
        if any(one != given[0] for one in given) and name not in _EACH:
            values.refuse(
                name,
                "Subsets differ in it, and a run reads all its captions and pictures in one way",
                f"{given[0]!r} for all",
                instead=f"the first subset's {given[0]!r} for all of them",
            )


def _subset(values: Values, one: dict[str, Any], number: int, text: str, label: str) -> Subset | None:
    place = f"{label}:{toml_line(text, 'image_dir', number) if 'image_dir' in one else 1}"
    if one.get("is_reg") or one.get("conditioning_data_dir"):
        values.launch.given.setdefault(
            "reg_data_dir", Given(option=options().all["reg_data_dir"], value=one.get("image_dir"), place=place)
        )
        values.refuse("reg_data_dir", "Regularization pictures, or masks, of their own", "the subset left out")
        return None
    if "image_dir" not in one and "metadata_file" not in one:
        raise InputError(
            f"{label}: subset {number + 1}: expected image_dir or metadata_file, found {', '.join(one) or 'nothing'}."
        )
    repeats = one.get("num_repeats", values.get("dataset_repeats"))
    if repeats < 1:
        what = one.get("image_dir") or one["metadata_file"]
        values.launch.remarks.append(
            f"{place}: {what} is taken {repeats} times an epoch, so that trainer leaves it out, and so does this."
        )
        return None
    return Subset(
        folder=str(one.get("image_dir", "")),
        index=str(one.get("metadata_file", "")),
        repeats=repeats,
        flip="metadata_file" not in one and bool(one.get("flip_aug", values.get("flip_aug"))),
        words=str(one.get("class_tokens") or ""),
    )


# ---- what is made of it


def _bucketing(values: Values, family: str, *, indexed: bool) -> tuple[tuple[str, Any], ...]:
    """The options of `dataset import folder` for sizes, where they are not its defaults."""
    names = ("resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale")
    if indexed:
        for name in names:
            if values.on(name):
                values.none(name, "The index has its latents, of their sizes")
        return ()
    usual = 768 if family == "sd2" else 1024
    if not values.on("resolution"):
        values.launch.remarks.append(
            f"{values.launch.place}: the line has no --resolution, at which that trainer stops: {usual} is taken."
        )
    width, height = _sides(values, str(values.get("resolution") or usual))
    area: int | str = width if width == height else f"{width}x{height}"
    if not values.get("enable_bucket"):
        for name in names[2:]:
            if values.on(name):
                values.none(name, "Of --enable_bucket, which is not given")
        if width != height:
            values.refuse("resolution", "One size that is no square", "--enable_bucket, or a square")
            area = width
        found = {"resolution": area, "smallest": area, "largest": area, "step": 64}
    elif values.get("bucket_no_upscale"):
        for name in ("min_bucket_reso", "max_bucket_reso"):
            if values.on(name):
                values.none(name, "That trainer does not read it with --bucket_no_upscale")
        values.key("enable_bucket", "dataset --no-upscale")
        found = {"resolution": area, "step": _side(values, "bucket_reso_steps"), "no-upscale": True}
    else:
        each = {"smallest": "min_bucket_reso", "largest": "max_bucket_reso", "step": "bucket_reso_steps"}
        found = {"resolution": area} | {option: _side(values, name) for option, name in each.items()}
    defaults = {"resolution": usual, "smallest": 256, "largest": 1024, "step": 64}
    return tuple((name, value) for name, value in found.items() if value != defaults.get(name))


def _sides(values: Values, given: str) -> tuple[int, int]:
    """Width and height of --resolution."""
    parts = [one.strip() for one in re.split(r"[,x]", given.strip("() "))]
    if len(parts) not in (1, 2) or not all(re.fullmatch(r"0*[1-9]\d{0,5}", one) for one in parts):
        raise InputError(f"{values.place('resolution')}: --resolution expects a side, or WIDTH,HEIGHT, found {given!r}.")
    return int(parts[0]), int(parts[-1])


def _side(values: Values, name: str) -> int:
    if (found := values.get(name)) < 1:
        raise InputError(f"{values.place(name)}: --{name} expects 1 or more, found {found}.")
    return found


def _told(found: Source, beside: Folder) -> str:
    """The extension of captions that an import of the one folder has to be told; "" where it would read no others.

    Of .txt and .caption an import takes .txt, so this is nothing to tell it of a folder that is not here.
    """
    [one] = found.subsets
    if one.index or found.extension not in CAPTIONS:
        return ""
    there = extensions(Path(whole_path(one.folder or ".", beside)))
    return found.extension if (found.extension != ".txt" if there is None else there - {found.extension}) else ""


def entry(name: str, found: Source, beside: Folder, autoencoder: str, encoder: str) -> DatasetEntry:
    """The ledger's entry of a dataset of one subset, and how its store is made."""
    [one] = found.subsets
    made = DatasetEntry(
        name=name, source=found, images=_count(one, beside), autoencoder=autoencoder, made_from=made_from(found, beside),
        encoder=encoder,
    )  # fmt: skip
    folder = whole_path(one.folder or ".", beside)
    if one.index:
        made.words = ["kohya", whole_path(one.index, beside), folder, "-o", made.store]
        return made
    told = _told(found, beside)
    if made.images and not found.bucketing and not told:
        made.folder = str(Path(folder).resolve())
        return made
    made.words = ["folder", folder, "-o", made.store, *(["--family", found.family] if found.family != "sdxl" else [])]
    made.words += ["--flip"] if one.flip else []
    made.words += ["--caption-extension", told] if told else []
    for option, value in found.bucketing:
        made.words += [f"--{option}"] if value is True else [f"--{option}", str(value)]
    made.words += ["--autoencoder", encoder or "AUTOENCODER"]
    return made


def _count(one: Subset, beside: Folder) -> int | None:
    """How many samples a subset has, where it is here and quick to count."""
    if one.index:
        index = Path(whole_path(one.index, beside))
        try:
            if not index.is_file() or index.stat().st_size > _LARGEST_INDEX:
                return None
            return len(json.loads(index.read_bytes())) or None
        except (ValueError, TypeError, OSError, RecursionError):  # no index, which its import says
            return None
    return count(Path(whole_path(one.folder or ".", beside)))


def made_from(found: Source, beside: Folder) -> dict[str, Any]:
    """All that the store of a source of one subset follows from: two launches with the same train on one dataset."""
    [one] = found.subsets
    autoencoder = whole_path(found.autoencoder, beside) if found.autoencoder else ""
    about: dict[str, Any] = {"family": found.family, "index": one.index and whole_path(one.index, beside)}
    about |= {"folder": whole_path(one.folder or ".", beside), "flip": one.flip, "autoencoder": autoencoder}
    about["captions"] = _told(found, beside)
    return {key: value for key, value in about.items() if value} | dict(found.bucketing)
