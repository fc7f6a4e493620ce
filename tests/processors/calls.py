"""Operator calls: recorded on this processor, made again on another, and their results compared bit by bit.

    python -m tests.processors.calls record FOLDER            every distinct call of what the miniature does (`tests.processors.work`)
    python -m tests.processors.calls replay FOLDER OUT.json   makes each once more; OUT.json: the calls whose results differ

Two calls are the same when name, shapes, strides, dtypes and options are; numbers count of powers alone. A folder holds `calls.jsonl`, a call a line, and
`inputs.bin`, the bytes of their tensors. What bitsandbytes computes is one call of its operator.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass  # noqa: E402

from astolfo import deferred_imports  # noqa: E402

_LINE = 64  # bytes: a tensor is put where it lay within one, since what is vectorised may begin there
_NUMBER = (torch.NumberType, torch.FloatType)
_NAMED = (torch.dtype, torch.layout, torch.memory_format)
_UNSET = {
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "resize_",
    "set_",
}  # their values mean nothing


class Recorder(TorchDispatchMode):
    """Writes the first of each distinct call that is made while it is active into `folder`, which is new."""

    def __init__(self, folder: Path):
        super().__init__()
        folder.mkdir(parents=True)
        self.lines, self.bytes = (folder / "calls.jsonl").open("w"), (folder / "inputs.bin").open("wb")
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [list(args), kwargs or {}]
        key = self._key(func, *given)
        if key is None or key in self.seen:
            return func(*args, **(kwargs or {}))
        self.seen.add(key)
        before = _mapped(given, cache(self._kept))  # a tensor that is given twice is one
        result = func(*args, **(kwargs or {}))
        call = {"name": str(func), "given": before, "digest": digest(given, result)}
        self.lines.write(json.dumps(call) + "\n")
        return result

    def _key(self, func: Any, args: Any, kwargs: Any) -> str | None:
        """What tells a call from others; None for one that computes nothing, draws, or cannot be made again."""
        given = [args, kwargs]
        tensors = [one for one in _leaves(given) if isinstance(one, Tensor)]
        plain = all(one.device.type == "cpu" and one.layout == torch.strided for one in tensors)
        elsewhere = any(isinstance(one, torch.device) and one.type != "cpu" for one in _leaves(given))
        if func.is_view or func.namespace == "profiler" or func._opname in _UNSET or elsewhere or not plain:
            return None
        draws = func._opname.startswith("rand") or any(one.name == "generator" for one in func._schema.arguments)
        if draws or any(map(is_traceable_wrapper_subclass, tensors)):
            return None
        names = [one.name for one in func._schema.arguments]
        numbers = {one.name for one in func._schema.arguments if isinstance(one.type, _NUMBER)}
        named = dict(zip(names, args, strict=False)) | kwargs
        if "pow" not in func._opname:
            named = {name: one for name, one in named.items() if name not in numbers and not isinstance(one, float)}
        return json.dumps([str(func), _mapped(named, _form)])

    def _kept(self, tensor: Tensor) -> dict[str, Any]:
        """Writes a tensor's memory, from its first element to its last, and says where."""
        size = tensor.element_size()
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
        flat = tensor.detach().as_strided((span,), (1,))
        at = self.bytes.tell()
        self.bytes.write(memoryview(_flat(flat).numpy()))
        return {
            "at": at, "span": span, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape),
            "strides": list(tensor.stride()), "beyond": tensor.data_ptr() % _LINE // size,
        }  # fmt: skip


def replay(folder: Path) -> Iterator[dict[str, Any]]:
    """Makes every call of a folder again; yields those that give other bits than on the processor that recorded them."""
    deferred_imports.load("bitsandbytes")
    memory = torch.from_file(str(folder / "inputs.bin"), size=(folder / "inputs.bin").stat().st_size, dtype=torch.uint8)
    with (folder / "calls.jsonl").open() as lines, torch.no_grad():
        for number, line in enumerate(lines):
            call = json.loads(line)
            given = _given(call["given"], memory, {})
            result = _operator(call["name"])(*given[0], **given[1])
            if digest(given, result) != call["digest"]:
                shapes = _mapped(given, _form)
                yield {"call": number, "name": call["name"], "given": shapes}


def digest(given: Any, result: Any) -> str:
    """The sha256 of a call's result, and of its arguments' tensors after it: values in the order of their indices."""
    total = hashlib.sha256()
    for one in (*(one for one in _leaves(given) if isinstance(one, Tensor)), *_leaves(result)):
        if isinstance(one, Tensor):
            total.update(memoryview(_flat(one.detach().reshape(-1)).numpy()))
        else:
            total.update(repr(one).encode())
    return total.hexdigest()


def _flat(values: Tensor) -> Tensor:
    """The bytes of a tensor of one dimension."""
    return torch.empty(values.shape, dtype=values.dtype).copy_(values).view(torch.uint8)


def _form(tensor: Tensor) -> list[Any]:
    return [str(tensor.dtype), list(tensor.shape), list(tensor.stride())]


def _leaves(found: Any) -> Iterator[Any]:
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        for one in found:
            yield from _leaves(one)
    else:
        yield found


def _mapped(found: Any, of: Any) -> Any:
    """A structure as JSON holds it, with `of` of each tensor."""
    if isinstance(found, Tensor):
        return {"tensor": of(found)}
    if isinstance(found, dict):
        return {key: _mapped(value, of) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_mapped(one, of) for one in found]
    if isinstance(found, torch.device):
        return {"device": str(found)}
    if isinstance(found, _NAMED):
        return {"torch": str(found).removeprefix("torch.")}
    assert found is None or isinstance(found, bool | int | float | str), found
    return found


def _given(told: Any, memory: Tensor, made: dict[str, Tensor]) -> Any:
    """The arguments that `_mapped` told of; `made` are the tensors of the call by their places."""
    if isinstance(told, list):
        return [_given(one, memory, made) for one in told]
    if not isinstance(told, dict):
        return told
    if "device" in told and isinstance(told["device"], str):
        return torch.device(told["device"])
    if "torch" in told:
        return getattr(torch, told["torch"])
    if "tensor" not in told:
        return {key: _given(value, memory, made) for key, value in told.items()}
    about = told["tensor"]
    if (place := json.dumps(about)) in made:
        return made[place]
    dtype = getattr(torch, about["dtype"])
    size, span, beyond = dtype.itemsize, about["span"], about["beyond"]
    fresh = torch.empty(span + 2 * _LINE, dtype=dtype)
    start = (beyond - fresh.data_ptr() % _LINE // size) % (_LINE // size)
    flat = fresh[start : start + span]
    flat.view(torch.uint8).copy_(memory[about["at"] : about["at"] + span * size])
    return made.setdefault(place, flat.as_strided(about["shape"], about["strides"]))


def _operator(name: str) -> Any:
    space, name, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, space), name), overload)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("record").add_argument("folder", type=Path)
    verb = verbs.add_parser("replay")
    verb.add_argument("folder", type=Path)
    verb.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.verb == "record":
        from tests.processors import work

        with Recorder(options.folder) as recorder:
            for done in work.everything(options.folder / "work"):
                print(f"{len(recorder.seen):6} distinct calls after {done}", flush=True)
        return
    differing = list(replay(options.folder))
    options.out.write_text(json.dumps(differing, indent=1))
    print(f"{len(differing)} calls differ")


if __name__ == "__main__":
    main()
