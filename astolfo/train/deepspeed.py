"""Training by DeepSpeed's ZeRO-2, for recipes whose `engine` asks for it.

The engine does forward, backward, the reduction of gradients and the update, over optimizer state that its ranks share out;
data order, noise, captions and losses stay ours. It flattens all weights of a group and cuts the flat buffer by ranks, sums
gradients in its library's order, and cuts 8-bit blocks anew: so its world size, kernels and compilation belong to the recipe,
and every logical rank is a process. Same recipe, same bits; a resume leaves no trace.

`deepspeed.initialize` is called directly: accelerate's plugin wants its launcher's environment and a TCP meeting point, owns
optimizer and accumulation, and saves by pickle. Here a state holds the flat partitions of every rank as tensors.
"""

import logging
import os
import shutil
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from astolfo import deferred_imports
from astolfo.data.order import Batch
from astolfo.errors import PlacementError
from astolfo.ledger.recipe import Recipe
from astolfo.train import optimizer as optimizers
from astolfo.train import ranks, schedule
from astolfo.train.guards import all_finite, finite, spike
from astolfo.train.loop import Trainer
from astolfo.train.placement import Placement
from astolfo.train.state import State

log = logging.getLogger(__name__)
_CACHE = Path(".astolfo")  # compiled kernels; below the working directory


def check(recipe: Recipe, placement: Placement) -> Placement:
    """The placement that the engine needs: a process per rank. Raises PlacementError for what the machine lacks."""
    assert recipe.engine
    if placement.device == "cuda" and torch.cuda.device_count() < recipe.ranks:
        raise PlacementError(
            f"This run's engine is DeepSpeed, whose world size decides the bits: it needs {recipe.ranks} CUDA devices, here are "
            f"{torch.cuda.device_count()}. Run it on a machine that has them."
        )
    compiler = os.environ.get("CXX", "g++")
    if recipe.engine.compile and not shutil.which(compiler):
        raise PlacementError(
            f"This run's engine compiles its model (compile: {recipe.engine.compile}), which needs a C++ compiler; "
            f"{compiler!r} is not on the PATH. Install g++, or name one in the environment variable CXX."
        )
    checkpointing = placement.gradient_checkpointing
    if checkpointing and recipe.engine.compile:
        log.warning("no gradient checkpointing: in a compiled model it would decide bits")
        checkpointing = False
    return replace(placement, processes=recipe.ranks, gradient_checkpointing=checkpointing)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """DeepSpeed's configuration: one stream of communication, so that sums have one order; nothing printed or measured."""
    return {
        "train_micro_batch_size_per_gpu": recipe.batch_size,
        "gradient_accumulation_steps": 1,  # the boundary of a step is set by hand: an epoch's last step may be shorter
        "gradient_clipping": recipe.max_grad_norm,
        "bf16": {"enabled": recipe.precision.weights == "bf16"},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 2,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "round_robin_gradients": False,
            "reduce_bucket_size": 1 << 26,
            "allgather_bucket_size": 1 << 26,
        },
        "steps_per_print": 1 << 62,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},  # would wait for the device before every forward pass
    }


class _Whole(nn.Module):
    """All parts of the model as the one module that the engine wraps: from a micro-batch to its loss."""

    def __init__(self, trainer: "DeepSpeedTrainer"):
        super().__init__()
        self.parts = nn.ModuleDict(trainer.parts)
        self._loss = trainer._loss

    def forward(self, batch: Batch, share: float) -> Tensor:
        return self._loss(batch) * share


class DeepSpeedTrainer(Trainer):
    """A model in training by ZeRO-2; one logical rank per process."""

    realised: dict[str, str]

    def _prepare(self, chosen: list[tuple[str, str, nn.Parameter]]) -> None:
        assert self.recipe.engine
        assert self.processes.count == self.recipe.ranks
        self.realised = {}
        if self.recipe.engine.attention and self.device.type != "cuda":
            self.realised["attention"] = "math"
            if self.processes.index == 0:
                log.warning("attention: %s needs a GPU; here it is the plain one (math)", self.recipe.engine.attention)
        if self.recipe.engine.compile:
            _compile(self.parts["unet"], self.recipe.engine.compile)
        optimizer = optimizers.build(self.recipe, chosen)
        ranks.form(self.device.type)
        self.engine = _initialise(_Whole(self), optimizer, _settings(self.recipe), self.processes.index, self.processes.count)
        self.zero = self.engine.optimizer
        self.optimizer = self.zero.optimizer  # the same one, over flat partitions

    def step(self, step: int) -> float:
        """As `Trainer.step`, by the engine."""
        rounds = self.reader.step(step)
        self._move_to_device(rounds)
        rank, losses = self.processes.index, []
        with self._kernels():
            for number, row in enumerate(rounds):
                batch = row[rank]
                # A rank without a batch computes another's, worth nothing: the engine's ranks reduce in step.
                share = self._share(batch, rounds) if batch is not None else 0.0
                value = self.engine(batch if batch is not None else row[0], share)
                self.engine.set_gradient_accumulation_boundary(number + 1 == len(rounds))
                self.engine.backward(value)
                if batch is not None:
                    losses.append((batch, value.detach()))
            loss = self._mean([losses], step)
            if value := spike(self.losses, loss, self.recipe.loss_spike):
                self._wrong("spike", step, [], value)
            self._check_parts("gradient", step)
            optimizers.set_rate(self.optimizer, schedule.factor(self.recipe, step))
            self.engine.step()
            self._check_parts("weight", step)
        self.losses.append(loss)
        return loss

    def close(self) -> None:
        """As `Trainer.close`, of the engine."""
        self.engine.destroy()

    def _kernels(self) -> AbstractContextManager:
        """The attention that the recipe asks for, or what the device has instead."""
        if not (self.recipe.engine and self.recipe.engine.attention):
            return nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel(SDPBackend.MATH if "attention" in self.realised else SDPBackend.EFFICIENT_ATTENTION)

    def _check_parts(self, what: str, step: int) -> None:
        """Raises WrongNumber in every process when a gradient or weight of one rank's partition is not finite."""
        partitions = self.zero.single_partition_of_fp32_groups if what == "weight" else self._gradients()
        if not any(self.processes.any(not all_finite(partitions))):
            return
        names = {id(parameter): name for name, parameter in zip(self.names, self.parameters, strict=True)}
        found = []
        for group, members in enumerate(self.zero.params_in_partition):
            values = members if what == "weight" else self.zero.averaged_gradients[group]
            found += [names[id(p)] for p, value in zip(members, values, strict=False) if not finite(value)]
        self._wrong(what, step, found)

    def _gradients(self) -> list[Tensor]:
        return [value for group in self.zero.averaged_gradients.values() for value in group or ()]

    # ---- states

    def state(self, position: int) -> State | None:
        """As `Trainer.state`: weights by name, and every rank's partitions with their optimizer state."""
        entries: dict[str, Any] = {}
        for group, partition in enumerate(self.zero.single_partition_of_fp32_groups):
            mine = {"fp32": partition.detach().cpu(), **optimizers.state_of(self.optimizer, partition)}
            for rank in range(self.processes.count):
                found = self.processes.collect(rank, mine if rank == self.processes.index else {})
                entries |= {f"{rank}/{group}/{entry}": value for entry, value in found.items()}
        if self.processes.index:
            return None
        return State(
            position=position, weights=self._weights(), engine=entries, loss=list(self.losses), realised=self.realised or None
        )

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """As `Trainer.restore`: every rank takes its own partitions."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            parameter.copy_(state.weights[name])
        for group, partition in enumerate(self.zero.single_partition_of_fp32_groups):
            prefix = f"{self.processes.index}/{group}/"
            mine = {key.removeprefix(prefix): value for key, value in state.engine.items() if key.startswith(prefix)}
            partition.copy_(mine.pop("fp32"))
            optimizers.restore(self.optimizer, partition, mine)
        self.losses = list(state.loss)


def _compile(unet: Any, backend: str) -> None:
    """Has torch compile the UNet's transformer blocks, with the instruction set that all our numerics are pinned to.

    All blocks share their code, so each shape is compiled once; the whole UNet takes over ten times as long.
    """
    for name in ("TORCHINDUCTOR", "TRITON"):
        os.environ[f"{name}_CACHE_DIR"] = str((_CACHE / name.lower()).absolute())
    import torch._inductor.config as inductor

    inductor.cpp.simdlen = 256
    inductor.cpp.threads = 1
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that there is no CUDA runtime
    inductor.compile_threads = 1  # no worker processes, which would outlive a training that is killed
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at it
    unet.compile_repeated_blocks(backend=backend)


def _initialise(module: nn.Module, optimizer: Any, settings: dict[str, Any], rank: int, world: int) -> Any:
    """DeepSpeed's engine in the world that is already formed, without its talk."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_SIZE": str(world)}
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    warnings.filterwarnings("ignore", message=".*all_gather_into_tensor")  # what DeepSpeed calls has a new name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deepspeed = deferred_imports.load("deepspeed")
        deepspeed.ops.__compatible_ops__ = {}  # operators that it would compile for a minute; nothing here uses them
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=settings, dist_init_required=False,
            model_parameters=[p for p in module.parameters() if p.requires_grad],
        )  # fmt: skip
    return engine
