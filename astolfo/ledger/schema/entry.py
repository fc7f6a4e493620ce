"""What all entries of the ledger share: the base class, and the types of their smallest values."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern="^([0-9a-f]{64}|unknown)$")]
Rate = Annotated[float, Field(ge=0, lt=1)]
Family = Literal["sdxl", "sd2"]
ObjectiveKind = Literal["eps", "v", "rf"]


class Entry(BaseModel):
    """Base of all entries: immutable, and no key beyond those named."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def named(value: object) -> object:
    """Lets `objective: eps` stand for `objective: {kind: eps}` (and the same for the other tagged entries)."""
    return {"kind": value} if isinstance(value, str) else value


def six_digits(rate: float) -> float:
    """A rate as recipes have it, so that a factor's last bit decides nothing."""
    return float(f"{rate:.6g}")
