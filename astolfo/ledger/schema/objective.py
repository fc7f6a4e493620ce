"""What a recipe says of the objective: what is predicted, from which noise, at which timesteps, and how errors are weighed."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from astolfo.ledger.schema.entry import Entry, ObjectiveKind, named

Positive = Annotated[float, Field(gt=0)]
Timestep = Annotated[int, Field(ge=0, le=1000)]


class MultiresNoise(Entry):
    """Noise of several resolutions, added up: how many, and by what factor each coarser one is weaker."""

    example: ClassVar[str] = "{iterations: 6, discount: 0.3}"
    iterations: PositiveInt
    discount: Annotated[float, Field(gt=0, le=1)] = 0.3


class Loss(Entry):
    """How far a prediction is from its target: squared, absolute, or squared near zero and absolute beyond `c` (Huber).

    `schedule` says what becomes of `c` over the timesteps; `scale` multiplies it, but not under `snr`.
    """

    kind: Literal["l2", "l1", "huber", "smooth_l1"]
    schedule: Literal["constant", "exponential", "snr"] | None = None
    c: Positive | None = None
    scale: Positive | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Loss":
        options = {"schedule": "snr", "c": 0.1, "scale": 1.0}
        if self.kind in ("l2", "l1"):
            if given := [name for name in options if getattr(self, name) is not None]:
                raise ValueError(f"{self.kind} has no {given[0]}; huber and smooth_l1 have. Leave it out.")
            return self
        for name, value in options.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.schedule == "snr" and self.scale != 1:
            raise ValueError("scale has no effect under schedule: snr. Leave it out, or use schedule: constant or exponential.")
        if self.schedule != "constant" and self.c is not None and self.c > 1:
            raise ValueError(f"c is where schedule: {self.schedule} ends and 1 where it begins, so c must be at most 1.")
        return self


_RF_LACKS = (
    "zero_terminal_snr", "min_snr_gamma", "debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss",
    "min_timestep", "max_timestep",
)  # fmt: skip
_ONE_KIND = {
    "shift": "rf", "contrastive": "rf", "scale_v_pred_loss_like_noise_pred": "v", "v_pred_like_loss": "eps",
}  # fmt: skip
_NEEDS = {
    "noise_offset_random": "noise_offset", "adaptive_noise_scale": "noise_offset", "ip_noise_gamma_random": "ip_noise_gamma",
}  # fmt: skip


class Objective(Entry):
    """What the UNet is trained to predict, and how noise and timesteps are drawn and errors weighed.

    Names are those of sd-scripts' options. Each is explained in docs/semantics.md.
    """

    kind: ObjectiveKind
    zero_terminal_snr: bool = False
    min_snr_gamma: Positive | None = None
    shift: Positive | None = None
    contrastive: Positive | None = None  # weight of the contrastive term of rf
    min_timestep: Timestep | None = None
    max_timestep: Timestep | None = None  # timesteps drawn are below it
    noise_offset: Positive | None = None
    noise_offset_random: Literal[True] | None = None  # its strength is drawn between 0 and that
    adaptive_noise_scale: float | None = None
    multires_noise: MultiresNoise | None = None
    ip_noise_gamma: Positive | None = None
    ip_noise_gamma_random: Literal[True] | None = None
    debiased_estimation_loss: Literal[True] | None = None
    scale_v_pred_loss_like_noise_pred: Literal[True] | None = None
    v_pred_like_loss: Positive | None = None
    loss: Annotated[Loss, BeforeValidator(named)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Objective":
        if self.kind == "eps" and self.zero_terminal_snr:
            raise ValueError(
                "eps cannot be trained with zero_terminal_snr: at the last timestep the input is pure noise, "
                "so the target tells nothing. Use objective v, or leave zero_terminal_snr out."
            )
        if self.kind == "rf" and (self.zero_terminal_snr or self.min_snr_gamma):
            raise ValueError("rf (rectified flow) has no SNR schedule: leave zero_terminal_snr and min_snr_gamma out.")
        self._belongs()
        if (self.min_timestep or 0) > (1000 if self.max_timestep is None else self.max_timestep):
            raise ValueError(f"min_timestep ({self.min_timestep}) is above max_timestep ({self.max_timestep}).")
        if self.contrastive and self.loss and self.loss.kind != "l2":
            raise ValueError(f"the contrastive term is a squared error: leave contrastive out, or loss: {self.loss.kind}.")
        if self.loss and self.loss.kind == "l2":
            object.__setattr__(self, "loss", None)  # one recipe, however it is written
        return self

    def _belongs(self) -> None:
        """Raises ValueError for an option that the kind does not have, or that lacks the one it refines."""
        given = [name for name in type(self).model_fields if getattr(self, name) not in (None, False)]
        for name in given:
            if _ONE_KIND.get(name, self.kind) != self.kind:
                raise ValueError(f"{name} belongs to {_ONE_KIND[name]}, not to {self.kind}: leave it out.")
            if self.kind == "rf" and name in _RF_LACKS:
                raise ValueError(f"{name} is of the SNR schedule of eps and v, which rf (rectified flow) has not. Leave it out.")
            if name in _NEEDS and _NEEDS[name] not in given:
                raise ValueError(f"{name} needs {_NEEDS[name]}: give that too, or leave {name} out.")
        if self.kind == "rf" and self.loss and self.loss.schedule == "snr":
            raise ValueError(f"rf has no SNR schedule: give {self.loss.kind} schedule: constant or exponential.")
