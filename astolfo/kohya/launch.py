"""Launches: the commands of scripts that train, with every option that they give and where it stands.

launches_in(shell.read(Path("train.sh")))      configuration files that they name are not yet read
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from astolfo.errors import InputError
from astolfo.kohya import shell
from astolfo.kohya.options import Option, Table, accelerate, options
from astolfo.kohya.paths import Folder, last, whole_path
from astolfo.kohya.shell import POSIX_SHELLS, TRAINS, Command, Script, Word, Written

_TRAINERS = {
    "sdxl_train.py": "sdxl", "sdxl_train_v2.py": "sdxl", "sdxl_train_native.py": "sdxl", "fine_tune.py": "fine_tune",
}  # fmt: skip
_OTHERS = {
    "network": "trains a LoRA, which is no checkpoint: a ledger holds whole models. Merge it into its base first",
    "leco": "trains a LoRA, which is no checkpoint: a ledger holds whole models",
    "control": "trains a ControlNet, which is no checkpoint: a ledger holds whole models",
    "textual_inversion": "trains an embedding, which is no checkpoint: a ledger holds whole models",
    "train_db": "trains SD 1.x or 2.x by DreamBooth. What comes nearest is fine_tune.py --v2 with a metadata file",
    "flux": "trains Flux: a ledger's families are sdxl and sd2",
    "sd3": "trains SD 3: a ledger's families are sdxl and sd2",
    "lumina": "trains Lumina: a ledger's families are sdxl and sd2",
    "anima": "trains Anima: a ledger's families are sdxl and sd2",
    "hunyuan": "trains HunyuanImage: a ledger's families are sdxl and sd2",
    "text_to_image": "is diffusers' example, whose options are its own",
    "dreambooth": "is diffusers' example, whose options are its own",
}  # fmt: skip
_UNREAD = "starts a trainer in a way that is not read here. Write the launch as a command of its own"
_NO_RUNNERS = {
    "echo", "printf", "cat", "grep", "pgrep", "pkill", "cp", "mv", "ln", "ls", "rm", "test", "[", "[[", "diff", "sed", "awk",
    "tee", "head", "tail", "which", "where", "type", "chmod", "git", "wget", "curl", "find", "pip", "copy", "move", "del", "rem",
    "write-host", "write-output", "test-path", "notify-send", "trap",
}  # fmt: skip
_SHELLS = (*POSIX_SHELLS, "call", "powershell", "pwsh", "cmd")
_RUNNERS = {
    "nproc_per_node": "num_processes", "num_gpus": "num_processes", "nnodes": "num_machines", "num_nodes": "num_machines",
    "node_rank": "machine_rank", "include": "gpu_ids", "master_port": "main_process_port", "master_addr": "main_process_ip",
}  # fmt: skip
_VALUELESS = ("standalone", "no_python", "force_multi", "bind_cores_to_rank", "use_env")
_MEETING = (
    *_VALUELESS, "rdzv_backend", "rdzv_endpoint", "rdzv_id", "rdzv_conf", "max_restarts", "monitor_interval", "start_method",
    "role", "log_dir", "redirects", "tee", "local_addr", "local_rank", "hostfile", "launcher", "launcher_args", "bind_core_list",
)  # fmt: skip
"""Options of torchrun and of deepspeed that say where processes run and how they meet; the first few take no value."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """An option that is given: its value as it stands, and where. `trouble`: what of the value only the shell knows."""

    option: Option
    value: Any
    place: str
    trouble: str = ""


@dataclass(kw_only=True)
class Launch:
    """One training: the trainer that it starts, with which options, in which surroundings."""

    path: Path
    line: int
    text: str
    trainer: str  # a key of options.TRAINERS; "" for one that is refused
    script: str = ""  # the trainer's file name, as the line has it
    refused: str = ""
    given: dict[str, Given] = field(default_factory=dict)
    runner: dict[str, Given] = field(default_factory=dict)  # options of accelerate
    runs_by: str = "accelerate"
    environment: dict[str, Word] = field(default_factory=dict)
    moved: str = ""  # where `cd` has led by then, as the script says it
    writes: Mapping[str, Written] = field(default_factory=dict)  # files that its script has written by then, by their names there
    numa: str = ""
    remarks: list[str] = field(default_factory=list)
    ledger_keys: dict[str, Any] = field(default_factory=dict)  # of the ledger itself, in comments above: `# astolfo: unet: 71`

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def folder(self) -> Folder:
        """Where its relative paths begin."""
        return Folder(script=self.path, moved=self.moved)

    @property
    def called(self) -> str:
        """--output_name, or what that trainer takes without one."""
        return str(self.given["output_name"].value or "last") if "output_name" in self.given else "last"

    @property
    def saves(self) -> str:
        """The whole path of the model that it saves last; "" where only the shell knows it."""
        given = [self.given[option] for option in ("output_dir", "output_name") if option in self.given]
        if any(one.trouble for one in given):
            return ""
        folder = str(self.given["output_dir"].value or "") if "output_dir" in self.given else ""
        slash = "\\" if "\\" in folder else "/"
        return whole_path(f"{folder.rstrip('/') or '.'}{slash}{self.called}.safetensors", self.folder)


def launches_in(script: Script, given: Sequence[Path] = ()) -> list[Launch]:
    """The launches of a script, its configuration files not yet read; `given`: all files of the import.

    Raises InputError where it has none.
    """
    path = script.path
    own = [one for command in _continued(script.commands) if (one := _launch(path, command, given))]
    if not any(one.trainer for one in own) and all(one.refused == _UNREAD for one in own):
        places = ", ".join(str(one.line) for one in own)
        hint = f" Line {places} starts one in a way that is not read: write the launch as a command of its own." if own else ""
        raise InputError(
            f"{path}: expected `accelerate launch ... sdxl_train.py` or fine_tune.py, found no command that trains. "
            f"A configuration file of its options ends in .toml.{hint}"
        )
    lines = script.text.split("\n")
    for launch in own:
        launch.ledger_keys = _ledger_keys(path, lines, launch.line)
    own[0].remarks = [*(f"{path}:{remark}" for remark in dict.fromkeys(script.remarks)), *own[0].remarks]
    return own


def _ledger_keys(path: Path, lines: Sequence[str], line: int) -> dict[str, Any]:
    """What the comments above a launch say in the ledger's words: key (with dots) -> value."""
    found: dict[str, Any] = {}
    number = line - 1
    while number > 0 and lines[number - 1].lstrip().startswith("#"):
        if match := re.match(r"\s*#\s*astolfo:\s*([A-Za-z_][\w.]*):\s*(.*?)\s*$", lines[number - 1]):
            try:
                found[match[1]] = _value(match[1], match[2])
            except (yaml.YAMLError, ValueError) as error:
                raise InputError(f"{path}:{number}: expected `# astolfo: KEY: VALUE`, found no YAML: {error}") from None
        number -= 1
    return dict(reversed(found.items()))


def _value(key: str, text: str) -> Any:
    """A value of the ledger; names stay as they are written."""
    value = yaml.safe_load(text)
    return str(value) if key in ("base", "dataset", "merge_base") and value is not None else value


def _continued(commands: Iterable[Command]) -> list[Command]:
    """Commands, with options on lines of their own added to the launch above: their line's mark of continuation is missing."""
    found: list[Command] = []
    for command in commands:
        first = command.words[0].text if command.words else ""
        script = first.endswith(".py") and found and not any(word.text.endswith(".py") for word in found[-1].words)
        if found and (first.startswith("--") or script) and _runner(found[-1].words) is not None:
            before = found[-1]
            text = f"{before.text.rstrip()}\n{command.text.strip()}"
            trouble = before.trouble or command.trouble
            found[-1] = replace(before, words=before.words + command.words, text=text, trouble=trouble)
        else:
            found.append(command)
    return found


def _runner(words: Sequence[Word]) -> tuple[str, int] | None:
    """What starts the trainer, and the index of the first word after it; None for a command that starts none."""
    names = [last(word.text).lower().removesuffix(".exe") for word in words]
    if names and names[0] in _NO_RUNNERS:
        return None
    for index, name in enumerate(names):
        if name == "accelerate-launch" or name == "accelerate.commands.launch":
            return "accelerate", index + 1
        if name == "accelerate" and names[index + 1 : index + 2] == ["launch"]:
            return "accelerate", index + 2
        if name in ("torchrun", "deepspeed", "torch.distributed.run", "torch.distributed.launch"):
            return "torchrun", index + 1
    for index, name in enumerate(names):
        if re.fullmatch(r"python[\d.]*w?|py", name) and any(one.endswith(".py") for one in names[index + 1 : index + 3]):
            return "python", index + 1
        if name in _TRAINERS:
            return "python", index
    return None


def _names_a_trainer(command: Command) -> bool:
    """Whether a command that is no launch holds one: `ssh host "accelerate launch ..."`, `python $TRAINER --pretrained...`."""
    first = last(command.words[0].text).lower() if command.words else ""
    base = any(word.text.startswith("--pretrained_model_name_or_path") for word in command.words)
    return first not in _NO_RUNNERS and (base or any(TRAINS.search(word.text) for word in command.words))


def _launch(path: Path, command: Command, given: Sequence[Path]) -> Launch | None:
    start = _runner(command.words)
    launch = Launch(
        path=path, line=command.line, text=command.text, trainer="", environment=dict(command.environment),
        moved=command.folder, writes=command.writes,
    )  # fmt: skip
    if start is None:
        launch.refused = _UNREAD if _names_a_trainer(command) else _other_script(command, launch.folder, given)
        return launch if launch.refused else None
    launch.runs_by, begin = start
    before, words = command.words[:begin], list(command.words[begin:])
    if any(last(word.text) in ("xargs", "parallel") for word in before):
        launch.refused = f"{last(before[0].text)} gives it options that only the shell knows. Write the launch out"
        return launch
    launch.numa = _numa(before)
    script = _runner_options(launch, words)
    name = last(script.text).lower() if script else ""
    unknown = next((word for word in (*before, script) if word and word.trouble and not last(word.text).endswith(".py")), None)
    if unknown and (unknown is script or launch.runs_by == "python"):
        raise InputError(f"{launch.place}: {unknown.text}: {unknown.trouble}, and it starts the trainer. Write it in.")
    if not name or not _is_trainer(name):
        if launch.runs_by == "python" or not name.endswith(".py"):
            launch.refused = _UNREAD if _names_a_trainer(command) and launch.runs_by != "python" else ""
            return launch if launch.refused else None
        return _refused(launch, name)
    if command.trouble:
        raise InputError(
            f"{launch.place}: {command.trouble}, so nobody knows whether it trains. Put the launch in a file of its own."
        )
    if name not in _TRAINERS and not (name.startswith("sdxl_train") and not any(part in name for part in _OTHERS)):
        return _refused(launch, name)
    launch.trainer, launch.script = _TRAINERS.get(name, "sdxl"), name
    _own_options(launch, words)
    return launch


def _other_script(command: Command, folder: Folder, given: Sequence[Path]) -> str:
    """That a command runs another script that is at hand and trains, if it does."""
    names = [word.text for word in command.words if not word.text.startswith("-")]
    if names and last(names[0]).lower().removesuffix(".exe") in _SHELLS:
        names = names[1:]
    if not names or last(names[0]).rpartition(".")[2].lower() not in ("sh", "bash", "bat", "cmd", "ps1"):
        return ""
    path = folder.here / names[0].replace("\\", "/")
    if not os.path.isfile(path) or path.resolve() in [one.resolve() for one in given]:
        return ""
    try:
        trains = TRAINS.search(shell.read_text(path))
    except InputError:
        return ""
    return f"It runs {path}, which trains. Give that file to the import too" if trains else ""


def _is_trainer(name: str) -> bool:
    return name in _TRAINERS or (name.endswith(".py") and "train" in name)


def _refused(launch: Launch, name: str) -> Launch:
    reason = next((reason for part, reason in _OTHERS.items() if part in name), "is no trainer that is known here")
    launch.refused = f"{name} {reason}"
    return launch


def _numa(words: Sequence[Word]) -> str:
    """The node that numactl binds to."""
    for word, following in zip_longest(words, words[1:]):
        if match := re.fullmatch(r"(?:--cpunodebind|-N|--membind|-m)(?:=(\d+))?", word.text):
            return match[1] or (following.text if following else "")
    return ""


def _runner_options(launch: Launch, words: list[Word]) -> Word | None:
    """Takes the options before the script, and the script, off `words`."""
    while words:
        word = words.pop(0)
        if not word.text.startswith("-"):
            return word
        if launch.runs_by == "python" or word.text == "--":
            continue
        name, equals, _ = word.text.lstrip("-").replace("-", "_").partition("=")
        if launch.runs_by == "torchrun" and name in _MEETING:
            if name not in _VALUELESS and not equals and words:
                words.pop(0)
            launch.remarks.append(f"{launch.path}:{word.line}: --{name} says how processes are started, which decides no bit.")
            continue
        name = _RUNNERS.get(name, {"m": "module", "q": "quiet"}.get(name, name))
        option = accelerate().find(name)
        place = f"{launch.path}:{word.line}"
        if option is None:
            raise InputError(
                f"{place}: accelerate launch has no option {word.text.partition('=')[0]}.{_hint(accelerate(), name)}"
            )
        option = replace(option, name=name)
        trouble = word.trouble
        if equals:
            found: Any = word.text.partition("=")[2]
        elif option.flag:
            found = True
        else:
            if not words:
                raise InputError(f"{place}: {word.text} expects a value, found the end of the command.")
            following = words.pop(0)
            found, trouble = following.text, trouble or following.trouble
        if launch.runs_by == "torchrun" and name == "gpu_ids":  # deepspeed's --include localhost:0,1
            found = str(found).rpartition(":")[2]
        launch.runner[name] = Given(option=option, value=found, place=place, trouble=trouble)
    return None


def _own_options(launch: Launch, words: list[Word]) -> None:
    """Takes the trainer's options off `words`."""
    while words:
        word = words.pop(0)
        place = f"{launch.path}:{word.line}"
        if word.trouble and not word.text.startswith("--"):
            raise InputError(f"{place}: {word.text}: {word.trouble}, and it stands for options. Write them in.")
        if not re.match("--[A-Za-z]", word.text):
            raise InputError(
                f"{place}: expected an option, --name, found {_readable(launch, word)}. "
                "A value of several words is put in quotes."
            )
        name, equals, value = word.text[2:].partition("=")
        option = option_of(launch, name, place)
        found: Any = value
        trouble = word.trouble
        if not equals:
            following: list[Word] = []
            if option.flag:
                found = True
            elif option.takes == "words":
                while words and not words[0].text.startswith("--"):
                    following.append(words.pop(0))
                found = [one.text for one in following]
            elif words and not words[0].text.startswith("--"):
                following.append(words.pop(0))
                found = following[0].text
            else:
                raise InputError(
                    f"{place}: --{name} expects a value, found {words[0].text if words else 'the end of the command'}."
                )
            trouble = next((one.trouble for one in (word, *following) if one.trouble), "")
        elif option.takes == "words":
            found = [value]
            while words and not words[0].text.startswith("--"):
                trouble = trouble or words[0].trouble
                found.append(words.pop(0).text)
        elif option.flag:
            raise InputError(f"{place}: --{name} takes no value, found {value!r}. Leave it out, or write --{name} alone.")
        if option.name in launch.given:
            launch.remarks.append(f"{place}: --{option.name} stands twice; the last one counts, as there.")
        launch.given[option.name] = Given(option=option, value=found, place=place, trouble=trouble)


def _readable(launch: Launch, word: Word) -> str:
    """A word as a message shows it, unless it stands behind a secret."""
    after = list(launch.given.values())[-1:]
    return "a second value of a secret" if after and after[0].option.secret else repr(word.text)


def option_of(launch: Launch, name: str, place: str) -> Option:
    """The option that a line calls `name`, which may be a prefix that only one begins with."""
    table = options()
    if found := table.all.get(name):
        return found
    fits = table.abbreviated(name, launch.trainer)
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise InputError(f"{place}: --{name} could be {' or '.join('--' + one.name for one in fits)}. Write it out.")
    why = f"No trainer that is known here has it.{_hint(table, name)}".rstrip(".")
    return Option(name=name, takes="words", becomes="refused", why=why, of=())


def _hint(table: Table, name: str) -> str:
    close = table.close_matches(name)
    return f" What comes nearest is {' or '.join('--' + one for one in close)}." if close else ""
