"""The options of one launch as typed values, and the account of what became of each.

Nothing is dropped in silence: an option that is given has a row in the account, by the table unless the reader says otherwise,
and what is refused is collected, so that a user sees all of it at once.
"""

import ast
import math
import re
from dataclasses import dataclass, field
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya.launch import Given, Launch
from astolfo.kohya.options import Becomes, Option, options

_OFF: tuple[Any, ...] = (None, False, "", 0, 0.0, [])
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
_ZERO_SAYS = {
    "seed", "learning_rate_te", "learning_rate_te1", "learning_rate_te2", "max_train_epochs", "max_timestep",
    "adaptive_noise_scale", "accelerate zero_stage",
}  # fmt: skip
"""Options without which that trainer takes another value than 0."""
_PATHS = {"pretrained_model_name_or_path", "vae", "train_data_dir", "in_json", "dataset_config", "output_dir", "output_name"}
_SHOWN = 48  # characters of a value in the account
_UNPRINTED = re.compile(r"[^\t -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_EXPECTED = {
    "flag": "true or false", "int": "a whole number", "float": "a number", "text": "text", "words": "a list of texts",
    "number": 'a whole number, a fraction below 1, or one in percent ("5%")',
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one option of one launch."""

    option: str
    value: str
    place: str
    becomes: Becomes
    text: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Something that a launch says and a ledger cannot."""

    place: str
    what: str
    reason: str
    nearest: str
    instead: str = ""  # what a run that is taken all the same has, where it is not simply without

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.reason}." + (f" What comes nearest: {self.nearest}." if self.nearest else "")


@dataclass(kw_only=True)
class Values:
    """The options of a launch. Ask with `get`; say with `key`, `none` and `refuse` what the table does not."""

    launch: Launch
    rows: dict[str, Row] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, given in self.launch.given.items():
            self._by_table(name, given)
        for name, given in self.launch.runner.items():
            self._by_table(f"accelerate {name}", given)

    def get(self, name: str) -> Any:
        """An option's value, or the trainer's default. Raises InputError for one of another type, or that only a shell knows."""
        given = self.launch.given.get(name)
        if given is None or _silent(given):
            return _default(options().all[name])
        return typed(given)

    def runner(self, name: str) -> Any:
        """The value of an option of accelerate; None where it is not given."""
        given = self.launch.runner.get(name)
        return None if given is None or _silent(given) else typed(given)

    def on(self, name: str) -> bool:
        """Whether an option is given, and with more than 0, false or nothing."""
        return name in self.launch.given and self.get(name) not in _OFF

    def place(self, name: str) -> str:
        """Where an option stands; where it does not, the launch."""
        given = self.launch.given.get(name) or self.launch.runner.get(name.removeprefix("accelerate "))
        return given.place if given else self.launch.place

    def key(self, name: str, text: str) -> None:
        """An option became this of the ledger."""
        self._row(name, "key", text)

    def none(self, name: str, why: str) -> None:
        """An option has no effect on the bits of this run."""
        self._row(name, "none", why)

    def refuse(self, name: str, reason: str, nearest: str, instead: str = "") -> None:
        """An option, or its value, has no counterpart; `instead` is what a run taken all the same has in its place."""
        given = self.launch.given.get(name) or self.launch.runner.get(name.removeprefix("accelerate "))
        shown = f"--{name.removeprefix('accelerate ')}" + (f" {_shown(given)}" if given and not given.option.flag else "")
        reason, nearest, instead = printed(reason), printed(nearest), printed(instead)
        self.refusals.append(Refusal(place=self.place(name), what=shown, reason=reason, nearest=nearest, instead=instead))
        if instead:
            self._row(name, "key", f"{instead}: {reason}")
        else:
            self._row(name, "refused", reason + (f"; what comes nearest, and is not taken: {nearest}" if nearest else ""))

    def withdraw(self, name: str) -> None:
        """Takes back that an option is refused: it is judged anew."""
        self.refusals = [one for one in self.refusals if one.what.split()[0] != f"--{name}"]

    def _row(self, name: str, becomes: Becomes, text: str) -> None:
        given = self.launch.given.get(name) or self.launch.runner.get(name.removeprefix("accelerate "))
        if given:
            self.rows[name] = Row(option=name, value=_shown(given), place=given.place, becomes=becomes, text=printed(text))

    def _by_table(self, name: str, given: Given) -> None:
        option = given.option
        if _off(name, given):
            self._row(name, "none", "It is off")
        elif option.becomes == "refused":
            off = option.of and (typed(given) in _OFF or typed(given) == option.default)
            if off:
                self._row(name, "none", "It is off")
            else:
                self.refuse(name, option.why, option.nearest)
        else:
            self._row(name, option.becomes, option.key if option.becomes != "none" else option.why)


def printed(text: str) -> str:
    """A text on one line of what can be shown: ends of lines, control characters and what YAML does not hold are escaped.

    The password of an address, https://name:password@host, is left out.
    """
    text = re.sub(r"(://[^/\s:@]*:)[^/\s@]+(?=@)", r"\1(not shown)", text)
    return _UNPRINTED.sub(lambda match: repr(match[0])[1:-1], text)


def _silent(given: Given) -> bool:
    """Whether an option is given with nothing, for which that trainer takes what it takes without."""
    takes = given.option.takes
    return (
        given.value is None
        or (given.value == "" and takes != "text")
        or (given.value is False and (takes in ("text", "words") or isinstance(takes, tuple)))
    )


def _off(name: str, given: Given) -> bool:
    """Whether an option says no more than its absence: nothing, false, or a zero that is as good as the trainer's default."""
    option, value = given.option, given.value
    if value is None or value is False or value == "":
        return True
    if option.takes == "words":
        return not value and bool(option.of)
    if option.takes not in ("int", "float", "number") or given.trouble or name in _ZERO_SAYS or option.default not in _OFF:
        return False
    try:
        return typed(given) in _OFF
    except InputError:  # of another type: said where it is asked for
        return False


def typed(given: Given) -> Any:
    """A value as its option takes it. Raises InputError, with its place, for any other."""
    option, value = given.option, given.value
    if given.trouble and option.becomes in ("key", "placement"):
        shown = f"--{option.name}" if option.flag else f"--{option.name} {value}"
        raise InputError(f"{given.place}: {shown}: {given.trouble}, and it is needed here. Write the value in.")
    try:
        return _converted(option, value)
    except (ValueError, TypeError, KeyError, OverflowError):
        expected = _EXPECTED.get(option.takes, "") if isinstance(option.takes, str) else ", ".join(option.takes)
        expected = "a path" if option.name in _PATHS else expected
        raise InputError(f"{given.place}: --{option.name} expects {expected}, found {value!r}.") from None


def _converted(option: Option, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(option.takes, tuple):
        text = str(value)
        if text and text not in option.takes:
            raise ValueError
        return text or None
    match option.takes:
        case "flag":
            return _FLAGS[str(value).lower()]
        case "int":
            if isinstance(value, bool) or float(value) != int(float(value)):
                raise ValueError
            return int(float(value)) if not isinstance(value, str) else int(value)
        case "float":
            if isinstance(value, bool) or not math.isfinite(float(value)):
                raise ValueError
            return float(value)
        case "number":
            return _number(value)
        case "words":
            return [_text(one) for one in ([value] if isinstance(value, str) else _list(value)) if _text(one).strip()]
        case _:
            text = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
            if option.name in _PATHS and not is_path(text):
                raise ValueError
            return text


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not is_text(str(value)):
        raise TypeError
    return str(value)


def is_text(text: str) -> bool:
    """Whether a text can be written down: without a zero character or half of one."""
    return not re.search("[\0\ud800-\udfff]", text)


def is_path(text: str) -> bool:
    """Whether a text can be that of a file or folder: no part of it is longer than a file system has it."""
    return is_text(text) and all(len(part.encode()) < 256 for part in re.split(r"[/\\]", text)) and len(text.encode()) < 4096


def _number(value: Any) -> int | float:
    """A count, or a part of the whole as a float below 1."""
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str) and value.endswith("%"):
        return float(value[:-1]) / 100
    found = float(value)
    if found < 0 or (found >= 1 and found != int(found)):
        raise ValueError
    return int(found) if found >= 1 or found == 0 else found


def arguments(values: Values, name: str) -> dict[str, Any]:
    """NAME=VALUE words (`--optimizer_args`) as Python values. Raises InputError for one of another form."""
    found = {}
    for word in values.get(name) or []:
        key, equals, text = word.partition("=")
        try:
            if not equals:
                raise ValueError
            found[key.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise InputError(
                f"{values.place(name)}: --{name} expects NAME=VALUE words with values as Python writes them, such as "
                f"weight_decay=0.01 or betas=0.9,0.999; found {word!r}."
            ) from None
    return found


def _default(option: Option) -> Any:
    if option.flag:
        return False
    return str(option.default) if isinstance(option.takes, tuple) and option.default is not None else option.default


def _shown(given: Given) -> str:
    """A value as the account shows it; secrets are not."""
    if given.option.secret:
        return "(not shown)"
    if given.value is True:
        return ""
    text = printed(" ".join(map(str, given.value)) if isinstance(given.value, list) else str(given.value))
    return text if len(text) <= _SHOWN else "..." + text[3 - _SHOWN :]
