"""What a built artifact is made from, as its attestations tell: a tree up to the bases, with digests."""

from pathlib import Path

from astolfo.errors import InputError
from astolfo.files import sha256_of
from astolfo.provenance import attestation
from astolfo.provenance.attestation import Attestation, Parent

_SHOWN = 12  # characters of a digest


def tree(path: Path) -> str:
    """The tree of the artifact `path`: of a run's states the last alone, of what is used twice its parents once.

    Raises InputError when the artifact's own attestation is not sound.
    """
    root, lines, drawn = attestation.root_of(path), [], set[str]()
    top = attestation.read(path)
    name, digest = next(iter(top.subjects.items()))

    def visit(parent: Parent, found: Attestation | None, prefix: str, branch: str, indent: str) -> None:
        parents = [] if found is None else _parents(root, found)
        again = bool(parents) and parent.name in drawn
        drawn.add(parent.name)
        lines.append(prefix + branch + _line(root, parent, found) + ("  as above" if again else ""))
        parents = [] if again else parents
        for index, one in enumerate(parents):
            last = index == len(parents) - 1
            visit(one, _read(root, one), prefix + indent, "└── " if last else "├── ", "    " if last else "│   ")

    visit(Parent(role="", name=name, sha256=digest, attestation=None), top, "", "", "")
    return "\n".join(lines)


def _line(root: Path, parent: Parent, found: Attestation | None) -> str:
    """One artifact: name, digest, how it came about, and what is not there."""
    remarks = [f"sha256 {parent.sha256[:_SHOWN]}"]
    if found is None:
        remarks.append("no sound attestation")
    elif found.adopted:
        remarks.append("adopted, not rebuilt" + (f"; {found.remade_by} makes it" if found.remade_by else ""))
    else:
        remarks.append({"link": "the same file"}.get(found.job, found.job))
    path = root / parent.name
    if path.with_name(path.name + attestation.ACCEPTED).exists():
        remarks.append("accepted")
    if not path.exists():
        remarks.append("file not here")
    return f"{parent.name}  [{', '.join(remarks)}]"


def _parents(root: Path, found: Attestation) -> list[Parent]:
    """The parents of an artifact; the states of a run before its last one are passed over."""
    parents = []
    for parent in found.parents:
        if parent.role == "state" and found.job == attestation.TRAIN:
            before = _read(root, parent)
            parents += [] if before is None else [one for one in _parents(root, before) if one not in found.parents]
        else:
            parents.append(parent)
    return parents


def _read(root: Path, parent: Parent) -> Attestation | None:
    """A parent's attestation, when it is the one that its child names."""
    file = attestation.attestation_path(root / parent.name)
    if not file.exists() or sha256_of(file) != parent.attestation:
        return None
    try:
        return attestation.read(root / parent.name)
    except InputError:
        return None
