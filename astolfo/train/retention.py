"""Which states of a run stay on the disk: its last ones, and those of the checkpoints that the ledger names.

A true-size state is about 12 GB and the longest run of the record has 222 of them. A deleted state leaves its side-car, the
few bytes by which everything that was made from it knows it; so nothing becomes stale, and a state that is asked for again is
made again from the newest one before it.
"""

import logging
from collections.abc import Collection
from pathlib import Path

log = logging.getLogger(__name__)


def prune(folder: Path, keep: int, named: Collection[int], before: int | None = None) -> list[Path]:
    """Deletes the states in a run's `folder` but the last `keep` and those of the steps `named`; returns what it deleted.

    With `before`, states after that step are neither counted nor deleted. At least one state stays.
    """
    states = sorted(path for path in folder.glob("*.safetensors") if len(path.stem) == 8 and path.stem.isdigit())
    states = [path for path in states if before is None or int(path.stem) <= before]
    gone = [path for path in states[: -max(keep, 1)] if int(path.stem) not in named]
    for path in gone:
        path.unlink(missing_ok=True)
        log.info("%s: deleted; its side-car stays", path)
    return gone
