"""A run of the ledger as the command line that sd-scripts would train it with: `astolfo ledger export ID`.

What the command line cannot say stands above it, `# astolfo: unet: 71`, one line a thing, in the ledger's words; the import
reads these lines too, so that the import of an export is the same recipe. They are not kept in a list: the line that was written
is read back, and every value that comes out otherwise gets its comment.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from astolfo.kohya import shell
from astolfo.kohya.configuration import Files
from astolfo.kohya.entries import Imported
from astolfo.kohya.launch import launches_in
from astolfo.kohya.read import reading
from astolfo.kohya.values import printed
from astolfo.kohya.write import flow, number
from astolfo.ledger import schema
from astolfo.ledger.ledger import Ledger, Run
from astolfo.ledger.schema.blocks import SD_SCRIPTS_BLOCKS
from astolfo.train.sdscripts import SCHEDULES, arguments

_OPTIMIZERS = {
    "AdaFactor": "AdaFactor", "CautiousLion": "pytorch_optimizer.Lion", "C-Lion": "pytorch_optimizer.Lion",
    "CAME": "pytorch_optimizer.CAME", "AdamW4bit": "torchao.optim.AdamW4bit",
}  # fmt: skip
_SAME = (
    "zero_terminal_snr", "min_snr_gamma", "min_timestep", "max_timestep", "noise_offset", "adaptive_noise_scale",
    "ip_noise_gamma", "debiased_estimation_loss", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss",
)  # fmt: skip
"""Keys of the objective whose name and value are the option's."""
_REASONS = {
    "unet": "which blocks train is not an option of that trainer; forks exchange the UNet's file",
    "captions.kind": "an index's tags and sentences are always joined there",
    "captions": "captions are not read so there",
    "restart_epochs": "a restart is a launch of its own there",
    "until_step": "that trainer is stopped by hand",
    "continues": "upstream has no --initial_step",
    "merge_base": "merges are not that trainer's",
    "semantics": "that trainer's arithmetic is kohya's",
    "choices": "that trainer's arithmetic is kohya's",
    "optimizer": "that trainer has it not, or otherwise",
    "schedule": "that trainer has it not, or otherwise",
    "precision": "that trainer has no such precision",
    "on_failure": "that trainer goes on with a NaN",
    "loss_spike": "that trainer goes on at a spike",
    "placement": "where that trainer runs is said elsewhere",
    "objective": "that trainer has it not, or otherwise",
}  # fmt: skip


def exported(ledger: Ledger, run: Run) -> str:
    """The command line of a run, with what it cannot say as comments above it."""
    command = " \\\n  ".join(_words(ledger, run))
    lines = [f"# Run {run.id} of {printed(run.era.title or 'this ledger')}, for kohya-ss/sd-scripts at 48d368f."]
    name = run.fields.dataset
    lines.append(
        f"# `astolfo dataset export datasets/{name} exported/{name}` writes what it reads: an index, and a folder of latents."
    )
    lines += _of_dataset(ledger, str(name))
    if "--flow_model" in command:
        lines.append("# --flow_model and what belongs to it are options of forks, such as bluvoll's.")
    lines += [f"# astolfo: {key}: {flow(value)}  # {_reason(key)}" for key, value in _not_in_line(ledger, run, command)]
    return "\n".join([*lines, command])


def _of_dataset(ledger: Ledger, name: str) -> Iterator[str]:
    """What an exported index does not have of a dataset."""
    entry = ledger.datasets[name]
    parts = entry.parts or {}
    if any(repeats > 1 for repeats in parts.values()):
        each = ", ".join(f"{part} {repeats}" for part, repeats in parts.items())
        yield f"# Its parts are taken so many times an epoch: {each}. An index has no repeats: export each part, and"
        yield "# name them in a dataset TOML for --dataset_config, a subset each with its metadata_file and num_repeats."
    if flipped := [one for one in (name, *parts) if ledger.datasets[one].flip]:
        which = ", ".join(flipped)
        yield f"# Pictures are also taken mirrored ({which}); the export has them as they are, and the line no --flip_aug."


def _not_in_line(ledger: Ledger, run: Run, command: str) -> Iterator[tuple[str, Any]]:
    """What comes out otherwise when the line is read back: key (with dots) -> the run's value; None for what it has not."""
    back = schema.RunFields.model_validate(read_back(ledger, command).runs[0].fields)
    yield from _differences(_dumped(run.fields), _dumped(back), "")


def read_back(ledger: Ledger, text: str) -> Imported:
    """What the import makes of a script's text, in this ledger."""
    files = Files([])
    return reading(launches_in(shell.parse(Path("exported.sh"), text)), files, ledger)


def _dumped(fields: schema.RunFields) -> dict[str, Any]:
    found = fields.model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in found.items() if value not in ({}, "")}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str) -> Iterator[tuple[str, Any]]:
    for key in dict.fromkeys([*ours, *theirs]):
        one, other = ours.get(key), theirs.get(key)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict) and key != "blocks":
            yield from _differences(one, other, f"{at}{key}.")
        else:
            yield f"{at}{key}", one


def _reason(key: str) -> str:
    return _REASONS.get(key) or _REASONS.get(key.partition(".")[0], "that trainer cannot be told")


# ---- the line


def _words(ledger: Ledger, run: Run) -> list[str]:
    fields, family = run.fields, ledger.family(run)
    trainer = "sdxl_train.py" if family == "sdxl" else "fine_tune.py"
    node = fields.placement.numa if fields.placement else None
    prefix = "" if node is None else f"numactl --cpunodebind={node} --membind={node} "
    words = [f"{prefix}accelerate launch --num_processes={fields.ranks} {trainer}"]
    options = [
        *_sources(ledger, run),
        *(["--v2"] if family == "sd2" else []),
        *_length(fields),
        *_objective(fields),
        *_captions(fields),
    ]
    options += [*_rates(fields, family), *_optimizer(fields), *_schedule(fields), *_precision(fields), *_engine(fields)]
    return [*words, *options, *_rest(run)]


def _option(name: str, value: Any = True) -> list[str]:
    """["--name=value"]; [] for what is not given."""
    if value is None or value is False:
        return []
    text = number(value) if isinstance(value, float) else str(value)
    return [f"--{name}" if value is True else f"--{name}={shlex.quote(text)}"]


def _sources(ledger: Ledger, run: Run) -> list[str]:
    base = ledger.parent(run)
    place = f"exported/{run.fields.dataset}"
    return [
        *_option("pretrained_model_name_or_path", base.path if base else "none.safetensors"),
        *_option("in_json", f"{place}/meta_lat.json"),
        *_option("train_data_dir", place),
    ]


def _length(fields: schema.RunFields) -> list[str]:
    return _option("max_train_epochs", fields.epochs) if fields.epochs else _option("max_train_steps", fields.steps)


def _objective(fields: schema.RunFields) -> list[str]:
    one = fields.objective
    assert one
    words = _option("v_parameterization", one.kind == "v") + _option("flow_model", one.kind == "rf")
    if one.shift:
        words += [*_option("flow_uniform_shift"), *_option("flow_uniform_static_ratio", one.shift)]
    if one.contrastive:
        words += [*_option("contrastive_flow_matching"), *_option("cfm_lambda", one.contrastive)]
    for name in _SAME:
        words += _option(name, getattr(one, name))
    words += _option("noise_offset_random_strength", one.noise_offset_random)
    words += _option("ip_noise_gamma_random_strength", one.ip_noise_gamma_random)
    if one.multires_noise:
        words += _option("multires_noise_iterations", one.multires_noise.iterations)
        words += _option("multires_noise_discount", one.multires_noise.discount)
    if one.loss:
        words += [
            *_option("loss_type", one.loss.kind),
            *_option("huber_schedule", one.loss.schedule),
            *_option("huber_c", one.loss.c),
        ]
        words += _option("huber_scale", one.loss.scale)
    return words


def _captions(fields: schema.RunFields) -> list[str]:
    one = fields.captions
    assert one
    words = _option("max_token_length", one.tokens) if one.tokens != 75 else []
    for name, value in (
        ("enable_wildcard", one.wildcards), ("shuffle_caption", one.shuffle), ("keep_tokens", one.keep_tokens),
        ("keep_tokens_separator", one.keep_tokens_separator), ("caption_separator", one.separator),
        ("secondary_separator", one.secondary_separator), ("caption_prefix", one.prefix), ("caption_suffix", one.suffix),
        ("caption_dropout_rate", one.dropout or None), ("caption_dropout_every_n_epochs", one.dropout_every_epochs),
        ("caption_tag_dropout_rate", one.tag_dropout),
    ):  # fmt: skip
        words += _option(name, value)
    return words


def _rates(fields: schema.RunFields, family: str) -> list[str]:
    one = fields.learning_rate
    assert one
    words = [f"--learning_rate={number(one.unet)}"]
    if one.blocks:
        rates = [{one.blocks.get(name) for name in names} for names in SD_SCRIPTS_BLOCKS]
        alike = [next(iter(rate)) if len(rate) == 1 else None for rate in rates]
        if None not in alike:
            words += _option("block_lr", ",".join(number(float(rate or 0)) for rate in alike))
    if one.text_encoder or one.text_encoder_2:
        words += _option("train_text_encoder")
        names = ("learning_rate_te1", "learning_rate_te2") if family == "sdxl" else ("learning_rate_te",)
        words += [f"--{name}={number(rate)}" for name, rate in zip(names, (one.text_encoder, one.text_encoder_2), strict=False)]
    return words


def _optimizer(fields: schema.RunFields) -> list[str]:
    one = fields.optimizer
    assert one
    words = [f"{name}={_python(value)}" for name, value in arguments(one).items()]
    return [
        *_option("optimizer_type", _OPTIMIZERS.get(one.kind, one.kind)),
        *([f"--optimizer_args {shlex.join(words)}"] if words else []),
    ]


def _python(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _schedule(fields: schema.RunFields) -> list[str]:
    one = fields.schedule
    assert one
    words = _option("lr_scheduler", SCHEDULES.get(one.kind, one.kind))
    words += _option("lr_warmup_steps", one.warmup_steps or one.warmup_ratio or None)
    words += [*_option("lr_scheduler_num_cycles", one.cycles), *_option("lr_scheduler_power", one.power)]
    return words + ([f"--lr_scheduler_args lr_end={one.end!r}"] if one.end is not None else [])


def _precision(fields: schema.RunFields) -> list[str]:
    one = fields.precision
    assert one
    words = _option("mixed_precision", "bf16" if one.compute == "bf16" else "no")
    words += _option("full_bf16", one.weights == "bf16" and one.compute == "bf16")
    return words + _option("save_precision", "float" if one.save == "fp32" else one.save)


def _engine(fields: schema.RunFields) -> list[str]:
    one = fields.engine
    if one is None:
        return []
    words = [
        *_option("deepspeed"),
        *_option("zero_stage", one.stage),
        *_option("mem_eff_attn", one.attention == "memory-efficient"),
    ]
    return words + ([*_option("torch_compile"), *_option("dynamo_backend", one.compile)] if one.compile else [])


def _rest(run: Run) -> list[str]:
    fields, placement = run.fields, run.fields.placement or schema.Placement()
    words = [
        *_option("train_batch_size", fields.batch_size),
        *_option("gradient_accumulation_steps", fields.accumulation),
        f"--max_grad_norm={number(float(fields.max_grad_norm or 0))}",
        *_option("seed", str(fields.seed)),
        *_option("output_name", run.id),
        *_option("output_dir", "sd-scripts"),
        *_option("save_model_as", "safetensors"),
    ]
    if fields.save_every:
        words += _option("save_every_n_epochs", fields.save_every.epochs) + _option("save_every_n_steps", fields.save_every.steps)
    words += _option("max_data_loader_n_workers", placement.loader_workers)
    words += _option("gradient_checkpointing", placement.gradient_checkpointing is True)
    words += _option("sample_every_n_steps", placement.sample_every)
    return words + _option("save_last_n_epochs_state", placement.keep_states)
