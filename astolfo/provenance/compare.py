"""Says how close two checkpoints are: identical, equivalent, or different, and where they part.

    found = compare(Path("a/results/my-first.safetensors"), Path("b/results/my-first.safetensors"), bounds)
    found.verdict                            # "identical", "equivalent" or "different"

Training amplifies one changed rounding, so on other hardware the bits differ although nothing is wrong. How far weights may then
lie apart is measured against how far training moved them: the distance is |A - B| / |A - base|. Two runs are **equivalent** when
that distance (over the whole model, and of each tensor), that of their loss curves, and that of the pictures that they draw
all lie within bounds, which are data (`equivalence.yaml` of the library) with a derivation (docs/reproduce.md).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from astolfo.checkpoint.safefile import SafeFile, open_file
from astolfo.errors import CheckpointError, InputError
from astolfo.files import sha256_of
from astolfo.ledger import Ledger
from astolfo.ledger.schema import Entry
from astolfo.provenance import attestation

IDENTICAL, EQUIVALENT, DIFFERENT = "identical", "equivalent", "different"
BOUNDS = "runs"  # of the section `equivalence`
_BLOCK = 1 << 20  # elements that are looked at together
_CANCELLED = "self_attn.k_proj.bias"  # softmax cancels it: its gradient is rounding alone, and Adam makes a walk of that
_FLOATS = {"F16": (10, -14), "BF16": (7, -126), "F32": (23, -126)}  # bits of the mantissa, smallest exponent


class Bounds(Entry):
    """How far apart two equivalent runs may lie; `docs/reproduce.md` says how each was measured."""

    measured: str  # where and how, for people
    weights: float  # |A - B| / |A - base| over the whole model
    tensor: float  # the same of any one tensor, beyond its file's resolution
    loss: float  # |a - b| / |a| over the loss curve
    pictures: float  # mean absolute difference of the pictures' values (0 to 255)


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Squared norms of one tensor: of A - B, of how far training moved it (mean of A - base and B - base), and of one unit in
    the last place of each of its elements, which is what rounding to the file's dtype may do to values that hardly differ."""

    key: str
    apart: float
    moved: float
    resolution: float

    @property
    def distance(self) -> float:
        """|A - B| beyond the file's resolution, relative to how far training moved it; infinite where it should not move.

        0 for a bias that attention cancels: wherever it goes, nothing is drawn differently.
        """
        if self.key.endswith(_CANCELLED) and self.moved:
            return 0.0
        return _ratio(max(0.0, self.apart - self.resolution), self.moved)


@dataclass(kw_only=True)
class Comparison:
    """What was found. Distances are None where there was nothing to measure."""

    verdict: str
    reasons: list[str] = field(default_factory=list)
    weights: float | None = None
    tensor: float | None = None
    loss: float | None = None
    pictures: float | None = None
    first_tensor: str | None = None
    first_step: int | None = None

    def __str__(self) -> str:
        shown = {name: getattr(self, name) for name in ("weights", "tensor", "loss", "pictures")}
        lines = [self.verdict]
        lines += [f"  {name:9} {value:.3g} apart" for name, value in shown.items() if value is not None]
        lines += [f"  {reason}" for reason in self.reasons]
        where = {"tensor": self.first_tensor, "step": self.first_step}
        lines += [f"  the first {what} in which they part: {value}" for what, value in where.items() if value is not None]
        return "\n".join(lines)

    def measure(self, name: str, value: float, bound: float, of: str) -> None:
        """Notes a distance; beyond its bound the two are different."""
        setattr(self, name, max(value, getattr(self, name) or 0.0))
        if not value <= bound:
            self.differ(f"{of} {value:.3g} apart, beyond the bound of {bound:g}")

    def differ(self, reason: str) -> None:
        """They are different, and why."""
        self.verdict = DIFFERENT
        self.reasons.append(reason)


def bounds_of(ledger: Ledger) -> Bounds:
    """The bounds that a ledger states, else the library's. Raises LedgerError when it states something else."""
    return ledger.files.read("equivalence", Bounds)[BOUNDS]


def compare(a: Path, b: Path, bounds: Bounds, *, base: Path | None = None) -> Comparison:
    """Compares two checkpoints, and what lies beside them: the states with their loss curves, and what they draw.

    `base` is what both were trained from; where it is not given, it is the nearest that the attestations of both name.
    Raises CheckpointError for a file that is no safetensors file, InputError when they differ and no base is found: distances
    would have no measure.
    """
    found = Comparison(verdict=EQUIVALENT)
    with open_file(a) as first, open_file(b) as second:
        if sha256_of(a) == sha256_of(b):
            return Comparison(verdict=IDENTICAL)
        if odd := _mismatch(first, second):
            return Comparison(verdict=DIFFERENT, reasons=[f"{odd} has not the same dtype and shape in both"], first_tensor=odd)
        base = base or _common_base(a, b)
        if base is None:
            raise InputError(
                f"{a} and {b} differ, and the model that they were trained from is not found, so nothing tells how far is far: "
                "neither has an attestation that leads to it. Name it with --base."
            )
        with open_file(base) as origin:
            _weights(found, list(distances(first, second, origin)), bounds)
        for key in first:
            if first.dtype(key) not in _FLOATS and first.raw(key) != second.raw(key):
                found.differ(f"{key} differs, and of {first.dtype(key)} no distance is taken")
                found.first_tensor = found.first_tensor or key
    _losses(found, a, b, bounds)
    _pictures(found, a, b, bounds)
    return found


def distances(a: SafeFile, b: SafeFile, base: SafeFile) -> Iterator[Tensor]:
    """The tensors that training moved, in the order of file `a`; `base` is what both were trained from.

    Raises CheckpointError for a base that lacks one of them, or has it in another shape or as no float.
    """
    for key in a:
        same = a.raw(key) == b.raw(key)
        if a.dtype(key) not in _FLOATS or (same and (key not in base or a.raw(key) == base.raw(key))):
            continue
        if key not in base or base.shape(key) != a.shape(key) or base.dtype(key) not in _FLOATS:
            there = f"{base.dtype(key)} of {list(base.shape(key))}" if key in base else "none"
            raise CheckpointError(
                f"{base.path} is not what {a.path} was trained from: expected {key} as floats of {list(a.shape(key))}, found "
                f"{there}. Name the right file with --base."
            )
        apart = moved = resolution = 0.0
        for left, right, start in zip(_values(a, key), _values(b, key), _values(base, key), strict=True):
            apart += _square(left - right)
            moved += (_square(left - start) + _square(right - start)) / 2
            resolution += _square(_ulps(left, a.dtype(key)))
        yield Tensor(key=key, apart=apart, moved=moved, resolution=resolution)


def losses_of(path: Path) -> tuple[int, np.ndarray] | None:
    """The step before the first, and each step's loss (float32), of a checkpoint's run; None without its state."""
    state = _parent(path, "state")
    if state is None:
        return None
    with open_file(state) as file:
        values = file.array("loss").copy()
        return int(file.metadata["astolfo.position"]) - len(values), values


def loss_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|a - b| / |a| of two loss curves."""
    return _ratio(_square(a.astype(np.float64) - b), _square(a.astype(np.float64)))


def _weights(found: Comparison, tensors: list[Tensor], bounds: Bounds) -> None:
    apart = [tensor for tensor in tensors if tensor.apart]
    beyond = [tensor for tensor in apart if tensor.distance > bounds.tensor]
    if apart:
        found.first_tensor = (beyond or apart)[0].key
    whole = _ratio(sum(tensor.apart for tensor in tensors), sum(tensor.moved for tensor in tensors))
    found.measure("weights", whole, bounds.weights, "the weights lie, relative to how far training moved them,")
    worst = max(tensors, key=lambda tensor: tensor.distance, default=None)
    if worst is not None:
        found.measure("tensor", worst.distance, bounds.tensor, f"{worst.key} lies")
    if len(beyond) > 1:
        found.reasons.append(f"{len(beyond)} of {len(tensors)} tensors lie beyond the bound")


def _losses(found: Comparison, a: Path, b: Path, bounds: Bounds) -> None:
    first, second = losses_of(a), losses_of(b)
    if first is None or second is None:
        found.first_step = _attested_step(a, b)
        found.reasons.append("the losses were not compared: the states are not beside the checkpoints")
        return
    if first[0] != second[0] or len(first[1]) != len(second[1]):
        steps = [f"{start + 1} to {start + len(values)}" for start, values in (first, second)]
        found.differ(f"one trained steps {steps[0]}, the other {steps[1]}")
        return
    parted = np.flatnonzero(first[1] != second[1])
    if len(parted):
        found.first_step = first[0] + int(parted[0]) + 1
    found.measure("loss", loss_distance(first[1], second[1]), bounds.loss, "the loss curves lie")


def _attested_step(a: Path, b: Path) -> int | None:
    """The first segment's end at which two runs' losses part, as their attestations tell."""
    try:
        first, second = attestation.read(a).losses, attestation.read(b).losses
    except InputError:
        return None
    return next((step for step in sorted(first) if step in second and first[step] != second[step]), None)


def _pictures(found: Comparison, a: Path, b: Path, bounds: Bounds) -> None:
    """Compares what the two draw: the evaluations that lie beside them, where both are of these very checkpoints."""
    drawn = [_drawn(path) for path in (a, b)]
    if None in drawn:
        found.reasons.append("the pictures were not compared: build evaluations/ID/index.html in both places")
        return
    first, second = (one or {} for one in drawn)
    common = sorted(first.keys() & second.keys())
    value = max((picture_distance(first[name], second[name]) for name in common), default=math.inf)
    found.measure("pictures", value, bounds.pictures, "the pictures that they draw lie")


def picture_distance(a: Path, b: Path) -> float:
    """Mean absolute difference of two pictures' values (0 to 255); infinite when their sizes differ."""
    from PIL import Image

    first, second = (np.asarray(Image.open(path).convert("RGB"), np.float64) for path in (a, b))
    return float(np.abs(first - second).mean()) if first.shape == second.shape else math.inf


def _drawn(path: Path) -> dict[str, Path] | None:
    """What a run's result draws as trained, under its own objective, by name; None without an evaluation of this very file.

    A foreign runtime makes noise of most models, and noise tells roundings only.
    """
    folder = attestation.root_of(path) / "evaluations" / path.stem
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if metrics["models"]["trained"]["sha256"] != sha256_of(path):
        return None
    own = [cell for cell in metrics["cells"] if cell["runtime"] == metrics["objective"]["kind"] and cell["alpha"] == 1.0]
    return {name: folder / name for cell in own for name in cell["files"]}


def _common_base(a: Path, b: Path) -> Path | None:
    """The nearest model, of those that are there, from which both started; where one side tells nothing, the other's nearest.

    A run that goes on from another has a base that differs between two machines itself: then it is that one's base.
    """
    lines = [[(digest, path) for digest, path in _line(one) if path.exists()] for one in (a, b)]
    if not all(lines):
        return next((path for _, path in lines[0] + lines[1]), None)
    return next((path for digest, path in lines[0] if digest in dict(lines[1])), None)


def _line(path: Path) -> Iterator[tuple[str, Path]]:
    """The models that a model started from, one after the other: sha256 and path."""
    while True:
        try:
            parents = {parent.role: parent for parent in attestation.read(path).parents}
        except InputError:
            return
        parent = parents.get("base") or parents.get("model")
        if parent is None:
            return
        path = attestation.root_of(path) / parent.name
        yield parent.sha256, path


def _parent(path: Path, role: str) -> Path | None:
    """A parent of an artifact by its attestation, if both are there."""
    try:
        parents = attestation.read(path).parents
    except InputError:
        return None
    found = (attestation.root_of(path) / parent.name for parent in parents if parent.role == role)
    return next((parent for parent in found if parent.exists()), None)


def _mismatch(a: SafeFile, b: SafeFile) -> str | None:
    """The first tensor that only one file has, or that is of another kind there; None when the files are alike."""
    kinds = [{key: (file.dtype(key), file.shape(key)) for key in file} for file in (a, b)]
    odd = (key for key in [*kinds[0], *kinds[1]] if kinds[0].get(key) != kinds[1].get(key))
    return next(odd, None)


def _values(file: SafeFile, key: str) -> Iterator[np.ndarray]:
    """A tensor's values in pieces, as float64."""
    values = file.array(key).reshape(-1)
    for start in range(0, values.size, _BLOCK):
        piece = values[start : start + _BLOCK]
        if file.dtype(key) == "BF16":
            piece = (piece.astype(np.uint32) << 16).view(np.float32)
        yield piece.astype(np.float64)


def _ulps(values: np.ndarray, dtype: str) -> np.ndarray:
    """One unit in the last place of each value in a dtype of the format."""
    bits, smallest = _FLOATS[dtype]
    exponents = np.maximum(np.frexp(values)[1] - 1, smallest)
    return np.ldexp(1.0, exponents - bits)


def _square(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _ratio(apart: float, moved: float) -> float:
    return math.sqrt(apart / moved) if moved else math.inf if apart else 0.0
