"""A card that does not exist: what runs on `cuda` here is checked as a card would check it, and computes nothing.

    with Card() as card:
        trainer.step(0)
    card.moves, card.operators

The host's tensors are real. A tensor on `cuda` has torch's shapes, dtypes and device and no memory (`FakeTensorMode`): an
operator that is given two devices is refused, as a card refuses it. What is copied to the card, copied from it or waited for
is kept in `moves`, with the function of the program, or of DeepSpeed's engine, that asked. A number that is asked of the card
is 1, or what `ANSWERS` has; a copy of its tensors on the host is zeros.

Stood in for, because they want a driver: autograd's engine (the graph is walked here, by the same rules), attention's choice
of a kernel (a fused one; flash unless that is switched off), pinned memory, bitsandbytes' paged memory, `torch.cuda.synchronize`, torchao's compiler.

DeepSpeed's engine runs as it is, on the CUDA layer of its own. For it the walk calls hooks of outputs, and what was queued for a
pass's end; a process has one card, which answers to every number; there is one stream, so that to wait for another, to record
an event or to capture a graph is an error, as none is stood in for.
"""

import heapq
import itertools
import math
import sys
from collections import defaultdict
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from astolfo import deferred_imports

aten = torch.ops.aten
ASKERS = tuple(str(Path(find_spec(name).origin).parent) + "/" for name in ("astolfo", "deepspeed"))
STAGED = 1 << 16  # bytes: the driver takes a smaller copy from pageable memory aside, and nobody waits
NUMBERS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2")
"""Operators whose result the host must know before it can go on."""
ANSWERS = {"stage_1_and_2.DeepSpeedZeroOptimizer.has_overflow": 0, "utils.is_invalid_grad_norm": 0}
"""What a number is, by who asks for it, where it is not 1: no gradient of DeepSpeed's has overflowed."""
PROPERTIES = SimpleNamespace(major=8, minor=0, total_memory=80 << 30)
REFUSED = (
    "bincount", "cumsum", "histc", "kthvalue", "median", "put_", "scatter_add_", "scatter_reduce", "resize_",
    "upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "adaptive_avg_pool2d_backward",
    "avg_pool3d_backward", "max_pool3d_with_indices_backward", "reflection_pad1d_backward", "replication_pad2d_backward",
    "grid_sampler_2d_backward", "_ctc_loss_backward", "_embedding_bag_dense_backward", "nll_loss2d_forward",
)  # fmt: skip
"""Operators that have no deterministic form on a card (torch.use_deterministic_algorithms names them); none may be in a step."""


@dataclass(frozen=True)
class Move:
    """Something between host and card: "to card", "to host" or "number"; `waits`: the host goes on only when it is done."""

    kind: str
    by: str  # the program's own function that asked for it: "loop.Trainer._mean"
    waits: bool
    size: int  # bytes
    at: int  # how many operators had run on the card by then


@dataclass
class _Pass:
    """A backward pass that is under way: its number, the nodes that it reaches, and what it calls in the end."""

    task: int
    waiting: dict
    callbacks: list = field(default_factory=list)


class Stream:
    """A card's queue of work. It has no way to wait for another, so that whoever would fails."""


class Card(TorchDispatchMode):
    """The card; everything inside the block runs as if it were there."""

    def __init__(self):
        super().__init__()
        self.moves, self.operators = [], []
        self.fake = FakeTensorMode()
        self._pinned, self._tasks, self._pass, self._hooks = set(), itertools.count(1), None, {}
        self._stack = ExitStack()

    def __enter__(self):
        FakeTensorMode.cache_clear()  # its entries outlive a mode, and one that an optimizer's view left fails DeepSpeed's broadcast
        for what in (self.fake, *self._stand_ins()):
            self._stack.enter_context(what)
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._stack.close()

    def clear(self):
        """Forgets what has happened so far."""
        self.moves.clear(), self.operators.clear()

    # ---- operators

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        kwargs = kwargs or {}
        if kwargs.get("device") is not None and kwargs["device"].type == "cuda":
            kwargs = kwargs | {"device": torch.device("cuda", 0)}  # the one that is here, whatever its number
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in tensors if _on_card(tensor)]
        name, device = func.overloadpacket.__name__, torch.device(kwargs.get("device") or "cpu")
        if name in ("_to_copy", "copy_") and (found := self._copied(name, args, kwargs, device)) is not None:
            return found
        if not here and device.type != "cuda":
            return self._on_host(func, args, kwargs)
        self.operators.append(name)
        if name in NUMBERS or (name.startswith("index") and self._masked(args)):
            self._note("number", True, sum(tensor.nbytes for tensor in here))
        if name == "_local_scalar_dense":
            return (float if here[0].dtype.is_floating_point else int)(ANSWERS.get(_asker(), 1))
        if name in ("equal", "is_nonzero"):
            return True
        if name.startswith("index") and any(index is not None and not _on_card(index) for index in args[1]):
            self._note("to card", True, sum(index.nbytes for index in args[1] if index is not None))
        if len(here) < len(tensors):
            args, kwargs = tree_map(self._faked, (args, kwargs))
        return func(*args, **kwargs)

    def _copied(self, name, args, kwargs, device):
        """The result of a copy between host and card; None for every other one."""
        if name == "_to_copy" and kwargs.get("device") is None:
            return None
        source, there = (args[1], _on_card(args[0])) if name == "copy_" else (args[0], device.type == "cuda")
        if _on_card(source) == there:
            return None
        self.operators.append(name)
        if name == "copy_":
            queued, host = (args[2] if len(args) > 2 else kwargs.get("non_blocking", False)), args[there]
        else:
            queued, host = kwargs.get("non_blocking", False), source
        pinned = id(host) in self._pinned
        if there:
            self._note("to card", not queued or not (pinned or source.nbytes <= STAGED), source.nbytes)
        else:
            self._note("to host", not (queued and pinned), source.nbytes)
        if name == "copy_":
            return args[0]
        dtype = kwargs.get("dtype") or source.dtype
        if not there:
            with unset_fake_temporarily():
                return torch.zeros(source.shape, dtype=dtype)
        return torch.empty_strided(source.shape, _strides(source), dtype=dtype, device=device)

    def _on_host(self, func, args, kwargs):
        pinned = kwargs.pop("pin_memory", None) if "pin_memory" in kwargs else None
        with unset_fake_temporarily():
            found = func(*args, **kwargs)
        if pinned:
            self._pinned.add(id(found))
        return found

    def _faked(self, value):
        """A tensor of the host as the card's operators are told of it: a number may be, anything larger they refuse."""
        if isinstance(value, Tensor) and not _on_card(value):
            return self.fake.from_tensor(value)
        return value

    @staticmethod
    def _masked(args):
        return any(index is not None and index.dtype == torch.bool and _on_card(index) for index in args[1])

    def _note(self, kind, waits, size):
        self.moves.append(Move(kind, _asker(), waits, size, len(self.operators)))

    # ---- what wants a driver

    def _stand_ins(self):
        bitsandbytes = deferred_imports.load("bitsandbytes")
        functional, engine = torch.nn.functional, self._backward
        yield patch.object(Tensor, "backward", lambda value, gradient=None, retain_graph=False: engine(value, gradient))
        yield patch.object(Tensor, "register_hook", self._registering(Tensor.register_hook))
        yield patch.object(torch.autograd.Variable, "_execution_engine", self)
        yield patch.object(torch._C, "_current_graph_task_id", lambda: self._pass.task if self._pass else -1)
        yield patch.object(torch._C, "_will_engine_execute_node", lambda node: node in self._pass.waiting)
        yield patch.object(functional, "scaled_dot_product_attention", self._attention(functional.scaled_dot_product_attention))
        yield patch.object(torch.cuda, "synchronize", lambda device=None: self._note("number", True, 0))
        # A module's parameters keep their place when they change their dtype; weak references to them are FakeTensorMode's own.
        yield patch.object(torch.utils, "swap_tensors", lambda old, new: setattr(old, "data", new.data))
        yield patch.object(torch.cuda, "is_available", lambda: True)
        yield patch.object(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        yield patch.object(torch.cuda, "get_device_properties", lambda device=None: PROPERTIES)
        yield patch.object(torch.cuda, "current_device", lambda: 0)
        yield patch.object(torch.cuda, "set_device", lambda device: None)
        yield patch.object(torch.cuda, "reset_peak_memory_stats", lambda device=None: None)
        yield patch.object(torch.cuda, "Stream", Stream)
        yield patch.object(torch.cuda, "current_stream", lambda device=None: Stream())
        yield patch.object(torch.cuda, "stream", lambda stream: nullcontext())
        yield patch.object(bitsandbytes.functional, "get_paged", self._paged)
        yield patch.object(bitsandbytes.functional, "prefetch_tensor", lambda tensor, to_cpu=False: None)
        yield patch.object(torch, "compile", lambda function, **_: function)

    @staticmethod
    def _paged(*shape, dtype=torch.float32, device=None):
        found = torch.zeros(*shape, dtype=dtype, device=device)
        found.is_paged = True
        return found

    @staticmethod
    def _attention(host):
        def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
            if not query.is_cuda:
                return host(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
            if query.dtype == torch.float32 or attn_mask is not None or not torch.backends.cuda.flash_sdp_enabled():
                mask = attn_mask.expand(*query.shape[:-1], key.shape[-2]) if attn_mask is not None else None
                return aten._scaled_dot_product_efficient_attention(
                    query, key, value, mask, query.requires_grad, dropout_p, is_causal, scale=scale
                )[0]
            return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]

        return attention

    # ---- autograd's engine

    def _backward(self, value, gradient=None):
        """Walks the graph from `value`, the latest node first, as the engine does; a gradient must fit the node that gets it."""
        roots = value.grad_fn
        if gradient is None:
            gradient = torch.ones_like(value)
        waiting, given, serial = _dependencies(roots), defaultdict(dict), itertools.count()
        given[roots][value.output_nr] = gradient
        heap, before = [(-roots._sequence_nr(), next(serial), roots)], self._pass
        self._pass = _Pass(next(self._tasks), waiting)
        try:
            while heap:
                node = heapq.heappop(heap)[2]
                held = self._hooked(node, given.pop(node, {}))
                for (child, place), out in zip(node.next_functions, _called(node, held), strict=False):
                    if child is None:
                        continue
                    if out is not None:
                        out = _fitted(out, child._input_metadata[place], child)
                        held = given[child].get(place)
                        given[child][place] = out if held is None else held + out
                    waiting[child] -= 1
                    if not waiting[child]:
                        heapq.heappush(heap, (-min(child._sequence_nr(), 1 << 62), next(serial), child))
            for callback in self._pass.callbacks:
                callback()
        finally:
            self._pass = before

    def queue_callback(self, callback):
        """Has `callback` called when the pass that is under way has ended, as the engine does."""
        self._pass.callbacks.append(callback)

    def _registering(self, register):
        """`Tensor.register_hook`, which keeps a tensor's hooks by its node too, where the walk finds them."""

        def register_hook(value, hook):
            handle = register(value, hook)
            assert value.grad_fn is not None, "hooks of a parameter before its gradient are not stood in for"
            self._hooks.setdefault(value.grad_fn, {})[value.output_nr] = value._backward_hooks
            return handle

        return register_hook

    def _hooked(self, node, held):
        """A node's gradients after the hooks of its outputs."""
        for place, hooks in self._hooks.pop(node, {}).items():
            for hook in hooks.values():
                found = hook(held[place])
                held[place] = held[place] if found is None else found
        return held


def _on_card(value):
    return isinstance(value, FakeTensor)


def _called(node, held):
    """What a node makes of the gradients of its outputs."""
    gradients = [held.get(place) for place in range(len(node._input_metadata))]
    if all(gradient is None for gradient in gradients):
        return [None] * len(node.next_functions)
    with torch.no_grad():
        found = node.apply(*gradients) if isinstance(node, torch.autograd.function.BackwardCFunction) else node(*gradients)
    return found if isinstance(found, tuple) else (found,)


def _fitted(out, wanted, child):
    """A gradient as the engine hands it on: summed to the shape and cast to the dtype; another device is an error."""
    if out.device != wanted.device:
        raise RuntimeError(f"{child.name()} expects a gradient on {wanted.device}, found one on {out.device}.")
    if out.shape != wanted.shape:
        out = out.sum_to_size(wanted.shape)
    return out if out.dtype == wanted.dtype else out.to(wanted.dtype)


def _dependencies(root):
    """Node -> how many edges lead to it from nodes that are reached."""
    waiting, seen, todo = defaultdict(int), {root}, [root]
    while todo:
        for child, _ in todo.pop().next_functions:
            if child is not None:
                waiting[child] += 1
                if child not in seen:
                    seen.add(child)
                    todo.append(child)
    return waiting


def _asker():
    """The nearest function of the program, or of DeepSpeed's engine, on the stack, as "module.function"."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(ASKERS) and frame.f_code.co_name != "__torch_dispatch__":
            return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname.partition('.<locals>')[0]}"
        frame = frame.f_back
    return "a test"


def _strides(value):
    """The strides of a copy: those of a dense tensor are kept."""
    dense = value.numel() == 0 or math.prod(value.shape) == 1 + sum(
        (n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True)
    )
    return value.stride() if dense else torch.empty(value.shape, device="meta").stride()


def parts_on_card(architecture, dtype):
    """UNet and text encoders of these shapes on the card, made there."""
    wanted = [part for part in architecture.parts if part != "vae"]
    return {part: nn.Module.to(architecture.build(part), dtype).to_empty(device="cuda").train() for part in wanted}
