"""Weighted sums of two checkpoints: `base * (1 - alpha) + trained * alpha`, as fast as the disk.

    merge("base.safetensors", "trained.safetensors", {0.5: "half.safetensors"})

Computed in fp32 and rounded once to the output's dtype; the bits depend on inputs, alphas and dtypes alone. Several alphas
read the inputs once. Nothing is ever held but a few pieces of 4 MiB. Rules for what is not a plain weighted sum:

- what a file holds beyond its parts is left out or written anew as `checkpoint.extras` says, and listed;
- where alpha is 0 or 1, the other side is not looked at; the tensor is copied byte for byte if the dtype is kept;
- what is not a float on both sides is copied from the base, and listed where the sides differ in it;
- marker keys (v_pred, ztsnr) are the trained model's: a marker that only the base has is dropped;
- what else lies beside the parts (schedules such as alphas_cumprod, embeddings) is no weight: it is copied byte for byte,
  from the trained model like the markers, and listed where the sides differ in it;
- any other key that only one side has is copied from that side. All three kinds of lonely keys are listed in the result.

The output's dtype is that of the base, tensor by tensor, unless told. Metadata is the trained model's, less what no longer
holds (hash, date, parents, recipe, training), plus the parents' digests and the merge itself.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astolfo.checkpoint.extras import Extras, extras
from astolfo.checkpoint.layout import block_of, identify, is_weight, part_of, same_shape
from astolfo.checkpoint.metadata import MARKERS, inherited
from astolfo.checkpoint.safefile import SIZES, Entry, SafeFile, open_file, plan
from astolfo.checkpoint.stream import Output, produce
from astolfo.digest_cache import digest_of
from astolfo.errors import CheckpointError
from astolfo.files import canonical_json, sidecar, write_sidecar, written
from astolfo.merging import kernel
from astolfo.merging.writer import AHEAD, Job, Source, changed

DTYPES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
UNMERGED = {"F64", "C64", *(dtype for dtype in SIZES if dtype.startswith("F8"))}  # floats of which no sum is made


@dataclass(frozen=True)
class Merged:
    """What a merge wrote: sha256 by alpha (empty without digests), and what deserves a line in its log."""

    digests: dict[float, str]
    direct: bool
    only_in_base: list[str] = field(default_factory=list)
    only_in_trained: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    clamped: dict[str, tuple[int, float]] = field(default_factory=dict)
    no_floats: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    extras: dict[str, list[str]] = field(default_factory=dict)  # by file, what was left out of it or written anew

    def __str__(self) -> str:
        lines = [f"alpha {alpha}: sha256 {digest}" for alpha, digest in self.digests.items()]
        lists = (
            ("copied from the base", self.only_in_base),
            ("copied from the trained model", self.only_in_trained),
            ("dropped", self.dropped),
        )
        lines += [f"{what}, as the other side lacks it: {', '.join(keys)}" for what, keys in lists if keys]
        lines += [f"copied from the base, as it is no float on both sides: {', '.join(self.no_floats)}"] if self.no_floats else []
        lines += [f"copied from the trained model, as it is no weight: {', '.join(self.beside)}"] if self.beside else []
        return "\n".join([*lines, *changed(self.extras, self.clamped)])


def merge(
    base: Path | str,
    trained: Path | str,
    outputs: Mapping[float, Path | str],
    *,
    dtype: str | Mapping[str, str] | None = None,
    per_part: Mapping[str, float] | None = None,
    per_block: Mapping[str, float] | None = None,
    metadata: Mapping[str, str] | Callable[[float], Mapping[str, str]] | None = None,
    threads: int | None = None,
    digests: bool = True,
    direct: bool = True,
) -> Merged:
    """Writes one weighted sum per alpha of `outputs`, each whole or not at all, each with its side-car.

    `per_part` ("vae": 0.0) and `per_block` ("unet.input_blocks.4": 0.3; see `layout.block_of`) replace the outputs' alpha, the
    block's before the part's. `dtype` is "fp16", "bf16" or "fp32", for all parts or by part. `metadata` is added to what is
    inherited; it may be a function of alpha. `threads` defaults to the cores this process may use, at most 8.
    `digests=False` writes no side-cars and does not hash (for measurements); `direct=False` goes through the page cache.

    Raises CheckpointError for damaged or different models and unknown parts or blocks, NumericsError for a NaN or an infinity
    in a tensor that is summed (its key is named), PlacementError when the disk is full.
    """
    alphas = tuple(outputs)
    if not alphas or any(not math.isfinite(alpha) for alpha in alphas):
        raise CheckpointError(f"Expected at least one finite alpha, found {list(alphas)}.")
    if len({Path(path).absolute() for path in outputs.values()}) < len(alphas):
        raise CheckpointError("Expected a file of its own for each alpha, found one path twice.")
    for path in outputs.values():
        check_output(path, (base, trained))
    with open_file(base) as first, open_file(trained) as second:
        _check_kinds(first, second)
        more = {"base": extras(first), "trained": extras(second)}
        sources = _sources(first, second, alphas, _overrides(first, second, per_part or {}, per_block or {}), dtype, more)
        parents = _parents(base, trained) if digests else {}
        specs = {key: (source.dtype, source.shape) for key, source in sources.items()}
        options = {"dtype": dtype, "per_part": per_part, "per_block": per_block}
        added = metadata if callable(metadata) else lambda _: metadata or {}
        plans = [plan(specs, _metadata(second, parents, alpha, options) | dict(added(alpha))) for alpha in alphas]
        job = Job(first, second, sources, plans, _thread_count(threads))
        differ = [key for key, source in sources.items() if _differ(first, second, key, source)]
        found = _write(job, list(outputs.values()), digests, direct)
    return Merged(
        dict(zip(alphas, found, strict=True)) if digests else {},
        job.direct,
        [key for key in first if key not in second and key in sources],
        [key for key in second if key not in first and key in sources],
        [key for key in first if key not in sources and key in MARKERS],
        job.clamped,
        [key for key in differ if sources[key].base],
        [key for key in differ if sources[key].trained],
        {f"{role} {file.path.name}": lines for role, file in (("base", first), ("trained", second))
         if (lines := list(more[role].lines()))},
    )  # fmt: skip


def _differ(first: SafeFile, second: SafeFile, key: str, source: Source) -> bool:
    """Whether both sides have a tensor that was copied from one of them, and not the same bytes."""
    copied = source.literal is None and (source.base is None or source.trained is None)
    return copied and key in first and key in second and first.raw(key) != second.raw(key)


def check_output(path: Path | str, inputs: Iterable[Path | str]) -> None:
    """Raises CheckpointError for an output that is one of the inputs, or whose name says that it is no safetensors file."""
    if os.path.realpath(path) in {os.path.realpath(one) for one in inputs}:
        raise CheckpointError(f"{path} is an input: a merge does not overwrite what it is made from. Name another output.")
    if Path(path).suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(f"{path}: what is written is safetensors, never a pickle. Name it {Path(path).stem}.safetensors.")


def _write(job: Job, paths: list[Path | str], digests: bool, direct: bool) -> list[str]:
    with contextlib.ExitStack() as stack:
        besides = [stack.enter_context(written(path)) for path in paths]
        files = [stack.enter_context(open(file.path, "rb", buffering=0)) for file in (job.base, job.trained)]
        job.files = (files[0].fileno(), files[1].fileno())
        outputs = []
        for beside, header in zip(besides, job.headers, strict=True):
            outputs.append(Output(beside, header + job.data, direct))
            stack.callback(outputs[-1].close)
        job.direct = all(output.direct for output in outputs)
        for piece in range(AHEAD):
            job.ahead(piece - AHEAD)
        produce(outputs, job.fill, job.ahead, job.threads, digests)
        for output, path in zip(outputs, paths, strict=True):
            output.finish()
            sidecar(path).unlink(missing_ok=True)  # never an old digest beside a new file
    if digests:
        return [write_sidecar(path, output.digest.hexdigest()) for path, output in zip(paths, outputs, strict=True)]
    return []


def _thread_count(threads: int | None) -> int:
    return max(1, threads or min(8, len(os.sched_getaffinity(0))))


def _check_kinds(base: SafeFile, trained: SafeFile) -> None:
    kinds = [identify(file.keys()) for file in (base, trained)]
    if kinds[0] != kinds[1] or "adapter" in kinds[0]:
        raise CheckpointError(
            f"Expected two models of the same architecture, found {kinds[0]} ({base.path}) and {kinds[1]} ({trained.path}). "
            "A LoRA has to be baked into a model before it can be merged."
        )


def _overrides(base: SafeFile, trained: SafeFile, parts: Mapping[str, float], blocks: Mapping[str, float]) -> dict[str, float]:
    """The alpha of each key that does not take the outputs'. Raises CheckpointError for parts or blocks no key belongs to."""
    keys = dict.fromkeys([*base.keys(), *trained.keys()])
    names = {key: (part_of(key), f"{part_of(key)}.{block_of(key)}") for key in keys}
    for given, known in ((parts, {part for part, _ in names.values() if part}), (blocks, {b for p, b in names.values() if p})):
        if strange := set(given) - known:
            raise CheckpointError(f"Expected names among {', '.join(sorted(known))}, found {', '.join(sorted(strange))}.")
    return {
        key: float(blocks.get(block, parts.get(part, 0.0)))  # type: ignore[arg-type]
        for key, (part, block) in names.items()
        if block in blocks or part in parts
    }


def _sources(
    base: SafeFile,
    trained: SafeFile,
    alphas: tuple[float, ...],
    overrides: Mapping[str, float],
    dtype: str | Mapping[str, str] | None,
    more: Mapping[str, Extras],
) -> dict[str, Source]:
    dropped = {key for one in more.values() for key in one.dropped}
    replaced = {key: values for one in more.values() for key, values in one.replaced.items()}
    kind, sources = identify(base.keys()), {}
    for key in dict.fromkeys([*base.keys(), *trained.keys()]):
        first, second = base.entries.get(key), trained.entries.get(key)
        if key in dropped:
            continue
        if key in replaced:
            sources[key] = Source(None, None, "I64", replaced[key].shape, alphas, replaced[key].tobytes())
            continue
        if key in MARKERS:
            if second is not None:
                sources[key] = Source(None, second, second.dtype, second.shape, alphas)
            continue
        if not is_weight(key, kind):
            one = second or first
            assert one is not None
            sources[key] = Source(None if second else first, second, one.dtype, one.shape, alphas)
            continue
        if first and second:
            _check_pair(key, first, second)
            second = second if {first.dtype, second.dtype} <= set(kernel.FLOATS) else None
        one = first or second
        assert one is not None
        chosen = _dtype_of(dtype, part_of(key)) if one.dtype in kernel.FLOATS else None
        sources[key] = Source(
            first, second, chosen or one.dtype, one.shape, (overrides[key],) * len(alphas) if key in overrides else alphas
        )
    return sources


def _check_pair(key: str, base: Entry, trained: Entry) -> None:
    if not same_shape(base.shape, trained.shape):
        raise CheckpointError(f"{key}: expected the same shape on both sides, found {base.shape} and {trained.shape}.")
    if strange := {base.dtype, trained.dtype} & UNMERGED:
        raise CheckpointError(
            f"{key}: expected F16, BF16 or F32 to sum, found {', '.join(sorted(strange))}. Convert the file first."
        )


def _dtype_of(dtype: str | Mapping[str, str] | None, part: str | None) -> str | None:
    chosen = dtype.get(part or "") if isinstance(dtype, Mapping) else dtype
    if chosen is not None and chosen not in DTYPES:
        raise CheckpointError(f"Expected one of {', '.join(DTYPES)} as dtype, found {chosen!r}.")
    return DTYPES[chosen] if chosen else None


def _parents(base: Path | str, trained: Path | str) -> dict[str, str]:
    return {"base": digest_of(base), "trained": digest_of(trained)}


def _metadata(trained: SafeFile, parents: Mapping[str, str], alpha: float, options: Mapping[str, Any]) -> dict[str, str]:
    given = {key: dict(value) if isinstance(value, Mapping) else value for key, value in options.items() if value}
    recipe = {"method": "weighted_sum", "alpha": float(alpha)} | given
    about = {"astolfo.merge": canonical_json(recipe), "astolfo.parents": canonical_json(dict(parents))}
    return inherited(trained.metadata) | about
