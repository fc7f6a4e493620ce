"""Cards by name and by driver: figures that agree with each other, and no card taken for another."""

import re

import pytest

from astolfo.errors import LedgerError
from astolfo.ledger import schema
from astolfo.plan import cards

ARITHMETIC = re.compile(r"(\d+) x (\d+) x ([\d.]+) GHz")


def test_a_peak_is_what_its_source_computes():
    """Multiprocessors times operations times clock is the peak, the vendor's own figures too; every peak names a source."""
    for name, card in cards.cards().items():
        assert bool(card.peak_tflops) == bool(card.source), name
        if found := ARITHMETIC.search(card.source or ""):
            many, operations, clock = found.groups()
            assert card.peak_tflops == pytest.approx(int(many) * int(operations) * float(clock) / 1000, rel=0.005), name


def test_the_cards_that_people_have_are_known():
    """From an RTX 3060 with 12 GB to an H200, each with memory, capability, peak and watts."""
    names = (
        "3060 3070 3080-10GB 3080-12GB 3090 3090Ti 4060Ti-16GB 4070 4070Super 4070Ti 4070TiSuper 4080 4090 5070Ti 5080 5090 "
        "A100-40GB A100-80GB L40S H100 H200"
    )
    for name in names.split():
        card = cards.card(name)
        assert card is not None, name
        assert None not in (card.compute_capability, card.peak_tflops, card.watts), name


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("4090", "One GeForce RTX 4090"),
        ("4x3090", "Four GeForce RTX 3090"),
        ("2 x RTX 4070 Ti SUPER", "Two GeForce RTX 4070 Ti SUPER"),
        ("3080", "One GeForce RTX 3080 10 GB"),
        ("NVIDIA GeForce RTX 3080 12GB", "One GeForce RTX 3080 12 GB"),
        ("8xa100-80", "Eight A100 80 GB"),
        ("16xh100", "16 H100 SXM"),
    ],
)
def test_a_machine_is_named_after_its_cards(name, title):
    """A name is taken however it is spaced; several cards of one name mean the one with the least memory, which is said."""
    assert cards.machine(name).title == title


@pytest.mark.parametrize("name", ["4095", "0x4090", "x4090", "", "2x", "3090 laptop", "4090 D"])
def test_what_is_no_card_is_refused(name):
    """A card that is not known is not taken for one with a similar name; the message says where all of them are."""
    with pytest.raises(LedgerError, match="hardware --list"):
        cards.machine(name)


@pytest.mark.parametrize(
    ("driver", "gib", "title"),
    [
        ("NVIDIA GeForce RTX 3080", 10.0, "GeForce RTX 3080 10 GB"),
        ("NVIDIA GeForce RTX 3080", 12.0, "GeForce RTX 3080 12 GB"),
        ("NVIDIA GeForce RTX 5090", 31.8, "GeForce RTX 5090"),
        ("NVIDIA H100 80GB HBM3", 79.6, "H100 SXM"),
        ("NVIDIA L40S", 45.0, "L40S"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 16.0, None),
        ("NVIDIA GeForce RTX 4090 D", 24.0, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9.8, None),
    ],
)
def test_a_card_is_known_by_its_driver(driver, gib, title):
    """The driver's name and memory together tell a card; a laptop's, a reduced or a divided one is not taken for the whole."""
    found = cards.card_of_driver(driver, gib)
    assert (found and found.title) == title


def test_of_cards_that_differ_the_least_counts():
    """Two kinds of cards share a run evenly, so memory, capability and peak are the lesser one's; watts are both's."""
    found = cards.of_cards([cards.card("3090"), cards.card("3060")])
    assert found.title == "One GeForce RTX 3090 and One GeForce RTX 3060 12 GB"
    assert (found.device_memory_gib, found.peak_tflops, found.power.watts) == (12, 25.5, 520)
    unknown = schema.Card(title="Other", memory_gib=16)
    mixed = cards.of_cards([cards.card("3090"), unknown])
    assert (mixed.peak_tflops, mixed.compute_capability, mixed.power) == (None, None, None)
