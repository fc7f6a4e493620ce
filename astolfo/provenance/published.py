"""A published folder, as a stranger has it: the model, its attestation, the ledger and the lock, from which it is rebuilt.

    found = read(Path("downloads/my-first"))      InputError names everything that the folder lacks
    found.reference, found.scale, found.ledger

What `astolfo publish` uploads and what `astolfo crate` writes are both such folders.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from astolfo.errors import InputError
from astolfo.files import sha256_of
from astolfo.ledger.files import is_ledger
from astolfo.ledger.references import Reference, parse
from astolfo.program import LOCK
from astolfo.provenance import attestation

MODEL, LEDGER, LOCKED = "*.safetensors", "ledger", "lock.txt"
log = logging.getLogger("astolfo")


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a published folder says: which model it holds, of which ledger at which scale."""

    folder: Path
    model: Path
    reference: Reference
    scale: str
    ledger: Path


def read(folder: Path) -> Published:
    """Reads a published folder. Raises InputError for what it lacks, all of it at once, and for an attestation that is damaged.

    Says so where attestations of what the model comes from are missing, without which it can be rebuilt all the same, and where
    the lock is not the one in use: then other libraries may compute other bits.
    """
    models = sorted([*folder.glob(MODEL), *(folder / "results").glob(MODEL)])
    lacking = [] if models else ["a model (NAME.safetensors)"]
    if len(models) == 1 and not attestation.attestation_path(models[0]).exists():
        lacking.append(f"the model's attestation ({attestation.attestation_path(models[0]).name})")
    lacking += [] if is_ledger(folder / LEDGER) else [f"the ledger's entries ({LEDGER}/)"]
    lacking += [] if (folder / LOCKED).exists() else [f"the lock of its environment ({LOCKED})"]
    if lacking:
        raise InputError(
            f"{folder} lacks {', '.join(lacking)}. A published folder holds a model, its attestation, {LEDGER}/ and {LOCKED}: "
            "`astolfo publish` and `astolfo crate` make one. Ask its author for what is missing."
        )
    if len(models) > 1:
        raise InputError(f"{folder} holds {len(models)} models, {', '.join(path.name for path in models)}: expected one.")
    chain, gaps = attestation.ancestry(models[0])
    if missing := sorted(parent.name for parent in gaps if parent.attestation):
        log.warning(
            "%s lacks the attestations of %s: it can be rebuilt, and `astolfo verify` cannot follow it to its bases",
            folder, ", ".join(missing),
        )  # fmt: skip
    found = chain[attestation.name_of(models[0])]
    attested, digest = next(iter(found.subjects.items()))
    if (own := sha256_of(models[0])) != digest:
        raise InputError(f"{models[0]} is not the file that its attestation names: expected sha256 {digest}, found {own}.")
    if sha256_of(folder / LOCKED) != sha256_of(LOCK):
        log.warning(
            "%s is another lock than this environment's (%s): other libraries may compute other bits", folder / LOCKED, LOCK
        )
    reference = parse(attested.rpartition("/")[2].removesuffix(".safetensors"))
    scale = str(found.definition["externalParameters"].get("scale", "full"))
    return Published(folder=folder, model=models[0], reference=reference, scale=scale, ledger=folder / LEDGER)
