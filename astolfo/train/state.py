"""States: what the next segment needs, in one safetensors file.

    weights/<part>.<name>              the trained weights, in their own dtype; where a master is kept, that
    optimizer/<part>.<name>/<entry>    the optimizer's state of that weight
    deepspeed/<rank>/<group>/<entry>   instead of it, for runs of that engine: what each of its ranks holds
    loss                               float32, the loss of every step since the run began

The metadata holds the position (optimizer steps done since the data order began) and the digest of what made it; where a
wrong number ended the run `astolfo.stopped`, and where a device lacks what the recipe asks for `astolfo.realised`. Frozen
weights are not in a state: they are the base's.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astolfo.checkpoint.safefile import SafeFile, open_file, write_file
from astolfo.errors import StateError
from astolfo.files import canonical_json, verified
from astolfo.train.guards import finite

FORMAT = "1"


@dataclass(kw_only=True)
class State:
    """A state in memory. Tensors are on the CPU; names are "<part>.<name>"."""

    position: int
    weights: dict[str, Tensor]
    optimizer: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    engine: dict[str, Tensor] = field(default_factory=dict)  # of DeepSpeed, by "<rank>/<group>/<entry>"
    loss: list[float] = field(default_factory=list)
    stopped: dict[str, Any] | None = None  # step, why, samples, parameters: the run ended here
    realised: dict[str, str] | None = None  # what the device did instead of what the recipe asks for
    file: SafeFile | None = field(default=None, repr=False)  # whose pages the tensors are

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        rows = (self.weights, self.engine, *self.optimizer.values())
        return sum(value.nbytes for row in rows for value in row.values())

    def release(self, name: str) -> None:
        """Takes the pages of a weight's tensors out of memory once they are copied, where they are a file's."""
        if self.file is not None:
            for key in (f"weights/{name}", *(f"optimizer/{name}/{entry}" for entry in self.optimizer.get(name, ()))):
                self.file.release(key)

    def staged(self) -> "State":
        """A state with tensors of its own, which the training does not change any more."""
        own = {name: {entry: value.clone() for entry, value in row.items()} for name, row in self.optimizer.items()}
        weights, engine = ({name: value.clone() for name, value in row.items()} for row in (self.weights, self.engine))
        return replace(self, weights=weights, optimizer=own, engine=engine)


def save(path: Path, state: State, identity: str, give_back: bool = False) -> str:
    """Writes a state, whole or not at all, and returns its sha256. Raises StateError when a weight is not finite.

    With `give_back` the state is used up: every tensor is let go as soon as it is in the file.
    """
    for name, value in state.weights.items():
        if not finite(value):
            raise StateError(
                f"{name} has NaN or infinity at step {state.position}: nothing was written, the last good state stays."
            )
    tensors = {f"weights/{name}": value for name, value in state.weights.items()}
    for name, entries in state.optimizer.items():
        tensors |= {f"optimizer/{name}/{entry}": value for entry, value in entries.items()}
    tensors |= {f"deepspeed/{name}": value for name, value in state.engine.items()}
    if give_back:
        state.weights, state.optimizer, state.engine = {}, {}, {}
        entries = value = None  # type: ignore[assignment]  # nothing but `tensors` holds them now
    tensors["loss"] = torch.tensor(state.loss, dtype=torch.float32)
    metadata = {"astolfo.state": FORMAT, "astolfo.position": str(state.position), "astolfo.identity": identity}
    about = {"stopped": state.stopped, "realised": state.realised}
    metadata |= {f"astolfo.{key}": canonical_json(value) for key, value in about.items() if value}
    return write_file(path, tensors, metadata, give_back=give_back)


def load(path: Path, identity: str | None = None) -> State:
    """Reads a state, checking its bytes against its side-car. Its tensors are views of the file, read when they are used.

    Raises InputError when the bytes differ from the recorded digest, StateError when `identity` is given and is not the state's.
    """
    with reading(path, identity) as found:
        pass
    return found


@contextmanager
def reading(path: Path, identity: str | None = None) -> Iterator[State]:
    """As `load`, while the block copies what it needs: its file is read once, and digested by another thread meanwhile.

    What was copied holds only when the block has ended without an error.
    """
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(verified, path)
        try:
            yield _parsed(path, identity)
        except Exception:
            checked.result()  # that the file is damaged explains whatever else went wrong
            raise
        checked.result()


def _parsed(path: Path, identity: str | None) -> State:
    file = open_file(path)
    meta = file.metadata
    if meta.get("astolfo.state") != FORMAT:
        raise StateError(f"{path} is no training state of format {FORMAT}: its metadata are {meta}.")
    if identity is not None and meta["astolfo.identity"] != identity:
        raise StateError(f"{path} belongs to another recipe: expected {identity}, found {meta['astolfo.identity']}.")
    state = State(position=int(meta["astolfo.position"]), weights={}, loss=file.tensor("loss").tolist(), file=file)
    state.stopped, state.realised = (json.loads(meta.get(f"astolfo.{key}", "null")) for key in ("stopped", "realised"))
    for key in file.keys():
        kind, _, name = key.partition("/")
        if kind == "weights":
            state.weights[name] = file.tensor(key)
        elif kind == "optimizer":
            name, _, entry = name.rpartition("/")
            state.optimizer.setdefault(name, {})[entry] = file.tensor(key)
        elif kind == "deepspeed":
            state.engine[name] = file.tensor(key)
    return state
