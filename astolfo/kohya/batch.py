"""Scripts of Windows' own shell, .bat and .cmd, read as cmd reads them; PowerShell's are in `astolfo.kohya.powershell`.

cmd goes through a script line by line. `%NAME%` is filled in first, in the whole line, before the line is cut into commands: so
a variable may hold several options, or an `&`. Then `^`, quotes, redirections and `& && || |` count. What is left of a command is
one text, which its program cuts into words by the rules of Microsoft's C (`\\"` is a quote). What stands after an `if`, `else` or
`for`, or in its parentheses, is read, but what it sets is known to nobody afterwards; so is what follows a `goto`.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from astolfo.errors import InputError
from astolfo.kohya.shell import State, Word, Written, activates, sure

Cells = list[tuple[str, int]]
"""Characters, each with the place in the script that it came from. What only the shell knows is one that stands for it."""

_HIDDEN = 0xD800  # from here on: characters that no text holds, one for each part of a line that only the shell knows
_OWN = re.compile(r"(?i)(set|start|exit|setlocal|endlocal|title|pause|color|cls|prompt|echo|goto|call)(?=[\s/\"=,;]|$)")
_OWN_GLUED = re.compile(r"(?i)(echo)(?=[.:(\[\\+])|(goto|call)(?=:)")
_TERM = r'(?:"[^"]*"|[^\s"=(]|\((?!\s*$))+'
_CONDITIONS = tuple(
    re.compile(rf"(?i){one}")
    for one in (
        rf"(?:errorlevel|exist|defined|cmdextversion)\s+{_TERM}",
        rf"(?:{_TERM})?\s*==\s*(?:{_TERM})?",
        rf"{_TERM}\s+(?:equ|neq|lss|leq|gtr|geq)\s+{_TERM}",
    )
)
_START = re.compile(
    r'(?i)start(?:\s+"[^"]*")?(?:\s*/d\s*(?:"[^"]*"|[^\s"]+)|\s*/(?:node|affinity)\s+\S+|\s*/[a-z]+(?=[\s/"]|$))*\s*'
)
_CMD = re.compile(r"(?i)(?:[^\s\"]*\\)?cmd(?:\.exe)?(?:\s*/(?![ck]\b)\w+(?::\w+)?)*\s*/[ck]\b\s*")
_COMES_BACK = re.compile(
    r"(?i)(python[\d.]*|py|accelerate|accelerate-launch|torchrun|deepspeed|pip[\d.]*|uv|git|cd|nvidia-smi)(\.exe)?"
)
_GUARD = re.compile(r"(?i)_*(on_?)?(err|fail|end|exit|quit|abort|die|stop|finish|usage|help)\w*")
_OTHER_SHELL = re.compile(r"(?i)(powershell|pwsh|wsl|bash|sh|cmd)(\.exe)?")


def run(path: Path, text: str) -> State:
    """Goes through a .bat or .cmd file. Raises InputError where a quote or a block is not closed."""
    return _Batch(path, text).run()


class _Batch:
    """A script, and how far it is read."""

    def __init__(self, path: Path, text: str):
        self.path, self.text, self.lines = path, text, text.split("\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.number = 0  # of lines that are read
        self.file = path.suffix.lower() in (".bat", ".cmd")  # else: lines that are pasted into a window
        self.state = State(here=os.path.abspath(path.parent))
        self.unknown: list[tuple[str, str]] = []  # what the hidden characters of this line stand for, and their trouble
        self.blocks: list[tuple[int, str, str]] = []  # that are open: line, what they depend on, what comes before them
        self.before_block: dict[str, Word] = {}  # the variables as they stood there: a block is filled in as one line
        self.saved: list[tuple[dict[str, Word], dict[str, Word], bool]] = []  # by setlocal
        self.delayed = False  # whether !NAME! is filled in
        self.stopped = False  # nothing below runs
        self.after = ""  # why what is below may not run
        self.targets = self._targets()

    def run(self) -> State:
        remark = ""
        while self.number < len(self.lines):
            line = self.number + 1
            source = self.lines[self.number].lstrip("@ \t,;=")
            if source.startswith(":"):
                self.number += 1
                self._label(source, line)
            else:
                self.unknown = []
                cells, end = self._logical()
                self._line(cells, end, (self.blocks[-1][1] if self.blocks else "") or remark)
            marked = re.match(r"(?i)(rem\s+\S*|:.*)\^\s*$", source)
            remark = f"line {line} is a remark that ends in ^, which may take the next line with it" if marked else ""
        if self.blocks:
            raise InputError(f"{self.path}:{self.blocks[0][0]}: a block, (, begins here and does not end. Close it.")
        return self.state

    def _targets(self) -> set[str]:
        """The labels that the script goes to; "" for one that only the shell knows."""
        found: set[str] = set()
        for line in self.lines:
            if not re.match(r"(?i)[@\s]*(rem\b|:)", line):
                found |= {name.lower() for name in re.findall(r"(?i)\bgoto\b\s*:?\s*([^\s:&|()]+)", line)}
                found |= {name.lower() for name in re.findall(r"(?i)\bcall\s*:([^\s&|()]+)", line)}
        return {"" if "%" in name or "!" in name else name for name in found}

    def _label(self, source: str, line: int) -> None:
        name = re.match(r":\s*([^\s:&|<>()+=,;]*)", source)
        label = name[1].lower() if name else ""
        if label and self.targets & {label, ""}:
            self.stopped = False
            self.after = self.after or f"it stands below the label :{label} of line {line}, and a `goto` or `call` leads there"

    # ---- lines

    def _logical(self) -> tuple[Cells, int]:
        """The next line with those that `^` continues, filled in, and where it ends in the script."""
        cells: Cells = []
        while True:
            source, start = self.lines[self.number], self.starts[self.number]
            self.number += 1
            marked = re.fullmatch(r"(.*?)(?<!\^)((?:\^\^)*)\^([ \t]*)", source, re.DOTALL)
            remark = re.match(r"(?i)[@\s]*rem\b", source) and not cells
            cells += self._filled([(char, start + at) for at, char in enumerate(source)])
            quoted = _text(cells).replace('^"', "").count('"') % 2
            if not marked or remark or quoted or self.number >= len(self.lines):
                return cells, start + len(source)
            del cells[-1 - len(marked[3])]

    def _place(self, cells: Cells) -> int:
        """The line that the first of the characters is of."""
        return bisect_right(self.starts, cells[0][1])

    def _hide(self, spelt: str, trouble: str, at: int) -> Cells:
        self.unknown.append((spelt, trouble))
        return [(chr(_HIDDEN + min(len(self.unknown) - 1, 0x7FF)), at)]

    def _shown(self, text: str) -> tuple[str, str]:
        """A text with what is hidden as it is spelt, and why it is not known."""
        found = [self.unknown[ord(char) - _HIDDEN] for char in text if _HIDDEN <= ord(char) < _HIDDEN + 0x800]
        for at, (spelt, _) in enumerate(self.unknown):
            text = text.replace(chr(_HIDDEN + at), spelt)
        return text, found[0][1] if found else ""

    def _filled(self, cells: Cells) -> Cells:
        """%NAME% filled in, as a block's first line found it; %% is one %."""
        text, found, at = _text(cells), [], 0
        while at < len(cells):
            place = cells[at][1]
            match = None
            if text[at] != "%":
                found.append(cells[at])
            elif text.startswith("%%", at):
                match = re.compile("%%").match(text, at)
                found += [cells[at]] if self.file else self._hide("%%", "only the shell knows %%", place)
            elif match := re.compile(r"(?i)%~dp0").match(text, at):
                found += [(char, place) for char in f"{self.state.here}/"]
            elif match := re.compile(r"%(\*|\d|~[A-Za-z]*\d|~\$\w+:\d)").match(text, at):
                found += self._hide(match[0], f"only the shell knows {match[0]}", place)
            elif match := re.compile(r"%([^%:\n]+)(:[^%\n]*)?%").match(text, at):
                found += self._value(match[1], match[0], bool(match[2]), place)
            elif not self.file:
                found.append(cells[at])
            at = match.end() if match else at + 1
        return found

    def _value(self, name: str, spelt: str, changed: bool, place: int, now: bool = False) -> Cells:
        """What a variable stands for. `changed`: a part of it, or with something replaced. `now`: not as a block found it."""
        if changed:
            return self._hide(spelt, f"only the shell knows {spelt}", place)
        variables = self.before_block if self.blocks and not now else self.state.variables
        word = variables.get(name.upper()) or self.state.get(name.upper(), 0, spelt)
        if name.upper() not in variables and not word.trouble:  # it is set in the block
            return self._hide(spelt, f"only the shell knows {spelt}", place)
        return self._hide(spelt, word.trouble, place) if word.trouble else [(char, place) for char in word.text]

    def _line(self, cells: Cells, end: int, depends: str) -> None:
        """Goes through the commands of a line. `depends`: what they all depend on; an `if` holds to the line's end."""
        at, chain, piped = 0, "", False
        while at < len(cells):
            if cells[at][0] in " \t\n,;=@":
                at += 1
                continue
            text, line = _text(cells[at:]), self._place(cells[at:])
            if text[0] == "(":
                if not self.blocks:
                    self.before_block = dict(self.state.variables)
                self.blocks.append((line, depends or chain, chain))
                depends, chain, at = depends or chain, "", at + 1
            elif text[0] == ")":
                if not self.blocks:
                    return  # cmd reads no further in such a line
                _, depends, chain = self.blocks.pop()
                at += 1
            elif match := re.match(r"\d?[<>]", text):
                at = _redirected(cells, at + match.end() - 1)
            elif match := re.match(r"(?i)(else|if|for)(?=[\s(/\"]|$)", text):
                depends = depends or f"it depends on the `{match[1].lower()}` of line {line}"
                if match[1].lower() == "for":
                    cells, end, at = self._for(cells, end, at)
                else:
                    at += match.end() if match[1].lower() == "else" else self._condition(text, line)
            elif re.match(r"(?i)rem(?=[\s.:/=,;]|$)", text):
                return
            else:
                segment, operator, following = self._segment(cells, at)
                last = following - len(operator)
                source = self.text[cells[at][1] : cells[last][1] if last < len(cells) else end]
                if segment and not self.stopped:
                    self.state.trouble = self.after or depends or chain
                    self._command(segment, source.strip(), piped or operator == "|")
                if operator == "&":
                    chain = ""
                elif operator == "||" or (operator == "&&" and not sure(_text(segment).strip())):
                    how = "fails" if operator == "||" else "succeeds"
                    chain = chain or f"line {line} runs it only where the command before it {how}"
                piped = operator == "|"
                at = following

    def _for(self, cells: Cells, end: int, at: int) -> tuple[Cells, int, int]:
        """Where the command of a `for` begins; its list may run over lines."""
        while not (match := re.search(r"(?i)\)\s*do(?=[\s(@]|$)", _text(cells[at:]))) and self.number < len(self.lines):
            more, end = self._logical()
            cells = [*cells, ("\n", end), *more]
        return cells, end, at + match.end() if match else len(cells)

    def _condition(self, text: str, line: int) -> int:
        """How long an `if` is with its condition."""
        head = re.match(r"(?i)if\s*(?:/i\s*)?(?:not\b\s*)?(?:/i\s*)?", text)
        begin = head.end() if head else 0
        for condition in _CONDITIONS:
            if match := condition.match(text, begin):
                return match.end()
        self.state.trouble = ""
        for name in re.findall(r'(?i)\bset\s+(?:/[ap]\s+)?"?([^=\s"&|]+)\s*=', text):
            self._forget(name, line, f"it depends on the `if` of line {line}")
        block = re.compile(r'(?:"[^"]*"|[^"(])*').match(text, begin)
        return block.end() if block and text[block.end() : block.end() + 1] == "(" else begin

    def _segment(self, cells: Cells, at: int) -> tuple[Cells, str, int]:
        """One command without escapes and redirections, the operator that ends it, and where to read on."""
        found: Cells = []
        quoted = False
        while at < len(cells):
            char = cells[at][0]
            if char == '"':
                quoted = not quoted
            elif quoted:
                pass
            elif char == "^":
                found += cells[at + 1 : at + 2]
                at += 2
                continue
            elif char in "&|":
                operator = char * 2 if at + 1 < len(cells) and cells[at + 1][0] == char else char
                return found, operator, at + len(operator)
            elif char == ")" and self.blocks:
                return found, "", at
            elif char in "<>":
                if found and found[-1][0].isdigit() and (len(found) == 1 or found[-2][0] in " \t,;="):
                    found.pop()  # of 2>&1
                begin, at = at, _redirected(cells, at)
                if char == ">" and not self.stopped and "&" not in _text(cells[begin:at]):
                    name = self._shown(_text(cells[begin:at]))[0].lstrip("> ").replace('"', "").strip()
                    self.state.write(name, Written(text="", trouble={0: f"line {self._place(cells[begin:])} writes it"}))
                continue
            found.append(cells[at])
            at += 1
        return found, "", at

    # ---- commands

    def _command(self, cells: Cells, source: str, piped: bool = False) -> None:
        """A command: cmd's own are done, as far as they matter, and programs are run."""
        cells = self._delayed(cells)
        text = _text(cells)
        if not text.strip():
            return
        line = self._place(cells)
        match = _OWN.match(text) or _OWN_GLUED.match(text)
        name = match[0].lower() if match else ""
        rest = cells[match.end() :] if match else cells
        if name == "set":
            if not piped:  # else cmd runs it in a shell of its own
                self._set(rest, line)
        elif name == "call":
            self._call(rest, line, source)
        elif name == "goto":
            self._goto(_text(rest).strip(), line)
        elif name == "exit":
            self.stopped = not self.state.trouble and not piped
        elif name in ("setlocal", "endlocal"):
            self._local(name, _text(rest).lower(), line)
        elif name == "start" and (begin := _START.match(text)):
            self._child(cells[begin.end() :])
        elif begin := _CMD.match(text):
            inner = cells[begin.end() :]
            if inner and inner[0][0] == '"':
                last = max(index for index, (char, _) in enumerate(inner) if char == '"')
                inner = inner[1:last] + inner[last + 1 :] if last else inner[1:]
            self._child(inner)
        elif not name:
            self._program(cells, line, source, called=False)

    def _delayed(self, cells: Cells) -> Cells:
        """!NAME! filled in, where the script has turned that on."""
        if not self.delayed:
            return cells
        text, found, at = _text(cells), [], 0
        while at < len(cells):
            match = re.compile(r"!([^!:\n]+)(:[^!\n]*)?!").match(text, at)
            if match:
                found += self._value(match[1], match[0], bool(match[2]), cells[at][1], now=True)
            elif text[at] != "!":
                found.append(cells[at])
            at = match.end() if match else at + 1
        return found

    def _forget(self, name: str, line: int, why: str) -> None:
        self.state.forget(name.upper(), line, why)
        self.state.exported[name.upper()] = self.state.variables[name.upper()]

    def _set(self, cells: Cells, line: int) -> None:
        text = _text(cells).strip()
        if match := re.match(r"(?i)/a\b", text):
            names = re.findall(r"([^\W\d]\w*)\s*(?:<<|>>|[-+*/%&^|])?=(?!=)", text[match.end() :])
            for name in names:
                self._forget(name, line, f"line {line} calculates it")
            if not names and self._shown(text)[1]:
                self.state.forget_all(f"line {line} may set it: {self._shown(text)[0]}")
        elif match := re.match(r"(?i)/p\s*\"?\s*([^=]+)=", text):
            self._forget(match[1], line, f"line {line} asks for it")
        else:
            if text.startswith('"'):
                text = text[1:] if '"' not in text[1:] else text[1 : text.rindex('"')]
            name, equals, value = text.partition("=")
            if not equals:
                return
            if self._shown(name)[1]:
                self.state.forget_all(f"line {line} may set it: {self._shown(text)[0]}")
                return
            shown, trouble = self._shown(value)
            self.state.set(name.upper(), Word(text=shown, line=line, trouble=trouble))
            self.state.exported[name.upper()] = self.state.variables[name.upper()]
            if not shown and not self.state.trouble:
                del self.state.exported[name.upper()]

    def _call(self, cells: Cells, line: int, source: str) -> None:
        """`call`: a label of this script, another script, or a command whose variables are filled in once more."""
        cells = self._filled(cells)
        while cells and cells[0][0] in " \t":
            cells = cells[1:]
        text = _text(cells)
        if text.startswith(":"):
            self.state.forget_all(f"line {line} calls {self._shown(text)[0].split()[0]}, which may set it")
        elif _OWN.match(text):
            self._command(cells, source)
        elif cells:
            self._program(cells, line, source, called=True)

    def _goto(self, label: str, line: int) -> None:
        if re.fullmatch(r"(?i)\s*:eof", label):
            self.stopped = not self.state.trouble
        elif not (self.state.trouble and _GUARD.fullmatch(label.strip().lstrip(":"))):  # else it goes where nothing is trained
            self.after = self.after or f"line {line} goes to {self._shown(label)[0].lstrip(':').strip()}, and may leave it out"

    def _local(self, name: str, options: str, line: int) -> None:
        state = self.state
        if state.trouble and (name == "endlocal" or "delayed" in options):
            self.after = self.after or f"line {line} may change how variables are read"
        if name == "setlocal":
            self.saved.append((dict(state.variables), dict(state.exported), self.delayed))
            self.delayed = "enabledelayedexpansion" in options or (self.delayed and "disabledelayedexpansion" not in options)
        elif self.saved:
            state.variables, state.exported, self.delayed = self.saved.pop()

    def _child(self, cells: Cells) -> None:
        """A line that another shell runs: what it sets is gone afterwards, and so is that it ends."""
        if not cells:
            return
        state, kept = self.state, (self.after, self.stopped, self.delayed, self.blocks, self.saved)
        variables, exported = dict(state.variables), dict(state.exported)
        self.blocks, self.saved = [], []
        self._line(cells, cells[-1][1] + 1, state.trouble)
        self.after, self.stopped, self.delayed, self.blocks, self.saved = kept
        state.variables, state.exported = variables, exported

    def _program(self, cells: Cells, line: int, source: str, called: bool) -> None:
        words = tuple(self._arguments(cells))
        if not words:
            return
        state = self.state
        name = re.split(r"[\\/]", words[0].text)[-1].lower()
        if _OTHER_SHELL.fullmatch(name):
            outer, state.trouble = state.trouble, state.trouble or f"{words[0].text} reads its words once more"
            state.run(words, line, source)
            state.trouble = outer
            return
        state.run(words, line, source)
        script = name.endswith((".bat", ".cmd"))
        known = activates(words)
        if not called and self.file and (script or known or name == "conda") and not state.trouble:
            self.after = self.after or f"line {line} runs {words[0].text} without `call`, and cmd does not come back from it"
        elif not known and (script or (called and not _COMES_BACK.fullmatch(name))):
            state.forget_all(f"line {line} calls {words[0].text}, which may set it")

    def _arguments(self, cells: Cells) -> Iterator[Word]:
        """The words that a program makes of its line."""
        text, at = _text(cells), 0
        while True:
            while at < len(text) and text[at] in " \t\n":
                at += 1
            if at >= len(text):
                return
            begin, out, quoted = at, "", False
            while at < len(text) and (quoted or text[at] not in " \t\n"):
                slashes = re.compile(r"\\+(?=\")").match(text, at)
                if slashes:
                    count, at = len(slashes[0]), slashes.end()
                    out += "\\" * (count // 2) + '"' * (count % 2)
                    at += count % 2
                elif text[at] != '"':
                    out += text[at]
                    at += 1
                elif quoted and text.startswith('""', at):
                    out += '"'
                    at += 2
                else:
                    quoted = not quoted
                    at += 1
            line = self._place(cells[begin:])
            if quoted:
                raise InputError(
                    f'{self.path}:{line}: a quote (") begins here and does not end. Close it; one after a backslash closes none.'
                )
            shown, trouble = self._shown(out)
            yield Word(text=shown, line=line, trouble=trouble)


def _text(cells: Cells) -> str:
    return "".join(char for char, _ in cells)


def _redirected(cells: Cells, at: int) -> int:
    """Where a redirection and its file end."""
    text = _text(cells)
    if match := re.compile(r"(?:>>|<|>)\s*&\d").match(text, at):
        return match.end()
    if match := re.compile(r'(?:>>|<|>)\s*(?:"[^"]*"?|\^.|[^\s",;=&|<>()^])*').match(text, at):
        return match.end()
    return at + 1
