"""YAML read with line numbers, so that an error in the ledger can say where it is.

Keys are always strings, and so are the values that name something: `base: 0815`, `dataset: on` and `alpha: 0.60` stay as they are
written. A key that stands twice in one mapping is an error, and only YAML's safe types are built.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from astolfo.errors import LedgerError
from astolfo.files import read_text

_NAMES = {
    "alpha", "asides_are", "autoencoder", "base", "dataset", "era", "file", "made_by", "merge_base", "models", "note",
    "outcomes_are", "prompts", "recipe", "runs_are", "sha256", "targets", "text", "title", "trained",
}  # fmt: skip
"""Keys whose values, or the values below them, are text whatever they look like."""


class Document:
    """One YAML file: `value` is its content, `line(path)` tells where the entry at a path of keys and indices stands."""

    def __init__(self, path: Path):
        self.path = path
        self._lines: dict[tuple[str, ...], int] = {}
        self._within: list[yaml.Node] = []  # what is being built, outermost first
        try:
            root = yaml.compose(read_text(path, LedgerError), Loader=yaml.CSafeLoader)
        except FileNotFoundError:
            raise LedgerError(f"{path} is missing: the ledger needs this file.") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f":{mark.line + 1}: column {mark.column + 1}" if mark else ""
            found = f"{error.problem} ({error.context})" if error.context else error.problem
            raise LedgerError(f"{path}{place}: this is not valid YAML: {found}.") from None
        except yaml.YAMLError as error:
            raise LedgerError(f"{path} is not valid YAML: {error}") from None
        self._loader = yaml.CSafeLoader("")
        try:
            self.value: Any = self._build(root, ()) if root is not None else {}
        except RecursionError:
            raise LedgerError(f"{path}: lists and mappings stand too deep in each other. Write it flatter.") from None

    def line(self, path: Sequence[str | int]) -> int:
        """The line (1-based) of the deepest part of `path` that the file has."""
        keys = tuple(str(part) for part in path)
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)

    def error(self, path: Sequence[str | int], message: str) -> LedgerError:
        """A LedgerError that begins with file and line of the entry at `path`."""
        return LedgerError(f"{self.path}:{self.line(path)}: {message}")

    def _build(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if any(outer is node for outer in self._within):
            raise self._problem(node, f"{'.'.join(path)} is an alias of what it stands in, so it has no end. Write it out.")
        self._within.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._build(item, (*path, str(index))) for index, item in enumerate(node.value)]
            if _NAMES.intersection(path[-2:]) and node.tag != "tag:yaml.org,2002:null":
                return str(node.value)
            return self._scalar(node)
        finally:
            self._within.pop()

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._problem(key, "expected a name as a key, found a list or a mapping.")
            name = str(key.value)
            if key.tag == "tag:yaml.org,2002:merge":  # `<<: *other`: what that mapping has and this one does not say
                merged |= self._merged(value, (*path, name))
                continue
            if name in result:
                first = self.line((*path, name))
                raise self._problem(key, f"{name!r} stands twice, first in line {first}. Remove one.")
            self._lines[(*path, name)] = key.start_mark.line + 1
            result[name] = self._build(value, (*path, name))
        return merged | result

    def _merged(self, node: yaml.Node, path: tuple[str, ...]) -> dict[str, Any]:
        """What `<<` takes over: a mapping, or of several each key from the first one that has it."""
        found = self._build(node, path)
        merged: dict[str, Any] = {}
        for one in reversed(found if isinstance(found, list) else [found]):
            if not isinstance(one, dict):
                raise self._problem(node, f"<<: expected a mapping, or a list of them, found {one!r}.")
            merged |= one
        return merged

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:  # a tag that is not safe; a date that there is not; `!!int x`
            why = getattr(error, "problem", None) or error
            raise self._problem(node, f"{str(node.value)!r} cannot be read: {why}. Put it into quotes if it is text.") from None

    def _problem(self, node: yaml.Node, message: str) -> LedgerError:
        return LedgerError(f"{self.path}:{node.start_mark.line + 1}: {message}")
