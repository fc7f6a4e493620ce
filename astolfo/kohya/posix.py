"""POSIX shell scripts: quotes, continuations, comments, variables, lists, `for` over plain words, here-documents.

    run(Path("train.sh"), text).commands

Statements are gone through with the variables that are set so far. A `for` whose words are known is gone through word by word.
The bodies of `if`, `while`, `case` and functions are read, and so is what follows a test and `&&`, or any command and `||`; but
what they set is known to nobody afterwards, and a command in them has that as its trouble. A variable that is changed in a way
that is not followed here (`read`, `let`, another script that is not at hand) is known to nobody either.
"""

import contextlib
import os
import re
from dataclasses import replace
from pathlib import Path

from astolfo.errors import InputError
from astolfo.kohya.posix_syntax import ASSIGNMENT, Reader, Statement, Token
from astolfo.kohya.posix_words import NAME, assign, expand, join, within_text
from astolfo.kohya.shell import POSIX_SHELLS, TRAINS, State, Word, Written, read_text, sure

_DECLARE = ("export", "declare", "typeset", "readonly", "local")
_KEYWORDS = ("then", "do", "else", "elif", "!", "time")
_TESTS = {
    "[", "[[", "test", "((", "!", "false", "grep", "egrep", "pgrep", "pidof", "which", "command", "type", "hash", "diff", "cmp",
    "read",
}  # fmt: skip
_SURE = {"mkdir", "source", ".", ":", "true", "printf", "unset", "sleep", "wait", "shift", "umask", "ulimit"}
_HARMLESS = re.compile(
    r"(^|/)activate$|conda|mamba|brew|pyenv|ssh-agent|direnv|/etc/|\.(bashrc|bash_profile|profile|zshrc)$|setvars\.sh$"
)
_ARITHMETIC = re.compile(r"([A-Za-z_]\w*)(?:\[[^]]*\])?\s*(?:(?:[-+*/%&|^]|<<|>>)?=(?!=)|\+\+|--)|(?:\+\+|--)([A-Za-z_]\w*)")


class _Ended(Exception):
    """The script, or a subshell of it, has come to an `exit`."""


class _Next(_Ended):
    """A loop's body ends here: `continue`."""


class _Broken(_Ended):
    """A loop ends here: `break`."""


def run(path: Path, text: str) -> State:
    """Goes through a script. Raises InputError where it is not closed."""
    state = State(here=os.path.abspath(path.parent))
    _Run(path, text, state).whole(Reader(path, text).block(()))
    return state


class _Run:
    """Goes through the statements of one text, with the variables in `state`."""

    def __init__(self, path: Path, text: str, state: State):
        self.path, self.text, self.state = path, text, state
        self.left = self.broken = ""  # why the rest of a loop's body, or of all its rounds, may not run

    def whole(self, statements: list[Statement]) -> None:
        """Goes through statements up to an `exit`."""
        with contextlib.suppress(_Ended):
            self._go(statements)

    def _go(self, statements: list[Statement]) -> None:
        outer, before, why, doubt = self.state.trouble, None, "", ""
        for statement in statements:
            if statement.after == "&&" and before is not None:
                if _is_test(before):
                    why = f"it depends on the test of line {before.line}"
                elif before.after == "||":
                    why = ""
                if not _is_sure(before):
                    doubt = doubt or f"it is set only where the command of line {before.line} succeeds"
            elif statement.after == "||" and before is not None:
                why, doubt = f"it depends on whether the command of line {before.line} fails", ""
            elif not statement.after:
                why = doubt = ""
            self.state.trouble = outer or why or self.left or (doubt if _assigns(statement) else "")
            self._statement(statement)
            self.state.trouble = outer
            before = statement

    def _statement(self, statement: Statement) -> None:
        state, body = self.state, statement.body
        if statement.kind == "((":
            self._compute(statement.tokens[0].raw, statement.line)
        elif body is None:
            self._simple(statement)
        elif statement.kind == "(":
            _Run(self.path, self.text, state.inner()).whole(body)
        elif not statement.kind:
            self._go(body)
        elif statement.kind == "for" and statement.tokens:
            self._each(statement)
        elif statement.kind == "function":
            state.functions[statement.tokens[0].raw] = statement
            inner = state.inner()
            inner.trouble = f"it stands in the function {statement.tokens[0].raw} of line {statement.line}"
            _Run(self.path, self.text, inner).whole(body)
        else:
            if statement.kind == "if":  # what it asks is run, whatever comes of it
                asked = next((at for at, one in enumerate(body) if one.tokens and one.tokens[0].keyword == "then"), 0)
                self._go(body[:asked])
                body = body[asked:]
            outer, left = state.trouble, self.left
            state.trouble = outer or f"it depends on the `{statement.kind}` of line {statement.line}"
            self._go(body)
            state.trouble = outer
            if statement.kind not in ("if", "case"):
                self.left = left

    def _each(self, statement: Statement) -> None:
        name, *tokens = statement.tokens
        left, broken = self.left, self.broken
        for word in [word for token in tokens for word in expand(token, self.state)]:
            self.left = self.broken or left
            self.state.set(name.raw, word)
            try:
                self._go(statement.body or [])
            except _Next:
                continue
            except _Broken:
                break
        self.left, self.broken = left, broken

    def _simple(self, statement: Statement) -> None:
        state = self.state
        tokens, targets, document = _redirected(statement.tokens, state)
        literal = any(token.literal for token in statement.tokens)
        while tokens and tokens[0].keyword in _KEYWORDS:
            tokens = tokens[1:]
        declares = bool(tokens) and tokens[0].keyword in _DECLARE
        own: dict[str, Word] = {}
        rest = [token for token in tokens[1:] if not token.raw.startswith("-")] if declares else tokens
        alone = declares or all(ASSIGNMENT.match(one.raw) for one in rest)
        scope = state if alone else state.inner()  # before a command: the program's alone
        while rest and ASSIGNMENT.match(rest[0].parts[0][1] if rest[0].parts[0][0] == "plain" else ""):
            name = assign(rest[0], scope)
            own |= {name: scope.variables[name]} if name in scope.variables else {}
            rest = rest[1:]
        if declares or not rest:
            exported = declares and tokens[0].keyword == "export"
            for name in own if not exported else ():
                if name in state.exported:
                    state.exported[name] = own[name]
            if exported:
                state.exported |= own | {token.raw: state.get(token.raw, token.line, f"${token.raw}") for token in rest}
            return
        words = [word for token in rest for word in expand(token, state)]
        if not words:
            return
        first, last = statement.tokens[0], statement.tokens[-1]
        if targets:
            self._write(targets[-1], words, document, literal, first.line)
        elif (
            document and words[0].text.rpartition("/")[2] in POSIX_SHELLS and all(word.text.startswith("-") for word in words[1:])
        ):
            words = [words[0], Word(text="-c", line=first.line), Word(text=document, line=first.line)]
        elif document and TRAINS.search(document):
            words.append(Word(text=document, line=first.line, trouble="another program reads it"))
        if not self._built_in(words, first.line):
            state.run(words, first.line, self.text[first.start : last.end], own)
        if words[0].text == "exec" and not state.trouble and len(words) > 1:
            raise _Ended

    def _write(self, target: tuple[str, bool], words: list[Word], document: str, literal: bool, line: int) -> None:
        """A command's output goes into a file: known of `cat` and `tee` with a here-document, and of a plain `echo`."""
        name, more = target
        if document and words[0].text in ("cat", "tee"):
            what = Written(text=document) if literal else within_text(document, self.state)
        elif words[0].text == "echo" and not any(re.fullmatch("-[neE]+", word.text) for word in words[1:2]):
            why = next((word.trouble for word in words if word.trouble), "")
            what = Written(text=" ".join(word.text for word in words[1:]) + "\n", trouble={1: why} if why else {})
        else:
            what = Written(text="", trouble={0: f"line {line} writes it by `{words[0].text}`"})
        if self.state.trouble:
            what = replace(what, trouble={0: self.state.trouble})
        self.state.write(name, what, more)

    def _built_in(self, words: list[Word], line: int) -> bool:
        """Does what the shell itself does, as far as variables go. Whether it was such a command, and no program."""
        state, name, arguments = self.state, words[0].text, words[1:]
        if name in ("exit", "return", "continue", "break"):
            kind = {"continue": _Next, "break": _Broken}.get(name, _Ended)
            if not state.trouble:
                raise kind
            if kind is not _Ended:
                self.left = f"`{name}` of line {line} may leave it out"
                self.broken = self.broken or (self.left if kind is _Broken else "")
        elif name in state.functions:
            self._call(name, line)
        elif name in ("read", "mapfile", "readarray"):
            for word in arguments:
                if NAME.fullmatch(word.text):
                    state.forget(word.text, line, f"`{name}` of line {line} sets {word.text}")
        elif name == "let":
            self._compute(" ; ".join(word.text for word in arguments), line)
        elif name == "printf" and arguments and arguments[0].text == "-v" and len(arguments) > 1:
            state.forget(arguments[1].text, line, f"`printf` of line {line} sets {arguments[1].text}")
        elif name == "unset":
            for word in arguments:
                state.unset(word.text)
        elif name in ("source", ".") and arguments:
            self._source(arguments[0], line)
        elif name == "eval":
            self._eval(arguments, line)
        elif shell := _inner_script(words):
            if shell.trouble:
                return False
            inner = state.inner()
            inner.variables, inner.lists = dict(state.exported), {}
            _Run(self.path, shell.text, inner).whole(Reader(self.path, shell.text, shell.line).block(()))
        else:
            return False
        return True

    def _call(self, name: str, line: int) -> None:
        """A function of the script is called: what it sets is known to nobody."""
        state, inner = self.state, self.state.inner()
        inner.trouble = state.trouble or f"line {line} calls {name}, which may set it"
        inner.commands, inner.functions = [], {one: body for one, body in state.functions.items() if one != name}
        _Run(self.path, self.text, inner).whole(state.functions[name].body)
        state.variables |= inner.variables
        state.lists |= inner.lists
        state.exported |= inner.exported
        state.elsewhere = inner.elsewhere

    def _compute(self, text: str, line: int) -> None:
        """Arithmetic is not done here: what it changes is known to nobody."""
        for match in _ARITHMETIC.finditer(text):
            name = match[1] or match[2]
            self.state.forget(name, line, f"the arithmetic of line {line} changes {name}")

    def _source(self, file: Word, line: int) -> None:
        """Another script is run in this one: what it sets is known where it is at hand."""
        found = [self.path.parent / file.text, Path(file.text)]
        path = next((one for one in found if not file.trouble and one.is_file()), None)
        if path is None or path.resolve() == self.path.resolve():
            if not _HARMLESS.search(file.text):
                self.state.forget_all(f"line {line} runs {file.text}, which is not here and may set it")
            return
        text, before = read_text(path), len(self.state.commands)
        try:
            _Run(path, text, self.state).whole(Reader(path, text).block(()))
        except InputError:
            self.state.forget_all(f"line {line} runs {file.text}, which cannot be read")
        why = f"it stands in {path}, which line {line} of {self.path.name} runs"
        self.state.commands[before:] = [replace(one, line=line, trouble=why) for one in self.state.commands[before:]]

    def _eval(self, words: list[Word], line: int) -> None:
        text = " ".join(word.text for word in words)
        if not any(word.trouble for word in words):
            _Run(self.path, text, self.state)._go(Reader(self.path, text, line).block(()))
        elif not _HARMLESS.search(text):
            self.state.forget_all(f"`eval` of line {line} may set it")


def _is_test(statement: Statement) -> bool:
    """Whether a statement is run to see whether it succeeds, so that nobody knows whether what it guards is done."""
    if statement.body is not None and statement.kind in ("", "("):
        return bool(statement.body) and _is_test(statement.body[-1])
    if statement.kind:
        return statement.kind not in ("for", "function")
    words = [token for token in statement.tokens if not token.operator and token.keyword not in _KEYWORDS[:-2]]
    return bool(words) and words[0].raw in _TESTS


def _is_sure(statement: Statement) -> bool:
    """Whether a statement is taken to succeed, so that what `&&` sets after it is set."""
    if statement.body is not None:
        return statement.kind in ("", "(") and bool(statement.body) and _is_sure(statement.body[-1])
    text = " ".join(token.raw for token in statement.tokens if not token.operator)
    return _assigns(statement) or text.partition(" ")[0] in _SURE or sure(text)


def _assigns(statement: Statement) -> bool:
    """Whether a statement gives variables their values, and does nothing more."""
    words = [token for token in statement.tokens if not token.operator]
    if statement.kind or not words:
        return False
    return words[0].keyword in _DECLARE or all(ASSIGNMENT.match(one.raw) for one in words)


def _inner_script(words: list[Word]) -> Word | None:
    """The text that `bash -c TEXT` runs, whatever stands before."""
    for index, word in enumerate(words[:-1]):
        if word.text.rpartition("/")[2] in POSIX_SHELLS:
            options = [one.text for one in words[index + 1 :]]
            while options and options[0].startswith("-"):
                if re.fullmatch(r"-\w*c", options.pop(0)):
                    return words[len(words) - len(options)] if options else None
            return None
        if not re.fullmatch(r"nohup|time|nice|setsid|exec|env|-.*|\d+|\w+=.*|sudo|numactl|taskset", word.text):
            return None
    return None


def _redirected(tokens: list[Token], state: State) -> tuple[list[Token], list[tuple[str, bool]], str]:
    """The tokens without redirections, the files that they write (and whether at their end), and the here-document they read."""
    kept: list[Token] = []
    targets: list[tuple[str, bool]] = []
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
            targets += [(word.text, token.operator == ">>") for word in expand(tokens[index + 1], state)]
        index += 2
    if kept and kept[0].keyword == "tee" and document:
        more = any(token.keyword in ("-a", "--append") for token in kept)
        targets = [(join(token, state).text, more) for token in kept[1:] if not token.raw.startswith("-")][:1]
    return kept, targets, document
