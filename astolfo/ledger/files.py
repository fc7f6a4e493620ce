"""The files of a ledger, laid over those of the library: which entries there are, and where each of them stands.

    files = Files(Path("config"))
    bases = files.read("bases", schema.Base)               # name -> entry; LedgerError with file and line
    raise files.error("bases", "my-base", ["full"], "...") # at the line of that key

A section's entries stand in `<section>.yaml` by name, in `<section>/<name>.yaml` one by one, or in the section of `ledger.yaml`,
which can hold a whole ledger. An entry of the ledger is laid over the library's of the same name, key by key.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from astolfo import library
from astolfo.errors import LedgerError
from astolfo.ledger.yamlfile import Document

T = TypeVar("T", bound=BaseModel)
WHOLE = "ledger.yaml"  # the file that can hold everything
IMPORTED = "imported.yaml"  # what `astolfo ledger import` read: no part of the ledger
RUNS = "runs"
SECTIONS = ("bases", "datasets", "evaluations", "prompts", "hardware", "scales", "equivalence", "stand-ins")
_NAMED = 12  # names that an error lists at most
_SURE = 0.85  # likeness of two names that are meant to be one: "run" and "runs"
_ERA = ("defaults", RUNS)  # keys of ledger.yaml that make it an era as well
_MARKS = (WHOLE, "runs.yaml", "bases.yaml", "datasets.yaml")  # a folder with one of them, or with runs/, is a ledger


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One statement of an entry: what it says, and where it stands."""

    document: Document
    path: tuple[str, ...]
    value: Any

    def says(self, key: object) -> bool:
        return isinstance(self.value, Mapping) and str(key) in self.value

    def error(self, keys: Sequence[Any], message: str) -> LedgerError:
        """A LedgerError at the line of `keys` within the entry."""
        return self.document.error([*self.path, *keys], message)


class Files:
    """The files below `folder` and the library's. Raises LedgerError where `folder` holds no ledger."""

    def __init__(self, folder: Path):
        if not is_ledger(folder):
            raise LedgerError(
                f"{folder} holds no ledger: expected {', '.join(_MARKS)} or a folder runs/ in it. Name another folder, or make "
                "a ledger: `astolfo init FOLDER`."
            )
        self.folder = folder
        self.whole = _mapping(Document(folder / WHOLE)) if (folder / WHOLE).exists() else None
        self._layers: dict[tuple[str, str], list[Layer]] = {}

    def read(self, section: str, kind: type[T], only: str | None = None) -> dict[str, T]:
        """Every entry of a section by name, or `only` that one: the library's first, then the ledger's own."""
        layers: dict[str, list[Layer]] = {}
        for name, layer in (*_shipped(section, only), *self._own(section, only)):
            layers.setdefault(name, []).append(layer)
        self._layers |= {(section, name): found for name, found in layers.items()}
        return {name: validated(found, kind) for name, found in layers.items()}

    def about(self, kind: type[T]) -> T:
        """What ledger.yaml says of the ledger itself; the sections and runs that may stand beside it are left out."""
        if self.whole is None:
            return kind()
        aside = {*SECTIONS, *_ERA}
        own = {key: value for key, value in self.whole.value.items() if key not in aside}
        return validated([Layer(document=self.whole, path=(), value=own)], kind, also=aside)

    def eras(self) -> Iterable[tuple[str, Layer]]:
        """Every era by the name of its file: runs/*.yaml, runs.yaml, and that of ledger.yaml."""
        documents = [(path.stem, Document(path)) for path in sorted((self.folder / RUNS).glob("*.yaml"))]
        if (self.folder / f"{RUNS}.yaml").exists():
            documents.append((RUNS, Document(self.folder / f"{RUNS}.yaml")))
        if self.whole and RUNS in self.whole.value:
            documents.append((RUNS, self.whole))
        return [(name, Layer(document=document, path=(), value=self._era(document))) for name, document in documents]

    def _era(self, document: Document) -> Any:
        """What of a document is an era: all of it, but in ledger.yaml its runs and their defaults."""
        if document is not self.whole:
            return document.value
        return {key: document.value[key] for key in _ERA if key in document.value}

    def error(self, section: str, name: str, keys: Sequence[Any], message: str) -> LedgerError:
        """A LedgerError at the line of an entry's keys, in the file that says them."""
        return _layer(self._layers[section, name], keys).error(keys, message)

    def take(self, section: str, name: str, other: "Files") -> None:
        """Takes an entry of another ledger's files for one of these."""
        self._layers[section, name] = other._layers[section, name]

    def says(self, section: str, name: str, key: str) -> bool:
        """Whether the ledger itself, and not the library, says the key of an entry."""
        layers = self._layers[section, name]
        return any(layer.says(key) and not layer.document.path.is_relative_to(library.FOLDER) for layer in layers)

    def _own(self, section: str, only: str | None) -> Iterable[tuple[str, Layer]]:
        found = list(_entries(self.folder, section, only, Document))
        if self.whole and (entries := self.whole.value.get(section)) is not None:
            if not isinstance(entries, Mapping):
                raise self.whole.error([section], f"{section}: expected entries by name. Found {entries!r}.")
            names = [name for name in entries if only in (None, name)]
            found += [(name, Layer(document=self.whole, path=(section, name), value=entries[name])) for name in names]
        seen: dict[str, Layer] = {}
        for name, layer in found:
            if name in seen:
                other = seen[name].document
                where = f"{other.path}:{other.line(seen[name].path)}"
                raise layer.error([], f"{name!r} of {section} stands in {where} already. Remove one.")
            seen[name] = layer
        return found


def check_names(folder: Path) -> None:
    """Raises LedgerError for a file of a ledger's folder that a reader would take for a part of it, and that nothing reads."""
    places = (*SECTIONS, RUNS)
    files = [Path(name).stem for name in (WHOLE, IMPORTED)] + list(places)
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name in places:
            for inner in sorted(path.iterdir()):
                if _is_yaml(inner) and inner.suffix != ".yaml":
                    raise LedgerError(f"{inner}: expected a name that ends in .yaml, or this file is not read. Rename it.")
        elif path.is_dir() and (meant := near(path.name, places, _SURE)) and any(map(_is_yaml, path.iterdir())):
            raise LedgerError(f"{path}: a ledger has no folder {path.name}. Did you mean {meant[0]}? Rename it, or move it away.")
        elif _is_yaml(path) and (path.stem not in files or path.suffix != ".yaml") and (meant := near(path.stem, files, _SURE)):
            hint = f"Did you mean {meant[0]}.yaml? Rename it, or move it away."
            raise LedgerError(f"{path}: a ledger has no file of this name, so it is not read. {hint}")


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml") and path.is_file()


def is_ledger(folder: Path) -> bool:
    """Whether a folder holds a ledger of its own."""
    return any((folder / name).is_file() for name in _MARKS) or (folder / RUNS).is_dir()


def validated(layers: Sequence[Layer], kind: type[T], also: Iterable[str] = ()) -> T:
    """The entry that the layers state, the last one over those before. Raises LedgerError at the line of what is wrong.

    `also` are keys that may stand beside the entry's own, for the hint at an unknown one.
    """
    value: Any = layers[-1].value
    if all(isinstance(layer.value, Mapping) for layer in layers):
        value = {key: given for layer in layers for key, given in layer.value.items()}
    try:
        return kind.model_validate({} if value is None else value)
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key is also a missing one
        location = [part for part in first["loc"] if not str(part).startswith("function-")]
        layer = _layer(layers, location)
        name = layer.path[-1] if layer.path else "the file"
        raise layer.error(location, _explained(first, location, kind, also, name)) from None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """ "unknown run 'my-frst': did you mean my-first?" """
    names = list(dict.fromkeys(known))
    if close := near(name, names):
        return f"unknown {what} {name!r}. Did you mean {' or '.join(close)}?"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    rest = f" Known: {', '.join(names[:_NAMED])}{more}." if names else " There is none yet."
    return f"unknown {what} {name!r}.{rest}"


def near(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Up to three known names like `name`, the nearest first; capitals and underscores make no other name."""
    plain: dict[str, list[str]] = {}
    for one in known:
        plain.setdefault(_plain(one), []).append(one)
    if _plain(name) in plain:
        return plain[_plain(name)][:3]
    return [one for hit in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=cutoff) for one in plain[hit]][:3]


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _layer(layers: Sequence[Layer], keys: Sequence[Any]) -> Layer:
    """The layer that says the first of the keys; where none does, the ledger's own."""
    return next((layer for layer in reversed(layers) if keys and layer.says(keys[0])), layers[-1])


@cache
def _shipped(section: str, only: str | None) -> list[tuple[str, Layer]]:
    return list(_entries(library.FOLDER, section, only, Document))


def _entries(folder: Path, section: str, only: str | None, read: Any) -> Iterable[tuple[str, Layer]]:
    """What `<section>.yaml` and `<section>/*.yaml` below a folder hold, by name."""
    if (file := folder / f"{section}.yaml").exists():
        document = _mapping(read(file))
        for name, value in document.value.items():
            if only in (None, name):
                yield name, Layer(document=document, path=(name,), value=value)
    for path in sorted((folder / section).glob("*.yaml")):
        if only in (None, path.stem):
            document = read(path)
            yield path.stem, Layer(document=document, path=(), value=document.value)


def _mapping(document: Document) -> Document:
    if not isinstance(document.value, Mapping):
        raise document.error([], f"expected keys and values, found {document.value!r}.")
    return document


# ---- pydantic's errors in the ledger's own words


_BOUNDS = {
    "greater_than": "a number above {gt:g}", "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}", "less_than_equal": "a number of at most {le:g}",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number", "bool_type": "true or false",
    "bool_parsing": "true or false", "string_type": "a text", "tuple_type": "a list", "list_type": "a list",
}  # fmt: skip
"""pydantic's problem -> what was expected."""


def _explained(error: Any, location: list[Any], kind: type[BaseModel], also: Iterable[str], name: str) -> str:
    where, problem, found = ".".join(map(str, location)) or name, error["type"], error["input"]
    if problem == "extra_forbidden":
        return f"unknown key {str(location[-1])!r}.{_close_keys(kind, location, also)}"
    if problem == "missing":
        return f"{where} is missing. Add it."
    if problem in ("model_type", "dict_type"):
        models = _models_at({kind}, location) if problem == "model_type" else ()
        example = next(filter(None, (getattr(one, "example", "") for one in models)), "")
        return f"{where}: expected keys {f'such as {example}' if example else 'and values'}; found {_shown(found)}."
    if problem in _BOUNDS:
        return f"{where}: expected {_BOUNDS[problem].format(**error.get('ctx', {}))}, found {_shown(found)}."
    if problem == "literal_error":
        return f"{where}: expected {error['ctx']['expected'].replace('True', 'true')}; found {found!r}.{_close_values(error)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message} Found {found!r}." if message.endswith(".") else f"{where}: {message}; found {found!r}."


def _shown(value: Any) -> str:
    """A value as a message shows it: a number that YAML takes for text ("1e-5") as it is written."""
    if isinstance(value, bool):
        return "yes or true" if value else "no or false"
    return value if isinstance(value, str) and re.fullmatch(r"[-+.\de]+", value) else repr(value)


def _close_values(error: Any) -> str:
    """The hint for a word that is not one of those that its key takes."""
    close = near(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _close_keys(kind: type[BaseModel], location: Sequence[Any], also: Iterable[str]) -> str:
    """Hints for an unknown key from the keys that its place has."""
    places = _models_at({kind}, location[:-1])
    keys = sorted({field for model in places for field in model.model_fields} | (set(also) if len(location) == 1 else set()))
    if close := near(str(location[-1]), keys):
        return f" Did you mean {' or '.join(close)}?"
    if 0 < len(keys) <= 12:
        return f" Expected {', '.join(keys)}."
    return f" {library.FOLDER.parents[1] / 'config' / 'README.md'} lists the keys."


def _models_at(kinds: set[Any], location: Sequence[Any]) -> set[type[BaseModel]]:
    """The models that may stand at a place of an entry."""
    found = {model for kind in kinds for model in _models(kind)}
    for key in location:
        inner = [model.model_fields[key].annotation for model in found if key in model.model_fields]
        found = (
            {model for kind in inner for model in _models(kind)} if inner else found
        )  # else: a name, an index or a union's tag
    return found


def _models(kind: Any) -> Iterable[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _models(inner)
