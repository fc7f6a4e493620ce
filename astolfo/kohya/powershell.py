"""PowerShell scripts: quotes, here-strings, variables, lists, blocks, pipelines.

A script is gone through statement by statement. One that gives a variable a plain value, or a list of those, is understood; one
that changes a variable in any other way makes it unknown. What stands in the braces of an `if`, a loop, a function or a command
is read, but what it sets is known to nobody afterwards, and a command in them has that as its trouble.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from astolfo.kohya.powershell_syntax import QUOTES, SINGLE, Parts, Reader
from astolfo.kohya.shell import LAUNCHES, State, Word, Written, activates, sure

Element = tuple[int, int, list[Parts]]
"""A command of a pipeline: where it begins and ends, and its words."""

_BLOCKS = re.compile(
    r"(?i)(?::\w+\s+)?(if|elseif|else|foreach|for|while|do|until|switch|function|filter|try|catch|finally|trap|begin|process|end"
    r"|class|enum|data|workflow|configuration|parallel|sequence|inlinescript|dynamicparam)(?=[\s({]|$)"
)
_NAME = re.compile(r"(?i)\$(?:\{([^}]+)\}|((?:[a-z_]\w*:)?\w+|[$?^]))")
_CAST = r"\[[\w.\[\],\s]+\]\s*"
_ASSIGNS = re.compile(rf"(?is)((?:{_CAST})*)\$(?:\{{([^}}]+)\}}|((?:[a-z_]\w*:)?\w+))\s*([-+*/%]|\?\?)?=(?!=)\s*")
_CHANGES = re.compile(
    r"""(?ix) (?<![\w`]) \$(?:\{([^}]+)\}|((?:[a-z_]\w*:)?\w+)) (?:\s*(?:\.\w+|\[[^\]]*\])*\s*
    (?:(?:[-+*/%]|\?\?)?=(?!=)|\+\+|--)|\s+in\b) | (?:\+\+|--)\$(?:\{([^}]+)\}|((?:[a-z_]\w*:)?\w+)) | \[ref\]\s*\$(\w+)()()()"""
)
_ADDS = re.compile(r"(?is)(?:\[void\]\s*|\$null\s*=\s*)?\$(\w+)\.(add|addrange)\s*\((.*)\)\s*(?:\|\s*out-null\s*)?$")
_NEW_LIST = re.compile(
    r"(?is)(?:\[(?:system\.)?collections\.(?:arraylist|generic\.list\[\w+\])\]\s*::\s*new\(\)"
    r"|new-object\s+(?:-typename\s+)?['\"]?(?:system\.)?collections\.(?:arraylist|generic\.list\[\w+\])['\"]?(?:\s*\(\))?"
    r"|\[(?:system\.)?collections\.(?:arraylist|generic\.list\[\w+\])\]\s*@\(\s*\)|@\(\s*\))$"
)
_LIST_TYPE = re.compile(r"(?i)\[\s*(array|string\[\]|object\[\]|(system\.)?collections\.(arraylist|generic\.list\[\w+\]))\s*\]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?(?![\w.])")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "\n": " "}
_SETS_VARIABLES = re.compile(
    r"(?i)(set-variable|new-variable|clear-variable|remove-variable|sv|nv|clv|rv|invoke-expression|iex|import-module)$"
)
_NAMES_VARIABLES = re.compile(
    r"(?i)-(outvariable|ov|errorvariable|ev|warningvariable|wv|pipelinevariable|pv|variable)$|(env|variable):"
)
_OTHER_SHELL = re.compile(
    r"(?i)(start-process|saps|start|start-job|sajb|start-threadjob|invoke-command|icm|powershell|pwsh|wsl|bash|sh|cmd)(\.exe)?$"
)
_PRINTS = re.compile(r"(?i)(write-host|write-output|write-warning|write-verbose|echo|write|read-host|pause)$")


def run(path: Path, text: str) -> State:
    """Goes through a PowerShell script. Raises InputError where a quote, a list or a block is not closed."""
    script = _PowerShell(path, text)
    script.block(0, len(text), "")
    return script.state


class _PowerShell(Reader):
    """Goes through a script, with what is known of its variables."""

    def __init__(self, path: Path, text: str):
        super().__init__(path, text)
        self.state = State(here=os.path.abspath(path.parent))
        self.state.set("psscriptroot", Word(text=self.state.here, line=0))
        self.numbers: set[str] = set()  # variables that hold a number: `+=` calculates
        self.types: dict[str, str] = {}  # of variables that were given one, which later values are turned into
        self.functions: dict[str, tuple[int, int]] = {}  # of the script, with the places of their blocks
        self.stopped = ""  # what ended the script: nothing below runs
        self.after = ""  # why what is below may not run

    # ---- statements

    def block(self, at: int, end: int, depends: str) -> None:
        """Goes through statements. `depends`: why they may not run."""
        chain = ""  # && and ||
        while (at := self._blank(at, end, lines=True)) < end:
            if self.text[at] in ";)}|":
                at, chain = at + 1, ""
                continue
            trouble = self.after or depends or chain
            begin = at
            if match := _BLOCKS.match(self.text, at, end):
                at = self._compound(match, end, trouble)
                chain = ""
                continue
            at, operator = self._statement(at, end, trouble)
            if operator == "||" or (operator == "&&" and not self._sure(begin, at)):
                how = "fails" if operator == "||" else "succeeds"
                chain = chain or f"line {self._line(begin)} runs it only where the command before it {how}"
            elif operator != "&&":
                chain = ""

    def _sure(self, begin: int, end: int) -> bool:
        source = self.text[begin:end]
        return bool(_ASSIGNS.match(source)) or sure(source)

    def _compound(self, keyword: re.Match, end: int, trouble: str) -> int:
        """An `if` and its like: up to and with its block."""
        name, begin = keyword[1].lower(), keyword.start()
        at = keyword.end()
        why = trouble or f"it depends on the `{name}` of line {self._line(begin)}"
        while True:
            at = self._blank(at, end)
            if at >= end or self.text[at] in "\n;{":
                following = self._blank(at, end, lines=True)
                header = self.text[keyword.end() : at]
                self._changed(keyword.end(), at, why)
                if LAUNCHES.search(header) and not self.stopped:
                    self.state.trouble = why
                    self.state.run([Word(text=header.strip(), line=self._line(begin), trouble=why)], self._line(begin), header)
                if following < end and self.text[following] == "{":
                    last = self._group(following)
                    if name in ("function", "filter", "workflow") and (called := re.match(r"\s*(?:\w+:)?([^\s({]+)", header)):
                        self.functions[called[1].lower()] = following, last
                    self._inner(following + 1, last - 1, why)
                    return last
                return at
            at = self._part(at, end, inside=True)

    def _inner(self, begin: int, end: int, why: str) -> None:
        """A block that nobody knows whether it runs."""
        stopped, after = self.stopped, self.after
        self.block(begin, end, why)
        self.stopped, self.after = stopped, after

    def _statement(self, at: int, end: int, trouble: str) -> tuple[int, str]:
        """One statement up to its operator, if it is a pipeline up to its end; where to read on, and the operator."""
        begin, operator = at, "|"
        elements: list[Element] = []
        targets: list[tuple[int, int]] = []
        while operator == "|":
            words, files, operator, following = self._words(self._blank(at, end, lines=True), end)
            targets += files
            last = following - len(operator)
            elements.append((at, last, words))
            at = following
        self.state.trouble = trouble
        if self.stopped:
            return at, operator
        for start, stop in targets:
            name, line = self.text[start:stop].strip(QUOTES + SINGLE), self._line(start)
            self.state.write(name, Written(text="", trouble={0: f"line {line} writes it"}))
        source = self.text[begin : elements[-1][1]]
        value = 0  # where the right side of an assignment begins
        if (match := _ASSIGNS.match(source)) and (match[2] or match[3]).lower() != "null":
            value = begin + match.end()
            if self._assignment(begin, value, elements[-1][1], match):
                return at, operator
        elif match := re.match(r"(?i)param\s*\(", source):
            line = self._line(begin)
            self._changed(begin, elements[-1][1], f"whoever calls the script may give it, by the `param` of line {line}")
            return at, operator
        elif match := _ADDS.match(source.strip()):
            self._add(match, begin + source.index(match[3], source.index("(")), begin)
            return at, operator
        elif re.match(r"[$@(\[]|(\+\+|--)[$(\[]", source):
            self._expression(begin, elements[-1][1], elements[0][2])
            elements = elements[1:]
        if value:
            elements = self._value_runs(f"${match[2] or match[3]}" if match else "", value, elements)
        for start, stop, words in elements:
            self._command(start, stop, words, alone=len(elements) == 1 and not value)
        return at, operator

    def _value_runs(self, variable: str, begin: int, elements: list[Element]) -> list[Element]:
        """`$x = command ...`: what is run for a value."""
        _, stop, _ = elements[0]
        begin = self._blank(begin, stop, lines=True)
        source, trouble = self.text[begin:stop], self.state.trouble
        if source.startswith("{"):  # for `& $x`
            self.functions[variable.lower()] = begin, self._group(begin)
            self._bodies(self._words(begin, stop)[0], self._line(begin))
            return elements[1:]
        if match := _BLOCKS.match(source):
            why = trouble or f"it depends on the `{match[1]}` of line {self._line(begin)}"
            self._inner(begin, elements[-1][1], why)
            self.state.trouble = trouble
            return []
        if re.match(r"(?i)[&a-z.\\]", source) or LAUNCHES.search(source):
            return [(begin, stop, self._words(begin, stop)[0]), *elements[1:]]
        return elements[1:]

    # ---- variables

    def _key(self, name: str) -> str:
        return re.sub(r"^(global|script|local|private|variable|using):", "", name.lower())

    def _forget(self, name: str, line: int, why: str) -> None:
        key = self._key(name)
        self.state.forget(key, line, why)
        if key.startswith("env:"):
            self.state.exported[key[4:].upper()] = self.state.variables[key]

    def _set(self, name: str, word: Word) -> None:
        key = self._key(name)
        self.state.set(key, word)
        self.numbers.discard(key)
        if key.startswith("env:"):
            self.state.exported[key[4:].upper()] = self.state.variables[key]
            if not word.text and not self.state.variables[key].trouble:
                del self.state.exported[key[4:].upper()]

    def _changed(self, begin: int, end: int, why: str = "") -> None:
        """Forgets the variables that an expression changes."""
        line, source = self._line(begin), self._unquoted(begin, end)
        why = why or f"line {line} changes it: {self.text[begin:end].strip()}"
        for match in _CHANGES.finditer(source):
            self._forget(next(one for one in match.groups() if one), line, why)
        if any(re.search(rf"(?<![\w$-]){re.escape(name)}(?![\w-])", source.lower()) for name in self.functions):
            self._function(why, line)

    def _assignment(self, begin: int, value: int, end: int, match: re.Match) -> bool:
        """Gives a variable its value; whether that is a plain one."""
        name, operator = match[2] or match[3], match[4] or ""
        key, line = self._key(name), self._line(begin)
        source = " ".join(self.text[begin:end].split())
        unknown = f"line {line} changes it: {source}" if operator else f"only the shell knows {self.text[value:end].strip()}"
        if types := [one for one in re.findall(_CAST, match[1]) if not _LIST_TYPE.match(one)]:
            self.types[key] = types[0].strip(" \t\n[]").lower()
        found = self._values(value, end)
        self._changed(value, end)
        state = self.state
        if operator == "+":
            earlier = state.lists.get(key)
            text = state.variables.get(key)
            if found is None:
                self._forget(name, line, unknown)
            elif earlier is not None:
                more = [word.doubted(state.trouble) for word, _ in found[0]]
                state.lists[key] = earlier + more
            elif text is None or key in self.numbers or found[1] or key in self.types:
                self._forget(name, line, unknown)
            else:
                word = found[0][0][0]
                self._set(name, replace(word, text=text.text + word.text, trouble=text.trouble or word.trouble))
        elif operator or found is None:
            self._forget(name, line, unknown)
        elif found[1]:
            if state.trouble or key in self.types or key.startswith("env:"):
                self._forget(name, line, state.trouble or unknown)
            else:
                state.variables.pop(key, None)
                state.lists[key] = [word for word, _ in found[0]]
        else:
            word, number = found[0][0]
            turned = None if _LIST_TYPE.search(match[1]) else _turned(word, self.types.get(key, ""), number)
            if turned is None:
                self._forget(name, line, unknown)
                return True
            self._set(name, turned)
            if number or key in self.types:
                self.numbers.add(key)
        return found is not None

    def _values(self, at: int, end: int) -> tuple[list[tuple[Word, bool]], bool] | None:
        """A plain value, or a list of those: words, each with whether it is a number; and whether they are a list. Else None."""
        at = self._blank(at, end, lines=True)
        if _NEW_LIST.match(self.text[at:end].strip()):
            return [], True
        found: list[tuple[Word, bool]] = []
        several = False
        while True:
            at = self._blank(at, end, lines=True)
            one = self._primary(at, end)
            if one is None:
                return None
            found += one[0]
            several = several or one[2]
            at = self._blank(one[1], end, lines=True)
            if at >= end:
                return found, several
            if self.text[at] != ",":
                return None
            several, at = True, at + 1

    def _primary(self, at: int, end: int) -> tuple[list[tuple[Word, bool]], int, bool] | None:
        """One plain value at a place: its words, where it ends, and whether it is a list."""
        text, line = self.text, self._line(at)
        if at >= end:
            return None
        if text[at] in QUOTES + SINGLE or self._here(at):
            last = self._part(at, end)
            return [(self._evaluated([(at, last)]), False)], last, False
        if match := _NUMBER.match(text, at, end):
            return [(Word(text=_number(match[0]), line=line), True)], match.end(), False
        if text.startswith("@(", at):
            return self._list(at)
        if match := re.compile(r"(?i)\$(true|false|null)\b").match(text, at, end):
            value = {"true": "True", "false": "False", "null": ""}[match[1].lower()]
            return [(Word(text=value, line=line), True)], match.end(), False
        if match := re.compile(r"(?i)\[string\]\s*").match(text, at, end):
            one = self._primary(match.end(), end)
            return ([(one[0][0][0], False)], one[1], False) if one and not one[2] else None
        if match := _NAME.match(text, at, end):
            key = self._key(match[1] or match[2])
            if re.match(r"[.\[(:]", text[match.end() : end]):
                return None
            if key in self.state.lists:
                return [(replace(word, line=line), False) for word in self.state.lists[key]], match.end(), True
            return [(self.state.get(key, line, match[0]), key in self.numbers)], match.end(), False
        return None

    def _list(self, at: int) -> tuple[list[tuple[Word, bool]], int, bool] | None:
        """@( ... ): plain values between commas, lines and semicolons."""
        last = self._group(at + 1)
        at, end, found = at + 2, last - 1, []
        while (at := self._blank(at, end, lines=True)) < end:
            if self.text[at] in ",;":
                at += 1
                continue
            one = self._primary(at, end)
            if one is None or (one[1] < end and not re.match(r"[\s,;#`)]|<#", self.text[one[1] : end])):
                return None
            rest = self._blank(one[1], end)
            if rest < end and self.text[rest] not in "\n,;":
                return None
            found += one[0]
            at = one[1]
        return found, last, True

    def _add(self, match: re.Match, begin: int, statement: int) -> None:
        """$list.Add(...), $list.AddRange(...)"""
        name, line = match[1].lower(), self._line(statement)
        found = self._values(begin, begin + len(match[3]))
        if name not in self.state.lists or found is None or found[1] != (match[2].lower() == "addrange"):
            self._forget(name, line, self.state.trouble or f"only the shell knows {match[0]}")
            return
        self.state.lists[name] += [word.doubted(self.state.trouble) for word, _ in found[0]]

    def _expression(self, begin: int, end: int, words: list[Parts]) -> None:
        """A statement that begins with a value: what it may change is unknown afterwards."""
        source, line = self.text[begin:end].strip(), self._line(begin)
        why = self.state.trouble or f"line {line} changes it: {' '.join(source.split())}"
        if match := re.match(rf"(?:{_CAST})*\(*\s*\$(?:\{{([^}}]+)\}}|((?:[a-z_]\w*:)?\w+))\s*[.\[]", source, re.IGNORECASE):
            self._forget(match[1] or match[2], line, why)
        head = re.match(r"[^=]*?(?<![=!<>])=(?!=)", self._unquoted(begin, end))
        if head and re.match(rf"(?:{_CAST})*[$(]", source):  # $a, $b = 1, 2
            for name in _NAME.finditer(head[0]):
                self._forget(name[1] or name[2], line, why)
        if re.search(r"(?i)SetEnvironmentVariable", source):
            self.state.forget_all(why)
        self._changed(begin, end, why)
        if LAUNCHES.search(source):
            self._command(begin, end, words, alone=False)
        else:
            self._bodies(words, line)

    # ---- commands

    def _bodies(self, words: list[Parts], line: int) -> None:
        """The blocks that stand in words: read, and known to nobody."""
        outer = self.state.trouble
        for start, stop in [part for word in words for part in word]:
            if self.text[start] == "{":
                self._inner(start + 1, stop - 1, outer or f"it stands in a block that line {line} gives to a command")
        self.state.trouble = outer

    def _command(self, begin: int, end: int, parts: list[Parts], alone: bool) -> None:
        state, line = self.state, self._line(self._blank(begin, end, lines=True))
        if not parts:
            return
        head = self.text[parts[0][0][0] : parts[0][-1][1]]
        if head in ("&", ".") and len(parts) > 1:
            parts = parts[1:]
            if self.text[parts[0][0][0]] == "{":
                return self._called(head, *parts[0][0])
        dotted = head == "."
        if head == ".":
            head = "&"
        for word in parts:
            for start, stop in word:
                if self.text[start] == "(" or self.text.startswith("@(", start) or "$(" in self.text[start:stop]:
                    self._changed(start, stop)
        words = tuple(word for one in parts for word in self._expanded(one))
        outer = state.trouble
        name = re.split(r"[\\/]", words[0].text)[-1].lower() if words else ""
        plain = self.text[parts[0][0][0]] not in QUOTES + SINGLE or head == "&"
        if plain and name in ("exit", "return", "throw", "break", "continue"):
            if name in ("exit", "return", "throw"):
                self.stopped = name if alone and not outer else ""
            elif not outer:
                self.after = f"line {line} leaves what runs"
            return
        if not (plain and alone and _PRINTS.match(name)):
            if _OTHER_SHELL.match(name):
                state.trouble = outer or f"{words[0].text} reads its words once more"
            elif any(word.text == "--%" for word in words):
                state.trouble = outer or "after --% the words are read in another way"
            if words:
                state.run(words, line, self.text[begin:end].strip())
            state.trouble = outer
        self._bodies(parts, line)
        state.trouble = outer
        self._effects(name, words, dotted, line)

    def _effects(self, name: str, words: tuple[Word, ...], dotted: bool, line: int) -> None:
        """What a command does to variables, as far as it is known; all may have changed where it is not."""
        if not words or activates(words):
            return
        why = f"line {line} runs {words[0].text}, which may set it"
        named = any(_NAMES_VARIABLES.match(word.text) for word in words[1:])
        if dotted or named or _SETS_VARIABLES.match(name):
            self.state.forget_all(why)
        elif any(one in self.functions for one in (name, *(word.text.lower() for word in words))):
            self._function(why, line)
        elif name.endswith(".ps1"):
            for key in [key for key in self.state.variables if key.startswith("env:")]:
                self._forget(key, line, why)

    def _function(self, why: str, line: int) -> None:
        """A function of the script is called, which may call others."""
        self._reached(" ; ".join(self._unquoted(*place) for place in self.functions.values()), why, line)

    def _reached(self, source: str, why: str, line: int) -> None:
        """Forgets what a block whose variables are its own may change beyond them."""
        if re.search(r"(?im)(^|[;{(])\s*\.\s|-variable\b|\b[snrc]l?v\b|\biex\b|invoke-expression|variable:", source):
            self.state.forget_all(why)
        changed = {next(one for one in match.groups() if one) for match in _CHANGES.finditer(source)}
        reached = {
            match[1] or match[2] for match in _NAME.finditer(source) if source[match.end() : match.end() + 1] in (".", "[")
        }
        for name in {name for name in changed if ":" in name} | {name for name in reached if self._key(name) in self.state.lists}:
            self._forget(name, line, why)

    def _called(self, how: str, begin: int, end: int) -> None:
        """`& { ... }` runs a block whose variables are its own; `. { ... }` one whose are the script's."""
        state, stopped = self.state, self.stopped
        variables, lists = dict(state.variables), {name: list(words) for name, words in state.lists.items()}
        numbers, types = set(self.numbers), dict(self.types)
        self.block(begin + 1, end - 1, state.trouble)
        if self.stopped == "return":
            self.stopped = stopped
        if how == "&":
            own = {key: word for key, word in state.variables.items() if key.startswith("env:")}
            state.variables, state.lists, self.numbers, self.types = variables | own, lists, numbers, types
            line = self._line(begin)
            exported = dict(state.exported)
            self._reached(self._unquoted(begin, end), f"line {line} may change it, in a block of its own", line)
            state.variables, state.exported = state.variables | own, exported

    # ---- words

    def _expanded(self, parts: Parts) -> Iterator[Word]:
        """The words that a raw word becomes: a list's, or one."""
        start, stop = parts[0][0], parts[-1][1]
        raw, line = self.text[start:stop], self._line(start)
        if match := re.fullmatch(r"(?i)[@$]\{?((?:script:|global:|local:)?\w+)\}?", raw):
            key = self._key(match[1])
            if key in self.state.lists:
                yield from (replace(word, line=line) for word in self.state.lists[key])
                return
            if raw.startswith("@"):
                found = self.state.get(key, line, raw)
                yield Word(text=raw, line=line, trouble=found.trouble or f"only the shell knows {raw}")
                return
        yield self._evaluated(parts)

    def _evaluated(self, parts: Parts) -> Word:
        """A word of parts: strings without their quotes, variables filled in."""
        out, trouble, line = [], "", self._line(parts[0][0])
        for number, (start, stop) in enumerate(parts):
            raw = self.text[start:stop]
            unknown = ""
            if here := self._here(start):
                single = raw[1] in SINGLE
                text, unknown = (here[1], "") if single else self._within(here[1], line, quoted=False)
            elif raw[0] in SINGLE:
                text = re.sub(rf"([{SINGLE}])[{SINGLE}]", r"\1", raw[1:-1])
            elif raw[0] in QUOTES:
                text, unknown = self._within(raw[1:-1], line)
            elif raw[0] in "({" or raw.startswith(("$(", "@(", "@{")):
                text, unknown = self._within(raw, line) if raw.startswith("$(") else (raw, f"only the shell knows {raw}")
            else:
                text, unknown = self._within(raw, line, quoted=False)
                match = _NAME.match(raw)
                beyond = self.text[start + match.end() :][:1] if match else ""
                member = beyond and beyond in ".[:(" + QUOTES + SINGLE
                if match and not number and member:
                    unknown = unknown or f"only the shell knows {self.text[parts[0][0] : parts[-1][1]]}"
            out.append(text)
            trouble = trouble or unknown
        return Word(text="".join(out), line=line, trouble=trouble)

    def _within(self, text: str, line: int, quoted: bool = True) -> tuple[str, str]:
        """A text with escapes resolved and variables filled in, and what of it only the shell knows."""
        out, trouble, at = [], "", 0
        while at < len(text):
            if text[at] == "`" and at + 1 < len(text):
                if match := re.compile(r"`u\{([0-9a-fA-F]{1,6})\}").match(text, at):
                    trouble = trouble or f"only the shell knows {match[0]}"
                out.append(_ESCAPES.get(text[at + 1], text[at + 1]))
                at += 2
            elif quoted and text[at] in QUOTES and text[at + 1 : at + 2] and text[at + 1] in QUOTES:
                out.append(text[at])
                at += 2
            elif match := re.compile(r"\$\(\s*\$([\w:]+)\s*\)").match(text, at) or _NAME.match(text, at):
                name = next(one for one in match.groups() if one)
                key = self._key(name)
                constant = {"true": "True", "false": "False", "null": ""}.get(key)
                word = Word(text=constant, line=line) if constant is not None else self.state.get(key, line, match[0])
                if key in self.state.lists:
                    word = Word(text=match[0], line=line, trouble=f"only the shell knows {match[0]}, a list in a word")
                if quoted and match[0][:2] not in ("${", "$(") and text[match.end() : match.end() + 1] == ":":
                    word = word.doubted(f"only the shell knows {match[0]}:")
                out.append(word.text)
                trouble = trouble or word.trouble
                at = match.end()
            else:
                if text.startswith("$(", at):
                    trouble = trouble or f"only the shell knows {text[at:]}"
                out.append(text[at])
                at += 1
        return "".join(out), trouble


def _number(text: str) -> str:
    """A number as PowerShell prints it."""
    if re.fullmatch(r"[-+]?\d+", text):
        return str(int(text))
    return repr(float(text)).removesuffix(".0").upper()


def _turned(word: Word, kind: str, number: bool) -> Word | None:
    """A value turned into a type that its variable was given; None where that is not known."""
    if not kind or kind == "string":
        return word
    if word.trouble:
        return word
    if kind in ("int", "int32", "long", "int64") and re.fullmatch(r"-?\d+", word.text):
        return replace(word, text=str(int(word.text)))
    if kind in ("float", "single", "double") and re.fullmatch(_NUMBER, word.text):
        return replace(word, text=_number(word.text))
    return word if kind in ("bool", "switch") and word.text in ("True", "False") and number else None
