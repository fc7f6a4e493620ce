"""What launches train on: dataset entries of the ledger, and the `astolfo dataset import` that makes each of their stores.

A dataset is named by --in_json and --train_data_dir, by a folder of folders REPEATS_NAME, or by a dataset TOML, whose options are
laid over the line's: subset over dataset over [general], as that trainer does it.
"""

import json
import re
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya import dataset_toml
from astolfo.kohya.configuration import Files
from astolfo.kohya.entries import DatasetEntry, Source, Subset
from astolfo.kohya.paths import Folder, last, plain_path, whole_path
from astolfo.kohya.values import Values
from astolfo.ledger.content import captioned, count, extensions, holds_pictures
from astolfo.ledger.file_kinds import CAPTIONS

AUTOENCODERS = {"sdxl": "sdxl-vae", "sd2": "sd2-vae"}  # of the library, by family
_LARGEST_INDEX = 64 << 20  # bytes of an index that is read only to count its samples


def source(values: Values, files: Files, family: str) -> Source:
    """What a launch trains on. Lays a dataset TOML over the launch's own options."""
    if values.on("dataset_config"):
        subsets, proposal = dataset_toml.subsets_of(values, files)
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


def entry(
    name: str, found: Source, beside: Folder, autoencoder: str, encoder: str, about: dict[str, Any]
) -> DatasetEntry:  # fmt: skip
    """The ledger's entry of a dataset of one subset, and how its store is made; `about`: what `made_from` says of it."""
    [one] = found.subsets
    made = DatasetEntry(
        name=name, source=found, images=_count(one, beside), autoencoder=autoencoder, made_from=about,
        encoder=encoder,
    )  # fmt: skip
    folder = whole_path(one.folder or ".", beside)
    if one.index:
        made.words = ["kohya", whole_path(one.index, beside), folder, "-o", made.store]
        return made
    told = about.get("captions", "")
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
