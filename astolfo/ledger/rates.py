"""A run's learning rates at a scale whose runs are shorter: higher, and lower by what rounding loses at full scale.

    change = at_scale(ledger.scale, run.fields)      # a function of a rate
    recipe.learning_rate = run.fields.learning_rate.changed(change)

Weights in bf16 without a master copy keep 8 significant bits, so an update that is small beside its weight is rounded away:
at 1.5e-6 a UNet keeps 2 % of what its optimizer asks, at 1e-5 17 % (`benchmarks/drift.py` measures it). The miniature's weights
are float32, and its few steps of high rate would not be rounded away in bf16 either; so what is lost is lost in the rate.
"""

from collections.abc import Callable
from functools import cache
from math import erf, sqrt

from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.schema import RunFields, Scale, six_digits
from astolfo.ledger.steps import full_steps, scale_steps

DEVIATION = 0.02  # of a UNet's weights, which are about normal
AT = 1.0e-5  # the rate from which the scale's multiplier is meant as it stands; lower ones lose more
HARDER = 2.0  # times the effort of full scale, from which a verdict says little of the run; the record's long runs have up to 0.5
_BITS = 8  # significant bits of bf16
_SMALLEST = -60  # exponent of 2 under which there are no weights to speak of


def at_scale(scale: Scale, fields: RunFields) -> Callable[[float], float]:
    """The function that makes a rate of a run one of the scale, to six digits: as it stands from nothing and for Prodigy.

    Prodigy's rates are factors of what it estimates. What trains from nothing does so at a scale of its own.
    """
    multiplier = scale.learning_rate_multiplier
    if not multiplied(scale, fields):
        return lambda rate: rate
    if not loses(fields):
        return lambda rate: six_digits(rate * multiplier)
    return lambda rate: six_digits(rate * multiplier * min(1.0, kept(rate) / kept(AT))) if rate else 0.0


def multiplied(scale: Scale, fields: RunFields) -> bool:
    """Whether the scale changes the run's rates: not of a training from nothing, nor Prodigy's."""
    prodigy = fields.optimizer is not None and fields.optimizer.kind == "Prodigy"
    return scale.learning_rate_multiplier != 1.0 and bool(fields.base) and not prodigy


def effort(ledger: Ledger, run: Run) -> float:
    """Steps times rate at the ledger's scale, of those of the run at full scale: of its rates the one with the most."""
    change = at_scale(ledger.scale, run.fields)
    assert run.fields.learning_rate
    rates = max((change(rate) / rate for rate in run.fields.learning_rate.every if rate), default=1.0)
    return rates * scale_steps(ledger, run) / full_steps(ledger, run)


def harder(ledger: Ledger, run: Run) -> str:
    """What a reader of its verdict has to know of a run that is shortened by much less than its rates are raised; else ""."""
    times = effort(ledger, run)
    if times < HARDER:
        return ""
    return (
        f"At the scale {ledger.scale_name} this run is trained about {times:,.0f} times as hard as at full size (the scale "
        'raises rates as for a run of more steps), so a "broken" or "works after merge" here says nothing of it.'
    )


@cache
def kept(rate: float) -> float:
    """Of a straight drift at `rate`, the share that weights in bf16 make, rounded to nearest: to three digits, 0 to about 1.

    Every weight of a normal distribution of DEVIATION takes a step of `rate` and is rounded to a multiple of its unit in the last
    place, which is one of its power of two.
    """
    moved = 0.0
    for exponent in range(_SMALLEST, 3):
        low, unit = 2.0**exponent, 2.0 ** (exponent - _BITS + 1)
        moved += round(rate / unit) * unit * (_within(2 * low) - _within(low))
    return float(f"{moved / rate:.2e}")


def _within(bound: float) -> float:
    """The share of weights under `bound` in magnitude."""
    return erf(bound / (DEVIATION * sqrt(2.0)))


def loses(fields: RunFields) -> bool:
    """Whether a run's updates are rounded away: weights in bf16, rounded to nearest, with no master copy anywhere."""
    precision = fields.precision
    return bool(precision and precision.weights == "bf16" and not precision.update and not fields.engine)
