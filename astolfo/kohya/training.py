"""What a launch says of the training itself, as the ledger's keys: objective, rates, optimizer, schedule, precision, engine.

Each function reads its options from `Values` and returns what the ledger says for them, in the ledger's words; what has no
counterpart it refuses there. Where a line is silent, the value is sd-scripts' (kohya-ss/sd-scripts at 48d368f).
"""

import math
from typing import Any

from astolfo.errors import InputError
from astolfo.kohya.launch import Given, Launch
from astolfo.kohya.options import options
from astolfo.kohya.values import Values, arguments
from astolfo.ledger.schema.optimizer import OPTIMIZERS

_NAMES = {
    "adamw": "AdamW", "torch.optim.adamw": "AdamW",
    "adamw8bit": "AdamW8bit", "bitsandbytes.optim.adamw8bit": "AdamW8bit",
    "pagedadamw8bit": "PagedAdamW8bit", "bitsandbytes.optim.pagedadamw8bit": "PagedAdamW8bit",
    "lion": "Lion", "lion_pytorch.lion": "Lion", "pytorch_optimizer.lion": "Lion",
    "lion8bit": "Lion8bit", "pagedlion8bit": "Lion8bit", "bitsandbytes.optim.lion8bit": "Lion8bit",
    "adafactor": "AdaFactor", "transformers.optimization.adafactor": "AdaFactor", "transformers.adafactor": "AdaFactor",
    "prodigy": "Prodigy", "prodigyopt.prodigy": "Prodigy",
    "adamwschedulefree": "AdamWScheduleFree", "schedulefree.adamwschedulefree": "AdamWScheduleFree",
    "pytorch_optimizer.came": "CAME",
    "torchao.optim.adamw4bit": "AdamW4bit", "torchao.prototype.low_bit_optim.adamw4bit": "AdamW4bit",
}  # fmt: skip
_NEAREST = {
    "adamw8bit": "AdamW8bit", "pagedadamw": "AdamW", "radam": "AdamWScheduleFree", "sgd": "AdamW", "dadapt": "Prodigy",
    "came": "pytorch_optimizer.CAME", "adamw": "AdamW", "lion": "Lion",
}  # fmt: skip
"""Begins of names of optimizers that the ledger lacks, and what comes nearest."""
_ARGUMENTS = {
    "use_bias_correction": "bias_correction", "r": "averaging_power", "weight_lr_power": "rate_power",
    "decouple": "coupled_decay",
}  # fmt: skip
_SWITCHES = (
    "relative_step",
    "warmup_init",
    "scale_parameter",
    "bias_correction",
    "safeguard_warmup",
    "coupled_decay",
    "cautious",
)
_AT_DEFAULT = {
    "amsgrad": False, "maximize": False, "foreach": None, "fused": None, "cautious": False, "decay_rate": -0.8, "beta1": None,
    "warmup_steps": 0, "slice_p": 1, "fsdp_in_use": False, "growth_rate": float("inf"), "percentile_clipping": 100,
    "block_wise": True, "min_8bit_size": 4096, "is_paged": False, "ams_bound": False, "weight_decouple": True,
    "fixed_decay": False, "use_gc": False, "use_triton": False,
}  # fmt: skip
"""Arguments of the libraries that the ledger lacks, and their defaults: given so, they say nothing."""
_SCHEDULES = {
    "constant_with_warmup": "warmup", "linear": "linear", "cosine": "cosine", "cosine_with_restarts": "cosine-with-restarts",
    "polynomial": "polynomial",
}  # fmt: skip
_NO_MODELS = {
    "network_": "a LoRA", "lora_": "a LoRA", "token_string": "an embedding", "init_word": "an embedding",
    "num_vectors_per_token": "an embedding", "cond_emb_dim": "a ControlNet", "controlnet_": "a ControlNet",
}  # fmt: skip
"""Begins of options of trainers that train no whole model."""
_PRECISIONS = {"no": "fp32", "bf16": "bf16", "float": "fp32", "fp16": "fp16"}


def of_no_model(launch: Launch) -> tuple[str, Given] | None:
    """What a launch trains in the place of a whole model, and the option that shows it; None for one that trains a model.

    A configuration file alone does not say whose trainer reads it.
    """
    for name, given in launch.given.items():
        what = next((what for begin, what in _NO_MODELS.items() if name.startswith(begin)), "")
        if what and given.value not in (None, False, "", []):
            return f"--{name} is of a trainer of {what}, which is no checkpoint: a ledger holds whole models", given
    return None


def objective(values: Values) -> Any:
    """`eps`, or a mapping with its kind."""
    kind = "rf" if values.get("flow_model") else "v" if values.get("v_parameterization") else "eps"
    found: dict[str, Any] = {"kind": kind}
    found |= _flow(values) if kind == "rf" else _diffusion(values, kind)
    found |= _noise(values) | _loss(values)
    return kind if len(found) == 1 else found


def _flow(values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if values.get("flow_timestep_distribution") != "logit_normal":
        values.refuse("flow_timestep_distribution", "Timesteps of rf are logit-normal here", "logit_normal")
    for name, default in (("flow_logit_mean", 0.0), ("flow_logit_std", 1.0)):
        if values.get(name) != default:
            values.refuse(name, "Timesteps of rf are logit-normal(0, 1) here", f"{default:g}")
    ratio = values.get("flow_uniform_static_ratio")
    if values.get("flow_uniform_shift") and ratio:
        found["shift"] = _plain(ratio)
    elif ratio:
        values.none("flow_uniform_static_ratio", "Of --flow_uniform_shift, which is not given")
    if values.get("contrastive_flow_matching") and not values.get("cfm_lambda"):
        values.none("contrastive_flow_matching", "--cfm_lambda 0: its term weighs nothing")
    elif values.get("contrastive_flow_matching"):
        found["contrastive"] = values.get("cfm_lambda")
    _without(values, ("v_parameterization", "zero_terminal_snr", "min_snr_gamma", "scale_v_pred_loss_like_noise_pred",
                      "v_pred_like_loss", "debiased_estimation_loss"), "That fork ignores it with --flow_model")  # fmt: skip
    for name, default in (("min_timestep", 0), ("max_timestep", 1000)):
        if values.get(name) not in (None, default):
            values.refuse(name, "rf has no range of timesteps here", "the whole range")
    return found


def _diffusion(values: Values, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    _without(values, ("flow_uniform_shift", "flow_uniform_static_ratio", "flow_use_ot", "contrastive_flow_matching", "cfm_lambda",
                      "flow_timestep_distribution"), "Of --flow_model, which is not given")  # fmt: skip
    if values.get("zero_terminal_snr"):
        if kind == "v":
            found["zero_terminal_snr"] = True
        else:
            values.refuse(
                "zero_terminal_snr",
                "At the last timestep the input is pure noise, from which eps learns nothing",
                "--v_parameterization",
            )
    if values.get("min_snr_gamma"):
        found["min_snr_gamma"] = _plain(values.get("min_snr_gamma"))
    for name, wanted in (("scale_v_pred_loss_like_noise_pred", "v"), ("v_pred_like_loss", "eps")):
        if not values.get(name):
            continue
        if kind == wanted:
            found[name] = values.get(name)
        else:
            values.refuse(name, f"It belongs to {wanted}; that trainer refuses it with {kind}", "without it")
    if values.get("debiased_estimation_loss"):
        found["debiased_estimation_loss"] = True
    if values.get("min_timestep"):
        found["min_timestep"] = values.get("min_timestep")
    if values.get("max_timestep") not in (None, 1000):
        found["max_timestep"] = values.get("max_timestep")
    return found


def _noise(values: Values) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if values.get("noise_offset"):
        found["noise_offset"] = values.get("noise_offset")
        if values.get("noise_offset_random_strength"):
            found["noise_offset_random"] = True
        if values.get("adaptive_noise_scale") is not None:
            found["adaptive_noise_scale"] = values.get("adaptive_noise_scale")
    else:
        _without(values, ("noise_offset_random_strength", "adaptive_noise_scale"), "Of --noise_offset, which is not given")
    if values.get("multires_noise_iterations"):
        found["multires_noise"] = {
            "iterations": values.get("multires_noise_iterations"), "discount": values.get("multires_noise_discount")
        }  # fmt: skip
    else:
        _without(values, ("multires_noise_discount",), "Of --multires_noise_iterations, which is not given")
    if values.get("ip_noise_gamma"):
        found["ip_noise_gamma"] = values.get("ip_noise_gamma")
        if values.get("ip_noise_gamma_random_strength"):
            found["ip_noise_gamma_random"] = True
    else:
        _without(values, ("ip_noise_gamma_random_strength",), "Of --ip_noise_gamma, which is not given")
    return found


def _loss(values: Values) -> dict[str, Any]:
    kind = values.get("loss_type")
    if kind in ("l2", "l1"):
        _without(values, ("huber_schedule", "huber_c", "huber_scale"), "Of a Huber or smooth L1 loss, which is not asked for")
        return {} if kind == "l2" else {"loss": kind}
    schedule = values.get("huber_schedule")
    found = {"kind": kind, "schedule": schedule, "c": values.get("huber_c")}
    if schedule == "snr":
        _without(values, ("huber_scale",), "It has no effect under --huber_schedule snr")
    elif values.get("huber_scale") != 1.0:
        found["scale"] = values.get("huber_scale")
    return {"loss": found}


def rates(values: Values, family: str, semantics: str) -> dict[str, Any]:
    """Learning rates by part."""
    main = values.get("learning_rate")
    found: dict[str, Any] = {"unet": main}
    if values.get("block_lr") and not main:
        values.none("block_lr", "--learning_rate 0 trains nothing of the UNet")
    elif values.get("block_lr"):
        found["blocks"] = _block_rates(values)
    if family == "sd2":
        _without(values, ("learning_rate_te1", "learning_rate_te2"), "SD 2.x has one text encoder: --learning_rate_te")
        one = values.get("learning_rate_te")
        encoders = (main if one is None else one, 0.0)
    else:
        one = values.get("learning_rate_te")
        _without(values, ("learning_rate_te",), "sdxl_train.py does not read it; --learning_rate_te1 and te2 count")
        pair = [values.get("learning_rate_te1"), values.get("learning_rate_te2")]
        encoders = (main if pair[0] is None else pair[0], main if pair[1] is None else pair[1])
    if not values.get("train_text_encoder"):
        _without(
            values, ("learning_rate_te", "learning_rate_te1", "learning_rate_te2"), "Of --train_text_encoder, which is not given"
        )
        encoders = (0.0, 0.0)
    elif semantics == "kohya-native" and bool(encoders[0]) != bool(encoders[1]):
        name = f"learning_rate_te{1 if encoders[0] else 2}"
        values.none(name if values.on(name) else "train_text_encoder", "That fork trains both text encoders, or neither")
        encoders = (0.0, 0.0)
    if encoders[0] == encoders[1]:
        return found | ({"text_encoders": encoders[0]} if encoders[0] else {})
    return found | {key: rate for key, rate in zip(("text_encoder", "text_encoder_2"), encoders, strict=True) if rate}


def _block_rates(values: Values) -> list[float]:
    given = str(values.get("block_lr"))
    try:
        return [float(one) for one in given.split(",")]
    except ValueError:
        raise InputError(
            f"{values.place('block_lr')}: --block_lr expects 23 rates with commas between them, found {given!r}."
        ) from None


def optimizer(values: Values) -> Any:
    """The optimizer's name, or a mapping with its kind and arguments."""
    given = arguments(values, "optimizer_args")
    name = str(values.get("optimizer_type") or "AdamW")
    if values.get("use_8bit_adam") or values.get("use_lion_optimizer"):
        if values.on("optimizer_type"):
            values.refuse("optimizer_type", "Two optimizers are named; that trainer refuses it", "one of the two")
        name = "AdamW8bit" if values.get("use_8bit_adam") else "Lion"
    kind = _NAMES.get(name.lower())
    if kind is None:
        nearest = next((one for part, one in _NEAREST.items() if name.lower().rpartition(".")[2].startswith(part)), "AdamW")
        values.refuse("optimizer_type", f"The ledger has no {name}", nearest)
        kind = _NAMES.get(nearest.lower(), "AdamW")
        if given:
            values.none("optimizer_args", f"Of {name}, which is refused")
        return kind
    found = _arguments(values, kind, dict(given))
    if kind == "Lion" and given.get("cautious"):
        kind = "CautiousLion"
    return kind if not found else {"kind": kind, **found}


def _arguments(values: Values, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a library's optimizer in the ledger's words, with what sd-scripts does to them."""
    found: dict[str, Any] = {}
    given = {name: _of_type(values, kind, name, value) for name, value in given.items()}
    if kind == "AdaFactor":
        given["relative_step"] = given.get("relative_step", True) or given.get("warmup_init", False)
        if given.get("eps") == (1e-30, 1e-3):
            del given["eps"]
    if kind == "Lion" and "cautious" in given:
        given.pop("cautious")
    for name, value in given.items():
        ours = _ARGUMENTS.get(name, name)
        value = (not value) if name == "decouple" else value
        if ours in OPTIMIZERS[kind]:
            default = OPTIMIZERS[kind][ours]
            silent = value is None or value == default or (value is False and not default and ours != "scale_parameter")
            if not silent or ours == "relative_step":
                found[ours] = value
        elif name not in _AT_DEFAULT or value != _AT_DEFAULT[name]:
            warmup = f"schedule: {{kind: warmup, warmup_steps: {value}}}"
            nearest = warmup if name == "warmup_steps" else f"without {name}={value!r}"
            values.refuse("optimizer_args", f"{kind} has no {name} here", nearest)
    return {name: list(value) if isinstance(value, tuple) else _plain(value) for name, value in found.items()}


def _of_type(values: Values, kind: str, name: str, value: Any) -> Any:
    """An argument of an optimizer as that one takes it. Raises InputError for another type."""
    ours = _ARGUMENTS.get(name, name)
    if ours not in OPTIMIZERS[kind] and not (name == "cautious" or (kind, name) == ("AdaFactor", "eps")):
        return value
    default = OPTIMIZERS[kind].get(ours, (1e-30, 1e-3) if name == "eps" else None)
    if ours in _SWITCHES:
        if value in (True, False):
            return bool(value)
        expected = "True or False"
    elif isinstance(default, tuple):
        if isinstance(value, tuple | list) and len(value) == len(default) and all(map(_is_number, value)):
            return tuple(value)
        expected = f"{len(default)} numbers, such as {','.join(map(str, default))}"
    elif _is_number(value) or (value is None and default is None):
        return value
    elif name == "growth_rate" and value == math.inf:
        return None
    else:
        expected = "a number"
    raise InputError(f"{values.place('optimizer_args')}: --optimizer_args: {name} of {kind} expects {expected}; found {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def schedule(values: Values, chosen: Any) -> Any:
    """The schedule, with its warm-up."""
    kind = chosen["kind"] if isinstance(chosen, dict) else chosen
    name = str(values.get("lr_scheduler"))
    own = ("lr_scheduler", "lr_warmup_steps", "lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_args")
    if kind == "AdamWScheduleFree":
        _without(values, own, "A schedule-free optimizer has no schedule")
        return "constant"
    if kind == "AdaFactor" and chosen["relative_step"]:
        _without(values, own, "AdaFactor's relative steps are its schedule")
        return "constant"
    warm = values.get("lr_warmup_steps")
    found: dict[str, Any] = {"kind": _SCHEDULES.get(name, "constant")}
    if name != "constant" and name not in _SCHEDULES:
        values.refuse("lr_scheduler", f"The ledger has no schedule {name}", _nearest_schedule(name))
        found["kind"] = _nearest_schedule(name)
    if found["kind"] == "constant":
        if warm:
            values.refuse(
                "lr_warmup_steps", f"{name} has no warm-up; that trainer stops at it", "--lr_scheduler constant_with_warmup"
            )
    elif isinstance(warm, float):
        found["warmup_ratio"] = warm
    elif warm:
        found["warmup_steps"] = warm
    if found["kind"] == "cosine-with-restarts":
        found["cycles"] = values.get("lr_scheduler_num_cycles")
    else:
        _without(values, ("lr_scheduler_num_cycles",), "Of cosine_with_restarts, which is not asked for")
    more = arguments(values, "lr_scheduler_args")
    if found["kind"] == "polynomial":
        found["power"] = _plain(values.get("lr_scheduler_power"))
        if "lr_end" in more:
            found["end"] = end = more.pop("lr_end")
            if not _is_number(end):
                place = values.place("lr_scheduler_args")
                raise InputError(f"{place}: --lr_scheduler_args: lr_end expects a number, found {end!r}.")
    else:
        _without(values, ("lr_scheduler_power",), "Of polynomial, which is not asked for")
    for argument in more:
        values.refuse("lr_scheduler_args", f"The schedule has no {argument} here", f"without {argument}")
    return found["kind"] if len(found) == 1 else found


def _nearest_schedule(name: str) -> str:
    return "cosine" if "cosine" in name else "linear" if name in ("warmup_stable_decay", "inverse_sqrt") else "constant"


def one_rate(values: Values, chosen: Any, rates: dict[str, Any]) -> dict[str, Any]:
    """The rates of an optimizer that has one for all that trains: Prodigy stops at others."""
    kind = chosen["kind"] if isinstance(chosen, dict) else chosen
    given = [rate for key, rate in rates.items() if key != "blocks" and rate] + [rate for rate in rates.get("blocks", []) if rate]
    if kind != "Prodigy" or len(set(given)) < 2:
        return rates
    first = given[0]
    values.refuse("optimizer_type", "Prodigy stops at rates that differ", f"one rate for all that trains, {first:g}")
    return {key: (first if rate else rate) for key, rate in rates.items() if key != "blocks"}


def precision(values: Values) -> dict[str, str]:
    """Dtypes of weights, arithmetic and results, and how updates reach bf16 weights."""
    mixed = values.get("mixed_precision")
    if mixed == "fp16":
        values.refuse("mixed_precision", "Arithmetic in fp16, with a scaled loss", "bf16")
        mixed = "bf16"
    full = values.get("full_bf16") or values.get("full_fp16")
    if values.get("full_bf16") and values.get("mixed_precision") != "bf16":
        values.refuse("full_bf16", "That trainer stops at it without --mixed_precision bf16", "--mixed_precision bf16")
        mixed = "bf16"
    weights = "bf16" if full else "fp32"
    save = values.get("save_precision")
    found = {"weights": weights, "compute": _PRECISIONS[mixed], "save": _PRECISIONS[save] if save else weights}
    if values.get("fused_backward_pass") and weights == "bf16":
        option = options().all["fused_backward_pass"]
        values.withdraw(option.name)
        values.refuse(
            option.name,
            option.why,
            option.nearest,
            instead="stochastic rounding (precision.update), after the backward pass",
        )
        found["update"] = "stochastic"
    return found


def engine(values: Values) -> dict[str, Any] | None:
    """DeepSpeed, with what is compiled; None for ours."""
    wanted = values.get("deepspeed") or values.runner("use_deepspeed")
    backend = str(values.runner("dynamo_backend") or "no").lower()
    if not wanted:
        _without(values, ("zero_stage",), "Of --deepspeed, which is not given")
        _without(values, ("mem_eff_attn",), "Attention is always PyTorch's, deterministic")
        if values.get("torch_compile"):
            values.refuse("torch_compile", "Nothing is compiled, except with DeepSpeed", "the same arithmetic, not compiled")
        else:
            _without(values, ("dynamo_backend",), "Of --torch_compile, which is not given")
        if backend != "no":
            values.refuse(
                "accelerate dynamo_backend", "Nothing is compiled, except with DeepSpeed", "the same arithmetic, not compiled"
            )
        return None
    stage = values.get("zero_stage") if values.get("deepspeed") else values.runner("zero_stage")
    if stage not in (None, 2):
        values.refuse(
            "zero_stage" if values.get("deepspeed") else "accelerate zero_stage", "DeepSpeed is stage 2 here", "stage 2"
        )
    found: dict[str, Any] = {"kind": "deepspeed", "stage": 2}
    if values.get("torch_compile"):
        if values.get("dynamo_backend").lower() != "inductor":
            values.refuse("dynamo_backend", "What is compiled is compiled by inductor", "inductor")
        found["compile"] = "inductor"
    else:
        _without(values, ("dynamo_backend",), "Of --torch_compile, which is not given")
    if values.get("mem_eff_attn"):
        found["attention"] = "memory-efficient"
    return found


def _without(values: Values, names: tuple[str, ...], why: str) -> None:
    """Says of those that are given that they have no effect."""
    for name in names:
        if name in values.launch.given:
            values.withdraw(name)
            values.none(name, why)


def _plain(value: Any) -> Any:
    """A number without a fraction as a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 else value
