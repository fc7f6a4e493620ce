"""What full-size trainings need of each card's memory, predicted from shapes on the meta device: no GPU, nothing measured.

    python benchmarks/memory.py [--run 25112201]

Each line is a way to run the recipe: on so many cards, with which placement options. Then what of gradient checkpointing each
block saves in activations and costs in operations, the whole UNet trained.
"""

import argparse
from pathlib import Path

from astolfo import numerics

numerics.pin()
numerics.make_deterministic()

from astolfo.ledger import load, recipe_of  # noqa: E402
from astolfo.plan.memory import placements  # noqa: E402
from astolfo.train.memory import flops, predict  # noqa: E402

CONFIG = Path(__file__).parent.parent / "config"
CASES = (  # percent of the UNet, cards, options
    (71, 1, {"checkpointing": True}),
    (71, 1, {"checkpointing": True, "offload": True}),
    (71, 4, {"checkpointing": True}),
    (100, 4, {"checkpointing": True}),
    (100, 4, {}),
    (100, 1, {"checkpointing": True, "offload": True}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="25112201", help="whose recipe, but for the share of the UNet that trains")
    options = parser.parse_args()
    ledger = load(CONFIG, "full")
    recipe = recipe_of(ledger, ledger.run(options.run))
    for percent, cards, placement in CASES:
        found = predict(recipe.model_copy(update={"unet": percent}), processes=cards, **placement)
        print(f"{percent:3} % of the UNet, {cards} x device, {', '.join(placement) or 'nothing else'}: {found}", flush=True)
    recipe = recipe.model_copy(update={"unet": 100})
    least = flops(recipe)
    for placement in placements(recipe, recipe.ranks):  # one logical rank a process: none of them offloads
        blocks = placement["gradient_checkpointing"]
        kept, work = predict(recipe, checkpointing=blocks).activations, flops(recipe, checkpointing=blocks)
        name = {True: "all", False: "none"}.get(blocks) or ", ".join(blocks)
        print(f"{kept / 1e9:.2f} GB of activations, {work / least:.3f} times the operations: {name}", flush=True)


if __name__ == "__main__":
    main()
