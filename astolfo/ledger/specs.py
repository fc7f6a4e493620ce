"""Specs: for every artifact of the graph, one JSON value that says all that decides its bytes.

A spec names the recipe, the identities of the parents, the digest of the code involved and of the lock file. The digest
of a spec is the artifact's identity before it is built. Where a segment boundary lies decides nothing, so the identity of
a state leaves out where its segment began; and it leaves out code and lock, which say who makes the artifact, not what it
is to be (`astolfo.provenance.stale` keeps that record).
"""

from bisect import bisect_left
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from astolfo.errors import LedgerError
from astolfo.files import json_digest, sha256_of
from astolfo.ledger.code import code_digest
from astolfo.ledger.content import content, digest_of_store
from astolfo.ledger.evaluations import RESULT, SAVED, sampling
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.recipe import recipe_of
from astolfo.ledger.references import Reference, parse
from astolfo.ledger.schema import Family
from astolfo.ledger.standins import AMOUNT
from astolfo.ledger.steps import from_scale, full_steps, plan_of, restart_before, step_of

Spec = dict[str, Any]
MECHA = "mecha"  # where, in the ledger's folder, the recipes of sd-mecha lie
_IDENTITY_LEAVES_OUT = ("from", "file", "code", "lock")


def identity(spec: Spec) -> str:
    """The digest that names an artifact before it exists."""
    return json_digest({key: value for key, value in spec.items() if key not in _IDENTITY_LEAVES_OUT})


class Specs:
    """The specs of a ledger's artifacts. `lock` is the sha256 of the environment's lock file."""

    def __init__(self, ledger: Ledger, lock: str):
        self.ledger, self.lock = ledger, lock
        self._trained: dict[tuple[Run, Reference | None], Spec] = {}  # what all segments of a stretch share
        for name in ("vocabulary", "autoencoder", "base", "dataset", "segment", "model", "evaluation"):
            setattr(self, name, cache(getattr(self, name)))

    def _spec(self, verb: str, parents: Mapping[str, Spec | None], **content: Any) -> Spec:
        named = {role: identity(spec) for role, spec in parents.items() if spec is not None}
        return {
            "verb": verb, "scale": self.ledger.scale_name, "parents": named, "code": code_digest(verb), "lock": self.lock,
            **content,
        }  # fmt: skip

    def vocabulary(self) -> Spec:
        """The CLIP vocabulary: made from the procedural words, or a pinned folder."""
        origin = self.ledger.vocabulary_origin()
        if origin.file:
            return {"verb": "pinned", "sha256": origin.sha256, "file": origin.file}
        return self._spec("vocabulary", {})

    def autoencoder(self, name: str) -> Spec:
        """An autoencoder trained from nothing on the scale's pictures."""
        scale = self.ledger.scale
        if scale.autoencoder_training is None or scale.pictures is None:
            raise LedgerError(f"Scale {self.ledger.scale_name} trains no autoencoder: pin a file for {name} instead.")
        family = self.ledger.base(name).family
        return self._spec(
            "autoencoder", {}, family=family, architecture=scale.architectures[family],
            training=scale.autoencoder_training.model_dump(), pictures=scale.pictures,
        )  # fmt: skip

    def base(self, name: str) -> Spec:
        """A base: its pinned digest, or what makes it."""
        origin = self.ledger.origin(name)
        if origin.file:
            base = self.ledger.base(name)
            return {"verb": "pinned", "sha256": origin.sha256, "file": origin.file, "family": base.family, "kind": base.kind}
        if origin.stand_in:
            made = self.model(self.ledger.reference(origin.made_by)) if origin.made_by else None
            digest = {} if made else {"sha256": self.ledger.stand_ins[origin.stand_in].sha256}
            return self._spec("stand-in", {"model": made}, of=origin.stand_in, amount=AMOUNT, name=name, **digest)
        if origin.made_by:
            return self.model(self.ledger.reference(origin.made_by))
        if origin.merge:
            merged = {"base": origin.merge.base, "trained": origin.merge.trained}
            parents = {role: self.model(self.ledger.reference(model)) for role, model in merged.items()}
            return self._spec("merge", parents, alpha=origin.merge.alpha, title=name)
        assert origin.mecha
        recipe, models = origin.mecha.recipe, origin.mecha.models
        parents = {role: self.model(self.ledger.reference(model)) for role, model in models.items()}
        written = sha256_of(self.ledger.folder / MECHA / f"{recipe}.mecha")
        return self._spec("mecha", parents, recipe=recipe, recipe_sha256=written, models=models, title=name)

    def dataset(self, name: str) -> Spec:
        """A dataset store made from the scale's procedural pictures or of a folder's, or brought by the user."""
        scale, encoder = self.ledger.scale, self.ledger.datasets[name].autoencoder
        if parts := self.ledger.datasets[name].parts:
            return self._spec("joined", {part: self.dataset(part) for part in parts}, repeats=parts)
        size, (kind, place) = self.ledger.dataset(name), self.ledger.dataset_source(name)
        flip = {"flip": True} if self.ledger.datasets[name].flip else {}
        family = self.ledger.base(encoder).family
        if kind == "store":
            digest = self.ledger.dataset_digest(name)
            given: Spec = {"verb": "given", "dataset": name, "images": size.images, "digest": digest, **flip}
            return given if size.store is None else given | self._named_store(str(digest), place, family)
        if kind == "folder":
            held = content(place)
            return self._spec(
                "import", {"autoencoder": self.base(encoder)}, images=size.images, content=held.digest if held else "unknown",
                sizes=scale.buckets[family].model_dump(), seed=size.seed, family=family, architecture=scale.architectures[family],
                **flip,
            )  # fmt: skip
        return self._spec(
            "dataset", {"autoencoder": self.base(encoder)}, images=size.images, seed=size.seed, pictures=scale.pictures,
            family=family, architecture=scale.architectures[family], **flip,
        )  # fmt: skip

    def _named_store(self, digest: str, place: Path, family: Family) -> Spec:
        """Of a store that an entry names: its own digest where no other is known, and the latents that it must have."""
        vae = self.ledger.scale.architectures[family]["vae"]
        latents = {"channels": vae["latent_channels"], "factor": 2 ** (len(vae["block_out_channels"]) - 1)}
        return {"digest": digest_of_store(place) if digest == "unknown" else digest, "latents": latents}

    def segment(self, run_id: str, end: int) -> Spec:
        """The segment of a run that ends at step `end`; `from` is where it begins."""
        run = self.ledger.run(run_id)
        boundaries = plan_of(self.ledger, run).boundaries
        begin = boundaries[bisect_left(boundaries, end) - 1]
        key = restart_before(self.ledger, run, end)
        if (run, key) not in self._trained:
            parents = {
                "base": self._start(run, key),
                "dataset": self.dataset(str(run.fields.dataset)),
                "vocabulary": self.vocabulary(),
            }
            self._trained[run, key] = self._spec("train", parents, recipe=recipe_of(self.ledger, run, key).canonical())
        return self._trained[run, key] | {"from": begin, "to": end}

    def model(self, reference: Reference) -> Spec:
        """A single-file model: a base, a run's checkpoint, or a merge."""
        if reference.base:
            return self.base(reference.base)
        run = self.ledger.run(str(reference.run))
        if digest := self.ledger.adopted.get(str(reference)):
            file = {"sha256": digest, "file": f"{reference}.safetensors"}
            return {"verb": "adopted", "family": self.ledger.family(run), "kind": "model", **file}
        if reference.alpha:
            trained, base = parse(reference.checkpoint), self.ledger.merge_base(run)
            merged = {"base": self.model(base), "trained": self.model(trained)}
            return self._spec("merge", merged, alpha=reference.alpha, title=str(reference))
        step = step_of(self.ledger, reference)
        restart = restart_before(self.ledger, run, step)
        parents: dict[str, Spec | None] = {"state": self.segment(run.id, step), "base": self._start(run, restart)}
        about = self._about(run, restart)
        end = plan_of(self.ledger, run).end
        if step != end:
            about["run_steps"] = end
        elif stopped := self._stopped(run):
            about["stopped"] = stopped
        return self._spec("export", parents, title=str(reference), images=self.ledger.dataset_of(run).images, **about)

    def evaluation(self, run_id: str, name: str = "default") -> Spec:
        """The evaluation of a run's result, or of its checkpoints, under the set `name`."""
        run = self.ledger.run(run_id)
        wanted = self.ledger.evaluation(name)
        settings = sampling(
            name, wanted, self.ledger.prompts[wanted.prompts], scale=self.ledger.scale_name, runtime=run.objective.kind,
            alpha=run.entry.outcome.alpha, saved=[*self.saved(run), RESULT],
        )  # fmt: skip
        base = self.model(self.ledger.merge_base(run)) if run.fields.base else None
        parents = {"trained": self.model(Reference(run=run_id)), "base": base, "vocabulary": self.vocabulary()}
        parents |= {str(one): self.model(one) for one in self.sampled(run_id, name)}
        return self._spec(
            "evaluate",
            parents,
            run=run_id,
            settings=settings.model_dump(mode="json", exclude_none=True),
            outcome=run.entry.outcome.text,
            pictures=self.ledger.scale.pictures,
            scorer=self.ledger.scorer,
            **self._about(run),
        )

    def saved(self, run: Run) -> dict[str, Reference]:
        """The checkpoints that a run saves before its result, by their names: "step00259305"."""
        steps = [from_scale(self.ledger, run, at) for at in plan_of(self.ledger, run).boundaries[1:-1]]
        found = [Reference(run=run.id, step=step) for step in steps]
        return {str(one).removeprefix(f"{run.id}-"): one for one in found}

    def sampled(self, run_id: str, name: str) -> list[Reference]:
        """The checkpoints, besides its result, that the evaluation of a run under the set `name` samples."""
        axes = [axis for grid in self.ledger.evaluation(name).grids.values() for axis in (grid.x, grid.z)]
        wanted = {value for axis in axes if axis and axis.checkpoint for value in axis.values}
        saved = self.saved(self.ledger.run(run_id))
        return [one for key, one in saved.items() if SAVED in wanted or key in wanted]

    def _start(self, run: Run, restart: Reference | None = None) -> Spec | None:
        parent = restart or self.ledger.parent(run)
        return self.model(parent) if parent else None

    def _stopped(self, run: Run) -> str | None:
        """What the result of a run that the record ended early says of it."""
        if run.fields.until_step is None or run.entry.outcome.kind not in ("stopped", "nan"):
            return None
        return f"at step {run.fields.until_step:,} of {full_steps(self.ledger, run):,}: {run.entry.outcome.text}"

    def _about(self, run: Run, restart: Reference | None = None) -> Spec:
        recipe = recipe_of(self.ledger, run, restart)
        return {"recipe": recipe.canonical(), "semantics": run.fields.semantics, "autoencoder": self._autoencoder_of(run)}

    def _autoencoder_of(self, run: Run) -> str | None:
        """For a run from nothing: the autoencoder that its result carries."""
        return None if run.fields.base else identity(self.base(self.ledger.datasets[str(run.fields.dataset)].autoencoder))
