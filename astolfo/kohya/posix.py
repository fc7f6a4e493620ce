"""POSIX shell scripts: quotes, continuations, comments, variables, lists, `for` over plain words, here-documents.

A script is cut into tokens, tokens make statements, and statements are gone through with the variables that are set so far. A
`for` whose words are known is gone through word by word. The bodies of `if`, `while`, `case` and functions are read, but what
they set is known to nobody afterwards, and a command in them has that as its trouble.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from astolfo.errors import InputError
from astolfo.kohya.shell import State, Word

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^]]*\])?(\+?)=")
_OPERATORS = (";;", "&&", "||", "|&", "&>>", "&>", ">>", "<<<", "<<-", "<<", ">&", "<&", ">|", ";", "&", "|", "(", ")", "<", ">")
_REDIRECTS = {">", ">>", "<", "<<", "<<-", "<<<", ">&", "<&", "&>", "&>>", ">|"}
_ENDS = {"if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac", "{": "}"}
_DECLARE = ("export", "declare", "typeset", "readonly", "local")


@dataclass(kw_only=True)
class Token:
    """A raw word (parts of a quoting each), an operator, or the end of a line; `start` and `end` are offsets in the text."""

    line: int
    start: int
    end: int
    operator: str = ""
    parts: list[tuple[str, str]] = field(default_factory=list)  # (quoting: "plain", "single", "double"), text
    elements: list["Token"] | None = None  # of NAME=(a b c)
    document: str = ""  # what a << reads
    literal: bool = False  # the mark of a << is quoted: its variables stay as they are

    @property
    def raw(self) -> str:
        return "".join(text for _, text in self.parts)

    @property
    def keyword(self) -> str:
        """The word as a keyword; "" when it is quoted or an operator."""
        return self.raw if len(self.parts) == 1 and self.parts[0][0] == "plain" else ""


def run(path: Path, text: str) -> State:
    """Goes through a script. Raises InputError where it is not closed."""
    reader = _Reader(path, text)
    state = State()
    _go(reader.block(()), state, text)
    return state


class _Reader:
    """Cuts a script into tokens, and tokens into statements."""

    def __init__(self, path: Path, text: str):
        self.path, self.text, self.at, self.line = path, text, 0, 1
        self._waiting: list[tuple[Token, str, bool]] = []  # here-documents that begin at the next line
        self.tokens: list[Token] = []
        while token := self._token():
            self.tokens.append(token)
        self.position = 0

    # ---- tokens

    def _token(self) -> Token | None:
        text = self.text
        while self.at < len(text) and (text[self.at] in " \t" or text.startswith("\\\n", self.at)):
            self._advance(2 if text[self.at] == "\\" else 1)
        if self.at < len(text) and text[self.at] == "#":
            self._advance((text + "\n").index("\n", self.at) - self.at)
        if self.at >= len(text):
            return None
        start, line = self.at, self.line
        if text[self.at] == "\n":
            self._advance(1)
            self._documents()
            return Token(line=line, start=start, end=start, operator="\n")
        for operator in _OPERATORS:
            if text.startswith(operator, self.at):
                self._advance(len(operator))
                return Token(line=line, start=start, end=self.at, operator=operator)
        return self._word()

    def _advance(self, count: int) -> None:
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def _word(self) -> Token:
        token = Token(line=self.line, start=self.at, end=self.at)
        text = self.text
        while self.at < len(text) and text[self.at] not in " \t\n;&|<>()":
            token.parts.append(self._part(token))
        if self.at < len(text) and text[self.at] == "(" and _ASSIGNMENT.fullmatch(token.raw):
            token.elements = self._elements(token.line)
        token.end = self.at
        if self.tokens and self.tokens[-1].operator in ("<<", "<<-"):
            bare = "".join(part.replace("\\", "") for _, part in token.parts)
            self._waiting.append((self.tokens[-1], bare, any(quoting != "plain" for quoting, _ in token.parts)))
        return token

    def _part(self, token: Token) -> tuple[str, str]:
        char, text = self.text[self.at], self.text
        if char == "'":
            end = text.find("'", self.at + 1)
            self._closed(end, token.line, "a quote (')")
            part = text[self.at + 1 : end]
            self._advance(end + 1 - self.at)
            return "single", part
        if char == '"':
            end = self.at + 1
            while end < len(text) and text[end] != '"':
                end = self._within(text, end)
            self._closed(end if end < len(text) else -1, token.line, 'a quote (")')
            part = text[self.at + 1 : end]
            self._advance(end + 1 - self.at)
            return "double", part
        end = self.at
        while end < len(text) and text[end] not in " \t\n;&|<>()'\"":
            end = self._within(text, end)
        part = text[self.at : end]
        self._advance(end - self.at)
        return "plain", part

    @staticmethod
    def _within(text: str, at: int) -> int:
        """Where what stands at `at` ends: an escape, a substitution, or one character."""
        if text[at] == "\\":
            return at + 2
        if text[at] == "`":
            end = text.find("`", at + 1)
            return end + 1 if end >= 0 else len(text)
        if text.startswith(("$(", "${"), at):
            opening, closing, depth, end = text[at + 1], ")" if text[at + 1] == "(" else "}", 0, at + 1
            while end < len(text):
                depth += (text[end] == opening) - (text[end] == closing)
                end += 1
                if not depth:
                    break
            return end
        return at + 1

    def _elements(self, line: int) -> list[Token]:
        self._advance(1)
        found: list[Token] = []
        while True:
            token = self._token()
            self._closed(0 if token else -1, line, "a list, (")
            assert token
            if token.operator == ")":
                return found
            if not token.operator:
                found.append(token)

    def _documents(self) -> None:
        """The bodies of the here-documents that the line before named."""
        for token, end, literal in self._waiting:
            token.literal = literal
            lines = []
            while True:
                self._closed(0 if self.at < len(self.text) else -1, token.line, f"a here-document ({end})")
                line, _, _ = self.text[self.at :].partition("\n")
                self._advance(min(len(line) + 1, len(self.text) - self.at))
                if (line.lstrip("\t") if token.operator == "<<-" else line) == end:
                    break
                lines.append(line)
            token.document = "\n".join(lines) + "\n"
        self._waiting = []

    def _closed(self, found: int, line: int, what: str) -> None:
        if found < 0:
            raise InputError(f"{self.path}:{line}: {what} begins here and does not end. Close it.")

    # ---- statements

    def block(self, ends: tuple[str, ...]) -> list["_Statement"]:
        """Statements up to a keyword of `ends`, which is left to be read; () is the end of the script."""
        found: list[_Statement] = []
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token.keyword in ends or (token.operator and token.operator in ends):
                return found
            if token.operator and token.operator != "(":
                self.position += 1
            else:
                found.append(self._statement(token))
        return found

    def _statement(self, token: Token) -> "_Statement":
        word = token.keyword
        if token.operator == "(" or word == "{":
            return self._compound(token, "", ")" if token.operator else "}")
        if word == "for":
            return self._for(token)
        if word in _ENDS:
            return self._compound(token, word, _ENDS[word])
        following = [one.operator for one in self.tokens[self.position + 1 : self.position + 3]]
        if word == "function" or following == ["(", ")"]:
            while self.position < len(self.tokens) and self.tokens[self.position].keyword != "{":
                self.position += 1
            return self._compound(token, "function", "}")
        begin = self.position
        while self.position < len(self.tokens):
            operator = self.tokens[self.position].operator
            if operator and operator not in _REDIRECTS:
                break
            self.position += 1
        return _Statement(line=token.line, tokens=self.tokens[begin : self.position])

    def _compound(self, token: Token, kind: str, end: str) -> "_Statement":
        self.position += 1
        body = self.block((end,))
        self._closed(0 if self.position < len(self.tokens) else -1, token.line, kind or "a group")
        self.position += 1
        return _Statement(line=token.line, kind=kind, body=body)

    def _for(self, token: Token) -> "_Statement":
        self.position += 1
        header: list[Token] = []
        while self.position < len(self.tokens) and self.tokens[self.position].keyword != "do":
            header.append(self.tokens[self.position])
            self.position += 1
        statement = self._compound(token, "for", "done")
        words = [one for one in header if not one.operator]
        plain = len(words) > 2 and words[1].keyword == "in"
        return replace(statement, tokens=[words[0], *words[2:]] if plain else [])


@dataclass(kw_only=True)
class _Statement:
    """A simple command (tokens), or a compound one with its body; a `for` has its variable and words as tokens."""

    line: int
    kind: str = ""
    tokens: list[Token] = field(default_factory=list)
    body: list["_Statement"] | None = None


# ---- going through


def _go(statements: list[_Statement], state: State, text: str) -> None:
    for statement in statements:
        if statement.body is None:
            _simple(statement, state, text)
        elif not statement.kind:
            _go(statement.body, state, text)
        elif statement.kind == "for" and statement.tokens:
            _each(statement, state, text)
        else:
            outer, state.trouble = state.trouble, f"it depends on the `{statement.kind}` of line {statement.line}"
            _go(statement.body, state, text)
            state.trouble = outer


def _each(statement: _Statement, state: State, text: str) -> None:
    name, *tokens = statement.tokens
    for word in [word for token in tokens for word in _expand(token, state)]:
        state.set(name.raw, word)
        _go(statement.body or [], state, text)


def _simple(statement: _Statement, state: State, text: str) -> None:
    tokens, targets, document = _redirected(statement.tokens, state)
    literal = any(token.literal for token in statement.tokens)
    while tokens and tokens[0].keyword in ("then", "do", "else", "elif", "!", "time"):
        tokens = tokens[1:]
    declares = bool(tokens) and tokens[0].keyword in _DECLARE
    own: dict[str, Word] = {}
    rest = [token for token in tokens[1:] if not token.raw.startswith("-")] if declares else tokens
    while rest and _ASSIGNMENT.match(rest[0].parts[0][1] if rest[0].parts[0][0] == "plain" else ""):
        name = _assign(rest[0], state)
        if name in state.variables:
            own[name] = state.variables[name]
        rest = rest[1:]
    if declares or not rest:
        if declares and tokens[0].keyword == "export":
            state.exported |= own | {token.raw: state.get(token.raw, token.line, f"${token.raw}") for token in rest}
        return
    words = tuple(word for token in rest for word in _expand(token, state))
    if document and targets and words and words[0].text == "cat":
        state.writes[targets[-1]] = document if literal else _within_text(document, state)
    first, last = statement.tokens[0], statement.tokens[-1]
    source = text[first.start : last.end]
    state.run(words, first.line, source, own)


def _redirected(tokens: list[Token], state: State) -> tuple[list[Token], list[str], str]:
    """The tokens without redirections, the files that they write, and the here-document that they read."""
    kept: list[Token] = []
    targets: list[str] = []
    document, index = "", 0
    while index < len(tokens):
        token = tokens[index]
        if not token.operator:
            kept.append(token)
            index += 1
            continue
        if kept and kept[-1].keyword in ("1", "2") and kept[-1].end == token.start:
            kept.pop()  # of 2>&1
        document = token.document or document
        if token.operator in (">", ">>", ">|") and index + 1 < len(tokens):
            targets += [word.text for word in _expand(tokens[index + 1], state)]
        index += 2
    return kept, targets, document


def _assign(token: Token, state: State) -> str:
    quoting, text = token.parts[0]
    match = _ASSIGNMENT.match(text)
    assert match
    name, more = match[1], match[3]
    if token.elements is not None:
        before = state.lists.get(name, []) if more else []
        found = [word for element in token.elements for word in _expand(element, state)]
        state.lists[name] = before + [replace(word, trouble=word.trouble or state.trouble) for word in found]
        state.variables.pop(name, None)
        return name
    value = _join(replace(token, parts=[(quoting, text[match.end() :]), *token.parts[1:]]), state)
    if more and name in state.variables:
        earlier = state.variables[name]
        value = replace(value, text=earlier.text + value.text, trouble=earlier.trouble or value.trouble)
    state.set(name, value)
    return name


def _join(token: Token, state: State) -> Word:
    """A word whose parts are put together without being split."""
    found = [_filled(quoting, text, token.line, state) for quoting, text in token.parts]
    trouble = next((word.trouble for word in found if word.trouble), "")
    return Word(text="".join(word.text for word in found), line=token.line, trouble=trouble)


def _expand(token: Token, state: State) -> list[Word]:
    """The words that a raw word becomes: a list's, those of an unquoted variable, else one."""
    if len(token.parts) == 1:
        quoting, text = token.parts[0]
        if match := re.fullmatch(r"\$\{([A-Za-z_]\w*)\[[@*]\]\}", text):
            if match[1] in state.lists:
                return [replace(word, line=token.line) for word in state.lists[match[1]]]
        elif quoting == "plain" and (match := re.fullmatch(r"\$\{?([A-Za-z_]\w*)\}?", text)):
            value = state.get(match[1], token.line, text)
            split = value.text.split() if not value.trouble else [value.text]
            return [replace(value, text=one) for one in split]
    return [_join(token, state)]


def _within_text(text: str, state: State) -> str:
    """A here-document with its variables filled in, as far as they are known."""
    return "".join(_filled("double", line, 0, state).text for line in text.splitlines(keepends=True))


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
            end = _Reader._within(text, at)
            if end == at + 1 and (name := _NAME.match(text, at + 1)):
                end = name.end()
            word = _variable(text[at:end], line, state) if end > at + 1 else Word(text=char, line=line)
            out.append(word.text)
            trouble = trouble or word.trouble
            at = end
        else:
            out.append(char)
            at += 1
    return Word(text="".join(out), line=line, trouble=trouble)


def _variable(spelt: str, line: int, state: State) -> Word:
    """What a `$...` stands for."""
    if match := re.fullmatch(r"\$\{?([A-Za-z_]\w*)\}?", spelt):
        return state.get(match[1], line, spelt)
    if match := re.fullmatch(r"\$\{([A-Za-z_]\w*):?([-=])(.*)\}", spelt, re.DOTALL):
        if match[1] in state.variables and (state.variables[match[1]].text or state.variables[match[1]].trouble):
            return state.get(match[1], line, spelt)
        word = _filled("double", match[3].strip("\"'"), line, state)
        if match[2] == "=":
            state.set(match[1], word)
        return word
    return Word(text=spelt, line=line, trouble=f"only the shell knows {spelt}")
