"""A machine as a user's configuration of accelerate starts processes on it: `astolfo plan ID --accelerate FILE`.

The file says how many processes there are, not what card each has; that is this machine's, or the one that --hardware names.
"""

from pathlib import Path

from astolfo.errors import InputError
from astolfo.ledger import schema

_WHOLE_MODELS = ("NO", "MULTI_GPU", "MULTI_CPU", "DEEPSPEED")  # each process holds all of the model


def configured(file: Path, card: schema.Hardware) -> schema.Hardware:
    """`card`'s machine with the processes of the configuration `file`, one a device, those of all machines together.

    What was measured with another number of devices stays said of that number, and what the machine draws then is not known.

    Raises InputError for a file that accelerate does not read, for a way of distributing that is not ours, and for a
    configuration of CPUs where the machine has cards, or the other way round.
    """
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        found = load_config_from_file(str(file))
    except Exception as error:  # accelerate raises what its parsers do
        raise InputError(f"{file} is no configuration that accelerate reads: {error}. `accelerate config` writes one.") from None
    kind = str(getattr(found.distributed_type, "value", found.distributed_type))
    if kind not in _WHOLE_MODELS:
        raise InputError(f"{file}: expected a distributed_type of {', '.join(_WHOLE_MODELS)}, found {kind}: it splits the model.")
    if found.use_cpu != (card.device == "cpu"):
        where = "the CPU" if found.use_cpu else "CUDA devices"
        raise InputError(f"{file} is for {where}, and {card.title} is not. Name the machine that it starts: --hardware NAME.")
    count, machines = found.num_processes, found.num_machines
    there = f" on {machines} machines" if machines > 1 else ""
    title = f"{card.title}, {count} process{'es' if count > 1 else ''}{there} by {file.name}"
    if found.use_cpu or count == card.devices:
        return card.model_copy(update={"title": title})
    measured = [row.model_copy(update={"devices": row.devices or card.devices}) for row in card.measured]
    return card.model_copy(update={"title": title, "devices": count, "measured": measured, "power": None})
