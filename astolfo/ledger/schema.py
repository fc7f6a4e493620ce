"""The shape of the ledger's files: what an entry may say, and in which words.

An unknown key is an error. A run's key replaces its era's default as a whole; nothing is merged below that level, so a
reader sees the effective value in one of two places.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

Digest = Annotated[str, Field(pattern="^([0-9a-f]{64}|unknown)$")]
Rate = Annotated[float, Field(ge=0, lt=1)]
Family = Literal["sdxl", "sd2"]


class Entry(BaseModel):
    """Base of all entries: immutable, and no key beyond those named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(value: object) -> object:
    """Lets `objective: eps` stand for `objective: {kind: eps}` (and the same for the other tagged entries)."""
    return {"kind": value} if isinstance(value, str) else value


class Objective(Entry):
    """What the UNet is trained to predict, and how timesteps are drawn and weighted."""

    kind: Literal["eps", "v", "rf"]
    zero_terminal_snr: bool = False
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = None
    shift: Annotated[float, Field(gt=0)] | None = None
    contrastive: Annotated[float, Field(gt=0)] | None = None  # weight of the contrastive term of rf

    @model_validator(mode="after")
    def _possible(self) -> "Objective":
        if self.kind == "eps" and self.zero_terminal_snr:
            raise ValueError(
                "eps cannot be trained with zero_terminal_snr: at the last timestep the input is pure noise, "
                "so the target tells nothing. Use objective v, or leave zero_terminal_snr out."
            )
        if self.kind == "rf" and (self.zero_terminal_snr or self.min_snr_gamma):
            raise ValueError("rf (rectified flow) has no SNR schedule: leave zero_terminal_snr and min_snr_gamma out.")
        for name in ("shift", "contrastive"):
            if self.kind != "rf" and getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to rf, not to {self.kind}: leave it out.")
        return self


class Captions(Entry):
    """Which text a sample is trained with, and how many tokens of it are read."""

    kind: Literal["tags", "pick", "concat"]
    tokens: Literal[75, 150, 225] = 75
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    wildcards: Literal[True] | None = None  # {a|b} in a caption stands for one of its alternatives, drawn anew each time


class LearningRate(Entry):
    """Learning rates per part; 0 means that the part's weights do not change by one bit."""

    unet: Rate
    text_encoder: Rate = 0.0
    text_encoder_2: Rate = 0.0

    @model_validator(mode="before")
    @classmethod
    def _both(cls, value: object) -> object:
        if isinstance(value, dict) and "text_encoders" in value:
            rest = {k: v for k, v in value.items() if k != "text_encoders"}
            return {"text_encoder": value["text_encoders"], "text_encoder_2": value["text_encoders"], **rest}
        return value


class Optimizer(Entry):
    """An optimizer of a library, with the values that decide its bits; what is left out is that library's default."""

    kind: Literal[
        "AdamW8bit", "AdamW", "PagedAdamW8bit", "Lion", "CautiousLion", "Lion8bit", "AdaFactor", "AdamW4bit", "CAME", "C-Lion"
    ]
    betas: tuple[float, ...] | None = None
    eps: float | None = None
    weight_decay: float = 1e-2
    relative_step: bool | None = None  # AdaFactor: the step size follows the step count; learning rates do not count
    warmup_init: bool | None = None  # AdaFactor: relative steps begin small
    clip_threshold: float | None = None  # AdaFactor, CAME: the largest root mean square of an update

    @model_validator(mode="after")
    def _complete(self) -> "Optimizer":
        defaults = _OPTIMIZER_DEFAULTS[self.kind]
        for name in ("betas", "eps", "relative_step", "warmup_init", "clip_threshold"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                raise ValueError(f"{self.kind} has no {name}: leave it out.")
        if self.betas is not None and len(self.betas) != len(defaults["betas"]):
            raise ValueError(f"{self.kind} has {len(defaults['betas'])} betas, found {len(self.betas)}.")
        if self.warmup_init and not self.relative_step:
            raise ValueError("warmup_init needs relative_step: true.")
        return self


_ADAM: dict = {"betas": (0.9, 0.999), "eps": 1e-8}
_LION: dict = {"betas": (0.9, 0.99)}
_OPTIMIZER_DEFAULTS: dict[str, dict] = {
    "AdamW8bit": _ADAM, "AdamW": _ADAM, "PagedAdamW8bit": _ADAM, "AdamW4bit": _ADAM,
    "Lion": _LION, "CautiousLion": _LION, "Lion8bit": _LION,
    "C-Lion": {"betas": (0.95, 0.98)},
    "AdaFactor": {"relative_step": False, "warmup_init": False, "clip_threshold": 1.0},
    "CAME": {"betas": (0.9, 0.999, 0.9999), "clip_threshold": 1.0},
}  # fmt: skip


class Engine(Entry):
    """An engine of a library that executes the steps. Its world size, kernels and compilation then belong to the recipe."""

    kind: Literal["deepspeed"]
    stage: Literal[2] = 2
    compile: Literal["inductor"] | None = None
    attention: Literal["memory-efficient"] | None = None


class Schedule(Entry):
    """The learning rate's factor over the steps of a run."""

    kind: Literal["constant", "warmup", "warmup-linear"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0


class Precision(Entry):
    """Dtypes: of the trained weights, of the arithmetic, and of the result file; and how updates reach bf16 weights."""

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

    steps: PositiveInt | None = None
    epochs: PositiveInt | None = None

    @model_validator(mode="after")
    def _one(self) -> "SaveEvery":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs, one of the two.")
        return self


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

    ramdisk: bool = False
    numa: int | None = None
    loader_workers: int | None = None
    gradient_checkpointing: Blocks | None = None
    offload_gradients: bool | None = None
    sample_every: PositiveInt | None = None
    keep_states: PositiveInt | None = None


class Outcome(Entry):
    """What the record says became of the run."""

    kind: Literal["success", "failure", "partial", "stopped", "nan", "works-after-merge", "unstated"]
    text: str = ""
    alpha: float | None = None


class Choices(Entry):
    """Where the original trainer's arithmetic differs from the papers; `semantics` sets all, a run may set single ones.

    Each is explained, with its evidence, in docs/semantics.md.
    """

    noise: Literal["sample", "micro-step"]  # what noise and timestep are keyed by
    snr_table: Literal["rescaled", "original"]  # which table min-SNR reads under zero_terminal_snr
    pooled_projection: Literal["reference", "kohya"]  # orientation of the second text encoder's projection
    schedule_dtype: Literal["fp32", "compute"]  # dtype of alphas_cumprod when noise is added
    context: Literal["inference", "stripped"]  # chunks as 77 + 77 + 77, or inner begin/end tokens dropped: 227
    short_step: Literal["actual", "full"]  # what the loss of an epoch's last short step is divided by
    rf_timestep: Literal["continuous", "floor"]  # the timestep that rf tells the UNet: 1000 s, or its integer part


SEMANTICS = {
    "reference": Choices(
        noise="sample", snr_table="rescaled", pooled_projection="reference", schedule_dtype="fp32", context="inference",
        short_step="actual", rf_timestep="continuous",
    ),
    "kohya": Choices(
        noise="micro-step", snr_table="original", pooled_projection="kohya", schedule_dtype="compute", context="stripped",
        short_step="full", rf_timestep="floor",
    ),
}  # fmt: skip


class RunFields(Entry):
    """Everything that a run may say and an era may set as default. See config/README.md for each key."""

    base: str | None = None
    dataset: str | None = None
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    until_step: PositiveInt | None = None
    restart_epochs: tuple[PositiveInt, ...] | None = None
    continues: bool | None = None
    objective: Annotated[Objective, BeforeValidator(_named)] | None = None
    captions: Annotated[Captions, BeforeValidator(_named)] | None = None
    unet: Literal[63, 68, 71, 100] | None = None
    learning_rate: LearningRate | None = None
    optimizer: Annotated[Optimizer, BeforeValidator(_named)] | None = None
    schedule: Annotated[Schedule, BeforeValidator(_named)] | None = None
    ranks: Literal[1, 2, 4, 8] | None = None
    batch_size: PositiveInt | None = None
    accumulation: PositiveInt | None = None
    max_grad_norm: Annotated[float, Field(ge=0)] | None = None
    precision: Precision | None = None
    save_every: SaveEvery | None = None
    semantics: Literal["kohya", "reference"] | None = None
    choices: dict[str, str] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    merge_base: str | None = None
    engine: Annotated[Engine, BeforeValidator(_named)] | None = None
    loss_spike: Annotated[float, Field(gt=1)] | None = None
    on_failure: Literal["keep"] | None = None
    placement: Placement | None = None


class RunEntry(RunFields):
    """One run of an era's file."""

    note: str = ""
    outcome: Outcome = Outcome(kind="unstated")
    in_seed: bool = True


class Era(Entry):
    """One file of config/runs/: defaults, and the runs that share them."""

    era: str
    title: str
    note: str = ""
    defaults: RunFields
    runs: dict[Annotated[str, Field(pattern="^([0-9]{8}|foundation-[a-z0-9]+)$")], RunEntry]


class Merge(Entry):
    """A weighted sum of two models, by reference: base x (1 - alpha) + trained x alpha."""

    base: str
    trained: str
    alpha: Annotated[str, Field(pattern=r"^[01]\.[0-9]{2}$")]


class Mecha(Entry):
    """A merge by sd-mecha: a `.mecha` recipe of config/mecha/, and which model each of its names stands for."""

    recipe: str
    models: dict[str, str]  # name of a model in the recipe -> reference


class Origin(Entry):
    """Where a base comes from at one scale: a pinned file, or what makes it, or both (the file is then that result)."""

    file: str | None = None
    sha256: Digest = "unknown"
    made_by: str | None = None  # a reference
    merge: Merge | None = None
    mecha: Mecha | None = None

    @model_validator(mode="after")
    def _one_maker(self) -> "Origin":
        if sum(maker is not None for maker in (self.made_by, self.merge, self.mecha)) > 1:
            raise ValueError("give one of made_by, merge and mecha.")
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
    """A model that runs start from (kind `model`), or the autoencoder of a family (kind `autoencoder`)."""

    family: Family
    kind: Literal["model", "autoencoder"] = "model"
    objective: Literal["eps", "v", "rf"] | None = None
    title: str = ""
    note: str = ""
    full: Origin
    miniature: Origin


class Dataset(Entry):
    """A dataset by its name in the ledger; `images` is the full-scale count, the miniature's stands in the scale."""

    images: PositiveInt
    autoencoder: str
    note: str = ""


class ScaleDataset(Entry):
    """The size of a dataset at one scale, and where its pictures come from; `digest`: of the store that the user brings."""

    images: PositiveInt
    seed: int = 0
    digest: str = "unknown"


class Measurement(Entry):
    """A speed that was measured on a machine, with what the run did; what is not said is not known."""

    images_per_second: Annotated[float, Field(gt=0)]
    devices: PositiveInt | None = None  # None: all of the machine's
    unet: Literal[63, 68, 71, 100] | None = None
    optimizer: str | None = None
    batch_size: PositiveInt | None = None
    accumulation: PositiveInt | None = None
    note: str


class Power(Entry):
    """What a machine draws while it trains, and where that figure comes from."""

    watts: Annotated[float, Field(gt=0)]
    source: str


class Hardware(Entry):
    """A machine that runs can be placed on. `devices` of a CPU machine are its cores; what is left out is not known."""

    title: str
    device: Literal["cpu", "cuda"]
    devices: PositiveInt = 1
    device_memory_gib: float | None = None
    compute_capability: tuple[int, int] | None = None
    peak_tflops: float | None = None  # 16-bit, dense, per device, as the vendor has it
    numa_nodes: PositiveInt | None = None
    ramdisk_gib: float | None = None
    power: Power | None = None
    measured: list[Measurement] = []


class AutoencoderTraining(Entry):
    """How the miniature's autoencoder is trained from nothing: on how many pictures of which seed, for how long."""

    images: PositiveInt
    seed: int
    steps: PositiveInt
    batch: PositiveInt
    learning_rate: Rate


class Scale(Entry):
    """Sizes, and nothing but sizes: what a run's recipe becomes at this scale."""

    device: Literal["cpu", "cuda"]
    protect_results: bool
    learning_rate_multiplier: Annotated[float, Field(gt=0)] = 1.0
    max_segments: PositiveInt | None = None
    precision: Precision | None = None
    architectures: dict[Family, dict]
    datasets: dict[str, ScaleDataset]
    pictures: dict | None = None
    autoencoder_training: AutoencoderTraining | None = None
    vocabulary: Origin
