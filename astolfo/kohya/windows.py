"""Scripts of Windows' shells: .bat and .cmd (`^` continues a line, `%NAME%`), and PowerShell (a backtick continues, `$name`).

Read as `astolfo.kohya.posix` reads a POSIX shell's: what stands in the braces or parentheses of an `if` or a loop is read, but
what it sets is known to nobody afterwards.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from astolfo.errors import InputError
from astolfo.kohya.shell import State, Word

_SET = re.compile(r"""(?i)set\s+(?:"([A-Za-z_]\w*)=(.*)"|([A-Za-z_]\w*)=(.*))\s*$""")
_SKIPPED = re.compile(r"(?i)@?\s*(rem\b|::|:\w+\s*$|title\b|pause\b|echo\b|setlocal\b|endlocal\b|color\b|cls\b)")
_DEPENDS = re.compile(r"(?i)\s*(if|for|else)\b")
_POWER_SET = re.compile(r"(?is)\$(env:)?([A-Za-z_]\w*)\s*(\+?)=\s*(.*)")
_POWER_DEPENDS = re.compile(r"(?i)\s*\}?\s*(if|elseif|else|foreach|for|while|switch|function|do|try|catch)\b")


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


def powershell(path: Path, text: str) -> State:
    """Goes through a PowerShell script. Raises InputError where a quote or a list is not closed."""
    state, depth = State(), 0
    text = re.sub(r"(?s)<#.*?#>", lambda match: "\n" * match[0].count("\n"), text)
    for line, source in _balanced(path, _joined(text, "`")):
        bare = _bare(source.replace("`\n", " ")).strip()
        if not bare:
            continue
        opened = depth > 0 or bool(_POWER_DEPENDS.match(bare))
        state.trouble = f"it depends on an `if` or a loop above line {line + 1}" if opened else ""
        unquoted = re.sub(r"\"[^\"]*\"|'[^']*'|\$\{\w+\}", "", bare)
        depth = max(0, depth + unquoted.count("{") - unquoted.count("}")) if opened else 0
        if match := _POWER_SET.match(bare):
            _power_set(path, match, line, state)
        elif match := re.search(r"(?i)\$(\w+)\.(add|addrange)\((.*)\)", bare):
            added = [word for one in _split(match[3]) for word in _power_words(path, one, line, state)]
            state.lists.setdefault(match[1].lower(), []).extend(
                replace(one, trouble=one.trouble or state.trouble) for one in added
            )
        else:
            words = tuple(_power_words(path, source, line, state))
            if words and words[0].text == "&":
                words = words[1:]
            if words:
                state.run(words, line, source.strip())
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


def _balanced(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """PowerShell's lists run over lines: they are joined up to their end."""
    for line, source in lines:
        found = source
        while re.match(r"\s*\$\w+\s*\+?=\s*@\(", found) and _open(found) > 0:
            following = next(lines, None)
            if following is None:
                raise InputError(f"{path}:{line}: a list, @(, begins here and does not end. Close it.")
            found += "\n" + following[1]
        yield line, found


def _open(text: str) -> int:
    bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", _bare(text))
    return bare.count("(") - bare.count(")")


def _bare(text: str) -> str:
    """The text without the comments of its lines."""
    return "\n".join(_without_comment(one) for one in text.split("\n"))


def _without_comment(text: str) -> str:
    """The text up to a `#` that begins a word outside quotes."""
    match = re.match(r"""(?s)((?:"[^"]*"|'[^']*'|[^"'#]|(?<=\S)#)*)""", text)
    return match[1] if match else text


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


def _power_set(path: Path, match: re.Match, line: int, state: State) -> None:
    scope, name, more, value = match[1], match[2], match[3], match[4].strip()
    key = f"env:{name}".lower() if scope else name.lower()
    if re.match(r"(?i)\[?\s*(system\.|new-object|@\{)", value.lstrip("[")) or value in ("@()", "[]"):
        state.lists[key] = []
        state.variables.pop(key, None)
        return
    if value.startswith("@(") or (value.startswith(('"', "'")) and _split(value)[1:]):
        inner = value[2:-1] if value.startswith("@(") else value
        found = [word for one in _split(inner) for word in _power_words(path, one, line, state)]
        before = state.lists.get(key, []) if more else []
        state.lists[key] = before + [replace(word, trouble=word.trouble or state.trouble) for word in found]
        return
    words = list(_power_words(path, value, line, state))
    word = words[0] if len(words) == 1 else Word(text=value, line=line, trouble=f"only the shell knows {value}" if words else "")
    if more and key in state.lists:
        state.lists[key].append(replace(word, trouble=word.trouble or state.trouble))
        return
    if more and key in state.variables:
        word = replace(word, text=state.variables[key].text + word.text)
    state.set(key, word)
    if scope:
        state.exported[name] = state.variables[key]


def _split(text: str) -> list[str]:
    """Elements of a list, between commas or lines outside quotes."""
    return [one.strip() for one in re.findall(r"""(?:"[^"]*"|'[^']*'|[^,\n"'])+""", text) if one.strip()]


_POWER_WORD = re.compile(r"""(?:"(?:`.|[^"`])*"|'[^']*'|`[^\n]|\$\([^)]*\)|[^\s"'`;|])+|[;|]""")


def _power_words(path: Path, source: str, line: int, state: State) -> Iterator[Word]:
    text = _bare(source)
    for match in _POWER_WORD.finditer(text):
        at = line + text.count("\n", 0, match.start())
        raw = match[0]
        if raw in (";", "|") or re.fullmatch(r"[*\d]?>+(&\d)?", raw):
            return
        if re.search(r"^[^\"']*\"[^\"]*$", re.sub(r"`.", "", raw)):
            raise InputError(f'{path}:{at}: a quote (") begins here and does not end. Close it.')
        if (splat := re.fullmatch(r"[@$](\w+)", raw)) and splat[1].lower() in state.lists:
            yield from (replace(word, line=at) for word in state.lists[splat[1].lower()])
            continue
        yield _power_word(raw, at, state)


def _power_word(raw: str, line: int, state: State) -> Word:
    trouble, out = "", []

    def fill(match: re.Match) -> str:
        nonlocal trouble
        name = (match[1] or match[2] or match[3]).lower()
        if name in ("true", "false", "null"):
            return {"true": "True", "false": "False", "null": ""}[name]
        value = state.get(name, line, match[0])
        trouble = trouble or value.trouble
        return value.text

    for part in re.findall(r"""\"(?:`.|[^"`])*\"|'[^']*'|[^"']+""", raw):
        if part.startswith("'"):
            out.append(part[1:-1])
            continue
        inner = part[1:-1] if part.startswith('"') else part
        filled = re.sub(r"(?i)\$\(\$([\w:]+)\)|\$\{([\w:]+)\}|\$((?:env:)?[a-z_]\w*)", fill, inner)
        if not trouble and (match := re.search(r"\$\([^)]*\)|\$[({]", filled)):
            trouble = f"only the shell knows {match[0]}"
        out.append(re.sub(r"`(.)", r"\1", filled))
    return Word(text="".join(out), line=line, trouble=trouble)
