"""What a recipe says of a training: captions, what trains at which rate, schedule, precision, and its semantics' choices."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, PositiveInt, model_validator

from astolfo.ledger.schema.blocks import BlockName, by_block, within
from astolfo.ledger.schema.entry import Entry, Rate

Factor = Annotated[float, Field(ge=0, le=100)]  # Prodigy's rates are factors of a rate that it estimates
Separator = Annotated[str, Field(min_length=1)]


class Captions(Entry):
    """Which text a sample is trained with, what becomes of it, and how many tokens of it are read. See docs/semantics.md."""

    kind: Literal["tags", "pick", "concat"]
    tokens: Literal[75, 150, 225] = 75
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropout_every_epochs: PositiveInt | None = None  # every so many epochs are trained without any text
    wildcards: Literal[True] | None = None  # {a|b} in a caption stands for one of its alternatives, drawn anew each time
    prefix: str | None = None
    suffix: str | None = None
    shuffle: Literal[True] | None = None  # the order of a caption's pieces is drawn anew each time
    tag_dropout: Annotated[float, Field(gt=0, lt=1)] | None = None  # how often a piece is left out
    keep_tokens: PositiveInt | None = None  # the first so many pieces stay where they are
    keep_tokens_separator: Separator | None = None  # what stands before it stays, and what follows a second one
    separator: Separator | None = None  # between pieces; None: a comma
    secondary_separator: Separator | None = None  # within a piece, read as a separator at last

    @model_validator(mode="after")
    def _acts(self) -> "Captions":
        pieces = self.shuffle or self.tag_dropout
        for name in ("keep_tokens", "keep_tokens_separator"):
            if getattr(self, name) and not pieces:
                raise ValueError(f"{name} says what shuffle and tag_dropout leave alone: give one of them, or leave it out.")
        if self.joins_only and self.kind != "concat":
            raise ValueError("separator is read by shuffle, tag_dropout and secondary_separator: give one, or leave it out.")
        if self.separator == ",":
            object.__setattr__(self, "separator", None)  # one recipe, however it is written
        return self

    @property
    def joins_only(self) -> bool:
        """Whether nothing but the joining of tags and sentence could read the separator that is given."""
        return bool(self.separator) and not (self.shuffle or self.tag_dropout or self.secondary_separator)


class LearningRate(Entry):
    """Learning rates per part; 0 means that the part's weights do not change by one bit.

    `blocks` are rates of the UNet's blocks, laid over `unet`; of the names that a weight lies in, the longest counts.
    """

    example: ClassVar[str] = "{unet: 1.0e-5}"
    unet: Factor
    text_encoder: Factor = 0.0
    text_encoder_2: Factor = 0.0
    blocks: dict[BlockName, Factor] | None = None

    @model_validator(mode="before")
    @classmethod
    def _both(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        if {"text_encoders", "text_encoder", "text_encoder_2"} <= value.keys():
            raise ValueError("text_encoders is the rate of both: give it, or text_encoder and text_encoder_2.")
        rest = {key: item for key, item in value.items() if key != "text_encoders"}
        if "text_encoders" in value:
            rest = {"text_encoder": value["text_encoders"], "text_encoder_2": value["text_encoders"], **rest}
        if isinstance(rest.get("blocks"), list | tuple):
            rest["blocks"] = by_block(rest["blocks"])
        return rest

    @property
    def parts(self) -> dict[str, float]:
        """The rate of each part of the model."""
        return self.model_dump(exclude={"blocks"})

    @property
    def every(self) -> list[float]:
        """All rates, of parts and of blocks."""
        return [*self.parts.values(), *(self.blocks or {}).values()]

    @property
    def largest(self) -> dict[str, float]:
        """The largest rate in each part: 0 where nothing of it trains."""
        return self.parts | {"unet": max(self.unet, *(self.blocks or {}).values(), 0.0)}

    def changed(self, change: Callable[[float], float]) -> "LearningRate":
        """The same with every rate changed."""
        blocks = self.blocks and {name: change(rate) for name, rate in self.blocks.items()}
        return LearningRate(**{part: change(rate) for part, rate in self.parts.items()}, blocks=blocks)

    def of(self, part: str, name: str) -> float:
        """The rate of one parameter, by its part and its name there."""
        found = [block for block in self.blocks or () if within(name, block)] if part == "unet" else []
        return (self.blocks or {})[max(found, key=len)] if found else self.parts[part]


class Engine(Entry):
    """An engine of a library that executes the steps. Its world size, kernels and compilation then belong to the recipe."""

    kind: Literal["deepspeed"]
    stage: Literal[2] = 2
    compile: Literal["inductor"] | None = None
    attention: Literal["memory-efficient"] | None = None


_OWN: dict[str, dict[str, float]] = {"cosine-with-restarts": {"cycles": 1}, "polynomial": {"power": 1.0, "end": 1e-7}}


class Schedule(Entry):
    """The learning rate's factor over the steps of a run: a warm-up, then constant or falling. See docs/semantics.md."""

    kind: Literal["constant", "warmup", "warmup-linear", "linear", "cosine", "cosine-with-restarts", "polynomial"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None  # of the run's steps
    cycles: PositiveInt | None = None  # cosine-with-restarts: how often it falls
    power: Annotated[float, Field(gt=0)] | None = None  # polynomial
    end: Rate | None = None  # polynomial: the rate that it falls to

    @model_validator(mode="after")
    def _complete(self) -> "Schedule":
        own = _OWN.get(self.kind, {})
        for name in ("cycles", "power", "end"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, own.get(name))
            elif name not in own:
                raise ValueError(f"{self.kind} has no {name}: leave it out.")
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("give either warmup_steps or warmup_ratio, one of the two.")
        if self.kind == "constant" and (self.warmup_steps or self.warmup_ratio):
            raise ValueError("constant has no warm-up: use kind: warmup, which is constant after it.")
        return self

    @property
    def falls(self) -> bool:
        """Whether the factor depends on where the run ends."""
        return self.kind not in ("constant", "warmup")


class Precision(Entry):
    """Dtypes: of the trained weights, of the arithmetic, and of the result file; and how updates reach bf16 weights."""

    example: ClassVar[str] = "{weights: bf16, update: stochastic}"
    weights: Literal["fp32", "bf16"] = "bf16"
    compute: Literal["fp32", "bf16"] = "bf16"
    save: Literal["fp32", "bf16", "fp16"] = "fp16"
    update: Literal["stochastic", "master"] | None = None  # None: rounded to nearest, most small changes are lost

    @model_validator(mode="after")
    def _narrow(self) -> "Precision":
        if self.update and self.weights != "bf16":
            raise ValueError(f"update: {self.update} is for weights in bf16; fp32 weights lose no update. Leave it out.")
        return self


class SaveEvery(Entry):
    """How often a run saves: every so many steps or epochs. Segments follow from it."""

    example: ClassVar[str] = "{epochs: 1}"
    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None

    @model_validator(mode="after")
    def _one(self) -> "SaveEvery":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs, one of the two.")
        return self


class Choices(Entry):
    """Where the original trainers' arithmetic differs from the papers; `semantics` sets all, a run may set single ones.

    Each is explained, with its evidence, in docs/semantics.md.
    """

    noise: Literal["sample", "micro-step"]  # what noise and timestep are keyed by
    snr_table: Literal["rescaled", "original"]  # which table min-SNR reads under zero_terminal_snr
    pooled_projection: Literal["reference", "kohya"]  # orientation of the second text encoder's projection
    schedule_dtype: Literal["fp32", "compute"]  # dtype of alphas_cumprod when noise is added
    context: Literal["inference", "stripped"]  # chunks as 77 + 77 + 77, or inner begin/end tokens dropped: 227
    short_step: Literal["actual", "full"]  # what the loss of an epoch's last short step is divided by
    rf_timestep: Literal["continuous", "floor"]  # the timestep that rf tells the UNet: 1000 s, or its integer part
    warmup: Literal["reference", "kohya"]  # how a schedule counts: by steps, the first with a rate, or by ranks from 0
    latents: Literal["fp32", "compute"]  # dtype of latents, noise and target
    text: Literal["plain", "ftfy"]  # whether ftfy mends a caption before its tokens are read
    captions: Literal["reference", "kohya", "kohya-native"]  # how tags and sentence join, and what braces mean
    clipping: Literal["float64", "gradients", "never"]  # dtype of the norm that gradients are clipped by
    lion: Literal["lerp", "add"]  # how Lion averages: the same in fp32, another last bit in bf16
    untrained: Literal["base", "compute", "compute-but-vae"]  # what does not train: the base's, or rounded


def values_of(choice: str) -> tuple[str, ...]:
    """What a choice may be."""
    return get_args(Choices.model_fields[choice].annotation)


SEMANTICS = {
    "reference": Choices(
        noise="sample", snr_table="rescaled", pooled_projection="reference", schedule_dtype="fp32", context="inference",
        short_step="actual", rf_timestep="continuous", warmup="reference", latents="fp32", text="plain", captions="reference",
        clipping="float64", lion="lerp", untrained="base",
    ),
    "kohya": Choices(
        noise="micro-step", snr_table="original", pooled_projection="kohya", schedule_dtype="compute", context="stripped",
        short_step="full", rf_timestep="floor", warmup="kohya", latents="compute", text="ftfy", captions="kohya",
        clipping="gradients", lion="add", untrained="compute",
    ),
    "kohya-native": Choices(
        noise="micro-step", snr_table="original", pooled_projection="kohya", schedule_dtype="fp32", context="stripped",
        short_step="full", rf_timestep="floor", warmup="kohya", latents="fp32", text="ftfy", captions="kohya-native",
        clipping="never", lion="lerp", untrained="compute",
    ),
}  # fmt: skip
"""The papers; and two trainers: kohya-ss/sd-scripts at 48d368f, and its fork 6DammK9/sd-scripts (train-native) at 42b8d79."""
