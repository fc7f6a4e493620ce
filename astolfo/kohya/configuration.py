"""The files of an import: launches of all scripts, with the configuration files that they name laid under them.

    found, files = launches([Path("train.sh"), Path("sdxl.toml")])

An option stands on the line, or in the TOML file that `--config_file` names, over which the line is laid. A file that a line
names is what its script writes, one of those that are given, or one that is here, where the line says or beside the script. A
TOML file that no line names and that says what to train is a launch of its own.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from astolfo.errors import InputError
from astolfo.kohya import shell
from astolfo.kohya.launch import Given, Launch, launches_in, option_of
from astolfo.kohya.options import accelerate, options
from astolfo.kohya.paths import Folder, last, same_file, whole_path
from astolfo.kohya.shell import Written


@dataclass(frozen=True, kw_only=True)
class Found:
    """A configuration file's text, what to call it in messages, and why nobody knows what a line of it says."""

    text: str
    label: str
    trouble: Mapping[int, str] = field(default_factory=dict)

    def known(self) -> "Found":
        """The same. Raises InputError where only the shell knows a line of it."""
        for line, why in self.trouble.items():
            raise InputError(f"{self.label}: its line {line}: {why}, and it may be needed here. Write the value in.")
        return self

    def toml(self) -> dict[str, Any]:
        """Its content. Raises InputError where it is no TOML, or only the shell knows what makes it one."""
        try:
            return toml(self.text, self.label)
        except InputError:
            self.known()
            raise


class Files:
    """Files that launches name: those that their scripts write, those that are given to an import, and those that are here."""

    def __init__(self, given: Sequence[Path]):
        self.given = given
        self.named: set[Path] = set()

    def find(self, name: str, launch: Launch) -> Found | None:
        """The file that a launch calls `name`; None where it is not here.

        Raises InputError where two of the given files may be meant, and where nobody knows what the script makes of it.
        """
        below = [launch.folder.here / name, Path(name), launch.path.parent / name]
        given = [one for one in dict.fromkeys(path.resolve() for path in self.given) if one.name == last(name)]
        exact = [one for one in given if one in [path.resolve() for path in below if "\0" not in name]]
        written = self._written(name, launch, here=any(os.path.isfile(path) for path in below))
        if written and not (given and 0 in written.trouble):
            if why := written.trouble.get(0):
                raise InputError(f"{launch.place}: {name}: {why}, so nobody knows what it holds. Give it to the import too.")
            return Found(text=written.text, label=f"{launch.path} ({name})", trouble=written.trouble)
        if len(given) > 1 and not exact:
            raise InputError(
                f"{launch.place}: {name} may be {' or '.join(map(str, given))}, since both are given. Import them one by one."
            )
        for path in [*exact, *given, *below, launch.path.parent / last(name)]:
            if os.path.isfile(path):  # a name that is too long, or holds a NUL, is no file's
                self.named.add(path.resolve())
                return Found(text=shell.read_text(path), label=str(path))
        return None

    @staticmethod
    def _written(name: str, launch: Launch, here: bool) -> Written | None:
        """What the script writes under that path; under its last part alone where it writes one such file and none is here."""
        whole = same_file(whole_path(name, launch.folder))
        for path, written in launch.writes.items():
            if same_file(whole_path(path, Folder(script=launch.path))) == whole:
                return written
        alike = [written for path, written in launch.writes.items() if last(path) == last(name)]
        return alike[0] if len(alike) == 1 and not here else None


def launches(paths: Sequence[Path], ranks_given: bool = False) -> tuple[list[Launch], Files]:
    """Every training that the files say, in their order. Raises InputError, with file and line, for what cannot be read.

    `ranks_given`: how many cards trained is known otherwise, so that accelerate's configuration may be missing.
    """
    files = Files(paths)
    found: list[Launch] = []
    machine = _machine(path for path in paths if path.suffix.lower() in (".yaml", ".yml"))
    scripts = [path for path in paths if path.suffix.lower() not in (".toml", ".yaml", ".yml", ".json")]
    for path in scripts:
        found += launches_in(shell.read(path), paths)
    for launch in found:
        _configured(launch, files, machine, ranks_given)
    for path in paths:
        if path.suffix.lower() == ".json":
            raise InputError(
                f"{path}: expected a script or a TOML file. The GUI's .json is its own: print the command, or save the .toml."
            )
        if path.suffix.lower() == ".toml" and path.resolve() not in files.named and (alone := _alone(path, files)):
            found.append(alone)
            _configured(alone, files, machine, ranks_given)
    return found, files


def _configured(launch: Launch, files: Files, machine: dict[str, Given], ranks_given: bool) -> None:
    """Lays the line over its --config_file, and accelerate's options over its configuration."""
    if named := launch.runner.get("config_file"):
        found = files.find(_certain(named), launch)
        if found is None and not ranks_given:
            raise InputError(
                f"{named.place}: accelerate's --config_file {named.value} is not here. Give that file to the import too, or say "
                "with --ranks how many cards trained."
            )
        machine = _accelerate_file(found.known().text, found.label) if found else {}
    if launch.runs_by == "accelerate":
        launch.runner = {name: one for name, one in machine.items() if name not in launch.runner} | launch.runner
    if (named := launch.given.get("config_file")) and launch.trainer:
        name = _certain(named)
        name = name if name.endswith(".toml") else name + ".toml"
        found = files.find(name, launch)
        if found is None:
            raise InputError(f"{named.place}: --config_file {name} is not here. Give that file to the import too.")
        launch.given = _toml_options(launch, found) | launch.given


def _certain(given: Given) -> str:
    """The name of a configuration file. Raises InputError where only the shell knows it."""
    if given.trouble:
        raise InputError(f"{given.place}: --config_file {given.value}: {given.trouble}, and it is needed here. Write it in.")
    return str(given.value)


def _toml_options(launch: Launch, file: Found) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for section, value in file.toml().items():
        for name, one in value.items() if isinstance(value, dict) else [(section, value)]:
            line = toml_line(file.text, name)
            option = option_of(launch, name, f"{file.label}:{line}")
            place = f"{file.label}:{line}"
            found[option.name] = Given(option=option, value=one, place=place, trouble=file.trouble.get(line, ""))
    return found


def _alone(path: Path, files: Files) -> Launch | None:
    """A TOML file as a launch; None for one that describes datasets, which some launch must name."""
    text = shell.read_text(path)
    content = toml(text, str(path))
    flat = {key for one in [content, *(value for value in content.values() if isinstance(value, dict))] for key in one}
    if "datasets" in content or "pretrained_model_name_or_path" not in flat:
        return None
    files.named.add(path.resolve())
    second = content.get("v2") or any(value.get("v2") for value in content.values() if isinstance(value, dict))
    launch = Launch(path=path, line=1, text=f"--config_file {path.name}", trainer="fine_tune" if second else "sdxl")
    launch.given["config_file"] = Given(option=options().all["config_file"], value=str(path), place=str(path))
    return launch


def toml(text: str, label: str) -> dict[str, Any]:
    """A TOML file's content. Raises InputError, with the line, for one that is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{label}: expected TOML: {error}.") from None


def toml_line(text: str, key: str, nth: int = 0) -> int:
    """The line where a key, or a table of that name, stands for the nth time (from 0)."""
    name = re.escape(key)
    found = [one.start() for one in re.finditer(rf'(?m)^[ \t]*(?:"?{name}"?\s*[=:.]|\[+\s*(?:\w+\.)*{name}\s*[\].])', text)]
    return text.count("\n", 0, found[min(nth, len(found) - 1)]) + 1 if found else 1


def _machine(paths: Iterable[Path]) -> dict[str, Given]:
    """The configuration of accelerate that is given to the import for launches that name none."""
    found: dict[str, Given] = {}
    for path in paths:
        found |= _accelerate_file(shell.read_text(path), str(path))
    return found


def _accelerate_file(text: str, label: str) -> dict[str, Given]:
    """The keys of accelerate's configuration that the table knows."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{label}: expected accelerate's configuration, found no YAML: {error}") from None
    if not isinstance(content, dict) or not {"num_processes", "distributed_type", "compute_environment"} & content.keys():
        raise InputError(f"{label}: expected accelerate's configuration, with num_processes, as `accelerate config` writes it.")
    flat = dict(content)
    for section in ("deepspeed_config", "dynamo_config"):
        inner = content.get(section) or {}
        if not isinstance(inner, dict):
            raise InputError(f"{label}:{_yaml_line(text, section)}: expected keys and values in {section}, found {inner!r}.")
        flat |= inner
    kind = str(content.get("distributed_type", "NO")).upper()
    if kind == "DEEPSPEED":
        flat["use_deepspeed"] = True
    if kind in ("FSDP", "MEGATRON_LM", "TPU", "XLA"):
        flat[{"FSDP": "use_fsdp", "MEGATRON_LM": "use_megatron_lm"}.get(kind, "tpu")] = True
    found = {}
    for name, value in flat.items():
        if isinstance(value, dict) or value is None or value is False or value == "":
            continue
        if option := accelerate().find(name):
            found[name] = Given(option=replace(option, name=name), value=value, place=f"{label}:{_yaml_line(text, name)}")
    return found


def _yaml_line(text: str, key: str) -> int:
    match = re.search(rf"(?m)^\s*{re.escape(key)}\s*:", text)
    return text.count("\n", 0, match.start()) + 1 if match else 1
