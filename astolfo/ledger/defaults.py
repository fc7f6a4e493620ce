"""What a run has where neither it nor its era says so: everything but base, dataset, length and rate.

The table in config/README.md is this module in words. The semantics are `reference`: the papers and the inference programs.
"""

from astolfo.ledger import schema

DEFAULTS = schema.RunFields(
    captions=schema.Captions(kind="concat", tokens=75),
    unet=100,
    optimizer=schema.Optimizer(kind="AdamW8bit"),
    schedule=schema.Schedule(kind="constant"),
    ranks=1,
    batch_size=1,
    accumulation=1,
    max_grad_norm=1.0,
    precision=schema.Precision(weights="bf16", compute="bf16", save="fp16", update="stochastic"),
    semantics="reference",
    seed=0,
)
_PLAIN = schema.Precision(weights="bf16", compute="bf16", save="fp16")


def filled(fields: schema.RunFields, objective: schema.ObjectiveKind | None) -> schema.RunFields:
    """The fields with a default for each that has one and is not given; `objective` is that of the base."""
    missing = {name: getattr(DEFAULTS, name) for name in DEFAULTS.model_fields_set if getattr(fields, name) is None}
    if "precision" in missing and (fields.engine or fields.semantics in ("kohya", "kohya-native")):
        missing["precision"] = _PLAIN  # that engine keeps a master of its own, those trainers have no such update
    if fields.objective is None:
        missing["objective"] = schema.Objective(kind=objective or "eps")
    return fields.model_copy(update=missing)
