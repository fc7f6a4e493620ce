"""What a recipe says of the optimizer: its kind, and its values; what is left out is its own library's default."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from astolfo.ledger.schema.entry import Entry


class Optimizer(Entry):
    """An optimizer of a library, with the values that decide its bits; what is left out is that library's default."""

    kind: Literal[
        "AdamW8bit", "AdamW", "PagedAdamW8bit", "Lion", "CautiousLion", "Lion8bit", "AdaFactor", "AdamW4bit", "CAME", "C-Lion",
        "Prodigy", "AdamWScheduleFree",
    ]  # fmt: skip
    betas: tuple[float, ...] | None = None
    eps: Annotated[float, Field(ge=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    relative_step: bool | None = None  # AdaFactor: the step size follows the step count; learning rates do not count
    warmup_init: bool | None = None  # AdaFactor: relative steps begin small
    clip_threshold: float | None = None  # AdaFactor, CAME: the largest root mean square of an update
    scale_parameter: Literal[False] | None = None  # AdaFactor: steps do not scale with a weight's root mean square
    beta3: float | None = None  # Prodigy: decay of its estimate; None is the root of the second beta
    d0: Annotated[float, Field(gt=0)] | None = None  # Prodigy: the first estimate
    d_coef: Annotated[float, Field(gt=0)] | None = None  # Prodigy: what the estimate is multiplied by
    growth_rate: Annotated[float, Field(gt=1)] | None = None  # Prodigy: by how much it may grow in a step; None: without bound
    bias_correction: Literal[True] | None = None  # Prodigy
    safeguard_warmup: Literal[True] | None = None  # Prodigy: the rate of a warm-up does not count in the estimate
    coupled_decay: Literal[True] | None = None  # Prodigy: weight decay is part of the gradient, as in Adam
    averaging_power: Annotated[float, Field(ge=0)] | None = None  # AdamWScheduleFree: r, the weight of late steps
    rate_power: Annotated[float, Field(ge=0)] | None = None  # AdamWScheduleFree: weight_lr_power

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, value: Any) -> Any:
        """`scale_parameter: true` is the library's default; it is left out, so that a recipe has one form."""
        if isinstance(value, dict) and value.get("scale_parameter") is True and value.get("kind") == "AdaFactor":
            return {key: item for key, item in value.items() if key != "scale_parameter"}
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Optimizer":
        defaults = OPTIMIZERS[self.kind]
        for name in type(self).model_fields.keys() - {"kind"}:
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                raise ValueError(f"{self.kind} has no {name}: leave it out.")
        if self.betas is not None and len(self.betas) != len(defaults["betas"]):
            raise ValueError(f"{self.kind} has {len(defaults['betas'])} betas, found {len(self.betas)}.")
        if self.warmup_init and not self.relative_step:
            raise ValueError("warmup_init needs relative_step: true.")
        return self


_ADAM: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}
_LION: dict[str, Any] = {"betas": (0.9, 0.99), "weight_decay": 0.0}
_PRODIGY = dict.fromkeys(("beta3", "growth_rate", "bias_correction", "safeguard_warmup", "coupled_decay"))
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "AdamW8bit": _ADAM, "AdamW": _ADAM, "PagedAdamW8bit": _ADAM, "AdamW4bit": _ADAM,
    "Lion": _LION, "CautiousLion": _LION, "Lion8bit": _LION,
    "C-Lion": {"betas": (0.95, 0.98), "weight_decay": 0.0},
    "AdaFactor": {
        "relative_step": True, "warmup_init": False, "clip_threshold": 1.0, "weight_decay": 0.0, "scale_parameter": None,
    },
    "CAME": {"betas": (0.9, 0.999, 0.9999), "clip_threshold": 1.0, "weight_decay": 0.0},
    "Prodigy": {**_ADAM, "weight_decay": 0.0, "d0": 1e-6, "d_coef": 1.0, **_PRODIGY},
    "AdamWScheduleFree": {**_ADAM, "weight_decay": 0.0, "averaging_power": 0.0, "rate_power": 2.0},
}  # fmt: skip
"""Kind -> what it has, with its library's defaults. None: the library's own, which a recipe leaves unsaid."""
