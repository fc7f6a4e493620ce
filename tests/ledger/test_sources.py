"""Where an entry says that something comes from: one place, and nothing beside it that would then not count."""

import pytest
import yaml

from astolfo.errors import LedgerError
from astolfo.ledger import load

DIGEST = "0" * 64
RUN = {"base": "mine", "dataset": "pictures", "epochs": 1, "learning_rate": {"unet": 1e-5}}


@pytest.fixture
def ledger(tmp_path):
    """A ledger of one run, whose base or dataset says this."""

    def write(scale="miniature", mine=None, pictures=None):
        said = {
            "bases": {"mine": mine or {}, "other": {}},
            "datasets": {"pictures": pictures or {"images": 50}},
            "runs": {"first": RUN, "second": RUN | {"base": "other"}},
        }
        (tmp_path / "ledger.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
        return load(tmp_path, scale)

    return write


FILE = {"file": "own.safetensors"}


@pytest.mark.parametrize("scale", ["miniature", "full"])
@pytest.mark.parametrize(
    ("mine", "message"),
    [({"miniature": FILE | {"stand_in": "sdxl-eps"}}, "give one of file and stand_in: the file is used as it is"),
     ({"miniature": {"stand_in": "sdxl-eps", "made_by": "second"}}, "give one of made_by, merge, mecha and stand_in"),
     ({"miniature": {"stand_in": "sdxl-eps", "sha256": DIGEST}}, "sha256 is a file's: name the file too"),
     ({"full": {"made_by": "second", "sha256": DIGEST}}, "sha256 is a file's: name the file too"),
     ({"full": {"sha256": DIGEST}}, "sha256 is a file's: name the file too"),
     ({"full": {}}, "full does not say where the base comes from: give file, made_by, merge, mecha, or leave full out"),
     ({"miniature": {}}, "miniature does not say where the base comes from: give .* or stand_in, or leave miniature out"),
     ({"miniature": {}, "kind": "autoencoder"}, "miniature does not say where the base comes from")],
)  # fmt: skip
def test_a_base_comes_from_one_place(ledger, scale, mine, message):
    """Keys of which one would not count, and an origin that names nothing, are refused with file and line, at either scale."""
    with pytest.raises(LedgerError, match=rf"ledger\.yaml:\d+: .*{message}"):
        ledger(scale, mine)


@pytest.mark.parametrize("made", [{"made_by": "second"}, {"merge": {"base": "other", "trained": "second", "alpha": "0.50"}}])
def test_a_file_may_be_what_something_makes(ledger, made):
    """A file beside what makes it is no contradiction: the file is used, and the other key says what it is."""
    assert ledger(mine={"miniature": FILE | made}).origin("mine").parents[0] == "second"


@pytest.mark.parametrize(
    ("pictures", "message"),
    [({"folder": "a", "store": "b"}, "give one of folder and store"),
     ({"images": 50, "folder": "a", "digest": DIGEST}, "a digest is a store's: a folder has none"),
     ({"images": 50, "miniature": {"store": "a", "seed": 3}}, "and a store is made already. Leave seed or store out"),
     ({"images": 50, "miniature": {"digest": DIGEST}}, "pictures that are drawn have none: name the store, or leave digest out")],
)  # fmt: skip
def test_pictures_come_from_one_place(ledger, pictures, message):
    """Of a dataset too what could not count is refused: two places, the digest of no store, the seed of a store."""
    with pytest.raises(LedgerError, match=rf"ledger\.yaml:\d+: .*{message}"):
        ledger(pictures=pictures)


def test_a_store_that_the_user_brings_may_be_named_by_its_digest(ledger):
    """At full scale a digest alone is no mistake: the store is what the user pins."""
    assert ledger("full", pictures={"images": 50, "digest": DIGEST}).dataset_digest("pictures") == DIGEST
