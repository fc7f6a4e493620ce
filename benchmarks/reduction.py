"""What the deterministic reduction costs: a training step against one of plain DDP, in two processes on CPUs, in the same run.

    python benchmarks/reduction.py [--rounds 15] [--processes 2] [MODEL ...]

Both do the same forward and backward passes of the same model, four logical ranks shared out over the processes, and the same
AdamW. Ours sums the ranks' gradients in the fixed tree (`astolfo.train.ranks`): an all-to-all of the blocks, the update of the
parameters that each process owns, a broadcast of them. DDP sums with gloo's ring while the backward pass runs, and every
process updates everything. Steps alternate; the ratios of the medians are printed, of the time and of the processors' time,
which says more on a machine that does other things. `unet` is the miniature's (bound by computing), `wide` eight dense layers
of 2,048 (33.6 million weights in fp32 for eight rows: close to bound by moving them).
"""

import argparse
import statistics
import time
from pathlib import Path

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

from astolfo.checkpoint.architecture import Architecture  # noqa: E402
from astolfo.ledger import load  # noqa: E402
from astolfo.train import ranks  # noqa: E402
from astolfo.train.initialise import initialise  # noqa: E402
from astolfo.train.ranks import GradientTree  # noqa: E402

CONFIG = Path(__file__).parent.parent / "config"
RANKS = 4


class Unet(nn.Module):
    """The miniature's UNet on one latent, with its conditioning."""

    def __init__(self):
        super().__init__()
        architecture = Architecture.from_mapping(load(CONFIG).scale.architectures["sdxl"], "sdxl")
        self.unet = initialise(architecture.build("unet", "cpu"), 1).to(torch.float32)
        config = self.unet.config
        self.context = config.cross_attention_dim
        self.pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        self.side, self.channels = config.sample_size, config.in_channels

    def forward(self, seed):
        """The mean square of what the UNet predicts for a latent made from `seed`."""
        random = torch.Generator().manual_seed(seed)
        latent = torch.randn(1, self.channels, self.side, self.side, generator=random)
        context = torch.randn(1, 77, self.context, generator=random)
        added = {"text_embeds": torch.randn(1, self.pooled, generator=random), "time_ids": torch.full((1, 6), 48.0)}
        return self.unet(latent, torch.tensor([500]), context, added_cond_kwargs=added)[0].square().mean()


class Wide(nn.Module):
    """Eight dense layers of 2,048."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Linear(2048, 2048), nn.SiLU())))

    def forward(self, seed):
        """The mean square of what comes out for eight rows made from `seed`."""
        return self.layers(torch.randn(8, 2048, generator=torch.Generator().manual_seed(seed))).square().mean()


MODELS = {"unet": Unet, "wide": Wide}


class Ours:
    """Steps as `astolfo.train.loop` does them."""

    def __init__(self, model, processes):
        self.model, self.processes = model, processes
        self.gradient_tree = GradientTree(list(model.parameters()), processes)
        self.optimizer = torch.optim.AdamW(self.gradient_tree.owned(), foreach=False)

    def step(self, number):
        """Forward and backward of this process's ranks, the tree, the update, the exchange."""
        block = self.processes.block(RANKS)
        self.gradient_tree.begin(len(block))
        for rank in block:
            with self.gradient_tree.leaf():
                self.model(number * RANKS + rank).backward()
        self.gradient_tree.reduce().div_(RANKS)
        self.optimizer.step()
        self.gradient_tree.share_weights()


class Plain:
    """Steps of DDP: gradients accumulate over this process's ranks, the last backward pass exchanges them."""

    def __init__(self, model, processes):
        self.model, self.processes = DistributedDataParallel(model), processes
        self.optimizer = torch.optim.AdamW(model.parameters(), foreach=False)

    def step(self, number):
        """Forward and backward of this process's ranks, with the ring in the last, and the update."""
        self.optimizer.zero_grad()
        *first, last = self.processes.block(RANKS)
        with self.model.no_sync():
            for rank in first:
                self.model(number * RANKS + rank).backward()
        self.model(number * RANKS + last).backward()
        self.optimizer.step()


def measure(name, rounds, processes):
    """(seconds, seconds of all processes' CPUs) per step of both, by name; the slowest process counts."""
    subjects = {"ours": Ours(MODELS[name](), processes), "DDP": Plain(MODELS[name](), processes)}
    times = {kind: [] for kind in subjects}
    for number in range(rounds + 2):
        for kind, subject in subjects.items():
            torch.distributed.barrier()
            begun, busy = time.perf_counter(), time.process_time()
            subject.step(number)
            busy = time.process_time() - busy
            torch.distributed.barrier()
            taken, busy = time.perf_counter() - begun, sum(processes.gather_objects(busy))
            if number >= 2:  # the first steps make buffers and state
                times[kind].append((taken, busy))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=2, choices=[2, 4])
    parser.add_argument("models", nargs="*", choices=[[], *MODELS], help="which models; all by default")
    options = parser.parse_args()
    processes = ranks.start(options.processes)
    for name in options.models or MODELS:
        times = measure(name, options.rounds, processes)
        if processes.index == 0:
            (ours, busy), (plain, plain_busy) = (
                [statistics.median(column) for column in zip(*times[kind], strict=True)] for kind in times
            )
            size = sum(p.numel() for p in MODELS[name]().parameters()) / 1e6
            print(
                f"{name:6} {size:6.1f} M weights: {ours:.3f} s a step, DDP {plain:.3f} s, ratio {ours / plain:.3f}; "
                f"CPU {busy:.3f} s and {plain_busy:.3f} s, ratio {busy / plain_busy:.3f} "
                f"(medians of {options.rounds}, {options.processes} processes)",
                flush=True,
            )
    ranks.finish(processes)


if __name__ == "__main__":
    main()
