"""Words of POSIX shell scripts: what variables, lists, braces and substitutions in them stand for, as far as that is known.

expand(token, state)      the words that a raw one becomes; what of them only the shell knows is their trouble
"""

import re
from dataclasses import replace

from astolfo.kohya.paths import joined
from astolfo.kohya.posix_syntax import ASSIGNMENT, Token, within
from astolfo.kohya.shell import State, Word, Written

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACES = re.compile(r"(?<!\$)\{([^{}\s]*,[^{}\s]*|-?\d+\.\.-?\d+(?:\.\.-?\d+)?|[A-Za-z]\.\.[A-Za-z])\}")
_ZERO = r"(?:\$0|\$\{0\}|\$\{?BASH_SOURCE(?:\[0\])?(?::-\$0)?\}?|\$\((?:realpath|readlink -f) (?:\$0|\$\{BASH_SOURCE\[0\]\})\))"
_FOLDER = rf"(?:\$\(dirname {_ZERO}\)|\$\{{(?:0|BASH_SOURCE(?:\[0\])?)%/\*\}})"
_OWN = re.compile(
    rf"{_FOLDER}|\$\(cd (?:-P )?{_FOLDER}(/\.\.)?(?: ?&&|;) ?pwd(?: -P)?\)|\$\((?:realpath|readlink -f) {_FOLDER}\)"
)
"""The script's own folder, as scripts ask for it; quotes, blanks and what silences a command left out."""


def assign(token: Token, state: State) -> str:
    """Does what NAME=VALUE, NAME+=VALUE or NAME=(a b c) says; returns the name."""
    quoting, text = token.parts[0]
    match = ASSIGNMENT.match(text)
    assert match
    name, element, more = match[1], match[2], match[3]
    if token.elements is not None:
        before = state.lists.get(name, []) if more else []
        found = [word for one in token.elements for word in expand(one, state)]
        state.lists[name] = before + [word.doubted(state.trouble) for word in found]
        state.variables.pop(name, None)
        return name
    value = join(replace(token, parts=[(quoting, text[match.end() :]), *token.parts[1:]]), state)
    if element:
        why = f"line {token.line} changes a part of {name}"
        state.lists[name] = [one.doubted(why) for one in state.lists.get(name, [replace(value, trouble=why)])]
        return name
    if more and name in state.variables:
        earlier = state.variables[name]
        value = replace(value, text=earlier.text + value.text, trouble=earlier.trouble or value.trouble)
    state.set(name, value)
    return name


def join(token: Token, state: State) -> Word:
    """A word whose parts are put together without being split."""
    found = [_filled(quoting, text, token.line, state) for quoting, text in token.parts]
    trouble = next((word.trouble for word in found if word.trouble), "")
    return Word(text="".join(word.text for word in found), line=token.line, trouble=trouble)


def expand(token: Token, state: State) -> list[Word]:
    """The words that a raw word becomes: a list's, those of an unquoted variable or of braces, else one."""
    if len(token.parts) == 1:
        quoting, text = token.parts[0]
        if match := re.fullmatch(r"\$\{([A-Za-z_]\w*)\[[@*]\]\}", text):
            if match[1] in state.lists:
                return [replace(word, line=token.line) for word in state.lists[match[1]]]
        elif match := re.fullmatch(r'\$\{([A-Za-z_]\w*)\[[@*]\]:?\+"?(\$\{\1\[[@*]\]\})"?\}', text):
            return expand(replace(token, parts=[(quoting, match[2])]), state)
        elif quoting == "plain" and text.startswith(("$", "`")) and _whole_variable(text):
            value = _variable(text, token.line, state)
            split = value.text.split() if not value.trouble else [value.text]
            return [replace(value, text=one) for one in split]
    return [_unmatched(one, state) for one in _braced(token)]


def _whole_variable(text: str) -> bool:
    """Whether a text is one `$...` and nothing more."""
    return bool(re.fullmatch(r"\$[A-Za-z_]\w*", text)) or (text[1:2] in ("{", "(") and within(text, 0) == len(text))


def _braced(token: Token) -> list[Token]:
    """The words that {a,b} and {1..3} make of one."""
    for index, (quoting, text) in enumerate(token.parts):
        if quoting == "plain" and (match := _BRACES.search(text)):
            made = [(quoting, text[: match.start()] + one + text[match.end() :]) for one in _alternatives(match[1])]
            words = [replace(token, parts=[*token.parts[:index], one, *token.parts[index + 1 :]]) for one in made]
            return [each for word in words for each in _braced(word)]
    return [token]


def _alternatives(inside: str) -> list[str]:
    if "," in inside:
        return inside.split(",")
    begin, end, *step = inside.split("..")
    if begin.isalpha():
        first, last = ord(begin), ord(end)
        return [chr(code) for code in range(first, last + (1 if last >= first else -1), 1 if last >= first else -1)]
    first, last = int(begin), int(end)
    way = (1 if last >= first else -1) * max(1, abs(int(step[0])) if step else 1)
    width = max(len(begin), len(end)) if begin.startswith("0") or end.startswith("0") else 0
    return [str(number).zfill(width) for number in range(first, last + (1 if way > 0 else -1), way)]


def _unmatched(token: Token, state: State) -> Word:
    """A word, whose trouble it is where the shell would put the names of files in its place."""
    word = join(token, state)
    pattern = any(
        quoting == "plain" and re.search(r"(?<![\\$])[*?]", re.sub(r"\$[*?@#]|\$\{[^}]*\}", "", text))
        for quoting, text in token.parts
    )
    if pattern and not word.text.startswith("-") and not word.trouble:
        return replace(word, trouble=f"only the shell knows which files {word.text} stands for")
    return word


def within_text(text: str, state: State) -> Written:
    """A here-document with its variables filled in, as far as they are known."""
    lines = [_filled("double", line, 0, state) for line in text.splitlines(keepends=True)]
    return Written(
        text="".join(line.text for line in lines),
        trouble={number: line.trouble for number, line in enumerate(lines, 1) if line.trouble},
    )


def _filled(quoting: str, text: str, line: int, state: State) -> Word:
    """One part of a word with escapes and variables resolved."""
    if quoting == "single":
        return Word(text=text, line=line)
    out, trouble, at = [], "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            escaped = text[at + 1]
            kept = quoting == "double" and escaped not in '$`"\\\n'
            out.append(("\\" + escaped) if kept else "" if escaped == "\n" else escaped)
            at += 2
        elif char in "$`":
            end = within(text, at)
            if end == at + 1 and (name := NAME.match(text, at + 1)):
                end = name.end()
            elif end == at + 1 and re.match(r"[0-9@*#?!$-]", text[at + 1 : at + 2]):
                end = at + 2
            word = _variable(text[at:end], line, state) if end > at + 1 else Word(text=char, line=line)
            out.append(word.text)
            trouble = trouble or word.trouble
            at = end
        else:
            out.append(char)
            at += 1
    return Word(text="".join(out), line=line, trouble=trouble)


def _variable(spelt: str, line: int, state: State) -> Word:
    """What a `$...` stands for. A home folder is left as it is, since paths are made whole where they are needed."""
    if match := re.fullmatch(r"\$\{?([A-Za-z_]\w*)\}?", spelt):
        if match[1] == "HOME" and "HOME" not in state.variables:
            return Word(text="$HOME", line=line)
        if match[1] != "PWD" or "PWD" in state.variables:
            return state.get(match[1], line, spelt)
    if re.fullmatch(r"\$\{?PWD\}?|\$\(\s*pwd\s*\)|`pwd`", spelt):
        unknown = state.folder.startswith("$")
        return Word(
            text=joined(state.here, state.folder or "."), line=line, trouble=f"only the shell knows {spelt}" if unknown else ""
        )
    if match := re.fullmatch(r"\$\{([A-Za-z_]\w*|\d+):?([-=])(.*)\}", spelt, re.DOTALL):
        if match[1] in state.variables and (state.variables[match[1]].text or state.variables[match[1]].trouble):
            return state.get(match[1], line, spelt)
        word = _filled("double", match[3].strip("\"'"), line, state)
        if match[1] not in state.variables and not word.trouble:
            state.remarks.append(f"{line}: the script does not set {match[1]}, so {spelt} is taken for {word.text!r}.")
        if match[2] == "=":
            state.set(match[1], word)
        return word
    if (match := re.fullmatch(r"\$\{([A-Za-z_]\w*):?\+(.*)\}", spelt, re.DOTALL)) and match[1] in state.variables:
        known = state.variables[match[1]]
        return known if known.trouble or not known.text else _filled("double", match[2].strip("\"'"), line, state)
    asked = f"$({spelt[1:-1]})" if spelt.startswith("`") else spelt
    plain = re.sub(r"[\"']|&?>\s*/dev/null(\s+2>&1)?|2>\s*/dev/null|(?<=\s)--(?=\s)", "", asked)
    if match := _OWN.fullmatch(re.sub(r"(?<=\() | (?=\))", "", re.sub(r"\s+", " ", plain))):
        return Word(text=joined(state.here, "..") if match[1] else state.here, line=line)
    return Word(text=spelt, line=line, trouble=f"only the shell knows {spelt}")
