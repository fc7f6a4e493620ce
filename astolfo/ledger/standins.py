"""What the miniature puts in the place of what a ledger says of full scale alone: stand-ins of models, sizes of datasets.

Pure functions of entries. A base that says nothing of the miniature is given the stand-in of its family and objective, changed by
its name (`astolfo.checkpoint.standin`), so that every base is another model. A dataset that says nothing of it is as much
smaller as the record's largest one is, with a seed of its own from its name.
"""

import hashlib
from collections.abc import Mapping

from astolfo.ledger import schema

PROPORTION = 10_000  # images of a dataset at full scale, for one at the miniature
FEWEST, MOST = 32, 3_000  # images there; a dataset that has fewer keeps them all
AMOUNT = 0.05  # standard deviations by which a base's weights differ from its stand-in's


def base(name: str, entry: schema.Base, known: Mapping[str, schema.StandIn], others: Mapping[str, schema.Base]) -> schema.Base:
    """The base with an origin at each scale: at full scale a file of its name, at the miniature a stand-in.

    An autoencoder has that of its family among the `others`. Raises LookupError where no stand-in is `known` for it.
    """
    more: dict[str, schema.Origin | None] = {}
    if entry.full is None:
        more["full"] = schema.Origin(file=f"{name}.safetensors")
    if entry.miniature is None:
        autoencoder = entry.kind == "autoencoder"
        more["miniature"] = _autoencoder(entry, others) if autoencoder else _stand_in(entry, known)
    return entry.model_copy(update=more)


def _autoencoder(entry: schema.Base, others: Mapping[str, schema.Base]) -> schema.Origin | None:
    """The first origin that an autoencoder of the family has."""
    same = [one.miniature for one in others.values() if (one.kind, one.family) == (entry.kind, entry.family)]
    return next((origin for origin in same if origin), None)


def _stand_in(entry: schema.Base, known: Mapping[str, schema.StandIn]) -> schema.Origin:
    """The first stand-in of a base's family and objective; of a base without an objective, the family's first."""
    family = {name: one.objective for name, one in known.items() if one.family == entry.family}
    for name, objective in family.items():
        if entry.objective in (None, objective):
            return schema.Origin(stand_in=name)
    there = ", ".join(f"{name} ({objective})" for name, objective in family.items()) or "none"
    raise LookupError(
        f"no stand-in of {entry.family} has the objective {entry.objective}; there is {there}. Correct the ledger's stand-ins, "
        "or say in the base's entry what takes its place: miniature: {stand_in: NAME}."
    )


def dataset(name: str, entry: schema.Dataset) -> schema.Dataset:
    """The dataset with a size at the miniature."""
    given = entry.miniature
    if entry.parts:
        return entry
    if given is not None:
        return entry.model_copy(update={"miniature": given.model_copy(update={"images": given.images or entry.images})})
    images = min(entry.images, max(FEWEST, min(MOST, round(entry.images / PROPORTION))))
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
    return entry.model_copy(update={"miniature": schema.ScaleDataset(images=images, seed=seed)})


def joined(entry: schema.Dataset, others: Mapping[str, schema.Dataset]) -> schema.Dataset:
    """A dataset of parts with their sizes and their autoencoder; what cannot be a part counts nothing, and is refused later."""
    parts = {name: times for name, times in (entry.parts or {}).items() if name in others and not others[name].parts}
    if not parts:
        return entry
    images = sum(others[name].images * times for name, times in parts.items())
    small = sum((one.images or 0) * times for name, times in parts.items() if (one := others[name].miniature))
    autoencoder = others[next(iter(parts))].autoencoder
    size = schema.ScaleDataset(images=small)
    return entry.model_copy(update={"images": images, "miniature": size, "autoencoder": autoencoder})
