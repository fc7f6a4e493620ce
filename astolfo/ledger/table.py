"""The record in its own form: `astolfo ledger table` prints it era by era, with --markdown as tables.

Everything is computed from the entries. A facet is one thing that the record says about a run, in its words; a run's line
has those facets that its era's defaults do not have already.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from astolfo.ledger import schema
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.references import Reference
from astolfo.ledger.steps import full_steps

Facet = Callable[[Ledger, Run], str]


def text(ledger: Ledger) -> str:
    """The whole record: of each era its title, its defaults, and one line per run; then the bases."""
    blocks = []
    for era, runs in eras(ledger):
        shared = defaults(ledger, runs[0])
        lines = [f"{era.era}: {era.title}" if era.title else era.era, *([f"Unless specified: {shared}."] if shared else []), ""]
        blocks.append("\n".join(lines + [f"  {run.id}: {line(ledger, run)}" for run in runs]))
    bases = [f"  {name}: {base_line(ledger, name)}" for name in _models(ledger)]
    blocks += ["\n".join(["Bases", "", *bases])] if bases else []
    return "\n\n".join(blocks) or f"The ledger {ledger.folder} has no runs and no bases yet."


def line(ledger: Ledger, run: Run) -> str:
    """What distinguishes a run from its era's defaults, and what the record says became of it."""
    outcome = run.entry.outcome.text
    return f"{apart(ledger, run)}{f'. {outcome}' if outcome else ''}{aside(ledger, run)}"


def aside(ledger: Ledger, run: Run) -> str:
    """What follows a run that does not count among the ledger's, in the ledger's words; "" for one that does."""
    return "" if run.counts else f" ({ledger.about.asides_are})"


def apart(ledger: Ledger, run: Run) -> str:
    """What distinguishes a run from its era's defaults, in the record's words."""
    default, own = facets(ledger, _era_as_run(run)), facets(ledger, run)
    return _joined({name: phrase for name, phrase in own.items() if phrase != default[name]}) or "as its era"


def base_line(ledger: Ledger, name: str) -> str:
    """What a base is: its family and objective, and the file or the models that it comes from at this scale."""
    return f"{_kind(ledger.base(name))}: {_source(ledger.origin(name))}"


def _kind(base: schema.Base) -> str:
    return f"{_FAMILIES[base.family]}, {base.objective}"


def _source(origin: schema.Origin | None) -> str:
    assert origin  # the ledger has filled what an entry leaves out
    if origin.merge:
        return f"{origin.merge.trained} merged into {origin.merge.base}, {origin.merge.alpha}"
    if origin.mecha:
        return f"mecha {origin.mecha.recipe} of {', '.join(origin.parents)}"
    if origin.stand_in:
        source = f"made by {origin.made_by}" if origin.made_by else "shipped"
        return f"a stand-in: {origin.stand_in}, {source}, changed by the base's name"
    return origin.made_by or str(origin.file)


# ---- Markdown: a column is a title and a function of a run; add one here, or hand `markdown` your own


def outcome(ledger: Ledger, run: Run) -> str:
    """The outcome of the record: its kind, the merge that works, and the record's words."""
    found = run.entry.outcome
    alpha = "" if found.alpha is None else f" {found.alpha:.2f}"
    return found.text if found.kind == "unstated" else f"{found.kind}{alpha}: {found.text}"


def _group(*names: str) -> Facet:
    """A column of several facets."""

    def column(ledger: Ledger, run: Run) -> str:
        phrases = {name: FACETS[name](ledger, run) for name in names}
        return _joined({name: phrase for name, phrase in phrases.items() if phrase not in _NOT_WRITTEN})

    return column


COLUMNS: dict[str, Facet] = {
    "ID": lambda ledger, run: f"{run.id}{aside(ledger, run)}",
    "base": lambda ledger, run: run.fields.base or "nothing",
    "dataset, captions": _group("dataset", "captions"),
    "length": _group("length", "restarts"),
    "objective": _group("mode", "terminal", "gamma", "shift", "contrastive", "further"),
    "what trains": _group("encoders", "unet", "accumulation"),
    "rates": _group("rates"),
    "optimizer": _group("optimizer", "schedule"),
    "engine, placement": _group("ranks", "batch", "engine", "ramdisk", "numa"),
    "outcome": outcome,
}


MEANINGS = {
    "ID": "the run's name, by which it is built",
    "base": "the model that the run starts from: one of the bases below, or another run's result or checkpoint",
    "dataset, captions": "the pictures that it trains on, and which of their texts it reads",
    "length": "for how many epochs (EP) it trains, or from which step of the data order to which",
    "objective": "what the UNet learns to predict, with the settings of noise and loss",
    "what trains": "whether text encoders train (TTE), how much of the UNet does, and over how many micro-batches gradients are "
    "accumulated (GA)",
    "rates": "the learning rates: of the UNet + of the text encoders",
    "optimizer": "the optimizer, and the learning rates' schedule unless it is constant",
    "engine, placement": "the number of GPUs, the batch size on each (BS), and what else the training ran with",
    "outcome": "what the person who made the run says became of it: its kind, the alpha of the merge that works, and their words",
    "pictures": "the verdict of the rebuilt run's evaluation, sampled as the run was trained, for each encoding of the empty "
    "prompt (uncond), and whether the outcome agrees; empty where no evaluation is on record",
    "rebuilt": "whether the rebuilt run trained to its end, or what stopped it, and whether the outcome says otherwise "
    "(**differs**)",
    "sha256": "the first 16 digits of the rebuilt result's sha256",
}
"""What a column holds, by its title without what follows in brackets."""


def legend(columns: Sequence[str]) -> str:
    """How to read the tables: a line for each column that is explained."""
    titles = dict.fromkeys(title.partition(" (")[0] for title in columns)
    lines = [f"- **{title}**: {MEANINGS[title]}" for title in titles if title in MEANINGS]
    if any(title.endswith(")") for title in columns):
        lines += [
            "",
            "A column with brackets holds what a rebuild gave: in the brackets stand its scale, and its device with a number.",
        ]
    return "\n".join(["Each table is an era: a group of runs that share most settings. Its columns:", "", *lines])


def markdown(ledger: Ledger, columns: Mapping[str, Facet] = COLUMNS) -> str:
    """The whole record as Markdown: what the columns mean, one table per era with `columns`, then the bases."""
    blocks = [f"# {ledger.about.title}", *([ledger.about.note] if ledger.about.note else [])]
    blocks += [legend(list(columns))] if ledger.runs else []
    for era, runs in eras(ledger):
        note = [era.note] if era.note else []
        rows = [[column(ledger, run) for column in columns.values()] for run in runs]
        blocks += [f"## {era.era}: {era.title}", *note, _table(list(columns), rows)]
    bases = [(name, ledger.base(name)) for name in _models(ledger)]
    rows = [[name, _kind(base), _source(base.full), _source(base.miniature), base.note] for name, base in bases]
    return "\n\n".join([*blocks, "## Bases", _table(["base", "kind", "full", "miniature", "note"], rows)])


def _table(titles: list[str], rows: list[list[str]]) -> str:
    cells = [titles, ["---"] * len(titles), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


# ---- facets: one phrase each, "" where there is nothing to say

_FAMILIES = {"sdxl": "SDXL", "sd2": "SD2"}
_CAPTIONS = {"tags": "Tag only", "pick": "Dual Tag (pick caption or tags)", "concat": "Dual Tag (concat)"}
_MODES = {"eps": "eps mode", "v": "VPred mode", "rf": "Flow Matching / RF mode, logit-normal(0,1)"}
_OPTIMIZERS = {"Lion8bit": "Lion 8bit"}
_ENGINE = {"inductor": "Pytorch Dynamo", "memory-efficient": "mem_eff_attn"}
_NOT_WRITTEN = {"GA 1 step", "constant schedule"}  # the record leaves these out


def facets(ledger: Ledger, run: Run) -> dict[str, str]:
    """Every facet of a run by name."""
    return {name: facet(ledger, run) for name, facet in FACETS.items()}


def _family(ledger: Ledger, run: Run) -> str:
    """The family; of an era whose runs say base and dataset themselves, none."""
    family = _family_of(ledger, run)
    return _FAMILIES[family] if family else ""


def _family_of(ledger: Ledger, run: Run) -> schema.Family | None:
    return ledger.family(run) if run.fields.base or run.fields.dataset else None


def _base(ledger: Ledger, run: Run) -> str:
    reference = ledger.parent(run)
    if reference is None or run.fields.continues:  # its steps tell that it is a continuation
        return ""
    return f"from {reference}" if reference.run else f"{reference} base"


def _optimizer(ledger: Ledger, run: Run) -> str:
    found = run.fields.optimizer
    if found is None:
        return ""
    return _OPTIMIZERS.get(found.kind, found.kind) + (", relative step" if found.relative_step else "")


def _schedule(ledger: Ledger, run: Run) -> str:
    optimizer, schedule = run.fields.optimizer, run.fields.schedule
    bare = schedule is None or (
        schedule.kind in ("constant", "warmup") and not schedule.warmup_steps and not _given(schedule, _COURSE)
    )
    if optimizer and optimizer.relative_step is False and bare:
        return "overridden schedule"
    if schedule is None:
        return ""
    warm = [_setting("warm-up", schedule.warmup_steps)] if schedule.warmup_steps else []
    course = ", ".join([*warm, *_given(schedule, _COURSE)])
    return f"{schedule.kind} schedule ({course})" if course else f"{schedule.kind} schedule"


_COURSE = ("warmup_ratio", "cycles", "power", "end")


def _dataset(ledger: Ledger, run: Run) -> str:
    name = run.fields.dataset
    return f"{name.removesuffix(f'-{_family_of(ledger, run)}')} dataset" if name else ""


def _length(ledger: Ledger, run: Run) -> str:
    fields = run.fields
    if fields.steps:
        return f"{fields.steps} steps"
    if not fields.until_step and not fields.continues:
        return "+".join(map(str, [*_earlier_epochs(ledger, run), fields.epochs])) + "EP" if fields.epochs else ""
    if not fields.dataset or (fields.continues and not fields.base):  # an era's, whose runs say these themselves
        parts = [f"{fields.epochs}EP" if fields.epochs else "", f"until step {fields.until_step}" if fields.until_step else ""]
        return ", ".join(filter(None, parts))
    total = full_steps(ledger, run)
    start = _full_step(ledger, ledger.reference(str(fields.base))) if fields.continues else 0
    if fields.until_step in (None, total):
        return f"steps {_thousands(start)}-{fields.epochs}EP ({_thousands(total)}k)"
    return f"steps {_thousands(start)}-{_thousands(fields.until_step)}k out of {_thousands(total)}k"


def _earlier_epochs(ledger: Ledger, run: Run) -> list[int]:
    """The epochs on the same dataset that a run's base had, run by run."""
    reference = ledger.parent(run)
    if reference is None or reference.epoch is None:
        return []
    before = ledger.run(str(reference.run))
    return [*_earlier_epochs(ledger, before), reference.epoch] if before.fields.dataset == run.fields.dataset else []


def _full_step(ledger: Ledger, reference: Reference) -> int:
    """Where in its run's data order a checkpoint lies, counted at full scale."""
    run = ledger.run(str(reference.run))
    if reference.epoch is not None:
        return full_steps(ledger, run) * reference.epoch // (run.fields.epochs or 1)
    return reference.step or run.fields.until_step or full_steps(ledger, run)


def _thousands(steps: int) -> int:
    return (steps + 500) // 1000


def _restarts(ledger: Ledger, run: Run) -> str:
    epochs = run.fields.restart_epochs
    return f"restarted after epoch {' and '.join(map(str, epochs))}" if epochs else ""


def _captions(ledger: Ledger, run: Run) -> str:
    found = run.fields.captions
    if found is None:
        return ""
    kind = _CAPTIONS[found.kind]
    kind = kind.replace("concat", "concat, a1111 token trick") if found.tokens > 75 else kind
    return ", ".join([kind, *_given(found, _VARIATIONS)])


_VARIATIONS = (
    "shuffle", "keep_tokens", "keep_tokens_separator", "tag_dropout", "dropout_every_epochs", "prefix", "suffix", "separator",
    "secondary_separator",
)  # fmt: skip
_FURTHER = (
    "min_timestep", "max_timestep", "noise_offset", "noise_offset_random", "adaptive_noise_scale", "multires_noise",
    "ip_noise_gamma", "ip_noise_gamma_random", "debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred",
    "v_pred_like_loss", "loss",
)  # fmt: skip


def _given(entry: schema.Entry, names: tuple[str, ...]) -> list[str]:
    """The values of these keys that an entry gives, in words: "shuffle", "keep tokens 1", "loss huber (schedule snr, c 0.1)"."""
    return [_setting(name.replace("_", " "), value) for name in names if (value := getattr(entry, name)) is not None]


def _setting(words: str, value: object) -> str:
    if value is True:
        return words
    if isinstance(value, schema.Entry):
        inner = value.model_dump(exclude_none=True)
        kind = inner.pop("kind", "")
        options = ", ".join(_setting(key, item) for key, item in inner.items())
        return " ".join(filter(None, (words, kind, options and f"({options})")))
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"


def _further(ledger: Ledger, run: Run) -> str:
    return ", ".join(_given(run.fields.objective, _FURTHER)) if run.fields.objective else ""


def _ranks(ledger: Ledger, run: Run) -> str:
    ranks = run.fields.ranks
    return "" if ranks is None else "Single GPU" if ranks == 1 else f"{ranks}GPU"


def _encoders(ledger: Ledger, run: Run) -> str:
    rates = run.fields.learning_rate
    if rates is None:
        return ""
    if not max(rates.text_encoder, rates.text_encoder_2):
        return "TTE off"
    return "TTE on" if rates.largest["unet"] else "TTE only"


def _unet(ledger: Ledger, run: Run) -> str:
    unet = run.fields.unet
    if unet is None:
        return ""
    return f"{unet}% UNET" if isinstance(unet, int) else f"UNET: {unet}"


def _rates(ledger: Ledger, run: Run) -> str:
    rates = run.fields.learning_rate
    if rates is None:
        return ""
    encoders = [rates.text_encoder] if _family_of(ledger, run) == "sd2" else [rates.text_encoder, rates.text_encoder_2]
    both = "/".join(dict.fromkeys(map(_rate, encoders))) if any(encoders) else ""
    blocks = ", ".join(f"{block} {_rate(rate)}" for block, rate in (rates.blocks or {}).items())
    unet = _rate(rates.unet) if rates.unet or blocks else ""
    return " + ".join(part for part in (f"{unet} ({blocks})" if blocks else unet, both) if part)


def _rate(rate: float) -> str:
    """1.2e-5, as the record writes a rate."""
    mantissa, _, exponent = f"{rate:e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if rate else "0"


def _mode(ledger: Ledger, run: Run) -> str:
    return _MODES[run.objective.kind] if run.fields.objective else ""


def _terminal(ledger: Ledger, run: Run) -> str:
    found = run.fields.objective
    return "" if found is None or found.kind != "v" else "zstnr" if found.zero_terminal_snr else "zstnr off"


def _gamma(ledger: Ledger, run: Run) -> str:
    found = run.fields.objective
    if found is None or (found.kind != "v" and not found.min_snr_gamma):
        return ""
    return f"min gamma {found.min_snr_gamma:g}" if found.min_snr_gamma else "min gamma off"


def _engine(ledger: Ledger, run: Run) -> str:
    found = run.fields.engine
    if found is None:
        return ""
    extras = [_ENGINE[extra] for extra in (found.compile, found.attention) if extra]
    return " + ".join([f"{found.kind.capitalize()} Zero Stage {found.stage}", *extras])


def _ramdisk(ledger: Ledger, run: Run) -> str:
    return "ramdisk on" if run.fields.placement and run.fields.placement.ramdisk else ""


def _numa(ledger: Ledger, run: Run) -> str:
    placement = run.fields.placement
    return f"numa process {placement.numa}" if placement and placement.numa is not None else ""


def _of_objective(name: str, words: str) -> Facet:
    def facet(ledger: Ledger, run: Run) -> str:
        value = getattr(run.fields.objective, name, None)
        return f"{words} {value:g}" if value else ""

    return facet


FACETS: dict[str, Facet] = {
    "family": _family,
    "base": _base,
    "optimizer": _optimizer,
    "schedule": _schedule,
    "dataset": _dataset,
    "length": _length,
    "restarts": _restarts,
    "captions": _captions,
    "ranks": _ranks,
    "batch": lambda ledger, run: f"BS{run.fields.batch_size}" if run.fields.batch_size else "",
    "encoders": _encoders,
    "unet": _unet,
    "accumulation": lambda ledger, run: f"GA {run.fields.accumulation} step" if run.fields.accumulation else "",
    "ramdisk": _ramdisk,
    "numa": _numa,
    "rates": _rates,
    "mode": _mode,
    "terminal": _terminal,
    "gamma": _gamma,
    "shift": _of_objective("shift", "timestep shift"),
    "contrastive": _of_objective("contrastive", "contrastive"),
    "further": _further,
    "engine": _engine,
}
_TRAINS = ("encoders", "unet", "accumulation")  # the record joins these by "+"


def _joined(phrases: Mapping[str, str]) -> str:
    trains = " + ".join(phrases[name] for name in _TRAINS if phrases.get(name))
    ordered = [trains if name == _TRAINS[0] else phrases.get(name) for name in FACETS if name not in _TRAINS[1:]]
    return ", ".join(phrase for phrase in ordered if phrase)


def defaults(ledger: Ledger, run: Run) -> str:
    """What the era of a run sets for all its runs ("Unless specified: ..."), in the record's words."""
    left_out = _NOT_WRITTEN | {_MODES["eps"]}
    return _joined({name: phrase for name, phrase in facets(ledger, _era_as_run(run)).items() if phrase not in left_out})


def _era_as_run(run: Run) -> Run:
    """The era's defaults alone, as if they were a run."""
    return replace(run, entry=schema.RunEntry(), fields=run.era.defaults)


def eras(ledger: Ledger) -> list[tuple[schema.Era, list[Run]]]:
    """The eras in the ledger's order, each with its runs."""
    groups = groupby(ledger.runs.values(), key=lambda run: run.era.era)
    return [(runs[0].era, runs) for runs in (list(group) for _, group in groups)]


def _models(ledger: Ledger) -> list[str]:
    return [name for name, base in ledger.bases.items() if base.kind == "model"]
