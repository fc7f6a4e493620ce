"""What every job of the graph needs: its artifacts, its spec, and what it is told. Imports neither torch nor Snakemake.

    graph = Graph(load(CONFIG), lock, CONFIG)
    graph.segment_inputs("my-first", "00000026")    # {"base": "bases/my-base.safetensors", "state": [], ...}
    graph.placement("my-first")                     # "--run-end 78"

The rules in workflow/rules/ call these methods with the values of their wildcards. What a method returns as a job's inputs are
paths of artifacts by their roles, a list where a role has several or none; each has a side-car `PATH.sha256`. What the ledger
does not know is an error with its own words, a ValueError.
"""

import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from astolfo import program
from astolfo.errors import InputError
from astolfo.files import canonical_json
from astolfo.ledger import Ledger, Reference, plan_of, step_of
from astolfo.ledger.code import code_digest
from astolfo.ledger.ledger import INPUTS, SCORER, Run
from astolfo.ledger.specs import MECHA, Spec, Specs
from astolfo.ledger.steps import from_scale, named_steps, restart_before, span_of
from astolfo.ledger.table import eras
from astolfo.provenance import stale
from astolfo.provenance.digests import models

Inputs = dict[str, str | list[str]]

VOCABULARY = "vocabulary/vocab.json"
PROCESSES = (1, 2, 4, 8)
TRIGGERS = ("mtime", "params")  # Snakemake's reasons to run a job again that say something here


class Graph:
    """The graph of a ledger whose folder is `config`, at the ledger's scale. `lock` is the sha256 of the environment's lock file.

    `device` is "cpu" or "cuda", else the scale's; `rebuild` names the runs, bases and datasets whose stale artifacts are made
    again where others are kept. Raises InputError for another device or an unknown name.
    """

    def __init__(
        self, ledger: Ledger, lock: str, config: Path, *, device: str | None = None, rebuild: Iterable[str] = ()
    ) -> None:
        self.ledger, self.lock, self.config = ledger, lock, config
        self.specs, self.reference = Specs(ledger, lock), ledger.reference
        self.device, self.rebuild = device or ledger.scale.device, tuple(rebuild)
        if self.device not in ("cpu", "cuda"):
            raise InputError(f"device={self.device}: expected cpu or cuda.")
        self.proof = self.device == "cpu" and ledger.scale.device == "cuda"
        """Whether a scale for cards is built on a CPU, which proves the graph and trains nothing in a useful time."""
        self.keeps_stale = ledger.scale.protect_results
        """Whether artifacts are write-protected, and kept where other code or another lock made them."""
        self.eras = {era.era: members for era, members in eras(ledger)}
        known = (ledger.runs, ledger.bases, ledger.datasets)
        if unknown := [name for name in self.rebuild if not any(name in entries for entries in known)]:
            raise InputError(f"rebuild={','.join(self.rebuild)}: {', '.join(unknown)} is no run, base or dataset of the ledger.")

    # ---- how a job is called

    def verb(self, text: str, *words: object) -> str:
        """A shell line, as Snakemake formats it, that calls the program. `exec` makes a job Snakemake's own child, so that it
        notices when Snakemake is gone. The ledger's path is whole, so that the line is the same however the ledger was named;
        else Snakemake reports every rule as changed."""
        scale = self.ledger.scale_name
        line = (sys.executable, "-P", "-m", "astolfo", "--config", self.config.resolve(), "--scale", scale, *words)
        return f"exec {shlex.join(map(str, line)).replace('{', '{{').replace('}', '}}')} {text}"

    def job(self, text: str, device: bool = False) -> str:
        """A shell line that calls a job, on the device in use where it has one to choose."""
        where = f" --device {self.device}" if device else ""
        return self.verb(f"{text}{where}", "job", "--tied", "--lock", program.LOCK)

    # ---- what there is

    def models(self) -> list[str]:
        """Every model that the ledger is about: results, the merges that outcomes name, and the bases that the graph makes."""
        return [model.path for model in models(self.ledger)]

    def targets(self) -> list[str]:
        """What is made without a target: what the ledger names, else its newest run and that run's evaluation."""
        newest = self.ledger.newest()
        named = self.ledger.about.targets or ((newest.id, f"evaluations/{newest.id}") if newest else ())
        return [f"{one}/index.html" if one.startswith("evaluations/") else self.reference(one).path for one in named]

    def losses(self) -> list[str]:
        """The loss curves of every era with a run that counts."""
        return [f"losses/{era}.png" for era, members in self.eras.items() if any(run.counts for run in members)]

    def bases_by(self, maker: str) -> list[str]:
        """The bases that come to be in one way: "file", "stand_in", "made_by", "merge" or "mecha"; the first that one has."""
        ways = ("file", "stand_in", "made_by", "merge", "mecha")
        origins = {name: self.ledger.origin(name) for name in self.ledger.bases}
        return [name for name, origin in origins.items() if next((way for way in ways if getattr(origin, way)), None) == maker]

    def autoencoders(self) -> list[str]:
        """The bases that are autoencoders."""
        return [name for name, base in self.ledger.bases.items() if base.kind == "autoencoder"]

    def datasets_by(self, way: str) -> list[str]:
        """The datasets that come to be in one way at this scale: "drawn", "folder", "store" or "parts"."""
        return [name for name in self.ledger.datasets if self.ledger.dataset_source(name)[0] == way]

    # ---- specs

    def canonical(self, spec: Spec, artifact: str, params: stale.Params = lambda path: None) -> str:
        """The canonical JSON of an artifact's spec; of one that is kept though stale, with the code and lock that its plan named.

        `params` gives what Snakemake has recorded of a path's job.
        """
        if (
            self.keeps_stale
            and (spec["run"] if spec["verb"] == "evaluate" else stale.owner_of(Path(artifact))) not in self.rebuild
        ):
            spec = spec | (stale.named(Path(artifact), params) if "code" in spec else {})
        return canonical_json(spec)

    def segment(self, run: str, step: str) -> Spec:
        """The spec of the segment that ends at a state's step."""
        found, end = self.ledger.run(run), int(step)
        boundaries = plan_of(self.ledger, found).boundaries
        if end not in boundaries[1:]:
            saved = ", ".join(f"{run}-step{from_scale(self.ledger, found, at):08d}" for at in boundaries[1:])
            raise found.error(
                f"run {run} saves no state at step {end} at this scale; it does at {', '.join(map(str, boundaries[1:]))}, "
                f"so there are {saved}."
            )
        return self.specs.segment(run, end)

    def model(self, name: str) -> Spec:
        """The spec of a model by its name: "my-first-0.50"."""
        return self.specs.model(self.reference(name))

    def evaluation(self, evaluation: str) -> Spec:
        """The spec of an evaluation by its folder: "my-first-course"."""
        return self.specs.evaluation(*self.ledger.evaluated(evaluation))

    def era_losses(self, era: str) -> Spec:
        """The spec of an era's loss curves."""
        return {"verb": "losses", "era": era, "runs": [run.id for run in self.eras[era]], "code": code_digest("losses")}

    def card(self, run: str) -> Spec:
        """The spec of a model card."""
        entry = self.ledger.run(run).entry
        outcome = entry.outcome.model_dump(mode="json")
        return {"verb": "card", "run": run, "outcome": outcome, "note": entry.note, "code": code_digest("card")}

    # ---- inputs

    def base_made_inputs(self, base: str) -> Inputs:
        """The model that a base is a copy of."""
        return {"model": self.reference(str(self.ledger.origin(base).made_by)).path}

    def base_stand_in_inputs(self, base: str) -> Inputs:
        """The model that a stand-in is made from, where the graph makes it: a shipped one is no input."""
        return self.base_made_inputs(base) if self.ledger.origin(base).made_by else {"model": []}

    def base_merged_inputs(self, base: str) -> Inputs:
        """The two models of a base's merge."""
        merge = self.ledger.origin(base).merge
        assert merge
        return {"trained": self.reference(merge.trained).path, "base": self.reference(merge.base).path}

    def base_mecha_inputs(self, base: str) -> Inputs:
        """The models of an sd-mecha recipe in the order of its names."""
        return {"models": [path for _, path in self._mecha(base)]}

    def joined_inputs(self, dataset: str) -> Inputs:
        """The stores of a dataset's parts."""
        return {f"part{number}": store_of(part) for number, part in enumerate(self.ledger.datasets[dataset].parts or ())}

    def autoencoder_inputs(self, dataset: str) -> Inputs:
        """The autoencoder behind which a dataset's latents lie."""
        return {"autoencoder": Reference(base=self.ledger.datasets[dataset].autoencoder).path}

    def segment_inputs(self, run: str, step: str) -> Inputs:
        """What a segment trains from: a model, the state before it, a dataset, the vocabulary."""
        found, spec = self.ledger.run(run), self.segment(run, step)
        first = spec["from"] == spec["recipe"]["first_step"]
        return {
            "base": self._start(found, spec["to"]),
            "state": [] if first else state_of(run, spec["from"]),
            "dataset": store_of(str(found.fields.dataset)),
            "vocabulary": VOCABULARY,
        }

    def checkpoint_inputs(self, checkpoint: str) -> Inputs:
        """The state of a checkpoint, the model that it began from, and, for a run from nothing, the autoencoder it carries."""
        wanted = self.reference(checkpoint)
        run, step = self.ledger.run(str(wanted.run)), step_of(self.ledger, wanted)
        carried = [] if run.fields.base else self.autoencoder_inputs(str(run.fields.dataset))["autoencoder"]
        return {"base": self._start(run, step), "state": state_of(run.id, step), "autoencoder": carried}

    def merge_inputs(self, checkpoint: str, alpha: str) -> Inputs:
        """A checkpoint and the base that it is merged with."""
        trained = self.reference(checkpoint)
        return {"trained": trained.path, "base": self.ledger.merge_base(self.ledger.run(str(trained.run))).path}

    def evaluation_inputs(self, evaluation: str) -> Inputs:
        """A run's result, its base, the checkpoints that the evaluation set samples besides, and the vocabulary."""
        run, name = self.ledger.evaluated(evaluation)
        based = self.ledger.run(run).fields.base
        return {
            "trained": Reference(run=run).path,
            "vocabulary": VOCABULARY,
            "checkpoints": [one.path for one in self.specs.sampled(run, name)],
            "base": self.ledger.merge_base(self.ledger.run(run)).path if based else [],
        }

    def losses_inputs(self, era: str) -> Inputs:
        """The last state of each run of an era, which has its whole loss curve.

        Where a run stopped early its last state is handed on to the end, so every run has one there.
        """
        return {"states": [state_of(run.id, plan_of(self.ledger, run).end) for run in self.eras[era]]}

    def card_inputs(self, run: str) -> Inputs:
        """The model that a card is about."""
        return {"model": Reference(run=run).path}

    # ---- what a job is told besides

    def processes(self, run: str, cores: int, cards: int) -> int:
        """How many processes run the logical ranks here: the most that share them evenly and fit the cores, or the cards.

        Decides no bit.
        """
        ranks, most = self.ledger.run(run).fields.ranks or 1, max(cores, 1)
        if self.proof:
            most = 1  # each process would hold a model of true size
        if self.device == "cuda":
            most = min(most, cards)
        return max(count for count in PROCESSES if ranks % count == 0 and count <= max(most, 1))

    def placement(self, run: str) -> str:
        """The options of a run's placement: what a job is told that decides no bit."""
        found = self.ledger.run(run)
        given, options = found.fields.placement, [f"--run-end {plan_of(self.ledger, found).end}"]
        if given is None:
            return options[0]
        if given.ramdisk:
            options.append("--ramdisk")
        if given.offload_gradients is not None:
            options.append("--offload-gradients" if given.offload_gradients else "--keep-gradients")
        values: dict[str, object] = {
            "numa": given.numa,
            "loader-workers": given.loader_workers,
            "sample-every": given.sample_every and span_of(self.ledger, found, given.sample_every),
            "keep-states": given.keep_states,
        }
        if (blocks := given.gradient_checkpointing) is not None:
            values["gradient-checkpointing"] = ("none", "all")[blocks] if isinstance(blocks, bool) else ",".join(blocks) or "none"
        options += [f"--{name} {value}" for name, value in values.items() if value is not None]
        if given.sample_every:
            options.append(f"--samples logs/samples/{run}")
        if given.keep_states:
            options += [f"--named {step}" for step in named_steps(self.ledger, found)]
        return " ".join(options)

    def remade_by(self, base: str) -> str:
        """The target that makes the file which is shipped or brought for a base; empty when nothing in the graph does."""
        origin = self.ledger.origin(base)
        if self.ledger.base(base).kind == "autoencoder":
            return f"rebuilt/{base}.safetensors" if self.ledger.scale.autoencoder_training else ""
        return self.reference(origin.made_by).path if origin.made_by else ""

    def mecha_options(self, base: str) -> str:
        """`--recipes FOLDER`, and `--model NAME=PATH` for every model of an sd-mecha recipe."""
        given = [("--model", f"{name}={path}") for name, path in self._mecha(base)]
        return shlex.join(["--recipes", str(self.config / MECHA), *(word for pair in given for word in pair)])

    def joined_options(self, dataset: str) -> str:
        """`--part NAME FOLDER` for every part of a dataset."""
        return " ".join(f"--part {name} datasets/{name}" for name in self.ledger.datasets[dataset].parts or ())

    def evaluation_options(self, evaluation: str) -> str:
        """What an evaluation is given besides its models: earlier checkpoints, and what of the user's own lies below inputs/."""
        run, name = self.ledger.evaluated(evaluation)
        given = [f"--checkpoint {str(one).removeprefix(f'{one.run}-')}={one.path}" for one in self.specs.sampled(run, name)]
        own = {"--held-out": Path(INPUTS, "held-out"), "--scorer": Path(INPUTS, SCORER)}
        drawn = self.ledger.scale.pictures is not None
        given += [f"{option} {path}" for option, path in own.items() if not drawn and path.exists()]
        return " ".join(given)

    # ---- what is stale

    def stale(self) -> tuple[list[stale.Stale], list[str]]:
        """Of the stale artifacts of the working directory: those that are made again, and what is to be said of the others."""
        found = stale.find(Path(), self.lock) if self.keeps_stale else []
        kept = [one for one in found if one.owner not in self.rebuild]
        messages = []
        for line in stale.lines(kept):
            owner = line.partition(":")[0]
            accept = program.command("accept", owner, "--reason", "...")
            messages.append(
                f"Stale: {line} than those in use. It is kept as it is: `{accept}` puts that on record, "
                f"`--config rebuild={owner}` makes it again."
            )
        return [one for one in found if one.owner in self.rebuild], messages

    def check_triggers(self, triggers: Iterable[str]) -> None:
        """Raises InputError for those of Snakemake's reasons to run a job again that look at the text of rules and at lists of
        inputs, where a finished training is kept."""
        if self.keeps_stale and set(triggers) & {"code", "input"}:
            raise InputError(
                "Snakemake would run finished trainings again because their rules were written anew: expected the rerun triggers "
                f"{' and '.join(TRIGGERS)}, found {', '.join(sorted(triggers))}. Use this program's profile "
                f"(workflow/profiles/default), or say `--rerun-triggers {' '.join(TRIGGERS)}`."
            )

    def _start(self, run: Run, end: int) -> str | list[str]:
        """The model that the weights of a run's segment before `end` start from; [] for a run from nothing."""
        restart = restart_before(self.ledger, run, end) if run.fields.restart_epochs else None
        parent = restart or self.ledger.parent(run)
        return parent.path if parent else []

    def _mecha(self, base: str) -> list[tuple[str, str]]:
        """The names of an sd-mecha recipe's models, and the paths of those that stand for them."""
        mecha = self.ledger.origin(base).mecha
        assert mecha
        return [(name, self.reference(model).path) for name, model in mecha.models.items()]


def state_of(run: str, step: int) -> str:
    """The state of a run at a step of the scale."""
    return f"states/{run}/{step:08d}.safetensors"


def store_of(dataset: str) -> str:
    """The manifest of a dataset's store."""
    return f"datasets/{dataset}/store.json"


def one_of(names: Iterable[str]) -> str:
    """A wildcard pattern that matches just these names; one that matches nothing when there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def with_side_cars(inputs: Inputs, untimed: Callable[[Any], Any]) -> dict[str, Any]:
    """Named inputs for artifacts: the files themselves, whose time does not count (`untimed`), and their side-cars, whose content
    does: Snakemake compares content up to 1 MB only, and would look at the time of larger files."""
    found: dict[str, Any] = {}
    for role, path in inputs.items():
        found[role] = untimed(path)
        found[f"{role}_digest"] = f"{path}.sha256" if isinstance(path, str) else [f"{one}.sha256" for one in path]
    return found
