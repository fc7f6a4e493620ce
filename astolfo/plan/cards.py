"""The cards that people train on, which come with the program: `astolfo hardware --list`.

    card("4090"), card("RTX 3080 12GB")        by name, as it is written on the box or by the driver
    machine("4x3090")                          a machine of so many of them

A ledger's own file in hardware/ goes before a machine that is made from a card: it may say what was measured there.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from astolfo import library
from astolfo.errors import LedgerError
from astolfo.ledger import schema
from astolfo.ledger.files import Files, unknown

_SIZE = re.compile(r" \d+ GB$")  # what a title says to tell two cards of one name apart
NUMBERS = dict(enumerate(("One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight"), start=1))
CARDS_ALONE = "the cards alone, by their vendor; the machine comes on top"


@cache
def cards() -> dict[str, schema.Card]:
    """Every card, by its short name."""
    return Files(library.FOLDER).read("cards", schema.Card)


def card(name: str) -> schema.Card | None:
    """The card of that name, however it is spaced; None for one that is not known.

    A name that several cards share ("3080") means the one with the least memory.
    """
    wanted = _plain(name).removesuffix("gb")
    found = [one for key, one in cards().items() if f"{wanted}gb" in (f"{_plain(key).removesuffix('gb')}gb", _plain(one.title))]
    found = found or [one for one in cards().values() if wanted == _plain(_SIZE.sub("", one.title))]
    return min(found, key=lambda one: one.memory_gib, default=None)


def card_of_driver(name: str, memory_gib: float) -> schema.Card | None:
    """The card that the driver calls `name` and gives so much memory; None for one that is not known, a laptop's above all."""
    for one in cards().values():
        named = name in (one.driver or [f"NVIDIA {_SIZE.sub('', one.title)}"])
        if named and abs(one.memory_gib - memory_gib) < 0.1 * one.memory_gib:
            return one
    return None


def machine(name: str) -> schema.Hardware:
    """The machine that "4x3090" or "4090" means. Raises LedgerError with near names for a card that is not known."""
    if found := parsed(name):
        return of_cards([found[1]] * found[0])
    many, _ = _times(name)
    hint = unknown("machine", name, [*cards(), *(f"{many}x{key}" for key in cards())])
    raise LedgerError(f"{hint} `astolfo hardware --list` shows every card; 2x4090 is a machine with two of one.")


def parsed(name: str) -> tuple[int, schema.Card] | None:
    """How many of which card "4x3090" or "4090" means; None where the card is not known."""
    many, rest = _times(name)
    found = card(rest)
    return (many, found) if found else None


def _times(name: str) -> tuple[int, str]:
    """ "4 x RTX 3090" as 4 and "RTX 3090"."""
    times = re.match(r"([1-9]\d?)\s*x\s*(?=\S)", name.strip(), re.IGNORECASE)
    return int(times[1]) if times else 1, name.strip()[times.end() if times else 0 :]


def of_cards(found: Sequence[schema.Card]) -> schema.Hardware:
    """A machine of these cards. Of cards that differ the least of each figure counts: work is shared out evenly."""
    kinds = list(dict.fromkeys(one.title for one in found))
    counts = [sum(one.title == kind for one in found) for kind in kinds]
    watts = _all([one.watts for one in found])
    return schema.Hardware(
        title=" and ".join(f"{NUMBERS.get(many, many)} {kind}" for many, kind in zip(counts, kinds, strict=True)),
        device="cuda",
        devices=len(found),
        device_memory_gib=min(one.memory_gib for one in found),
        compute_capability=min(_all([one.compute_capability for one in found]), default=None),
        peak_tflops=min(_all([one.peak_tflops for one in found]), default=None),
        peak_source=found[0].source if len(kinds) == 1 else None,
        power=schema.Power(watts=sum(watts), source=CARDS_ALONE) if watts else None,
    )


def _all(values: list[Any]) -> list[Any]:
    """The values, if each of them is known; else none of them."""
    return [] if None in values else values


def _plain(name: str) -> str:
    """A card's name without its maker, its line, and how it is spaced: "NVIDIA GeForce RTX 4070 Ti SUPER" is "4070tisuper"."""
    return re.sub(r"nvidia|geforce|rtx|[^a-z0-9]", "", name.lower())
