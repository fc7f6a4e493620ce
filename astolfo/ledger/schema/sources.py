"""What runs start from and train on: bases, merges that make them, and datasets."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, PositiveInt, model_validator

from astolfo.ledger.schema.entry import Digest, Entry, Family, ObjectiveKind


def _alpha(value: object) -> object:
    """An alpha as names of merges have it: 0.6, "0.60" and .6 are all 0.60."""
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1 or abs(number - round(number, 2)) > 1e-9:
        raise ValueError("expected a number from 0 (the base) to 1 (trained weights) with at most two decimals, such as 0.60.")
    return f"{number:.2f}"


class Merge(Entry):
    """A weighted sum of two models, by reference: base x (1 - alpha) + trained x alpha."""

    example: ClassVar[str] = '{base: my-base, trained: my-first, alpha: "0.50"}'
    base: str
    trained: str
    alpha: Annotated[str, BeforeValidator(_alpha)]


class Mecha(Entry):
    """A merge by sd-mecha: a `.mecha` recipe of config/mecha/, and which model each of its names stands for."""

    example: ClassVar[str] = "{recipe: NAME, models: {a: my-base, b: my-first}}"
    recipe: str
    models: dict[str, str]  # name of a model in the recipe -> reference


class Origin(Entry):
    """Where a base comes from at one scale: a pinned file, or what makes it, or both (the file is then that result).

    With a stand-in that is not shipped, the ledger fills in `made_by`: the run that makes it.
    """

    example: ClassVar[str] = "{file: NAME.safetensors}"
    file: str | None = None
    sha256: Digest = "unknown"
    made_by: str | None = None  # a reference
    merge: Merge | None = None
    mecha: Mecha | None = None
    stand_in: str | None = None  # a model of the library, changed by the base's name

    @model_validator(mode="after")
    def _one_source(self) -> "Origin":
        if sum(maker is not None for maker in (self.made_by, self.merge, self.mecha, self.stand_in)) > 1:
            raise ValueError("give one of made_by, merge, mecha and stand_in.")
        if self.file is not None and self.stand_in is not None:
            raise ValueError(
                "give one of file and stand_in: the file is used as it is, a stand-in is a model of the library, changed by the "
                "base's name."
            )
        if self.file is None and self.sha256 != "unknown":
            raise ValueError("sha256 is a file's: name the file too, or leave sha256 out.")
        return self

    @property
    def parents(self) -> list[str]:
        """References of the models that it is made from; empty for a file that nothing here makes."""
        if self.merge:
            return [self.merge.trained, self.merge.base]
        if self.mecha:
            return list(dict.fromkeys(self.mecha.models.values()))
        return [self.made_by] if self.made_by else []


class Base(Entry):
    """A model that runs start from (kind `model`), or the autoencoder of a family (kind `autoencoder`).

    Without `full`, it is a file of the base's name that the user brings; without `miniature`, a stand-in of the library.
    """

    example: ClassVar[str] = "{family: sdxl, objective: eps}"
    family: Family = "sdxl"
    kind: Literal["model", "autoencoder"] = "model"
    objective: ObjectiveKind | None = None
    title: str = ""
    note: str = ""
    full: Origin | None = None
    miniature: Origin | None = None

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> "Base":
        for scale, origin in (("full", self.full), ("miniature", self.miniature)):
            if origin == Origin():
                ways = "file, made_by, merge, mecha" + " or stand_in" * (scale == "miniature")
                raise ValueError(f"{scale} does not say where the base comes from: give {ways}, or leave {scale} out.")
        if self.full is not None and self.full.stand_in is not None:
            raise ValueError("stand_in is the miniature's: say what the base is at full scale, or leave `full` out.")
        return self


class StandIn(Entry):
    """A model that stands in for others at the miniature: a file of its name in stand-ins/, or the result of a run."""

    family: Family
    objective: ObjectiveKind
    sha256: Digest | None = None  # of the file
    made_by: str | None = None  # a reference

    @model_validator(mode="after")
    def _one_source(self) -> "StandIn":
        if (self.sha256 is None) == (self.made_by is None):
            raise ValueError("give one of sha256 (of the file in stand-ins/) and made_by (the run that makes it).")
        return self


class PictureSource(Entry):
    """Where a dataset's pictures are: a folder of them, which the graph imports, or a store; paths are the ledger's folder's."""

    folder: str | None = None
    store: str | None = None
    digest: str = "unknown"  # of a store

    @model_validator(mode="after")
    def _one_place(self) -> "PictureSource":
        if self.folder is not None and self.store is not None:
            raise ValueError("give one of folder and store.")
        if self.folder is not None and self.digest != "unknown":
            raise ValueError("a digest is a store's: a folder has none, the graph sees what it holds.")
        return self


class ScaleDataset(PictureSource):
    """A dataset at one scale: its count of images, and the seed of its pictures where they are drawn."""

    example: ClassVar[str] = "{images: 32}"
    images: PositiveInt | None = None  # None: as many as at full scale
    seed: int = 0

    @model_validator(mode="after")
    def _stores_are_made(self) -> "ScaleDataset":
        if self.store is not None and "seed" in self.model_fields_set:
            raise ValueError("a seed is of pictures drawn or imported, and a store is made already. Leave seed or store out.")
        return self


class Dataset(PictureSource):
    """A dataset by its name: its full-scale count of images, where they are, and what it is at the miniature.

    Without `images` they are counted where they are.

    With `parts` it is others together: their names, and how often an epoch takes each of their images. All else follows.
    """

    example: ClassVar[str] = "{folder: ~/pictures}"
    images: PositiveInt = 0  # with parts, as often as they are taken; 0: it does not say
    autoencoder: str = "sdxl-vae"
    miniature: ScaleDataset | None = None
    parts: dict[str, PositiveInt] | None = None
    flip: Literal[True] | None = None  # its pictures are encoded both ways round, and a training takes either
    note: str = ""

    @model_validator(mode="after")
    def _one(self) -> "Dataset":
        counted = any(one.folder or one.store for one in (self, self.miniature) if one)
        if (self.images and self.parts) or not (self.images or self.parts or counted):
            raise ValueError(
                "give one of images (how many it has), folder or store (which are counted), and parts (names of other datasets)."
            )
        for name in ("autoencoder", "digest", "folder", "store", "miniature", "flip"):
            if self.parts and name in self.model_fields_set:
                raise ValueError(f"with parts, {name} is theirs: leave it out.")
        return self
