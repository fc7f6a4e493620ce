"""Scripts of Windows' own shell, .bat and .cmd: `^` continues a line, `%NAME%`. PowerShell's are in `astolfo.kohya.powershell`.

Read as `astolfo.kohya.posix` reads a POSIX shell's: what stands in the parentheses of an `if` or a loop is read, but what it sets
is known to nobody afterwards.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from astolfo.errors import InputError
from astolfo.kohya.powershell import powershell
from astolfo.kohya.shell import State, Word

__all__ = ["batch", "powershell"]

_SET = re.compile(r"""(?i)set\s+(?:"([A-Za-z_]\w*)=(.*)"|([A-Za-z_]\w*)=(.*))\s*$""")
_SKIPPED = re.compile(r"(?i)@?\s*(rem\b|::|:\w+\s*$|title\b|pause\b|echo\b|setlocal\b|endlocal\b|color\b|cls\b)")
_DEPENDS = re.compile(r"(?i)\s*(if|for|else)\b")


def batch(path: Path, text: str) -> State:
    """Goes through a .bat or .cmd file. Raises InputError where a quote is not closed."""
    state, depth = State(), 0
    for line, source in _joined(text, "^"):
        plain = source.replace("^\n", "")
        bare = plain.strip().lstrip("@").strip()
        if not bare or _SKIPPED.match(bare):
            continue
        depends = _DEPENDS.match(bare)
        opened = depth > 0 or bool(depends)
        state.trouble = f"it depends on an `if` or a `for` above line {line + 1}" if opened else ""
        unquoted = re.sub(r'"[^"]*"', "", bare)
        depth = max(0, depth + unquoted.count("(") - unquoted.count(")")) if opened else 0
        if match := _SET.search(bare):
            name = match[1] or match[3]
            state.set(name.upper(), _percent(match[2] if match[1] else match[4].strip(), line, state))
            state.exported[name] = state.variables[name.upper()]
            continue
        for part in re.split(r"\s&&?\s(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", source):
            words = tuple(_batch_words(path, part.replace("^\n", " \n"), line, state))
            if words:
                state.run(words, line, part.strip())
    return state


def _joined(text: str, mark: str) -> Iterator[tuple[int, str]]:
    """Lines with those that `mark` continues, and the number of the first; a remark between them is left out."""
    lines, number = text.split("\n"), 0
    while number < len(lines):
        first, found = number, lines[number]
        while found.rstrip().endswith(mark) and number + 1 < len(lines):
            number += 1
            found = found.rstrip() + "\n" + lines[number]
        number += 1
        yield first + 1, found


def _percent(text: str, line: int, state: State) -> Word:
    """%NAME% and !NAME! filled in; names know no case there."""
    trouble = ""

    def fill(match: re.Match) -> str:
        nonlocal trouble
        value = state.get(match[1].upper(), line, match[0])
        trouble = trouble or value.trouble
        return value.text

    found = re.sub(r"%([A-Za-z_]\w*)%|!([A-Za-z_]\w*)!", lambda match: fill(re.match(r".(\w+).", match[0])), text)  # type: ignore[arg-type]
    if not trouble and (match := re.search(r"%~\w*\d|%\d|%\*|%%\w", found)):
        trouble = f"only the shell knows {match[0]}"
    return Word(text=found, line=line, trouble=trouble)


def _batch_words(path: Path, source: str, line: int, state: State) -> Iterator[Word]:
    for match in re.finditer(r'(?:"[^"\n]*"?|[^\s"])+', source):
        at = line + source.count("\n", 0, match.start())
        if match[0].count('"') % 2:
            raise InputError(f'{path}:{at}: a quote (") begins here and does not end. Close it.')
        if re.fullmatch(r"\d?>+(&\d)?|\|", match[0]):
            return
        word = _percent(match[0].lstrip("@") if match.start() == 0 else match[0], at, state)
        yield replace(word, text=word.text.replace('"', "").replace("^^", "^"))
