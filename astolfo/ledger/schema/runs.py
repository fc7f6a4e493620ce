"""The files of runs: one era each, with its defaults and the runs that share them."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, PositiveInt

from astolfo.ledger.schema.blocks import UNet
from astolfo.ledger.schema.entry import Entry, named
from astolfo.ledger.schema.objective import Objective
from astolfo.ledger.schema.optimizer import Optimizer
from astolfo.ledger.schema.training import Captions, Engine, LearningRate, Precision, SaveEvery, Schedule

Block = Literal[
    "text_encoders", "mid_block", "down_blocks.2", "up_blocks.0", "down_blocks.1", "up_blocks.1", "down_blocks.0", "up_blocks.2"
]
"""Blocks of SDXL whose activations can be computed again, in the order in which a training takes them."""


def _blocks(value: object) -> object:
    """Says in one sentence what pydantic would say of each member of the union."""
    blocks = get_args(Block)
    if not isinstance(value, bool) and not (isinstance(value, list | tuple) and value and all(one in blocks for one in value)):
        raise ValueError(f"expected true, false, or a list of some of {', '.join(blocks)}.")
    return value


Blocks = Annotated[bool | tuple[Block, ...], BeforeValidator(_blocks)]


class Placement(Entry):
    """What of a run does not decide the bits: where and how it was executed.

    Of `gradient_checkpointing` and `offload_gradients` a training on a GPU takes what the GPU's memory needs, where neither is
    given; where one is, the other is off.
    """

    example: ClassVar[str] = "{keep_states: 2}"
    ramdisk: bool = False
    numa: Annotated[int, Field(ge=0)] | None = None
    loader_workers: PositiveInt | None = None
    gradient_checkpointing: Blocks | None = None
    offload_gradients: bool | None = None
    sample_every: PositiveInt | None = None
    keep_states: PositiveInt | None = None


class Outcome(Entry):
    """What the record says became of the run."""

    example: ClassVar[str] = "{kind: success}"
    kind: Literal["success", "failure", "partial", "stopped", "nan", "works-after-merge", "unstated"]
    text: str = ""
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None


class RunFields(Entry):
    """Everything that a run may say and an era may set as default. See config/README.md for each key."""

    example: ClassVar[str] = "{base: my-base, dataset: my-pictures, epochs: 4}"
    base: str | None = None
    dataset: str | None = None
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None  # counted at full scale
    miniature_steps: PositiveInt | None = None  # None: in proportion, as the dataset is smaller
    until_step: PositiveInt | None = None
    restart_epochs: tuple[PositiveInt, ...] | None = None
    continues: bool | None = None
    objective: Annotated[Objective, BeforeValidator(named)] | None = None
    captions: Annotated[Captions, BeforeValidator(named)] | None = None
    unet: UNet | None = None
    learning_rate: LearningRate | None = None
    optimizer: Annotated[Optimizer, BeforeValidator(named)] | None = None
    schedule: Annotated[Schedule, BeforeValidator(named)] | None = None
    ranks: Literal[1, 2, 4, 8] | None = None
    batch_size: PositiveInt | None = None
    accumulation: PositiveInt | None = None
    max_grad_norm: Annotated[float, Field(ge=0)] | None = None
    precision: Precision | None = None
    save_every: SaveEvery | None = None
    semantics: Literal["kohya", "kohya-native", "reference"] | None = None
    choices: dict[str, str] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    merge_base: str | None = None
    engine: Annotated[Engine, BeforeValidator(named)] | None = None
    loss_spike: Annotated[float, Field(gt=1)] | None = None
    on_failure: Literal["keep"] | None = None
    placement: Placement | None = None


class RunEntry(RunFields):
    """One run of an era's file."""

    note: str = ""
    outcome: Outcome = Outcome(kind="unstated")
    aside: bool = False  # not counted among the ledger's runs


class Era(Entry):
    """One file of runs: defaults, and the runs that share them. An era is named as its file is."""

    example: ClassVar[str] = "{runs: {my-first: {epochs: 4}}}"
    era: str = ""
    title: str = ""
    note: str = ""
    support: bool = False  # its runs are made where others start from them, and do not count as results
    defaults: RunFields = RunFields()
    runs: dict[str, RunEntry]
