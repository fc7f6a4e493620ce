"""Collectives between processes whose cards do not exist: every call is held against the other process's.

    with Card() as card, checked(processes): ...

Each call says what it is to the others through the group's store before it is made: the same collective, in the same order, of
tensors of the same dtype and sizes, on the same kind of device. A card's tensors would go over NCCL, which wants them
contiguous and of a dtype that it knows; they are not moved. The host's tensors go over gloo, truly; objects through the store.
"""

import json
import os
import pickle
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch
from torch import distributed
from torch.distributed import ReduceOp
from torch.distributed.distributed_c10d import _get_default_store

NCCL = (torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LOOK = timedelta(seconds=1)  # how often a process that waits for another looks whether that one lives


class Mismatch(AssertionError):
    """Two processes did not make the same collective call; each is named."""


class Wire:
    """The calls of one process so far, as (name, device, dtype, sizes)."""

    def __init__(self, processes):
        self.index, self.count, self.calls = processes.index, processes.count, []
        self.store = _get_default_store()
        self.store.set(f"process/{self.index}", str(os.getpid()))

    def told(self, name, tensors, sizes=None, peer=None):
        """Says a call to the others and hears theirs. True where it is to be made, over gloo. Raises Mismatch."""
        kinds = {(tensor.device.type, str(tensor.dtype)) for tensor in tensors}
        if len(kinds) > 1:
            raise Mismatch(f"{name}: one call with tensors of {sorted(kinds)}")
        ((device, dtype),) = kinds or {("cpu", "objects")}
        if device == "cuda":
            for tensor in tensors:
                if not tensor.is_contiguous():
                    raise Mismatch(f"{name}: NCCL wants contiguous tensors, found strides {tensor.stride()}")
                if tensor.dtype not in NCCL:
                    raise Mismatch(f"{name}: NCCL has no {tensor.dtype}")
        call = [name, device, dtype, sizes]
        number = len(self.calls)
        self.calls.append((name, device, dtype))
        self.store.set(f"call/{self.index}/{number}", json.dumps(call))
        for other in range(self.count) if peer is None else (peer,):
            key = f"call/{other}/{number}"
            self._await(key, other)
            theirs = json.loads(self.store.get(key))
            if name == "all_to_all_single":  # what one sends is what the other expects
                agree = theirs[:3] == call[:3] and theirs[3][0][self.index] == sizes[1][other]
            else:
                agree = theirs == call
            if not agree:
                raise Mismatch(f"call {number}: process {self.index} makes {call}, process {other} {theirs}")
        return device == "cpu"

    def objects(self, name, value, peer=None):
        """Says a call that hands over objects, and hands them over; returns its number."""
        self.store.set(f"object/{self.index}/{len(self.calls)}", pickle.dumps(value))
        self.told(name, [], peer=peer)
        return len(self.calls) - 1

    def object(self, other, number):
        """What another process handed over with that call."""
        self._await(f"object/{other}/{number}", other)
        return pickle.loads(self.store.get(f"object/{other}/{number}"))

    def _await(self, key, other):
        """Returns when another process has said `key`. Raises Mismatch where it ended instead."""
        while not self._there(key):
            if self._there(f"process/{other}") and not _lives(int(self.store.get(f"process/{other}"))) and not self._there(key):
                raise Mismatch(f"process {self.index} waits for {key}, and process {other} has ended")

    def _there(self, key):
        try:
            self.store.wait([key], _LOOK)
        except RuntimeError:  # of a FileStore a timeout is no DistStoreError
            return False
        return True


def _lives(process):
    """Whether a process is there, and more than what its parent has not asked for yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


@contextmanager
def checked(processes):
    """Has torch's collectives checked for as long as the block lasts; gives the `Wire`."""
    wire, real = Wire(processes), distributed

    def everybody(group, async_op):
        assert distributed.get_process_group_ranks(group) == list(range(processes.count))
        assert not async_op

    def all_gather(out, value):
        if wire.told("all_gather", [*out, value], list(value.shape)):
            original["all_gather"](out, value)

    def all_to_all_single(received, sent, parts, sizes):
        assert sum(parts) == len(received)
        assert sum(sizes) == len(sent)
        if wire.told("all_to_all_single", [received, sent], [sizes, parts]):
            original["all_to_all_single"](received, sent, parts, sizes)

    def all_gather_into_tensor(output_tensor, input_tensor, group=None, async_op=False):
        everybody(group, async_op)
        assert output_tensor.numel() == processes.count * input_tensor.numel()
        if wire.told("all_gather_into_tensor", [output_tensor, input_tensor], list(input_tensor.shape)):
            original["all_gather_into_tensor"](output_tensor, input_tensor)

    def all_reduce(tensor, op=ReduceOp.SUM, group=None, async_op=False):
        everybody(group, async_op)
        if wire.told("all_reduce", [tensor], [list(tensor.shape), str(op)]):
            original["all_reduce"](tensor, op)

    def broadcast(tensor, src, group=None, async_op=False):
        everybody(group, async_op)
        if wire.told("broadcast", [tensor], [list(tensor.shape), src]):
            original["broadcast"](tensor, src)

    def send(value, dst):
        if wire.told("send", [value], [list(value.shape), wire.index, dst], dst):
            original["send"](value, dst=dst)

    def recv(value, src):
        if wire.told("send", [value], [list(value.shape), src, wire.index], src):
            original["recv"](value, src=src)

    def all_gather_object(out, value):
        number = wire.objects("all_gather_object", value)
        out[:] = [wire.object(other, number) for other in range(wire.count)]

    def send_object_list(values, dst):
        wire.objects("send_object_list", values, dst)

    def recv_object_list(values, src):
        values[:] = wire.object(src, wire.objects("send_object_list", None, src))

    calls = (
        all_gather, all_gather_into_tensor, all_reduce, all_to_all_single, broadcast, send, recv, all_gather_object,
        send_object_list, recv_object_list,
    )  # fmt: skip
    original = {call.__name__: getattr(real, call.__name__) for call in calls}
    with ExitStack() as stack:
        for call in calls:
            stack.enter_context(patch.object(distributed, call.__name__, call))
        yield wire
