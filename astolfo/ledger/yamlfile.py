"""YAML read with line numbers, so that an error in the ledger can say where it is.

Keys are always strings, and so are the values that name something: `base: 0815`, `dataset: on` and `alpha: 0.60` stay as they are
written. A key that stands twice in one mapping is an error, and only YAML's safe types are built.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from astolfo.errors import LedgerError

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
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
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
        self.value: Any = self._build(root, ()) if root is not None else {}

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
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            merged: dict[str, Any] = {}
            for key, value in node.value:
                name = str(key.value)
                if key.tag == "tag:yaml.org,2002:merge":  # `<<: *other`: what that mapping has and this one does not say
                    merged |= self._build(value, (*path, name))
                    continue
                if name in result:
                    first, again = self.line((*path, name)), key.start_mark.line + 1
                    raise LedgerError(f"{self.path}:{again}: {name!r} stands twice, first in line {first}. Remove one.")
                self._lines[(*path, name)] = key.start_mark.line + 1
                result[name] = self._build(value, (*path, name))
            return merged | result
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*path, str(index))) for index, item in enumerate(node.value)]
        if _NAMES.intersection(path[-2:]) and node.tag != "tag:yaml.org,2002:null":
            return str(node.value)
        return self._loader.construct_object(node)
