"""Merkle trees: one digest for a list of things, of which any one can be checked without the others.

Leaves and nodes are hashed as RFC 6962 does: sha256 of 0x00 and the leaf's bytes, of 0x01 and the two digests below. The
left subtree holds the largest power of two of leaves that is less than their number, so that there is one tree per list.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from astolfo.files import canonical_json


def leaf(value: Any) -> bytes:
    """The digest of a leaf, which is a JSON value."""
    return hashlib.sha256(b"\0" + canonical_json(value).encode()).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The digest of the whole list."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256().digest()
    middle = _left(len(leaves))
    return _node(root(leaves[:middle]), root(leaves[middle:]))


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The digests that lead from one leaf to the root, the nearest first: what somebody needs who holds that leaf alone."""
    if len(leaves) <= 1:
        return []
    middle = _left(len(leaves))
    if index < middle:
        return [*path(leaves[:middle], index), root(leaves[middle:])]
    return [*path(leaves[middle:], index - middle), root(leaves[:middle])]


def root_from(found: bytes, index: int, count: int, others: Sequence[bytes]) -> bytes:
    """The root that the leaf `found`, number `index` of `count`, has with a `path`."""
    if count <= 1:
        return found
    middle = _left(count)
    if index < middle:
        return _node(root_from(found, index, middle, others[:-1]), others[-1])
    return _node(others[-1], root_from(found, index - middle, count - middle, others[:-1]))


def _left(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
