"""How much of an update bf16 weights keep: each `precision.update`, against the same optimizer in float64.

    python benchmarks/drift.py [--run 25112201] [--steps 50] [--optimizer AdamW]

Weights are N(0, 0.02), as in a UNet; the gradient points the same way at every step, so the ideal is a straight drift. Printed
for each learning rate: the share of the ideal drift that the weights made, and the share of weights that moved at all. Last the
processor time of a step, in milliseconds for a million weights.
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

from astolfo import randomness  # noqa: E402
from astolfo.ledger import load, recipe_of  # noqa: E402
from astolfo.ledger.recipe import Recipe  # noqa: E402
from astolfo.ledger.schema import LearningRate, Optimizer, Precision  # noqa: E402
from astolfo.train import update  # noqa: E402

CONFIG = Path(__file__).parent.parent / "config"
RATES = (4e-7, 1.5e-6, 1e-5, 1e-4)
UPDATES = (None, "stochastic", "master")
SHAPE = (256, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="25112201", help="whose recipe is used, at full scale")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--optimizer", default="AdamW", help="its kind")
    options = parser.parse_args()
    ledger = load(CONFIG, "full")
    recipe = recipe_of(ledger, ledger.run(options.run)).model_copy(update={"optimizer": Optimizer(kind=options.optimizer)})
    print(f"{options.steps} steps of {options.optimizer} in one direction: share of the ideal drift (weights moved)")
    print(f"{'rate':>8}", *(f"{name or 'nearest':>22}" for name in UPDATES))
    for rate in RATES:
        print(f"{rate:8.1e}", *(f"{'{:.1%} ({:.1%})'.format(*kept(recipe, rate, name, options.steps)):>22}" for name in UPDATES))

    print(f"{'ms':>8}", *(f"{cost(recipe, name):>22.1f}" for name in UPDATES))


def cost(recipe: Recipe, kind: str | None, side: int = 1024) -> float:
    """Milliseconds of processor time that one step of a matrix of side x side weights takes, the median of five."""
    parameter = nn.Parameter(torch.from_numpy(randomness.normal(1, "weights", 0, (side, side))).mul(0.02).bfloat16())
    changed = recipe.model_copy(update={"precision": Precision(weights="bf16", update=kind), "first_step": 0})
    subject = update.build(changed, [("unet", "weight", parameter)], {id(parameter): parameter.detach().float()})
    parameter.grad = torch.full_like(parameter, 1e-3)
    times = []
    for step in range(6):
        begun = time.process_time()
        subject.step(step)
        times.append(time.process_time() - begun)
    return 1e9 * statistics.median(times[1:]) / side**2


def kept(recipe: Recipe, rate: float, kind: str | None, steps: int) -> tuple[float, float]:
    """Share of the float64 drift that the weights made, and the share of them that moved."""
    start = torch.from_numpy(randomness.normal(1, "weights", 0, SHAPE)).mul(0.02).bfloat16()
    direction = torch.from_numpy(randomness.normal(1, "gradient", 0, SHAPE)).sign()
    parameter = nn.Parameter(start.clone())
    changed = recipe.model_copy(
        update={"learning_rate": LearningRate(unet=rate), "precision": Precision(weights="bf16", update=kind), "first_step": 0}
    )
    subject = update.build(changed, [("unet", "weight", parameter)], {id(parameter): start.float()})
    for step in range(steps):
        parameter.grad = direction.mul(1e-3).bfloat16()
        subject.step(step)
    state = subject.state_of(parameter)
    moved = state.get(update.MASTER, parameter.detach()).double() - start.double()
    ideal = _ideal(changed, rate, start.double(), direction, steps) - start.double()
    return ((moved * -direction).sum() / (ideal * -direction).sum()).item(), (moved != 0).double().mean().item()


def _ideal(recipe: Recipe, rate: float, start: torch.Tensor, direction: torch.Tensor, steps: int) -> torch.Tensor:
    """The same by torch's AdamW in float64."""
    parameter, choice = nn.Parameter(start.clone()), recipe.optimizer
    optimizer = torch.optim.AdamW([parameter], lr=rate, betas=choice.betas, eps=choice.eps, weight_decay=choice.weight_decay)
    for _ in range(steps):
        parameter.grad = direction.double() * 1e-3
        optimizer.step()
    return parameter.detach()


if __name__ == "__main__":
    main()
