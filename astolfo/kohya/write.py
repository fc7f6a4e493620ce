"""A ledger's YAML from runs that were read: one era, its bases and datasets, each run under the line that it was read from.

    text = era(found, title="From train.sh")       runs/<era>.yaml
    whole(found, ...)                               ledger.yaml: the same with bases and datasets, where there is no ledger yet
    account(found)                                  what became of every option, for people

What all runs share stands once, in the defaults. Secrets are not written.
"""

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from astolfo.kohya.entries import DatasetEntry, Imported, ImportedRun
from astolfo.kohya.launch import Launch
from astolfo.kohya.options import accelerate, names_secret, options
from astolfo.kohya.paths import same_file
from astolfo.kohya.values import printed
from astolfo.ledger import schema
from astolfo.program import command

FOLLOWS = "What follows, for the real thing (the rehearsal at the miniature scale needs nothing of it)"
_WIDTH = 132
_OWN = ("base", "dataset", "continues", "epochs", "steps", "learning_rate", "seed")  # what a run says itself, where it is alone
_ORDER = (
    "base", "continues", "dataset", "epochs", "steps", "objective", "captions", "unet", "learning_rate", "optimizer", "schedule",
    "ranks", "batch_size", "accumulation", "max_grad_norm", "precision", "save_every", "engine", "semantics", "choices", "seed",
    "placement",
)  # fmt: skip
_ALL = (*_ORDER, *(key for key in schema.RunFields.model_fields if key not in _ORDER))  # comments above a line say others, too
_BECOMES = {"key": "key", "placement": "placement", "none": "no effect", "refused": "left out"}
_HIDDEN = "(not shown)"
_NAME = re.compile(r"""(?P<quote>["']?)(?:(?P<option>--[A-Za-z][\w-]*)|(?<![\w-])(?P<variable>[A-Za-z_]\w*))""")
_SECRET = re.compile(r"(?i)KEY|TOKEN(?!IZER)|SECRET|PASS|CREDENTIAL|AUTH(?!OR)|(^|_)(PAT|PWD|PW)$")  # names of variables
_WORD = r"""(?:"(?:[\\`].|[^"\\`])*"|'[^']*'|\$\([^)]*\)|[\\^`]\n|\\.|[^\s"']|["'])+"""  # of any of the shells
_AFTER = {
    "option": re.compile(rf"""(?s)["']?(?:=|(?:[ \t]|[\\^`]?\n)+)(?P<value>{_WORD})"""),
    "variable": re.compile(rf"(?s)(?:=|[ \t]+=[ \t]*)(?P<value>{_WORD})"),
    '"': re.compile(rf'(?s)=(?P<value>(?:[\\`].|[^"\\`])*"(?:{_WORD})?)'),
    "'": re.compile(rf"(?s)=(?P<value>[^']*'(?:{_WORD})?)"),
}
"""What follows a name: its value, after a quote that begins before the name up to the quote's end."""
_LONG = 6  # characters of a secret that is blanked wherever it stands


def whole(found: Imported, title: str, ledger: Path) -> str:
    """A ledger in one file: bases, datasets, defaults and runs."""
    parts = [f"title: {scalar(title)}", _section("bases", bases(found)), _section("datasets", datasets(found)), _body(found)]
    return "\n\n".join(part.rstrip() for part in [*parts, _closing(found, ledger)] if part) + "\n"


def era(found: Imported, name: str, title: str, ledger: Path) -> str:
    """One era's file."""
    head = f"era: {scalar(name)}\ntitle: {scalar(title)}"
    return "\n\n".join(part.rstrip() for part in [head, _body(found), _closing(found, ledger)] if part) + "\n"


def bases(found: Imported) -> dict[str, str]:
    """Name -> entry of each base that is not yet in the ledger."""
    return {
        name: _commented([f"The line has {entry.path}"]) + "\n" + _mapping(entry.fields) for name, entry in found.bases.items()
    }


def datasets(found: Imported) -> dict[str, str]:
    """Name -> entry of each dataset that is not yet in the ledger."""
    return {name: _dataset(entry) for name, entry in found.datasets.items()}


def _dataset(entry: DatasetEntry) -> str:
    if entry.parts:
        return f"parts: {flow(entry.parts)}"
    lines = [
        f"images: {entry.images}" if entry.images else "images: 1000  # not counted: it is not here. Epochs are counted by it"
    ]
    lines += [f"folder: {scalar(entry.folder)}"] if entry.folder else []
    lines += ["flip: true"] if entry.source.subsets[0].flip else []
    lines += [f"autoencoder: {scalar(entry.autoencoder)}"] if entry.autoencoder != "sdxl-vae" else []
    return "\n".join(lines)


def uncounted(found: Imported) -> list[str]:
    """What is to know of each dataset whose pictures could not be counted."""
    return [
        f"Dataset {name}: {entry.source.subsets[0].index or entry.source.subsets[0].folder} is not here to be counted, so its "
        "entry says images: 1000. Write the pictures' number there, because the length of an epoch follows from it."
        for name, entry in found.datasets.items()
        if not entry.images and not entry.parts
    ]


def commands(found: Imported, ledger: Path) -> list[str]:
    """The commands that follow an import into the ledger's folder, in their order: all in a working directory at full scale."""
    here = ledger.resolve()
    place = here.parent if here.name == "config" else here
    full = shlex.quote(str(place.with_name(f"{place.name}-full")))
    lines = [f"mkdir -p {full} && cd {full}    # or any folder on a disk with room: full scale has one of its own"]
    for name, base in found.bases.items():
        remark = "" if base.file else f"    # {base.path} as one .safetensors file"
        lines.append(_typed("pin", name, base.file or "FILE") + remark)
    for name, entry in {one.autoencoder: one for one in found.datasets.values() if one.folder}.items():
        if name not in found.bases:
            lines.append(_typed("pin", name, entry.encoder or "AUTOENCODER") + "    # that trainer encodes with the base's own")
    for entry in found.datasets.values():
        if entry.words:
            lines += [_typed("dataset", "import", *entry.words), _typed("pin", entry.name, entry.store)]
    last = {
        same_file(run.launch.saves): run for run in found.runs if run.launch.saves
    }  # of several that saved one file it is the last one's
    for run in last.values():
        lines.append(
            _typed("adopt", run.name, run.launch.saves) + "    # if you have that file, and do not want to train it again"
        )
    return lines


def _typed(*words: str) -> str:
    return command(*words, scale="full", anywhere=True)


def account(found: Imported) -> list[str]:
    """What became of every option: one line for each option and value, with the runs that have it where not all do."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for run in found.runs:
        for row in run.values.rows.values():
            groups.setdefault((row.option, row.value, row.becomes, row.text), []).append(run.name)
    order = [*accelerate().all, *options().all]
    rows = sorted(groups, key=lambda row: (tuple(_BECOMES).index(row[2]), _place(row[0], order)))
    shown = [(f"{row[0]} {row[1]}".strip(), _BECOMES[row[2]], _text(row, groups[row], len(found.runs))) for row in rows]
    widths = [max((len(one[column]) for one in shown), default=0) for column in (0, 1)]
    return [f"{option.ljust(widths[0])}  {kind.ljust(widths[1])}  {text}" for option, kind, text in shown]


def _text(row: tuple[str, str, str, str], runs: list[str], of: int) -> str:
    return row[3] + (f"  ({', '.join(runs[:4])}{', ...' if len(runs) > 4 else ''})" if len(runs) != of else "")


def _place(name: str, order: list[str]) -> int:
    plain = name.removeprefix("accelerate ")
    return order.index(plain) if plain in order else -1


# ---- parts of a file


def _body(found: Imported) -> str:
    shared = _shared(found.runs)
    lines = ["defaults:", *_keys(shared, 2)] if shared else []
    lines += ["", "runs:"] if shared else ["runs:"]
    for run in found.runs:
        lines += [_commented(_source(run.launch), 2), f"  {named(run.name)}:"]
        lines += _keys({key: value for key, value in run.fields.items() if key not in shared}, 4)
        if run.notes or run.values.refusals:
            lines += _note([*run.notes, *_without(run)], 4)
    return "\n".join(lines)


def _without(run: ImportedRun) -> list[str]:
    """What a run was taken without, as sentences of its note."""
    return [
        f"{one.instead[0].upper()}{one.instead[1:]}, for the line's {one.what}: {one.reason}."
        if one.instead
        else f"Without the line's {one.what.removesuffix('.')}: {one.reason}."
        + (f" What comes nearest, and is not taken: {one.nearest}." if one.nearest else "")
        for one in run.values.refusals
    ]


def _shared(runs: list[ImportedRun]) -> dict[str, Any]:
    """What stands in the defaults: what all runs share, but no run's last key; of a single run all but what is its own."""
    first = runs[0].fields if runs else {}
    same = {key: value for key, value in first.items() if all(run.fields.get(key) == value for run in runs)}
    if any(run.fields.keys() <= same.keys() for run in runs):  # such a run would be without a key: each says its seed
        same.pop(next((key for key in ("seed", *_OWN) if key in same), ""), None)
    return {key: value for key, value in same.items() if len(runs) > 1 or key not in _OWN}


def _keys(fields: Mapping[str, Any], indent: int) -> list[str]:
    return [f"{' ' * indent}{key}: {_of_key(key, fields[key])}" for key in _ALL if key in fields]


def _of_key(key: str, value: Any) -> str:
    return named(value) if key in ("base", "dataset", "merge_base") and isinstance(value, str) else flow(value)


def _note(sentences: Iterable[str], indent: int) -> list[str]:
    text = printed(" ".join(sentences))
    return [f"{' ' * indent}note: >-", *(f"{' ' * (indent + 2)}{line}" for line in _wrapped(text, _WIDTH - indent - 2))]


def _section(name: str, entries: Mapping[str, str]) -> str:
    if not entries:
        return ""
    lines = [f"{name}:"]
    for key, entry in entries.items():
        lines += [f"  {named(key)}:", *(f"    {line}" for line in entry.splitlines())]
    return "\n".join(lines)


def _closing(found: Imported, ledger: Path) -> str:
    """What follows, what became of every option, and what was left out, as comments."""
    lines = [f"{FOLLOWS}:", *(f"    {line}" for line in commands(found, ledger)), ""]
    lines += ["What became of every option:", *(f"    {line.rstrip()}" for line in account(found))]
    if found.left_out:
        lines += ["", "Left out:", *(f"    {line}" for line in found.left_out)]
    return _commented(lines)


def _source(launch: Launch) -> list[str]:
    """The lines that a run was read from, without secrets."""
    text = _hidden(launch.text)
    for given in [*launch.given.values(), *launch.runner.values()]:
        if given.option.secret and isinstance(given.value, str) and len(given.value) >= _LONG:
            text = text.replace(given.value, _HIDDEN)
    lines = [line.rstrip() for line in text.splitlines()]
    return [f"{launch.place}", *(part for line in lines for part in _wrapped_line(line))]


def _hidden(text: str) -> str:
    """The source of a command, in which the values of options and variables that have a secret's name are blanked."""
    out, at = "", 0
    for head in _NAME.finditer(text):
        secret = names_secret(head["option"]) if head["option"] else _SECRET.search(head["variable"])
        if head.start() < at or not secret:
            continue
        kinds = (head["quote"], "option" if head["option"] else "variable")
        if value := next((match for kind in kinds if kind and (match := _AFTER[kind].match(text, head.end()))), None):
            out, at = f"{out}{text[at : value.start('value')]}{_HIDDEN}", value.end()
    return out + text[at:]


def _wrapped_line(line: str) -> list[str]:
    if len(line) <= _WIDTH - 4:
        return [line]
    bare = line.lstrip()
    space = line[: len(line) - len(bare)]
    return [space + ("" if number == 0 else "    ") + part for number, part in enumerate(_wrapped(bare, _WIDTH - 8 - len(space)))]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of whole words; a word that is longer than a line has one of its own."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) + 1 > width and lines[-1].strip():
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def _commented(lines: Iterable[str], indent: int = 0) -> str:
    return "\n".join(f"{' ' * indent}# {printed(line)}".rstrip() for line in lines)


def _mapping(fields: Mapping[str, Any]) -> str:
    return "\n".join(f"{key}: {flow(value)}" for key, value in fields.items())


# ---- values


def flow(value: Any) -> str:
    """A value as YAML on one line: {unet: 1.0e-5, text_encoders: 2.0e-6}."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{named(str(key))}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(one) for one in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A text or a number as YAML has it: quoted where it would be something else, and a float that is one (1.0e-5)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return str(value)
    text = str(value)
    plain = bool(re.fullmatch(r"[A-Za-z0-9_./()%,;'<>=+ -]*[A-Za-z0-9_./()%]", text)) and not text.startswith(
        ("-", "%", "'", ",")
    )
    if plain and ": " not in text and " #" not in text and "," not in text and _is_itself(text):
        return text
    return yaml.safe_dump(text, default_style='"', width=10**6, allow_unicode=True).strip()


def named(text: str) -> str:
    """A name as YAML has it; an ID of eight digits needs no quotes where a ledger has names."""
    return text if re.fullmatch(r"[0-9]{8}", text) else scalar(text)


def _is_itself(text: str) -> bool:
    """Whether YAML reads a text without quotes as that text, and not as a number, a date (or one that is none), or true."""
    try:
        return yaml.safe_load(text) == text
    except (yaml.YAMLError, ValueError):
        return False


def number(value: float) -> str:
    """A float as YAML 1.1 reads it back, to the bit."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    text = repr(value)
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}".replace("e+", "e+")
    return text if abs(value) >= 1e-3 else _scientific(value)


def _scientific(value: float) -> str:
    for digits in range(1, 17):
        text = f"{value:.{digits}e}"
        if float(text) == value:
            mantissa, exponent = text.split("e")
            return f"{mantissa}e{int(exponent):+d}"
    return repr(value)
