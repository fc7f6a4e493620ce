"""What a ledger is refused for: each entry against the others, at the line of what is wrong.

    check(ledger)          # raises LedgerError for the first thing that is wrong

The shape of a single entry is the schema's to check; here are names, references, cycles, and what cannot act together.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from astolfo.errors import LedgerError
from astolfo.ledger import schema
from astolfo.ledger.files import unknown
from astolfo.ledger.ledger import SCALES, Ledger, Run
from astolfo.ledger.recipe import choices_of
from astolfo.ledger.references import FOLDERS, Reference, mistaken_for, parse, problem_of
from astolfo.ledger.unet import FIXED, known_blocks, parameters, trains, unknown_blocks

Error = Callable[[str], LedgerError]


def check(ledger: Ledger) -> None:
    """Raises LedgerError, with file, line and remedy, for the first thing that is wrong."""
    for run in ledger.runs.values():
        _run_name(ledger, run)
    for section, names in (("bases", ledger.bases), ("datasets", ledger.datasets)):
        for name in names:
            _name(section, name, ledger.files.error(section, name, [], ""))
    for run in ledger.runs.values():
        _complete(run)
        if run.id not in ledger.lent:
            _run(ledger, run)
    for name in ledger.bases:
        _base(ledger, name)
    for name in ledger.datasets:
        _dataset(ledger, name)
    for name in ledger.evaluations:
        _evaluation(ledger, name)
    for run in ledger.runs.values():
        _cycle(ledger, parse(run.id), ())
        _possible(ledger, run)
    _targets(ledger)


def _name(section: str, name: str, at: LedgerError) -> None:
    if problem := _name_problem(name):
        raise LedgerError(f"{at}the name {name!r} of {section} {problem}.")


def _name_problem(name: str) -> str | None:
    """What is wrong with the name of a run, a base or a dataset: a run and a dataset are folders in those that a build makes."""
    return "is that of a folder that a build writes to: name it otherwise" if name in FOLDERS else problem_of(name)


def _run_name(ledger: Ledger, run: Run) -> None:
    name = run.id
    if problem := _name_problem(name):
        raise run.error(f"the name {name!r} of a run {problem}.")
    if other := mistaken_for(name):
        free = name.replace("-", "_")
        raise run.error(f"a run named {name!r} would be mistaken for {other}. Name it otherwise, such as {free}.")
    if name in ledger.bases:
        raise run.error(f"{name!r} is a base already, and a model is known by its name alone. Name one of them otherwise.")
    before, _, last = name.rpartition("-")
    if before in ledger.runs and last in ledger.evaluations:
        raise run.error(f"a run named {name!r} would be mistaken for the evaluation of {before} under the set {last}.")
    for base in ledger.bases:
        if base.startswith(f"{name}-") and parse(base).run == name:
            problem = f"{base!r} would be mistaken for a model of the run {name}. Name it otherwise."
            raise ledger.files.error("bases", base, [], problem)


def _complete(run: Run) -> None:
    """Refuses a run that says too little: dataset, rate and length have no default."""
    for name in ("dataset", "learning_rate"):
        if getattr(run.fields, name) is None:
            raise run.error(f"run {run.id} has no {name}: set it here or in the era's defaults.")
    if (run.fields.steps is None) == (run.fields.epochs is None):
        raise run.error(f"run {run.id} needs either epochs or steps, one of the two.")
    if run.fields.miniature_steps and not run.fields.steps:
        raise run.error(f"run {run.id} has epochs, which say its length at every scale: leave miniature_steps out.")


def _run(ledger: Ledger, run: Run) -> None:
    if problem := _no_dataset(ledger, str(run.fields.dataset)):
        raise run.error(problem, "dataset")
    for key in ("base", "merge_base"):
        name = getattr(run.fields, key)
        if name is not None:
            _reference(ledger, name, partial(run.error, key=key))
    for name, value in (run.fields.choices or {}).items():
        allowed = schema.Choices.model_fields
        if name not in allowed:
            raise run.error(unknown("choice", name, allowed), "choices")
        values = schema.values_of(name)
        if value not in values:
            raise run.error(f"choice {name} cannot be {value!r}: expected {' or '.join(values)}.", "choices")


def _possible(ledger: Ledger, run: Run) -> None:
    """Refuses combinations that each are valid but cannot act together."""
    fields = run.fields
    _optimizer(ledger, run)
    if run.objective.contrastive and fields.batch_size == 1 and fields.semantics == "reference":
        raise run.error(
            "objective.contrastive compares the samples of a micro-batch, so at batch_size 1 it cannot act. "
            "Use batch_size 2 or more, or leave contrastive out.",
            "objective",
        )
    assert fields.captions
    if fields.captions.joins_only and choices_of(run).captions == "reference":
        raise run.error(
            "captions.separator is read by shuffle, tag_dropout and secondary_separator, or joins the texts under choices: "
            "{captions: kohya}: give one, or leave it out.",
            "captions",
        )
    if fields.engine and "clipping" in (fields.choices or {}):
        raise run.error(
            f"choice clipping does not act under engine: {fields.engine.kind}, which clips by max_grad_norm itself. "
            "Leave the choice out; max_grad_norm: 0 clips nothing.",
            "choices",
        )
    _blocks(ledger, run)
    encoder = ledger.base(ledger.datasets[str(fields.dataset)].autoencoder)
    if encoder.family != ledger.family(run):
        raise run.error(
            f"dataset {fields.dataset} is encoded for {encoder.family}, but the run's model is {ledger.family(run)}. "
            "Use the dataset that is encoded for it.",
            "dataset",
        )
    if fields.restart_epochs and (fields.steps or max(fields.restart_epochs) >= (fields.epochs or 0)):
        raise run.error(f"restart_epochs must lie within the run's epochs ({fields.epochs}).", "restart_epochs")


def _optimizer(ledger: Ledger, run: Run) -> None:
    """Refuses rates that an optimizer cannot mean, and ways of executing it in which it would be another."""
    assert run.fields.optimizer
    assert run.fields.learning_rate
    kind, rates = run.fields.optimizer.kind, run.fields.learning_rate.every
    parts = [part for part in run.fields.learning_rate.parts if part != "text_encoder_2" or ledger.family(run) == "sdxl"]
    if not any(run.fields.learning_rate.largest[part] for part in parts):
        encoder = "a text encoder" if len(parts) > 2 else "the text encoder"
        raise run.error(f"nothing trains: every rate is 0. Give the UNet or {encoder} a rate.", "learning_rate")
    if kind != "Prodigy" and max(rates) >= 1:
        raise run.error(f"a learning rate of {max(rates):g} is a slip: expected one below 1 for {kind}.", "learning_rate")
    if kind not in ("Prodigy", "AdamWScheduleFree"):
        return
    if run.fields.engine:
        raise run.error(f"{kind} needs whole weights, which {run.fields.engine.kind} cuts: leave engine out.", "engine")
    if kind == "AdamWScheduleFree":
        return
    if len({rate for rate in rates if rate}) > 1:
        problem = "Prodigy has one step size for all that trains: give every part one rate (1 as a rule), or 0."
        raise run.error(problem, "learning_rate")
    precision = ledger.scale.precision or run.fields.precision
    if precision and precision.update:
        problem = f"Prodigy does not work with update: {precision.update} yet. Use weights in fp32, or no update."
        raise run.error(problem, "precision")


def _blocks(ledger: Ledger, run: Run) -> None:
    """Refuses a partial UNet that the run's family does not have, and names of blocks that its UNet does not have."""
    fields, family = run.fields, ledger.family(run)
    if fields.unet in FIXED and family != "sdxl":
        problem = f"unet: {fields.unet} is a set of frozen blocks of SDXL's UNet; {family} has none. Say unet: 100."
        raise run.error(problem, "unet")
    config = ledger.scale.architectures.get(family, {}).get("unet")
    if config is None:
        return
    if missing := _missing_blocks(fields, config):  # a smaller UNet may lack some of the real one's
        real = ledger.full_scale().architectures[family]["unet"]
        for key, block in _missing_blocks(fields, real):
            raise run.error(unknown("block of the UNet", block, known_blocks(real)), key)
    assert fields.unet
    assert fields.learning_rate
    if fields.learning_rate.largest["unet"] and not _any_trains(fields.unet, fields.learning_rate, config):
        lacks = f" The {ledger.scale_name} has none of {', '.join(name for _, name in missing)}." if missing else ""
        raise run.error(f"nothing of the UNet trains: unet says {fields.unet}, and what it leaves has no rate.{lacks}", "unet")


def _missing_blocks(fields: schema.RunFields, config: dict[str, Any]) -> list[tuple[str, str]]:
    """The blocks that a run names and a UNet does not have, each after the key that names it."""
    found = {
        "unet": unknown_blocks(config, unet=fields.unet),
        "learning_rate": unknown_blocks(config, learning_rate=fields.learning_rate),
    }
    return [(key, block) for key, blocks in found.items() for block in blocks]


def _any_trains(unet: schema.UNet, rates: schema.LearningRate, config: dict[str, Any]) -> bool:
    """Whether a parameter of the UNet trains; the first that does is enough, as every plan asks this of every run."""
    return any(trains(unet, rates, name) for name in parameters(config))


def _base(ledger: Ledger, name: str) -> None:
    for scale in SCALES:
        origin = getattr(ledger.bases[name], scale)
        for parent in origin.parents:
            if not (origin.stand_in and parent in ledger.lent):
                _reference(ledger, parent, partial(ledger.files.error, "bases", name, [scale]))


def _dataset(ledger: Ledger, name: str) -> None:
    wanted = ledger.datasets[name].autoencoder
    known = [base for base, entry in ledger.bases.items() if entry.kind == "autoencoder"]
    if wanted not in known:
        raise ledger.files.error("datasets", name, ["autoencoder"], unknown("autoencoder", wanted, known))
    if ledger.dataset_source(name)[0] == "drawn" and ledger.dataset(name).digest != "unknown":
        none = "a digest is a store's, and pictures that are drawn have none: name the store, or leave digest out."
        raise ledger.files.error("datasets", name, [ledger.scale_name, "digest"], none)
    for part in ledger.datasets[name].parts or ():
        if problem := _part_problem(ledger, part, wanted):
            raise ledger.files.error("datasets", name, ["parts", part], problem)


def _part_problem(ledger: Ledger, part: str, autoencoder: str) -> str | None:
    """Why a dataset cannot be a part of one whose first part is encoded by `autoencoder`; None when it can."""
    if problem := _no_dataset(ledger, part):
        return problem
    other = ledger.datasets[part]
    if other.parts:
        return f"{part} has parts itself: name those instead."
    if other.autoencoder != autoencoder:
        return f"{part} is encoded by {other.autoencoder}, the first part by {autoencoder}: parts need one autoencoder."
    return None


def _no_dataset(ledger: Ledger, name: str) -> str | None:
    """Why an entry cannot name such a dataset; None when it can."""
    return ledger.of_the_library(name) or (unknown("dataset", name, ledger.datasets) if name not in ledger.datasets else None)


def _evaluation(ledger: Ledger, name: str) -> None:
    wanted = ledger.evaluations[name].prompts
    if wanted not in ledger.prompts:
        raise ledger.files.error("evaluations", name, ["prompts"], unknown("prompt set", wanted, ledger.prompts))


def _targets(ledger: Ledger) -> None:
    for target in ledger.about.targets or ():
        evaluation = target.removeprefix("evaluations/")
        try:
            _reference(ledger, ledger.evaluated(evaluation)[0] if evaluation != target else target, LedgerError)
        except LedgerError as problem:
            assert ledger.files.whole
            raise ledger.files.whole.error(["targets"], f"targets: {problem}") from None


def _reference(ledger: Ledger, name: str, error: Error) -> None:
    if problem := _no_reference(ledger, name):
        raise error(problem)


def _no_reference(ledger: Ledger, name: str) -> str | None:
    """Why an entry cannot name such a model; None when it can."""
    try:
        reference = ledger.known(name)
    except LedgerError as problem:
        return str(problem)
    if lent := ledger.of_the_library(str(reference.base or reference.run)):
        return lent
    if reference.base:
        is_model = ledger.base(reference.base).kind == "model"
        return None if is_model else f"{name} is an autoencoder, no model: nothing can start from it or be merged with it."
    target = ledger.run(str(reference.run))
    last, epochs = target.fields.until_step, target.fields.epochs or 0
    if reference.step and last and reference.step > last:
        return f"{name}: run {target.id} ends at step {last:,}, so there is no step {reference.step:,}."
    if reference.epoch and reference.epoch > epochs:
        return f"{name}: run {target.id} has {epochs} epochs, so there is no epoch {reference.epoch}."
    return None


def _cycle(ledger: Ledger, reference: Reference, path: tuple[str, ...]) -> None:
    name = str(reference)
    if name in path:
        message = f"a cycle: {' <- '.join((*path, name))}. A model cannot be its own ancestor."
        runs = [ledger.reference(step).run for step in path]
        raise ledger.run(next(run for run in runs if run)).error(message, "base")
    for parent in ledger.parents(reference):
        _cycle(ledger, parent, (*path, name))
