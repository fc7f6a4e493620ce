"""What the miniature puts in the place of what a ledger says of full scale alone: stand-ins of models, sizes of datasets.

Pure functions of entries. A base that says nothing of the miniature is given a shipped model of its family; a dataset that
says nothing of it is as much smaller as the library's sizes are, with a seed of its own from its name.
"""

import hashlib
from collections.abc import Mapping

from astolfo.ledger import schema

PROPORTION = 10_000  # images of a dataset at full scale, for one at the miniature
FEWEST = 32


def base(name: str, entry: schema.Base, shipped: Mapping[str, schema.StandIn]) -> schema.Base:
    """The base with an origin at each scale: at full scale a file of its name, at the miniature a shipped stand-in."""
    more: dict[str, schema.Origin] = {}
    if entry.full is None:
        more["full"] = schema.Origin(file=f"{name}.safetensors")
    if entry.miniature is None:
        more["miniature"] = _stand_in(entry, shipped)
    return entry.model_copy(update=more)


def _stand_in(entry: schema.Base, shipped: Mapping[str, schema.StandIn]) -> schema.Origin:
    """The shipped model of a base's family, of its objective where there is one."""
    family = {name: one for name, one in shipped.items() if one.family == entry.family}
    name = next((name for name, one in family.items() if one.objective == entry.objective), next(iter(family)))
    return schema.Origin(file=f"{name}.safetensors", sha256=family[name].sha256)


def dataset(name: str, entry: schema.Dataset) -> schema.Dataset:
    """The dataset with a size at the miniature."""
    if entry.miniature is not None:
        return entry
    images = min(entry.images, max(FEWEST, round(entry.images / PROPORTION)))
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
    return entry.model_copy(update={"miniature": schema.ScaleDataset(images=images, seed=seed)})
