"""What sd-scripts writes into a model about its training (`ss_*`), for the viewers that people have.

All values are text, as there. What differs between two equal runs (dates, session, host) and what only a LoRA has is left out.
Source: `train_network.py` and `library/train_util.py` of kohya-ss/sd-scripts.
"""

from typing import Any

from astolfo.files import canonical_json
from astolfo.ledger import schema
from astolfo.ledger.recipe import Recipe

_VERSIONS = {"sdxl": "sdxl_base_v1-0", "sd2": "sd_v2"}
_PRECISIONS = {"fp32": "no"}  # as accelerate spells it
_OPTIMIZERS = {
    "AdamW": "torch.optim.adamw.AdamW", "AdamW8bit": "bitsandbytes.optim.adamw.AdamW8bit",
    "PagedAdamW8bit": "bitsandbytes.optim.adamw.PagedAdamW8bit", "Lion8bit": "bitsandbytes.optim.lion.Lion8bit",
    "AdaFactor": "transformers.optimization.Adafactor", "AdamW4bit": "torchao.optim.adam.AdamW4bit",
    "Lion": "lion_pytorch.lion_pytorch.Lion", "CautiousLion": "pytorch_optimizer.optimizer.lion.Lion",
    "C-Lion": "pytorch_optimizer.optimizer.lion.Lion", "CAME": "pytorch_optimizer.optimizer.came.CAME",
    "Prodigy": "prodigyopt.prodigy.Prodigy", "AdamWScheduleFree": "schedulefree.adamw_schedulefree.AdamWScheduleFree",
}  # fmt: skip
"""The class, with its module, that sd-scripts makes of each kind; its name is the first part of `ss_optimizer`."""
_ARGUMENTS = {"bias_correction": "use_bias_correction", "averaging_power": "r", "rate_power": "weight_lr_power"}
SCHEDULES = {"warmup": "constant_with_warmup", "warmup-linear": "linear", "cosine-with-restarts": "cosine_with_restarts"}


def describe(
    recipe: Recipe,
    *,
    name: str,
    steps: int,
    run_steps: int | None = None,
    resolution: tuple[int, int],
    images: int | None = None,
    base: tuple[str, str] | None = None,
) -> dict[str, str]:
    """The keys for a model `name` after `steps` optimizer steps of `recipe` on `images` pictures, from `base` (file, sha256).

    `run_steps`: those of the whole run, where the model is a checkpoint on its way; None for its result. `resolution` is width
    and height in pixels. What is not known has no key.
    """
    found = {
        "ss_output_name": name,
        "ss_base_model_version": _VERSIONS[recipe.family]
        + ("_v" if recipe.family == "sd2" and recipe.objective.kind == "v" else ""),
        "ss_v2": recipe.family == "sd2",
        "ss_optimizer": _optimizer(recipe.optimizer),
        "ss_learning_rate": recipe.learning_rate.unet,
        "ss_unet_lr": recipe.learning_rate.unet,
        "ss_text_encoder_lr": recipe.learning_rate.text_encoder,
        "ss_lr_scheduler": SCHEDULES.get(recipe.schedule.kind, recipe.schedule.kind),
        "ss_lr_warmup_steps": recipe.schedule.warmup_steps,
        "ss_seed": recipe.seed,
        "ss_steps": steps,
        "ss_max_train_steps": recipe.last_step or run_steps,
        "ss_batch_size_per_device": recipe.batch_size,
        "ss_total_batch_size": recipe.batch_size * recipe.ranks * recipe.accumulation,
        "ss_gradient_accumulation_steps": recipe.accumulation,
        "ss_max_grad_norm": recipe.max_grad_norm,
        "ss_mixed_precision": _PRECISIONS.get(recipe.precision.compute, recipe.precision.compute),
        "ss_max_token_length": recipe.captions.tokens,
        "ss_caption_dropout_rate": recipe.captions.dropout,
        "ss_zero_terminal_snr": recipe.objective.zero_terminal_snr,
        "ss_resolution": f"({resolution[0]}, {resolution[1]})",
        "ss_num_train_images": images,
        "ss_num_reg_images": 0,
        "ss_num_batches_per_epoch": _batches(recipe, images),
        "ss_epoch": _epoch(recipe, steps),
        "ss_num_epochs": _epoch(recipe, run_steps or steps),
        "ss_sd_model_name": base[0] if base else None,
        "ss_new_sd_model_hash": base[1] if base else None,
    }
    if recipe.learning_rate.blocks:
        found["ss_block_lrs"] = canonical_json(recipe.learning_rate.blocks)
    return {key: str(value) for key, value in sorted(found.items()) if value is not None}


def arguments(one: schema.Optimizer) -> dict[str, Any]:
    """An optimizer's arguments by the names that sd-scripts' `--optimizer_args` has for them."""
    given = one.model_dump(exclude={"kind"}, exclude_none=True)
    if one.kind in ("CautiousLion", "C-Lion"):
        given["cautious"] = True
    if given.pop("coupled_decay", None):
        given["decouple"] = False
    return {_ARGUMENTS.get(name, name): value for name, value in given.items()}


def _optimizer(one: schema.Optimizer) -> str:
    """The optimizer as that trainer prints it: the class, then NAME=VALUE with values as Python writes them."""
    return f"{_OPTIMIZERS[one.kind]}({','.join(f'{name}={value}' for name, value in arguments(one).items())})"


def _batches(recipe: Recipe, images: int | None) -> int | None:
    """Micro-batches of all ranks in an epoch."""
    return None if images is None else -(-images // recipe.batch_size)


def _epoch(recipe: Recipe, steps: int) -> int | None:
    """Which epoch the last step lies in, counted from 1."""
    return -(-steps // recipe.steps_per_epoch) if recipe.steps_per_epoch else None
