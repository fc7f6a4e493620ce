"""A pinned input is used only when it is the recorded file."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from astolfo.checkpoint import layout
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.safefile import write_file
from astolfo.cli import cli
from astolfo.data.vocabulary import write_clip
from astolfo.errors import CheckpointError, InputError
from astolfo.files import read_sidecar, sha256_of
from astolfo.ledger import load
from astolfo.ledger.ledger import read_pins
from astolfo.pins import pin, place, place_vocabulary, vocabulary_digest
from tests.conftest import SMALL, STAND_INS

SDXL = ("conditioner.embedders.1.model.ln_final.weight", "model.diffusion_model.out.2.bias")


@pytest.fixture
def file(tmp_path):
    write_file(tmp_path / "model.safetensors", {key: np.arange(4.0) for key in SDXL}, {})
    return tmp_path / "model.safetensors"


def autoencoder(path, value, *, inside=False):
    """A file with the keys and shapes of SDXL's autoencoder, in fp16: by itself, or `inside` a model."""
    architecture = Architecture.from_mapping(load(SMALL, "full").scale.architectures["sdxl"], "sdxl")
    prefix = layout.PREFIXES["sdxl"]["vae"]
    tensors = {
        place.key.removeprefix("" if inside else prefix): np.full(place.shape, value, np.float16)
        for place in layout.places(architecture, "vae")
    }
    write_file(path, tensors | {key: np.arange(4.0) for key in SDXL if inside}, {})
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return autoencoder(tmp_path_factory.mktemp("pinned") / "vae.safetensors", 0)


def spec(digest):
    return {"sha256": digest, "family": "sdxl", "kind": "model"}


def test_a_pinned_file_is_placed(file, tmp_path):
    """The right file gets its place and a side-car."""
    place(file, spec(sha256_of(file)), tmp_path / "bases" / "X.safetensors")
    assert read_sidecar(tmp_path / "bases" / "X.safetensors") == sha256_of(file)


def test_another_file_is_refused(file, tmp_path):
    """A file with another sha256 is refused with both digests, and nothing is placed."""
    with pytest.raises(InputError, match="not the pinned X: expected sha256 0+, found [0-9a-f]{64}"):
        place(file, spec("0" * 64), tmp_path / "bases" / "X.safetensors")
    assert not (tmp_path / "bases").exists()


def test_a_missing_file_says_where_it_belongs(tmp_path):
    """A missing file is named with the command that pins one."""
    with pytest.raises(InputError, match="inputs/x.safetensors is missing.*pin X FILE"):
        place(tmp_path / "inputs" / "x.safetensors", spec("unknown"), tmp_path / "bases" / "X.safetensors")


def test_an_unpinned_file_is_refused(file, tmp_path):
    """A file that nobody pinned is refused, even when it is there."""
    with pytest.raises(InputError, match="nobody has recorded its sha256"):
        place(file, spec("unknown"), tmp_path / "bases" / "X.safetensors")


def test_a_truncated_file_is_refused(file, tmp_path):
    """A file that was cut off is refused before its digest is even asked for."""
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="was cut off"):
        place(file, spec(sha256_of(file)), tmp_path / "bases" / "X.safetensors")


def test_another_architecture_is_refused(tmp_path):
    """A file of another kind is refused by name before it is hashed: here a LoRA for an SDXL base."""
    write_file(tmp_path / "lora.safetensors", {"lora_unet_mid_block.lora_up.weight": np.arange(4.0)}, {})
    with pytest.raises(CheckpointError, match="expected a single-file checkpoint of kind sdxl, found"):
        place(tmp_path / "lora.safetensors", spec("0" * 64), tmp_path / "bases" / "X.safetensors")


def test_pin_records_and_links(encoder, tmp_path):
    """`pin` writes the digest to pins.yaml, links the file, and the ledger then knows the base."""
    pin(load(SMALL, "full"), "sdxl-vae", encoder, tmp_path)
    pins = read_pins(tmp_path)
    assert pins == {"sdxl-vae": sha256_of(encoder)}
    assert (tmp_path / "inputs" / "sdxl_vae.safetensors").resolve() == encoder
    assert load(SMALL, "full", pins).origin("sdxl-vae").sha256 == sha256_of(encoder)


def test_a_pin_never_changes_silently(encoder, tmp_path):
    """Pinning another file under the same name is refused."""
    ledger = load(SMALL, "full")
    pin(ledger, "sdxl-vae", encoder, tmp_path)
    autoencoder(tmp_path / "other.safetensors", 1)
    with pytest.raises(InputError, match="is not the sdxl-vae that is recorded"):
        pin(load(SMALL, "full", read_pins(tmp_path)), "sdxl-vae", tmp_path / "other.safetensors", tmp_path)


def test_a_model_of_another_size_is_not_pinned(tmp_path):
    """The miniature's base has the right names but not SDXL's shapes: it cannot be pinned at full scale."""
    small = STAND_INS / "sdxl-eps.safetensors"
    with pytest.raises(CheckpointError, match=r"its unet has wrong shapes|its unet lacks"):
        pin(load(SMALL, "full"), "one", small, tmp_path)
    assert read_pins(tmp_path) == {}


def test_a_model_s_own_autoencoder_is_pinned(tmp_path):
    """A whole model's file is taken as an autoencoder: what sd-scripts encodes with, where no other is named."""
    model = autoencoder(tmp_path / "model.safetensors", 0, inside=True)
    assert "sdxl-vae is pinned" in pin(load(SMALL, "full"), "sdxl-vae", model, tmp_path)
    assert (tmp_path / "inputs/sdxl_vae.safetensors").resolve() == model


def test_an_autoencoder_of_another_size_is_not_pinned(tmp_path):
    """Nor is the miniature's autoencoder SDXL's."""
    small = STAND_INS / "sdxl-vae.safetensors"
    with pytest.raises(CheckpointError, match=r"sdxl-vae\.safetensors: expected .* with shape .* in an autoencoder, found \("):
        pin(load(SMALL, "full"), "sdxl-vae", small, tmp_path)
    assert read_pins(tmp_path) == {}


OWN = r"put it into .*stand-ins and name it in the base's entry: miniature: \{file: NAME.safetensors, sha256: DIGEST\}"
UNPINNED = [  # scale and name, and what is said
    ("miniature", "stand-in-sdxl-rf", rf"results/stand-in-sdxl-rf.safetensors .* makes it\); nothing is to be pinned.*{OWN}"),
    ("miniature", "stand-in-sdxl-rf-0.50", rf"results/stand-in-sdxl-rf.safetensors .* makes it\).*{OWN}"),
    ("miniature", "stand-in-sdxl-eps", rf"bases/stand-in-sdxl-eps.safetensors .* makes it\).*{OWN}"),
    ("miniature", "stand-in-sdxl", rf"datasets/stand-in-sdxl/store.json .* makes it\).*{OWN}"),
    ("miniature", "stand-in-sd2-rf", rf"is the program's, for stand-ins at the miniature; nothing is to be pinned.*{OWN}"),
    ("full", "stand-in-sdxl-rf", rf"is the program's, for stand-ins at the miniature; nothing is to be pinned.*{OWN}"),
    ("miniature", "sdxl-rf", rf"is the program's, for stand-ins at the miniature; nothing is to be pinned.*{OWN}"),
    ("miniature", "mine", "is made by the graph at the scale miniature; .* for the real thing.*--scale full pin mine"),
    ("miniature", "own", "is the file .*stand-ins/own.safetensors at the scale miniature; .* for the real thing"),
    (
        "miniature",
        "made",
        r"bases/made.safetensors .* makes it. To use .*, say miniature: \{file: NAME.safetensors\} in its entry",
    ),
    ("full", "made", r"bases/made.safetensors .* makes it. To use .*, say full: \{file: NAME.safetensors\} in its entry"),
]


@pytest.mark.parametrize(("scale", "name", "message"), UNPINNED)
def test_what_has_no_pin_says_what_it_is(scale, name, message, tmp_path):
    """What the graph makes, what stands in for a base, and what of the library makes that, is named, with what to do instead."""
    made = {"made_by": "first"}
    bases = {
        "mine": {"objective": "rf"},
        "own": {"miniature": {"file": "own.safetensors"}},
        "made": {"full": made, "miniature": made},
    }
    run = {"base": "mine", "dataset": "d", "epochs": 1, "learning_rate": {"unet": 1e-5}}
    said = {"bases": bases, "datasets": {"d": {"images": 50}}, "runs": {"first": run}}
    (tmp_path / "ledger.yaml").write_text(json.dumps(said))
    file = STAND_INS / "sdxl-eps.safetensors"
    with pytest.raises(InputError, match=message):
        pin(load(tmp_path, scale), name, file, tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("verb", [("pin", "one"), ("adopt", "plain")])
def test_a_model_of_another_scale_is_named_first(verb, tmp_path):
    """A file of the miniature, at full scale, is said to be one before what it lacks; one that is of no scale is not."""
    small = STAND_INS / "sdxl-eps.safetensors"
    command = ["--config", str(SMALL), "--scale", "full", *verb, str(small), "-d", str(tmp_path)]
    with pytest.raises(
        CheckpointError, match=r"is an sdxl model of the miniature scale, and the full scale .* lacks 1398 keys"
    ) as said:
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert str(said.value).count("model.diffusion_model.") == 10
    write_file(tmp_path / "part.safetensors", {key: np.arange(4.0) for key in SDXL}, {})
    command[-3] = str(tmp_path / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"part.safetensors: its unet lacks"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert read_pins(tmp_path) == {}


def test_clip_s_vocabulary_is_pinned_by_nobody(tmp_path):
    """A folder with CLIP's vocabulary, in whatever layout, is told to be there already; another one is refused."""
    folder, full = tmp_path / "clip", load(SMALL, "full")
    folder.mkdir()
    with pytest.raises(InputError, match=r"vocab\.json is missing"):
        pin(full, "vocabulary", folder, tmp_path)
    write_clip(folder)
    words = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(words, indent=1))
    assert "nothing to pin" in pin(full, "vocabulary", folder, tmp_path)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InputError, match="another vocabulary than CLIP's"):
        pin(full, "vocabulary", folder, tmp_path)
    for name, content in (("vocab.json", b"[1]"), ("vocab.json", b"{"), ("merges.txt", b"\xff\xfe"), ("merges.txt", b"")):
        write_clip(folder)
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match="another vocabulary than CLIP's|holds no CLIP vocabulary"):
            pin(full, "vocabulary", folder, tmp_path)
    assert read_pins(tmp_path) == {}


def test_a_vocabulary_that_was_pinned_is_placed(tmp_path):
    """One of an earlier pin is known by the digest of its two files, and a changed one is refused."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "vocab.json").write_text("{}")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    digest = vocabulary_digest(folder)
    place_vocabulary(folder, digest, tmp_path / "vocabulary")
    (folder / "vocab.json").write_text("{ }")
    with pytest.raises(InputError, match="is not the pinned vocabulary"):
        place_vocabulary(folder, digest, tmp_path / "vocabulary")
