"""Merkle trees: one digest for a list of things, of which any one can be checked without reading the others.

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


def _left(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
