"""A reference names a model by run, checkpoint and alpha, and is the file's name."""

import pytest

from astolfo.errors import LedgerError
from astolfo.ledger import parse


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("AK-NIL-1.2", "bases/AK-NIL-1.2.safetensors"),
        ("25112201", "results/25112201.safetensors"),
        ("25112201-0.50", "results/25112201-0.50.safetensors"),
        ("25111701-step00011274", "results/25111701-step00011274.safetensors"),
        ("25111701-step00011274-0.75", "results/25111701-step00011274-0.75.safetensors"),
        ("26011101-epoch000008", "results/26011101-epoch000008.safetensors"),
        ("foundation-eps", "results/foundation-eps.safetensors"),
    ],
)
def test_a_reference_is_its_files_name(text, path):
    """Parsing and printing a reference gives it back, and its path follows."""
    assert str(parse(text)) == text
    assert parse(text).path == path


@pytest.mark.parametrize("text", ["25112201-0.5", "25112201-step11274", "25112201-epoch8", "25112201-", "25112201-final"])
def test_a_malformed_reference_says_the_forms(text):
    """What begins like a run but is none of the forms is refused with the forms."""
    with pytest.raises(LedgerError, match="is no reference: expected RUN"):
        parse(text)


def test_alpha_is_a_weight():
    """An alpha above 1 is refused."""
    with pytest.raises(LedgerError, match="alpha must lie between"):
        parse("25112201-1.50")
