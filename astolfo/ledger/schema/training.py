"""What a recipe says of a training: objective, captions, optimizer, schedule, precision, and the choices of its semantics."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from astolfo.ledger.schema.entry import Entry, Rate


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
