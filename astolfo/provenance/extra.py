"""The optional libraries that sign, validate and pack evidence: `envs/evidence.txt`, which `make evidence` installs.

Building, verifying and comparing need none of them.
"""

import contextlib
from collections.abc import Iterator

from astolfo.errors import PlacementError


@contextlib.contextmanager
def needed(work: str) -> Iterator[None]:
    """Around the imports of an optional library: PlacementError, with what to install, when it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise PlacementError(
            f"{work} needs the optional libraries for evidence, and {error.name} is not installed. `make evidence` installs "
            "them, or `pip install --require-hashes --no-deps -r envs/evidence.txt` into the environment that runs astolfo."
        ) from None
