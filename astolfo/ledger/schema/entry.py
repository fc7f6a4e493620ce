"""What all entries of the ledger share: the base class, and the types of their smallest values."""

from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Digest = Annotated[str, Field(pattern="^([0-9a-f]{64}|unknown)$")]
Rate = Annotated[float, Field(ge=0, lt=1)]
Family = Literal["sdxl", "sd2"]
ObjectiveKind = Literal["eps", "v", "rf"]


class Entry(BaseModel):
    """Base of all entries: immutable, no key beyond those named, and no `yes` in the place of a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    example: ClassVar[str] = ""  # what an entry may look like, for who wrote a single value in its place

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Python would take true for 1."""
        if _has_boolean(value) and _is_number(cls, str(info.field_name)):
            raise ValueError("expected a number; yes, on and true are none, nor are no, off and false.")
        return value


def _has_boolean(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(isinstance(one, bool) for one in inner)


@cache
def _is_number(kind: type[Entry], name: str) -> bool:
    """Whether a key takes numbers, alone or several, and neither booleans nor an entry that checks its own."""
    found = _leaves(kind.model_fields[name].annotation)
    if any(one is bool or isinstance(one, bool) or (isinstance(one, type) and issubclass(one, Entry)) for one in found):
        return False
    return any(one in (int, float) or isinstance(one, int | float) for one in found)


def _leaves(annotation: Any) -> list[Any]:
    """The types and literal values that an annotation is made of."""
    inner = get_args(annotation)
    return [leaf for one in inner for leaf in _leaves(one)] if inner else [annotation]


def named(value: object) -> object:
    """Lets `objective: eps` stand for `objective: {kind: eps}` (and the same for the other tagged entries)."""
    return {"kind": value} if isinstance(value, str) else value


def six_digits(rate: float) -> float:
    """A rate as recipes have it, so that a factor's last bit decides nothing."""
    return float(f"{rate:.6g}")
