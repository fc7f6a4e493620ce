"""Logical ranks: who computes which, and how their gradients become one sum with the same bits for any number of processes.

A recipe has R logical ranks (1, 2, 4 or 8). P processes (P divides R) run R / P of them each, in contiguous blocks, so
that a block is a subtree of the fixed pairwise tree over all ranks: ((0+1)+(2+3))+((4+5)+(6+7)). Inside a block the
process sums along its subtree; between processes each one gathers the blocks of the parameters it owns and sums along the
top of the tree. Communication only moves data; it never adds.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astolfo.errors import AstolfoError, PlacementError
from astolfo.liveness import watch_parent
from astolfo.train.placement import bind, node_of

_GRACE = 0.5  # seconds in which a failing process may say why before it is ended
_LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PIECE = 1 << 25  # elements that are moved and summed at once, so that nothing needs a whole model's size again
ALIGN = 64  # elements; every parameter starts on a cache line, whatever its neighbours


@dataclass
class Processes:
    """The processes that run one training together, and this one's place among them."""

    count: int = 1
    index: int = 0
    children: tuple[int, ...] = ()
    launched: bool = False  # by torchrun, and not by forking
    folder: Any = field(default=None, repr=False)

    def block(self, ranks: int) -> range:
        """The logical ranks that this process runs. Raises PlacementError when they cannot be shared out evenly."""
        if ranks % self.count:
            raise PlacementError(f"{ranks} logical ranks cannot be run by {self.count} processes: use a divisor of {ranks}.")
        each = ranks // self.count
        return range(self.index * each, (self.index + 1) * each)

    def gather(self, values: Tensor) -> Tensor:
        """Every process's `values` (the same shape everywhere), stacked by process."""
        if self.count == 1:
            return values[None]
        out = [torch.empty_like(values) for _ in range(self.count)]
        torch.distributed.all_gather(out, values)
        return torch.stack(out)

    def gather_objects(self, value: Any) -> list[Any]:
        """Every process's `value`, by process."""
        if self.count == 1:
            return [value]
        out = [None] * self.count
        torch.distributed.all_gather_object(out, value)
        return out

    def collect(self, owner: int, mine: dict[str, Tensor]) -> dict[str, Tensor]:
        """At process 0: the tensors (on the CPU) that process `owner` has. Every process must call it."""
        if owner == 0:
            return mine
        if self.index == owner:
            torch.distributed.send_object_list([{key: (value.shape, value.dtype) for key, value in mine.items()}], dst=0)
            for value in mine.values():
                torch.distributed.send(value.contiguous(), dst=0)
        elif self.index == 0:
            shapes: list[Any] = [None]
            torch.distributed.recv_object_list(shapes, src=owner)
            mine = {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in shapes[0].items()}
            for value in mine.values():
                torch.distributed.recv(value, src=owner)
        return mine

    def exchange(self, received: Tensor, sent: Tensor, parts: list[int], sizes: list[int]) -> None:
        """Sends process k its `sizes[k]` elements of `sent`, and gets `parts[k]` elements of `received` from it."""
        torch.distributed.all_to_all_single(received, sent, parts, sizes)

    def broadcast(self, values: Tensor, owner: int) -> None:
        """Gives every process what `owner` has in `values`."""
        torch.distributed.broadcast(values, src=owner)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Which of `flags` at least one process has set: all processes get the same answer."""
        if self.count == 1:
            return flags
        return tuple(bool(column) for column in self.gather(torch.tensor(flags, dtype=torch.uint8)).any(dim=0))


def _summed(parts: Tensor) -> Tensor:
    """The rows of `parts`, whose number is a power of two, summed in the fixed tree; uses them up."""
    while len(parts) > 1:
        parts = parts[0::2].add_(parts[1::2])
    return parts[0]


class GradientTree:
    """All trained parameters in one buffer, and sums of their gradients in others.

    Each parameter's data is a view of the first. Gradients go into the tree's sums one by one, as soon as the backward pass has
    made them, so that a whole model's gradients exist once per level of the tree and not once per rank. Whole parameters are
    owned by processes in contiguous stretches of about equal size, so an optimizer's blocks never straddle two owners.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], processes: Processes):
        self.parameters, self.processes = list(parameters), processes
        starts, end = [], 0
        for parameter in self.parameters:
            starts.append(end)
            end += -(-parameter.numel() // ALIGN) * ALIGN
        first = self.parameters[0]
        self.weights = torch.zeros(end, dtype=first.dtype, device=first.device)
        self._places = [slice(start, start + p.numel()) for start, p in zip(starts, self.parameters, strict=True)]
        for parameter, place in zip(self.parameters, self._places, strict=True):
            self.weights[place].copy_(parameter.data.reshape(-1))
            parameter.data = self.weights[place].view(parameter.shape)
        self._cuts, self._owners = self._share_out(starts, end)
        self._total: Tensor | None = None
        self._sums: list[Tensor] = []  # views of it
        # By level of the tree below the last: the sums, by parameter, that lack their other half.
        self._waiting: list[dict[int, Tensor]] = []
        self._host, self._leaf, self._arrived = False, 0, [True] * len(self.parameters)
        self._received: Tensor | None = None
        self._hooks: list[Any] = []

    def close(self) -> None:
        """Takes its hooks off the parameters: with them, neither is ever freed."""
        while self._hooks:
            self._hooks.pop().remove()

    def owned(self) -> list[nn.Parameter]:
        """The parameters whose optimizer state this process holds."""
        return [p for p, owner in zip(self.parameters, self._owners, strict=True) if owner == self.processes.index]

    def owner(self, index: int) -> int:
        """Which process owns parameter number `index`."""
        return self._owners[index]

    def owned_weights(self) -> Tensor:
        """The stretch of the weights that this process updates."""
        return self.weights[slice(*self._cuts[self.processes.index : self.processes.index + 2])]

    def begin(self, leaves: int, host: bool = False) -> None:
        """Makes ready to sum `leaves` (a power of two) logical ranks' gradients; what `reduce` gave is void from here on.

        With `host`, sums that lack their other half wait in the host's memory; the bits are the same.
        """
        if self._total is None:
            self._total = torch.zeros_like(self.weights)
            self._sums = [self._total[place].view(p.shape) for place, p in zip(self._places, self.parameters, strict=True)]
            hooks = ((parameter, partial(self._add_gradient, index)) for index, parameter in enumerate(self.parameters))
            self._hooks = [parameter.register_post_accumulate_grad_hook(hook) for parameter, hook in hooks]
        self._waiting = [{} for _ in range(leaves.bit_length() - 2)]
        self._host, self._leaf = host, 0
        for parameter in self.parameters:
            parameter.grad = None

    @contextmanager
    def leaf(self) -> Iterator[None]:
        """The last backward pass of a logical rank: its gradients, and those of passes before it, become the tree's next leaf."""
        self._arrived = [False] * len(self.parameters)
        yield
        for index, parameter in enumerate(self.parameters):
            if not self._arrived[index]:  # this pass did not reach it
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self._add_gradient(index, parameter)
        self._leaf += 1

    def _add_gradient(self, index: int, parameter: Tensor) -> None:
        """Adds a parameter's gradient to the tree, if this is its leaf's last pass. A sum a + b is b + a, to the bit."""
        if self._arrived[index]:
            return
        self._arrived[index] = True
        value, parameter.grad = parameter.grad, None
        assert value is not None
        for level, waiting in enumerate(self._waiting):
            if not self._leaf >> level & 1:
                waiting[index] = self._on_host(value) if self._host else value
                return
            value.add_(waiting.pop(index).to(value.device, non_blocking=True))
        total = self._sums[index]
        if self._leaf >> len(self._waiting) & 1:
            total.add_(value)
        else:
            total.copy_(value)

    @staticmethod
    def _on_host(value: Tensor) -> Tensor:
        """A copy in the host's memory, pinned where that makes copies faster."""
        host = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=value.is_cuda)
        return host.copy_(value, non_blocking=True)

    def reduce(self) -> Tensor:
        """Sums every process's leaves, in place; returns the stretch of the sum that this process owns, and sets `.grad` to it.

        The processes exchange pieces of every owner's stretch, so that this takes little memory besides the sum.
        """
        block = self._total
        assert block is not None
        low, high = self._cuts[self.processes.index], self._cuts[self.processes.index + 1]
        if self.processes.count > 1:
            longest = max(b - a for a, b in pairwise(self._cuts))
            for start in range(0, longest, PIECE):
                self._reduce_piece(block, start)
        for parameter, total, owner in zip(self.parameters, self._sums, self._owners, strict=True):
            parameter.grad = total if owner == self.processes.index else None
        return block[low:high]

    def _reduce_piece(self, block: Tensor, start: int) -> None:
        """Sums the piece that begins at `start` of every owner's stretch, each at its owner."""
        pieces = [block[min(a + start, b) : min(a + start + PIECE, b)] for a, b in pairwise(self._cuts)]
        mine = pieces[self.processes.index]
        sizes, parts = [len(piece) for piece in pieces], [len(mine)] * self.processes.count
        if self._received is None:
            self._received = block.new_empty(sum(parts))  # the first piece is the longest
        received, sent = self._received[: sum(parts)], block if sum(sizes) == len(block) else torch.cat(pieces)
        self.processes.exchange(received, sent, parts, sizes)
        if len(mine):
            halves = received.view(2, -1, len(mine))  # the two sides of the tree's last sum
            torch.add(*(_summed(half) for half in halves), out=mine)

    def share_weights(self) -> None:
        """Gives every process the weights that their owners have updated."""
        if self.processes.count == 1:
            return
        for owner, (low, high) in enumerate(pairwise(self._cuts)):
            if high > low:
                self.processes.broadcast(self.weights[low:high], owner)

    def _share_out(self, starts: list[int], end: int) -> tuple[list[int], list[int]]:
        count = self.processes.count
        owners = [min(start * count // max(end, 1), count - 1) for start in starts]
        cuts = [next((s for s, o in zip(starts, owners, strict=True) if o >= k), end) for k in range(count)]
        return [*cuts, end], owners


def launched() -> int | None:
    """This process's number among those that torchrun, accelerate or its mpirun started; None when it runs by itself.

    Raises PlacementError where accelerate expected mpirun to start several, and this one knows of no other.
    """
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ and "RANK" not in os.environ:
        _read_mpi()
    return int(os.environ["RANK"]) if all(name in os.environ for name in _LAUNCHER) else None


def _read_mpi() -> None:
    """Gives a process that accelerate had mpirun start (its MULTI_CPU) the names that torchrun has for its place."""
    from accelerate.utils import get_cpu_distributed_information

    found = get_cpu_distributed_information()
    if found.world_size == 1:
        raise PlacementError(
            "accelerate was told of several processes and started one: for MULTI_CPU it leaves that to mpirun. Add "
            "`--mpirun_hostfile FILE` to accelerate launch, or use torchrun."
        )
    os.environ |= {"RANK": str(found.rank), "LOCAL_RANK": str(found.local_rank), "WORLD_SIZE": str(found.world_size)}


def start(count: int, device: str = "cpu") -> Processes:
    """Starts `count` processes of this program by forking (the caller is number 0) and joins them.

    Where torchrun has started this one among others, on however many machines, it joins those instead. They
    talk over gloo, and about tensors on CUDA devices over NCCL, process n with device n. Call after the imports and
    before any device is in use. Every process goes on from here; `finish` ends them.
    """
    if launched() is not None:
        return _join(device)
    if count == 1:
        return Processes()
    folder = tempfile.TemporaryDirectory(prefix="astolfo-")
    parent, index = os.getpid(), 0
    children: list[int] = []
    for number in range(1, count):
        child = os.fork()
        if child == 0:
            children, index = [], number
            watch_parent(parent)
            break
        children.append(child)
    meeting = Path(folder.name, "meeting")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # works without a network, and where the host name means nothing
    if device != "cpu":
        torch.cuda.set_device(index)
    torch.distributed.init_process_group(_backend(device), init_method=f"file://{meeting}", rank=index, world_size=count)
    return Processes(count, index, tuple(children), folder=folder)


def form(device: str) -> None:
    """Forms torch's world of this process alone where there is none, for a library that asks for one."""
    if not torch.distributed.is_initialized():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        torch.distributed.init_process_group(_backend(device), store=torch.distributed.HashStore(), rank=0, world_size=1)


def _join(device: str) -> Processes:
    """The processes of torchrun's world, each with the device of its number on its own machine.

    Where accelerate's configuration says `enable_cpu_affinity`, each keeps to the CPUs of its device's NUMA node.
    """
    if device != "cpu":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if os.environ.get("ACCELERATE_CPU_AFFINITY") == "1":
            about: Any = torch.cuda.get_device_properties()  # torch's annotations leave its PCI address out
            bind(node_of(about.pci_domain_id, about.pci_bus_id, about.pci_device_id))
    torch.distributed.init_process_group(_backend(device), init_method="env://")
    return Processes(torch.distributed.get_world_size(), torch.distributed.get_rank(), launched=True)


def _backend(device: str) -> str:
    return "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"


def finish(processes: Processes, failed: bool = False) -> bool:
    """Ends what `start` began: process 0 collects the others and returns, the others leave here for good.

    When process 0 failed it ends the others, and returns whether one of them had failed before it. Raises AstolfoError
    when process 0 did not fail but another did.
    """
    if processes.launched:  # torchrun waits for its processes, and ends the others when one has failed
        if not failed:
            torch.distributed.destroy_process_group()
        return False
    if processes.count == 1:
        return False
    if processes.index:
        sys.stderr.flush()
        os._exit(1 if failed else 0)
    time.sleep(_GRACE if failed else 0)
    codes = []
    for child in processes.children:
        gone, status = os.waitpid(child, os.WNOHANG if failed else 0)
        if not gone:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        codes.append(os.waitstatus_to_exitcode(status) if gone else 0)
    processes.folder.cleanup()
    if any(codes) and not failed:
        raise AstolfoError("A training process failed; its message stands above.")
    return any(codes)
