"""Libraries that others import merely because they are installed.

diffusers and transformers import torchao and bitsandbytes whenever they find them, for quantised checkpoints that nothing
here reads: 1 to 2 s and three warnings for every process. `defer()` makes them look absent; `load(name)` brings one back
where it is used. Imports no torch.
"""

import importlib
import logging
import sys
from types import ModuleType

_DEFERRED = ("bitsandbytes", "torchao")
_TALKATIVE = ("bitsandbytes.backends.cpu.ops", "torch.utils._pytree")  # what they log while they load is not about us


def defer() -> None:
    """Makes the libraries look absent, unless they are loaded. Call before diffusers or transformers is imported."""
    for name in _DEFERRED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None is Python's own mark of a blocked import


def load(name: str) -> ModuleType:
    """Imports a module of a library that `defer` may have hidden, without the warnings that it logs while it loads."""
    package = name.partition(".")[0]
    if package in sys.modules and sys.modules[package] is None:
        del sys.modules[package]
    loggers = [logging.getLogger(logger) for logger in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        return importlib.import_module(name)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
