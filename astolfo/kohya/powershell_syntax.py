"""The syntax of PowerShell scripts: where strings, here-strings, groups, words and commands begin and end."""

import re
from pathlib import Path

from astolfo.errors import InputError

Parts = list[tuple[int, int]]
"""Where the parts of a word begin and end: strings, groups, and what is between."""

QUOTES, SINGLE = '"“”„', "'‘’‚‛"  # PowerShell takes a word processor's for quotes


class Reader:
    """A script; its places are offsets in its text."""

    def __init__(self, path: Path, text: str):
        self.path, self.text = path, text

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def _unclosed(self, at: int, what: str) -> InputError:
        return InputError(f"{self.path}:{self._line(at)}: {what} begins here and does not end. Close it.")

    def _blank(self, at: int, end: int, lines: bool = False) -> int:
        """Where blanks, continued lines and remarks end; `lines`: ends of lines too."""
        text = self.text
        while at < end:
            if text[at] in " \t\r\f\xa0" or (lines and text[at] == "\n"):
                at += 1
            elif text[at] == "`" and (match := re.compile(r"`[ \t]*\n").match(text, at)):
                at = match.end()
                while match := re.compile(r"[ \t]*#[^\n]*\n").match(text, at):  # a remark between lines that are continued
                    at = match.end()
            elif text.startswith("<#", at):
                if "#>" not in text[at:]:
                    raise self._unclosed(at, "a remark, <#,")
                at = text.index("#>", at) + 2
            elif text[at] == "#":
                at = (text + "\n").index("\n", at)
            else:
                break
        return min(at, end)

    def _quote(self, at: int) -> int:
        """Where a string ends that begins at `at`."""
        text, single = self.text, self.text[at] in SINGLE
        marks, end = SINGLE if single else QUOTES, at + 1
        while end < len(text):
            if text[end] in marks:
                if end + 1 < len(text) and text[end + 1] in marks:
                    end += 2
                    continue
                return end + 1
            if not single and text[end] == "`":
                end += 2
            elif not single and text.startswith("$(", end):
                end = self._group(end + 1)
            else:
                end += 1
        raise self._unclosed(at, f"a quote ({text[at]})")

    def _here(self, at: int) -> re.Match | None:
        """A here-string that begins at `at`, its text as the group."""
        mark = self.text[at + 1 : at + 2]
        if self.text[at] != "@" or not mark or mark not in QUOTES + SINGLE:
            return None
        marks = SINGLE if mark in SINGLE else QUOTES
        match = re.compile(rf"@[{marks}][ \t]*\n(.*?)\n?(?<=\n)[{marks}]@", re.DOTALL).match(self.text, at)
        if match is None:
            raise self._unclosed(at, f"a here-string, @{mark},")
        return match

    def _group(self, at: int) -> int:
        """Where a bracket's text ends, after its closing one."""
        closing, begin = {"(": ")", "{": "}"}[self.text[at]], at
        what = "a block, {," if closing == "}" else "a list, (,"
        at += 1
        while True:
            at = self._blank(at, len(self.text), lines=True)
            if at >= len(self.text):
                raise self._unclosed(begin, what)
            if self.text[at] == closing:
                return at + 1
            at = self._part(at, len(self.text), inside=True)

    def _part(self, at: int, end: int, inside: bool = False) -> int:
        """Where a part of a word ends: a string, a group, an escape, or characters that mean nothing more."""
        text = self.text
        if match := self._here(at):
            return match.end()
        if text[at] in QUOTES + SINGLE:
            return self._quote(at)
        if text[at] in "({":
            return self._group(at)
        if text.startswith(("$(", "@(", "@{"), at):
            return self._group(at + 1)
        if text[at] == "`":
            return min(at + 2, end)
        if match := re.compile(r"\$\{[^}\n]*\}").match(text, at):
            return match.end()
        if inside and text[at] in ")};|&<>":
            return at + 1
        stop = re.compile(rf"[\s({{)}};|&<>`{QUOTES}{SINGLE}]|[$@][({{]").search(text, at + 1, end)
        return stop.start() if stop else end

    def _words(self, at: int, end: int) -> tuple[list[Parts], list[tuple[int, int]], str, int]:
        """The words of a command, as the places of their parts; the files that it writes; its last operator; where to read on."""
        text = self.text
        found: list[Parts] = []
        targets: list[tuple[int, int]] = []
        while True:
            at = self._blank(at, end)
            if at >= end:
                return found, targets, "", at
            if text[at] == "\n":
                before = text[: self._before(at)].rstrip()
                if found and before.endswith(","):
                    at += 1
                    continue
                return found, targets, "\n", at + 1
            if match := re.compile(r"[1-6*]?>>?(?:&[12])?|<").match(text, at):
                at = match.end()
                if "&" not in match[0]:
                    begin = self._blank(at, end)
                    at = self._word(begin, end)[1]
                    if match[0] != "<":
                        targets.append((begin, at))
                continue
            if match := re.compile(r"&&|\|\||[;|]|&(?=\s*(?:$|[;\n]))").match(text, at):
                return found, targets, match[0], match.end()
            if text[at] in ")}":
                return found, targets, "", at + 1  # it closes nothing
            word, at = self._word(at, end)
            found.append(word)

    def _before(self, at: int) -> int:
        """The end of what stands before `at` on its line, without its remark."""
        begin = self.text.rfind("\n", 0, at) + 1
        match = re.search(r"\s#[^\n\"']*$", self.text[begin:at])
        return begin + match.start() if match else at

    def _word(self, at: int, end: int) -> tuple[Parts, int]:
        """A word's parts. One that begins with a string ends with it, unless a comma follows."""
        text, parts = self.text, []
        while at < end and text[at] not in " \t\r\n\f\xa0;|&<>)}":
            if text[at] == "`" and re.compile(r"`[ \t]*\n").match(text, at):
                break
            last = self._part(at, end)
            parts.append((at, last))
            at = last
            if len(parts) == 1 and text[parts[0][0]] in QUOTES + SINGLE and text[at : at + 1] != ",":
                break
        if not parts and at < end and text[at] == "&":
            return [(at, at + 1)], at + 1
        return parts, at

    def _unquoted(self, begin: int, end: int) -> str:
        """A text whose strings and remarks are left out, but for strings in which something is calculated."""
        out, at = [], begin
        while at < end:
            following = self._blank(at, end, lines=True)
            if following > at:
                out.append(" ")
                at = following
                continue
            text = self.text
            if self._here(at) or text[at] in QUOTES + SINGLE:
                last = self._part(at, end)
                out.append(text[at:last] if "$(" in text[at:last] else '""')
                at = last
            else:
                out.append(text[at])
                at += 1
        return "".join(out)
