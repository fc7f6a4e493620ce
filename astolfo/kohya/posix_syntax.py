"""The syntax of POSIX shell scripts: tokens (words with their quotes, operators, here-documents), and statements made of them."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from astolfo.errors import InputError

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^]]*\])?(\+?)=")
_OPERATORS = (";;", "&&", "||", "|&", "&>>", "&>", ">>", "<<<", "<<-", "<<", ">&", "<&", ">|", ";", "&", "|", "(", ")", "<", ">")
REDIRECTS = {">", ">>", "<", "<<", "<<-", "<<<", ">&", "<&", "&>", "&>>", ">|"}
_BLANK = re.compile(r"[ \t]+|\\[ \t]*\n")  # a shell wants no blanks after the backslash; whoever wrote them meant the same
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "e": "\x1b", "a": "\a", "b": "\b"}
_JOINS = ("&&", "||", "|", "|&")
_ENDS = {"if": "fi", "while": "done", "until": "done", "for": "done", "select": "done", "case": "esac", "{": "}"}


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


@dataclass(kw_only=True)
class Statement:
    """A simple command (tokens), or a compound one with its body; a `for` has its variable and words as tokens."""

    line: int
    kind: str = ""
    tokens: list[Token] = field(default_factory=list)
    body: list["Statement"] | None = None
    after: str = ""  # the operator that joins it to the one before: "&&", "||", "|"


class Reader:
    """Cuts a script into tokens, and tokens into statements. `line` is the number of its first line."""

    def __init__(self, path: Path, text: str, line: int = 1):
        self.path, self.text, self.at, self.line = path, text, 0, line
        self._waiting: list[tuple[Token, str, bool]] = []  # here-documents that begin at the next line
        self.tokens: list[Token] = []
        while token := self._token():
            self.tokens.append(token)
        self.position = 0

    # ---- tokens

    def _token(self) -> Token | None:
        text = self.text
        while blank := _BLANK.match(text, self.at):
            self._advance(len(blank[0]))
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
        if self.at < len(text) and text[self.at] == "(" and ASSIGNMENT.fullmatch(token.raw):
            token.elements = self._elements(token.line)
        token.end = self.at
        if self.tokens and self.tokens[-1].operator in ("<<", "<<-"):
            bare = "".join(part.replace("\\", "") for _, part in token.parts)
            self._waiting.append((self.tokens[-1], bare, any(quoting != "plain" for quoting, _ in token.parts)))
        return token

    def _part(self, token: Token) -> tuple[str, str]:
        char, text = self.text[self.at], self.text
        if text.startswith("$'", self.at):
            return self._escaped(token)
        if text.startswith('$"', self.at):
            self._advance(1)
            char = '"'
        if char == "'":
            end = text.find("'", self.at + 1)
            self._closed(end, token.line, "a quote (')")
            part = text[self.at + 1 : end]
            self._advance(end + 1 - self.at)
            return "single", part
        if char == '"':
            end = self.at + 1
            while end < len(text) and text[end] != '"':
                end = within(text, end)
            self._closed(end if end < len(text) else -1, token.line, 'a quote (")')
            part = text[self.at + 1 : end]
            self._advance(end + 1 - self.at)
            return "double", part
        end = self.at
        while end < len(text) and text[end] not in " \t\n;&|<>()'\"":
            if end > self.at and text.startswith(("$'", '$"'), end):
                break
            end = within(text, end)
        part = text[self.at : end]
        self._advance(end - self.at)
        return "plain", part

    def _escaped(self, token: Token) -> tuple[str, str]:
        """$'...', in which \\n and the like are what they are in C."""
        match = re.compile(r"\$'((?:\\.|[^'\\])*)'", re.DOTALL).match(self.text, self.at)
        self._closed(0 if match else -1, token.line, "a quote ($')")
        assert match
        self._advance(len(match[0]))
        return "single", re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match[1], flags=re.DOTALL)

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

    def block(self, ends: tuple[str, ...]) -> list[Statement]:
        """Statements up to a keyword of `ends`, which is left to be read; () is the end of the script."""
        found: list[Statement] = []
        after = ""
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token.keyword in ends or (token.operator and token.operator in ends):
                return found
            if token.operator == "\n" and after in _JOINS:  # what follows a `&&` may stand on the next line
                self.position += 1
            elif token.operator and token.operator not in ("(", *REDIRECTS):
                after = token.operator
                self.position += 1
            elif token.operator in REDIRECTS:  # of a group: } > log
                after = ""
                self.position += 2
            else:
                found.append(replace(self._statement(token), after=after if after in _JOINS else ""))
                after = ""
        return found

    def _statement(self, token: Token) -> Statement:
        word = token.keyword
        if token.operator == "(" and self.text.startswith("((", token.start):
            return self._arithmetic(token)
        if token.operator == "(" or word == "{":
            return self._compound(token, token.operator, ")" if token.operator else "}")
        if word in ("then", "do", "else", "elif"):
            self.position += 1
            return Statement(line=token.line, tokens=[token])
        if word == "for":
            return self._for(token)
        if word in _ENDS:
            return self._compound(token, word, _ENDS[word])
        following = [one.operator for one in self.tokens[self.position + 1 : self.position + 3]]
        if word == "function" or following == ["(", ")"]:
            return self._function(token)
        begin = self.position
        while self.position < len(self.tokens):
            operator = self.tokens[self.position].operator
            if operator and operator not in REDIRECTS:
                break
            self.position += 1
        return Statement(line=token.line, tokens=self.tokens[begin : self.position])

    def _function(self, token: Token) -> Statement:
        """NAME() { ... }, its name as the token; the body may also be ( ... )."""
        if token.keyword == "function":
            self.position += 1
        name = self.tokens[min(self.position, len(self.tokens) - 1)]
        self.position += 1
        while self.position < len(self.tokens):
            one = self.tokens[self.position]
            following = self.tokens[self.position + 1 : self.position + 2]
            if one.keyword == "{" or (one.operator == "(" and not (following and following[0].operator == ")")):
                break
            self.position += 1
        opening = self.tokens[self.position].operator if self.position < len(self.tokens) else ""
        return replace(self._compound(token, "function", ")" if opening else "}"), tokens=[name])

    def _compound(self, token: Token, kind: str, end: str) -> Statement:
        self.position += 1
        body = self.block((end,))
        self._closed(0 if self.position < len(self.tokens) else -1, token.line, kind or "a group")
        self.position += 1
        return Statement(line=token.line, kind=kind, body=body)

    def _arithmetic(self, token: Token) -> Statement:
        """((...)), whose text is kept as one word."""
        depth, begin = 0, self.position
        while self.position < len(self.tokens):
            operator = self.tokens[self.position].operator
            depth += (operator == "(") - (operator == ")")
            self.position += 1
            if not depth:
                break
        self._closed(-1 if depth else 0, token.line, "((")
        text = self.text[token.start : self.tokens[self.position - 1].end]
        word = replace(self.tokens[begin], operator="", parts=[("single", text)], end=self.tokens[self.position - 1].end)
        return Statement(line=token.line, kind="((", tokens=[word])

    def _for(self, token: Token) -> Statement:
        self.position += 1
        header: list[Token] = []
        while self.position < len(self.tokens) and self.tokens[self.position].keyword != "do":
            header.append(self.tokens[self.position])
            self.position += 1
        statement = self._compound(token, "for", "done")
        words = [one for one in header if not one.operator]
        if len(words) > 2 and words[1].keyword == "in":
            return replace(statement, tokens=[words[0], *words[2:]])
        counted = replace(token, parts=[("single", self.text[token.end : header[-1].end] if header else "")])  # ((i = 0; ...))
        return replace(statement, body=[Statement(line=token.line, kind="((", tokens=[counted]), *(statement.body or [])])


def within(text: str, at: int) -> int:
    """Where what stands at `at` ends: an escape, a substitution, or one character."""
    if text[at] == "\\":
        return at + 2
    if text[at] == "`":
        end = text.find("`", at + 1)
        return end + 1 if end >= 0 else len(text)
    if not text.startswith(("$(", "${"), at):
        return at + 1
    opening, closing, depth, end = text[at + 1], ")" if text[at + 1] == "(" else "}", 1, at + 2
    while end < len(text) and depth:
        if opening == "(" and text[end] in "'\"":
            end = _quoted(text, end)
        elif text[end] == "\\" or text.startswith(("$(", "${"), end):
            end = within(text, end)
        else:
            depth += (text[end] == opening) - (text[end] == closing)
            end += 1
    return min(end, len(text))


def _quoted(text: str, at: int) -> int:
    """Where a quote within a substitution ends."""
    mark, end = text[at], at + 1
    while end < len(text) and text[end] != mark:
        end = within(text, end) if mark == '"' else end + 1
    return end + 1
