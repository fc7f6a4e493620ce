"""The library: what any ledger needs and none has to say, as data that comes with the package.

    find(folder, "mecha", "mine.mecha")        # the ledger's own file below `folder`, else the library's

`scales/` holds architectures and sizes, `stand-ins/` the miniature's models with `stand-ins.yaml` about them, `makers/` a ledger
of the runs that make those which are not shipped, `bases.yaml` the autoencoders, `evaluations.yaml` and `prompts.yaml` what
checkpoints are asked for, `equivalence.yaml` the bounds of `astolfo compare`, `hardware/` machines, `cards.yaml` what machines
are made of. A ledger's entry of the same name is laid over the library's, key by key.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
STAND_INS = FOLDER / "stand-ins"
MAKERS = FOLDER / "makers"


def find(folder: Path, *names: str) -> Path:
    """The file of those names below a ledger's `folder` where it has one, else the library's, which may be missing."""
    own = folder.joinpath(*names)
    return own if own.exists() else FOLDER.joinpath(*names)
