"""Dataset files of sd-scripts, TOML or JSON: [general], [[datasets]] and [[datasets.subsets]], laid over a line's options.

Subset over dataset over [general], as that trainer does it. Keys and types are those that it accepts; all else is an error with
the file's line.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya.configuration import Files, toml, toml_line
from astolfo.kohya.entries import Subset
from astolfo.kohya.launch import Given
from astolfo.kohya.options import options
from astolfo.kohya.paths import last
from astolfo.kohya.values import Values, is_path, is_text

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
_EACH = ("dataset_repeats", "flip_aug")  # options that each subset may have its own way


def subsets_of(values: Values, files: Files) -> tuple[tuple[Subset, ...], str]:
    """The subsets that a launch's --dataset_config describes, laid over its options; and a name for all of them."""
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
        raise InputError(f"{label}:{toml_line(text, key)}: expected [general] and [[datasets]], found {key!r}.")
    general, datasets = content.get("general", {}), content.get("datasets", [])
    if not isinstance(general, dict):
        raise InputError(f"{label}:{toml_line(text, 'general')}: expected a table, [general], found general = {general!r:.48}.")
    if isinstance(datasets, dict):
        what = "[[datasets.subsets]] without it" if "subsets" in datasets else "one table, [datasets]"
        raise InputError(
            f"{label}:{toml_line(text, 'datasets')}: expected [[datasets]] above [[datasets.subsets]], found {what}."
        )
    for key, found in [("datasets", datasets), *(("subsets", one.get("subsets", [])) for one in _every(datasets))]:
        if not isinstance(found, list) or len(_every(found)) != len(found):
            name = "datasets.subsets" if key == "subsets" else key
            raise InputError(f"{label}:{toml_line(text, key)}: expected tables, [[{name}]], found {key} = {found!r:.48}.")
    return general, datasets


def _every(found: Any) -> list[dict[str, Any]]:
    """The tables of a list."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


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
                raise InputError(f"{label}:{toml_line(text, key, nth)}: {key!r} is no option of a dataset file.{hint}")
            takes = _OWN.get(key) or _PAIRS.get(key) or options().all[name].takes
            if not _takes(takes, value):
                expected = _EXPECTED[takes] if isinstance(takes, str) else " or ".join(takes)
                raise InputError(f"{label}:{toml_line(text, key, nth)}: {key} expects {expected}, found {value!r:.48}.")


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
