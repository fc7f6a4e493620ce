"""Model cards: `results/<run>.md`, in the form of the Hugging Face Hub (a YAML header, then Markdown).

A card says what a file is to someone who has never heard of this program: what it is made from, how it was trained, what its
pictures look like, under which runtime and uncond, and how to load it. It speaks of the run's result as it lies there.
"""

from collections.abc import Mapping
from pathlib import Path

from astolfo import program
from astolfo.checkpoint import hashes
from astolfo.checkpoint.safefile import open_file
from astolfo.errors import InputError
from astolfo.files import read_sidecar, sidecar, write_text
from astolfo.ledger.defaults import filled
from astolfo.ledger.evaluations import own_verdicts
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.rates import harder
from astolfo.ledger.references import Reference
from astolfo.ledger.schema import OPTIMIZERS, RunFields
from astolfo.ledger.show import plain, tree
from astolfo.ledger.table import facets
from astolfo.provenance.digests import DIFFERS, IDENTICAL
from astolfo.site import views
from astolfo.site.facts import Facts, gather
from astolfo.site.pages import templates
from astolfo.site.pictures import evaluation_view

UNCONDS = {"null": "the encoding of an empty text (ComfyUI)", "zero": "all zeros (A1111, reForge)"}
_KINDS = {"eps": "eps (noise) prediction", "v": "v-prediction", "rf": "rectified flow"}
_FAMILIES = {"sdxl": "SDXL", "sd2": "Stable Diffusion 2.1"}
_TAGS = {"sdxl": "stable-diffusion-xl", "sd2": "stable-diffusion"}
_FACETS = ("dataset", "captions", "length", "restarts", "mode", "terminal", "gamma", "shift", "contrastive", "further",
           "encoders", "unet", "rates", "optimizer", "schedule", "ranks", "batch", "accumulation", "engine")  # fmt: skip
_TITLES = {"mode": "objective", "terminal": "terminal SNR", "gamma": "min-SNR", "further": "further of the objective"}
_MORE = ("precision", "max_grad_norm", "choices", "seed", "merge_base", "loss_spike", "on_failure")  # keys that no facet tells


def write(ledger: Ledger, directory: Path, run: Run) -> Path:
    """Writes the card of a run's result beside it and returns its path. Raises InputError when the result is not built."""
    path = directory / Reference(run=run.id).path
    if not path.exists():
        first = program.build_command(f"results/{run.id}.safetensors", directory=directory)
        raise InputError(f"{path} is missing: a card is of a built model. Build it (`{first}`) first.")
    out = path.with_suffix(".md")
    write_text(out, card(gather(ledger, directory, run.id), run))
    return out


def card(facts: Facts, run: Run) -> str:
    """The card as text; pictures are linked relative to `results/`."""
    ledger, objective = facts.ledger, run.objective
    model = views.model_view(facts, facts.models[run.id])
    evaluations = [evaluation_view(folder, report) for folder, report in facts.evaluations.get(run.id, {}).items()]
    return templates().get_template("card.md").render(
        header=_header(ledger, run), run=run.id, era=run.era, model=model, evaluations=evaluations, uncond=UNCONDS,
        family=_FAMILIES[ledger.family(run)], objective=objective, kind=_KINDS[objective.kind], about=ledger.about,
        outcome=run.entry.outcome, note=run.entry.note, trained=_trained(ledger, run),
        own=own_verdicts(facts.evaluation(run.id)), parent=run.fields.base, scale=ledger.scale_name, harder=harder(ledger, run),
        semantics=run.fields.semantics, compared=model["status"].word in (IDENTICAL, DIFFERS),
        tree=tree(ledger, Reference(run=run.id), facts.directory).replace("  [built]", "").replace("  [not built]", ""),
        pictures="procedural pictures" if ledger.is_drawn(str(run.fields.dataset)) else "the dataset's pictures made small",
        values=[(name, plain(value)) for name in RunFields.model_fields if (value := getattr(run.fields, name)) is not None],
        lengths=views.lengths(facts, run), hashes=_hashes(facts.directory / Reference(run=run.id).path),
    )  # fmt: skip


def _trained(ledger: Ledger, run: Run) -> list[tuple[str, str]]:
    """What the run was trained with: its facets in the record's words, then every other value that is not the default."""
    phrases, fields = facets(ledger, run), run.fields
    assert fields.optimizer
    assert fields.captions
    usual = OPTIMIZERS[fields.optimizer.kind] | {"relative_step": fields.optimizer.relative_step}  # which its facet tells
    phrases["optimizer"] += "".join(
        f", {name} {plain(value)}" for name in usual if (value := getattr(fields.optimizer, name, None)) != usual[name]
    )
    phrases["captions"] += f", dropout {fields.captions.dropout:g}" if fields.captions.dropout else ""
    phrases["captions"] += ", wildcards" if fields.captions.wildcards else ""
    default = filled(RunFields(semantics=fields.semantics, engine=fields.engine), None)
    rest = {name: value for name in _MORE if (value := getattr(fields, name)) not in (None, {}, getattr(default, name))}
    told = [(_TITLES.get(name, name), phrases[name]) for name in _FACETS if phrases[name]]
    return told + [(name, plain(value) if name != "choices" else _pairs(value)) for name, value in rest.items()]


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _header(ledger: Ledger, run: Run) -> str:
    """The YAML of the card, as the Hub's own library writes it. The licence is the author's to say: it follows from the base."""
    from huggingface_hub import ModelCardData

    kind = {"eps": "epsilon-prediction", "v": "v-prediction", "rf": "rectified-flow"}[run.objective.kind]
    zero = ["zero-terminal-snr"] if run.objective.zero_terminal_snr else []
    tags = [_TAGS[ledger.family(run)], "text-to-image", kind, *zero, "astolfo"]
    return ModelCardData(library_name="diffusers", pipeline_tag="text-to-image", tags=tags, inference=False).to_yaml()


def _hashes(path: Path) -> dict[str, str]:
    """The short hashes by which A1111 and Civitai know the file, as its side-car and its metadata have them."""
    sha256 = read_sidecar(path) if sidecar(path).exists() else None
    return hashes.short(sha256, hashes.data_sha256_in(open_file(path).metadata))
