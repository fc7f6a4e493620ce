"""Merges by any method of sd-mecha, from a written recipe, as files that two builds write alike.

    merge_mecha("config/mecha/mine.mecha", {"a": "one.safetensors", "b": "sdxl.safetensors"}, "mine.safetensors")

The recipe is sd-mecha's own text form, except that its models are names (`model "a"`), which stand for files only here.
The library computes, in fp32 on the CPU, in one thread; it gets its tensors from our reader and hands them to our layout,
one at a time, so neither paths nor its file format, threads or key order reach the result. Rules:

- what is a float on all sides goes through the recipe; what the recipe leaves out of it is the first model's;
- what is no float (position_ids), and what not all models have, is copied from the first model that has it, and listed;
- what a file holds beyond its parts is left out or written anew as `checkpoint.extras` says, and listed;
- what lies beside the parts (schedules such as alphas_cumprod, embeddings) is no weight: it is copied from the first model
  that has it, and listed;
- marker keys (v_pred, ztsnr) are the first model's: a marker that only others have is dropped;
- dtypes and metadata are the first model's, less what no longer holds (hash, date, parents, recipe, training), plus the parents'
  digests and the merge itself.

The first model is the one that the recipe names first. Methods that draw random numbers need a seed in the recipe.
"""

import hashlib
import importlib.metadata
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from astolfo import numerics
from astolfo.checkpoint.extras import Extras, extras
from astolfo.checkpoint.layout import PREFIXES, identify, is_weight, same_shape
from astolfo.checkpoint.metadata import MARKERS, inherited
from astolfo.checkpoint.safefile import SIZES, Entry, SafeFile, open_file, plan
from astolfo.digest_cache import digest_of
from astolfo.errors import AstolfoError, CheckpointError, LedgerError, NumericsError
from astolfo.files import canonical_json, read_text, sha256_of, sidecar, write_sidecar, written
from astolfo.merging import kernel
from astolfo.merging.weighted_sum import DTYPES, UNMERGED, check_output
from astolfo.merging.writer import BLOCK, changed

_NAME = re.compile(r'model +"([^"]*)"')


@dataclass(frozen=True)
class Mixed:
    """What a recipe wrote: the sha256, and what deserves a line in the log."""

    digest: str
    copied: dict[str, str] = field(default_factory=dict)  # key -> name of the model
    dropped: list[str] = field(default_factory=list)
    clamped: dict[str, tuple[int, float]] = field(default_factory=dict)
    extras: dict[str, list[str]] = field(default_factory=dict)  # by model, what was left out of it or written anew

    def __str__(self) -> str:
        lines = [f"sha256 {self.digest}"]
        for name in dict.fromkeys(self.copied.values()):
            lines.append(f"copied from {name}: {', '.join(key for key, source in self.copied.items() if source == name)}")
        if self.dropped:
            lines.append(f"dropped, as the first model lacks it: {', '.join(self.dropped)}")
        return "\n".join([*lines, *changed(self.extras, self.clamped)])


def merge_mecha(
    recipe: Path | str,
    models: Mapping[str, Path | str],
    out: Path | str,
    *,
    dtype: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Mixed:
    """Carries out a `.mecha` recipe on `models` (name in the recipe -> file), whole or not at all, with a side-car.

    `dtype` ("fp16", "bf16", "fp32") replaces the first model's dtypes; `metadata` is added to what is inherited. Raises
    LedgerError for a recipe that sd-mecha does not understand, whose names are not those given, or that draws random
    numbers without a seed; CheckpointError for damaged or different models; NumericsError for a NaN or an infinity, with its
    key.
    """
    numerics.pin()
    numerics.make_deterministic()
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f"Expected one of {', '.join(DTYPES)} as dtype, found {dtype!r}.")
    text = normalised(recipe)
    graph = _parse(recipe, text)
    names = _names(recipe, text, graph, models)
    check_output(out, models.values())
    files = {name: open_file(models[name]) for name in names}
    try:
        _check_kinds(files)
        more = {name: extras(file) for name, file in files.items()}
        merged, copied, written_anew = _shares(files, more)
        first = files[names[0]]
        specs = {key: (DTYPES[dtype] if dtype else first.dtype(key), first.shape(key)) for key in merged}
        specs |= {key: (files[name].dtype(key), files[name].shape(key)) for key, name in copied.items()}
        specs |= {key: ("I64", values.shape) for key, values in written_anew.items()}
        parents = {name: digest_of(models[name]) for name in sorted(names)}
        header, places = plan(specs, _metadata(first, text, parents, dtype) | dict(metadata or {}))
        with written(out) as beside:
            with open(beside, "wb") as file:
                file.write(header)
                output = _Output(file, {key: places[key] for key in merged})
                _execute(recipe, graph, files, output)
                for key, name in copied.items():
                    file.seek(places[key].start)
                    file.write(files[name].raw(key))
                for key, values in written_anew.items():
                    file.seek(places[key].start)
                    file.write(values.tobytes())
            digest = sha256_of(beside)
            sidecar(out).unlink(missing_ok=True)  # never an old digest beside a new file
        write_sidecar(out, digest)
    finally:
        for opened in files.values():
            opened.close()
    dropped = sorted({key for opened in files.values() for key in opened if key not in specs and key in MARKERS})
    return Mixed(digest, copied, dropped, output.clamped, {name: list(one.lines()) for name, one in more.items()})


def normalised(recipe: Path | str) -> str:
    """A recipe's text without comments, empty lines and indentation: what of it decides the result."""
    try:
        text = read_text(recipe, LedgerError)
    except OSError as error:
        raise LedgerError(f"Expected a .mecha recipe at {recipe}, but it cannot be read: {error}.") from None
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _library() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using slow pure-python SequenceMatcher")
        import sd_mecha
    return sd_mecha


def _parse(recipe: Path | str, text: str) -> Any:
    """The recipe as sd-mecha's graph. Raises LedgerError with sd-mecha's own words."""
    library = _library()
    try:
        graph = library.deserialize(text)
    except Exception as error:  # ValueError, KeyError, TypeError, IndexError ...: it has no class of its own for this
        raise LedgerError(f"{recipe} is no recipe that sd-mecha understands: {_words(error)}") from None
    if not isinstance(graph, library.RecipeNode):
        raise LedgerError(f"{recipe}: expected a merge or a model in its last line, found a {type(graph).__name__}.")
    for node in graph:
        arguments = node.bound_args.arguments if isinstance(node, library.recipe_nodes.MergeRecipeNode) else {}
        for name, value in arguments.items():
            if name.endswith("seed") and not all(isinstance(number, int) for number in _literals(library, value)):
                raise LedgerError(
                    f"{recipe}: {node.merge_method.identifier} draws random numbers, so two builds would differ. Give it "
                    f"a number: {name}=0."
                )
    return graph


def _literals(library: Any, node: Any) -> Iterator[Any]:
    """The values of all literals below `node`."""
    for below in node:
        if isinstance(below, library.recipe_nodes.LiteralRecipeNode):
            yield from below.value_dict.values()


def _names(recipe: Path | str, text: str, graph: Any, given: Mapping[str, Any]) -> list[str]:
    """The models' names in the order of the recipe. Raises LedgerError unless all are used, and are those given."""
    nodes = _library().recipe_nodes
    named = list(dict.fromkeys(match[1] for line in text.splitlines() if (match := _NAME.match(line))))
    used = {str(node.path) for node in graph if isinstance(node, nodes.ModelRecipeNode)}
    if strange := [name for name in named if re.search(r"[/\\]", name)]:
        raise LedgerError(
            f"{recipe} names {', '.join(strange)}: expected names, not paths; which files they are is said elsewhere."
        )
    if unused := [name for name in named if name not in used]:
        raise LedgerError(f"{recipe} names {', '.join(unused)} and does not use it; delete the line.")
    if set(named) != set(given) or not named:
        raise LedgerError(
            f"{recipe} needs a file for each of: {', '.join(named) or 'nothing at all'}; found {', '.join(given) or 'none'}."
        )
    return named


def _check_kinds(files: Mapping[str, SafeFile]) -> None:
    kinds = {name: identify(file.keys()) for name, file in files.items()}
    if len(set(kinds.values())) > 1 or "adapter" in "".join(kinds.values()):
        found = ", ".join(f"{kind} ({files[name].path})" for name, kind in kinds.items())
        raise CheckpointError(
            f"Expected models of the same architecture, found {found}. A LoRA has to be baked into a model before it can be "
            "merged."
        )


def _shares(files: Mapping[str, SafeFile], more: Mapping[str, Extras]) -> tuple[list[str], dict[str, str], dict[str, np.ndarray]]:
    """The keys that go through the recipe, the name of the model that others are copied from, and what is written anew."""
    dropped = {key for one in more.values() for key in one.dropped}
    anew = {key: values for one in more.values() for key, values in one.replaced.items()}
    merged, copied = [], {}
    first = next(iter(files.values()))
    kind = identify(first.keys())
    for key in dict.fromkeys(key for file in files.values() for key in file):
        having = {name: file.entries[key] for name, file in files.items() if key in file}
        if (key in MARKERS and key not in first) or key in dropped:
            continue
        entries = list(having.values())
        if not is_weight(key, kind):
            copied[key] = next(iter(having))
            continue
        if key in anew:
            if key not in more[next(iter(having))].replaced:
                copied[key] = next(iter(having))
                del anew[key]
        elif len(having) == len(files) and {entry.dtype for entry in entries} <= set(kernel.FLOATS) and 0 not in entries[0].shape:
            merged.append(key)
        else:
            copied[key] = next(iter(having))
        shapes = {name: entry.shape for name, entry in having.items()}
        if not all(same_shape(shape, entries[0].shape) for shape in shapes.values()):
            raise CheckpointError(f"{key}: expected the same shape in all models, found {shapes}.")
        if len(having) == len(files) and (strange := {entry.dtype for entry in entries} & UNMERGED):
            raise CheckpointError(
                f"{key}: expected F16, BF16 or F32 to merge, found {', '.join(sorted(strange))}. Convert the file first."
            )
    return merged, copied, anew


def _metadata(first: SafeFile, text: str, parents: Mapping[str, str], dtype: str | None) -> dict[str, str]:
    merge = {
        "method": "sd-mecha",
        "version": importlib.metadata.version("sd-mecha"),
        "recipe": hashlib.sha256(text.encode()).hexdigest(),
        "models": dict(parents),
    } | ({"dtype": dtype} if dtype else {})
    about = {"astolfo.merge": canonical_json(merge), "astolfo.parents": canonical_json(dict(parents))}
    return inherited(first.metadata) | about


def _execute(recipe: Path | str, graph: Any, files: Mapping[str, SafeFile], output: "_Output") -> None:
    """Has sd-mecha compute every tensor of `output`; raises LedgerError when the recipe cannot be carried out."""
    import functools

    import torch
    from tqdm import tqdm

    library = _library()
    config = _config(library, output.places)
    inputs = {name: _Input(name, file, output.places) for name, file in files.items()}

    # sd-mecha reads from the annotations what a method takes and gives.
    wanted: Any = library.Parameter(library.StateDict[torch.Tensor], "weight")
    result: Any = library.Return(torch.Tensor, "weight")

    @library.merge_method(identifier="astolfo_write", register=False, reuse_outputs=False)  # type: ignore[untyped-decorator]
    def write(model: wanted, **about) -> result:  # type: ignore[no-untyped-def]  # it reads all of them
        output.write(about["key"], model[about["key"]])
        return torch.empty(0)  # sd-mecha keeps what the last step returns until all keys are done

    first = library.recipe_nodes.OpenModelRecipeNode(next(iter(inputs.values())), Path(next(iter(inputs))), config, "weight")
    try:
        library.merge(
            write(library.fallback(_bind(library, graph, inputs, config), first)),
            merge_device="cpu",
            merge_dtype=torch.float32,
            output_device=None,
            output_dtype=None,
            threads=0,
            check_extra_keys=False,
            check_finite_output=False,  # we check, and stop
            omit_non_finite_inputs=False,
            tqdm=functools.partial(tqdm, disable=True),
        )
    except (AstolfoError, OSError):
        raise
    except Exception as error:  # whatever a merge method raises
        raise LedgerError(f"{recipe} cannot be carried out on these models: {_words(error)}") from error
    if missing := output.places.keys() - output.done:
        raise LedgerError(f"{recipe}: sd-mecha returned nothing for {len(missing)} keys: {', '.join(sorted(missing)[:10])}.")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error.args[0] if error.args else ''}".split("\nTrace:")[0]


_COMPONENTS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "vae": "vae", "unet": "diffuser"}
"""The parts of SDXL -> sd-mecha's names of them."""


def _config(library: Any, keys: Mapping[str, Any]) -> Any:
    """The model config of the keys: sd-mecha's for SDXL, which knows blocks, if it has them all; else one of just these keys.

    The latter has the same components where the keys begin like SDXL's, as those of a smaller UNet do.
    """
    import torch

    configs = library.extensions.model_configs
    known = configs.resolve("sdxl-sgm")
    if keys.keys() <= known.keys().keys():
        return known
    shapes = {key: list(entry.shape) for key, entry in sorted(keys.items())}
    identifier = f"astolfo-{hashlib.sha256(canonical_json(shapes).encode()).hexdigest()[:16]}"
    if identifier not in {config.identifier for config in configs.get_all()}:
        parts: dict[str, dict[str, Any]] = {}
        for key, shape in shapes.items():
            part = next((part for part, prefix in PREFIXES["sdxl"].items() if key.startswith(prefix)), "")
            parts.setdefault(_COMPONENTS.get(part, "model"), {})[key] = configs.KeyMetadata(shape, torch.float32)
        components = {name: configs.ModelComponent(found) for name, found in parts.items()}
        configs.register_aux(configs.ModelConfigImpl(identifier=identifier, components=components))
    return configs.resolve(identifier)


def _bind(library: Any, graph: Any, inputs: Mapping[str, "_Input"], config: Any) -> Any:
    """The graph with open models in place of their names; nodes that are shared stay shared."""
    nodes, done = library.recipe_nodes, {}

    def bind(node: Any) -> Any:
        if id(node) not in done:
            done[id(node)] = make(node)
        return done[id(node)]

    def make(node: Any) -> Any:
        if isinstance(node, nodes.ModelRecipeNode):
            return nodes.OpenModelRecipeNode(
                inputs[str(node.path)], node.path, node.model_config or config, node.merge_space or "weight"
            )
        if isinstance(node, nodes.LiteralRecipeNode):
            values = {
                key: bind(value) if isinstance(value, library.RecipeNode) else value for key, value in node.value_dict.items()
            }
            return nodes.LiteralRecipeNode(values, node.model_config, node.merge_space)
        arguments = node.merge_method.get_signature().bind(
            *map(bind, node.bound_args.args), **{name: bind(value) for name, value in node.bound_args.kwargs.items()}
        )
        return nodes.MergeRecipeNode(node.merge_method, arguments, node.model_config, node.merge_space)

    return bind(graph)


class _Input(Mapping[str, Any]):
    """A model as sd-mecha reads it: the keys that are merged, each a float32 copy made when asked for."""

    def __init__(self, name: str, file: SafeFile, keys: Mapping[str, Entry]):
        self.name, self.file, self._keys = name, file, keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, key: str) -> Any:
        import torch

        if key not in self._keys:
            raise KeyError(key)
        tensor = self.file.tensor(key).to(torch.float32, copy=True).reshape(self._keys[key].shape)
        if not all(math.isfinite(end) for end in torch.aminmax(tensor)):  # a NaN is both; without a mask of the tensor's size
            raise NumericsError(
                f"{key} holds a NaN or an infinity in {self.name} ({self.file.path}); no merge was written. "
                "`astolfo inspect --scan` counts them."
            )
        return tensor

    def metadata(self) -> Iterator[tuple[str, Any]]:
        """Shape and dtype of each key, as sd-mecha asks for them."""
        import torch
        from sd_mecha.streaming import TensorMetadata

        return ((key, TensorMetadata(torch.Size(self._keys[key].shape), torch.float32)) for key in self._keys)


class _Output:
    """Where the results go: each is rounded to its dtype and written to its place in the file, in any order."""

    def __init__(self, file: Any, places: Mapping[str, Entry]):
        self.file, self.places = file, dict(places)
        self.done: set[str] = set()
        self.clamped: dict[str, tuple[int, float]] = {}
        self._scratch = kernel.Scratch(BLOCK)

    def write(self, key: str, tensor: Any) -> None:
        """Takes the result for one key. Raises LedgerError for another shape, NumericsError for a NaN or an infinity."""
        place = self.places[key]
        if tuple(tensor.shape) != place.shape:
            raise LedgerError(f"The recipe makes a tensor of {tuple(tensor.shape)} of {key}, expected {place.shape}.")
        values = tensor.float().contiguous().reshape(-1).numpy()
        self.file.seek(place.start)
        for start in range(0, values.size, BLOCK):
            self.file.write(self._rounded(key, values[start : start + BLOCK], place.dtype))
        self.done.add(key)

    def _rounded(self, key: str, values: np.ndarray, dtype: str) -> np.ndarray:
        """A block's bytes in `dtype`, by the same arithmetic as a weighted sum's."""
        block, into = self._scratch.sum[: values.size], np.empty(values.size * SIZES[dtype], np.uint8)
        block[:] = values
        try:
            count, top = kernel.encode((block, self._scratch.other[: values.size]), dtype, into, self._scratch, bounded=False)
        except FloatingPointError:
            raise NumericsError(f"The recipe makes a NaN or an infinity of {key}; no merge was written.") from None
        if count:
            before = self.clamped.get(key, (0, 0.0))
            self.clamped[key] = (before[0] + count, max(before[1], top))
        return into
