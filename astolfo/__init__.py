"""astolfo: rebuilds SDXL fine-tuning runs, bit for bit, from a ledger.

What scripts use stands here; the command line has more.

    import astolfo

    ledger = astolfo.load("config")                             # a ledger, checked; scale="full" for the real thing
    astolfo.recipe(ledger, "my-first").optimizer.kind           # 'AdamW8bit'
    astolfo.inspect("model.safetensors")["architecture"]        # 'sdxl'
    astolfo.merge("a.safetensors", "b.safetensors", {0.5: "half.safetensors"})
    astolfo.verify("results/my-first.safetensors").problems     # [] where the file and all that it comes from are whole

Each is imported when it is first asked for, so that `import astolfo` costs nothing. All errors are `AstolfoError`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["AstolfoError", "inspect", "load", "merge", "recipe", "verify"]

if TYPE_CHECKING:
    from astolfo.checkpoint.inspect import inspect
    from astolfo.errors import AstolfoError
    from astolfo.ledger import load
    from astolfo.ledger.recipe import named as recipe
    from astolfo.merging.weighted_sum import merge
    from astolfo.provenance.verify import verify

_HOMES = {
    "AstolfoError": ("astolfo.errors", "AstolfoError"),
    "inspect": ("astolfo.checkpoint.inspect", "inspect"),
    "load": ("astolfo.ledger", "load"),
    "merge": ("astolfo.merging.weighted_sum", "merge"),
    "recipe": ("astolfo.ledger.recipe", "named"),
    "verify": ("astolfo.provenance.verify", "verify"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'astolfo' has no attribute {name!r}")
    import importlib

    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
