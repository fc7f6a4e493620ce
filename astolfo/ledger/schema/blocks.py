"""Blocks of a UNet by diffusers' names: any run of a name's components stands for all that lies there.

down_blocks.1      everything in that block             attentions         the transformers of every block
up_blocks.0.resnets.2                                   attn2.to_k         every cross-attention's key
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from astolfo.ledger.schema.entry import Entry

BlockName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$")]


def within(name: str, block: str) -> bool:
    """Whether a parameter of that name lies in `block`."""
    return f".{block}." in f".{name}."


class UNetBlocks(Entry):
    """A set of the UNet's blocks: those that train, or those that stay as they are."""

    train: tuple[BlockName, ...] | None = None
    freeze: tuple[BlockName, ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> "UNetBlocks":
        if bool(self.train) == bool(self.freeze):
            raise ValueError("give either train or freeze, one of the two, with at least one block's name.")
        for key in ("train", "freeze"):
            if names := getattr(self, key):
                object.__setattr__(self, key, tuple(sorted(set(names))))  # one recipe, in whatever order it is written
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks that are named."""
        return self.train or self.freeze or ()

    def trains(self, name: str) -> bool:
        """Whether the UNet's parameter of that name trains."""
        return any(within(name, block) for block in self.names) == bool(self.train)

    def __str__(self) -> str:
        """ "train down_blocks.1, mid_block" """
        return f"{'train' if self.train else 'freeze'} {', '.join(self.names)}"


def _unet(value: object) -> object:
    """Says in one sentence what pydantic would say of each member of the union."""
    if not isinstance(value, dict | UNetBlocks) and value not in (63, 68, 71, 100):
        raise ValueError("expected 63, 68, 71 or 100, {train: [blocks]}, or {freeze: [blocks]}.")
    return value


def _kind(value: object) -> str:
    return "function-blocks" if isinstance(value, dict | UNetBlocks) else "function-percent"  # no part of an error's place


UNet = Annotated[
    Annotated[Literal[63, 68, 71, 100], Tag("function-percent")] | Annotated[UNetBlocks, Tag("function-blocks")],
    Discriminator(_kind),
    BeforeValidator(_unet),
]


SD_SCRIPTS_BLOCKS: tuple[tuple[str, ...], ...] = (
    ("time_embedding", "add_embedding"),
    ("conv_in",),
    ("down_blocks.0.resnets.0",),
    ("down_blocks.0.resnets.1",),
    ("down_blocks.0.downsamplers",),
    ("down_blocks.1.resnets.0", "down_blocks.1.attentions.0"),
    ("down_blocks.1.resnets.1", "down_blocks.1.attentions.1"),
    ("down_blocks.1.downsamplers",),
    ("down_blocks.2.resnets.0", "down_blocks.2.attentions.0"),
    ("down_blocks.2.resnets.1", "down_blocks.2.attentions.1"),
    ("mid_block.resnets.0",),
    ("mid_block.attentions.0",),
    ("mid_block.resnets.1",),
    ("up_blocks.0.resnets.0", "up_blocks.0.attentions.0"),
    ("up_blocks.0.resnets.1", "up_blocks.0.attentions.1"),
    ("up_blocks.0.resnets.2", "up_blocks.0.attentions.2", "up_blocks.0.upsamplers"),
    ("up_blocks.1.resnets.0", "up_blocks.1.attentions.0"),
    ("up_blocks.1.resnets.1", "up_blocks.1.attentions.1"),
    ("up_blocks.1.resnets.2", "up_blocks.1.attentions.2", "up_blocks.1.upsamplers"),
    ("up_blocks.2.resnets.0",),
    ("up_blocks.2.resnets.1",),
    ("up_blocks.2.resnets.2",),
    ("conv_norm_out", "conv_out"),
)
"""The 23 parts of SDXL's UNet that sd-scripts' `--block_lr` gives rates to (`sdxl_train.py:49-77` at 48d368f), in its order."""


def by_block(rates: Sequence[Any]) -> dict[str, Any]:
    """sd-scripts' 23 rates by the names of their blocks. Raises ValueError for another number of them."""
    if len(rates) != len(SD_SCRIPTS_BLOCKS):
        raise ValueError(
            f"a list of blocks' rates has sd-scripts' {len(SD_SCRIPTS_BLOCKS)} values, found {len(rates)}. Or name them."
        )
    return {name: rate for names, rate in zip(SD_SCRIPTS_BLOCKS, rates, strict=True) for name in names}
