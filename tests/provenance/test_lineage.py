"""`astolfo lineage` of what is built: the tree as the attestations tell."""

from astolfo.files import read_sidecar
from astolfo.provenance.attestation import attestation_path
from astolfo.provenance.lineage import tree


def test_the_tree_of_a_merge(built):
    """Merge, checkpoint, last state, and what they started from; a run's earlier states are passed over."""
    digest = {name: read_sidecar(path)[:12] for name, path in built.items()}
    base = f"bases/AK.safetensors  [sha256 {digest['base']}, adopted, not rebuilt; results/foundation-eps.safetensors makes it]"
    vocabulary = f"vocabulary/vocab.json  [sha256 {digest['vocabulary']}, vocabulary]"
    assert tree(built["merge"]).splitlines() == [
        f"results/plain-0.50.safetensors  [sha256 {digest['merge']}, merge]",
        f"├── {base}",
        f"└── results/plain.safetensors  [sha256 {digest['result']}, export]",
        f"    ├── states/plain/00000002.safetensors  [sha256 {digest['state 2']}, train]",
        f"    │   ├── {base}",
        f"    │   └── {vocabulary}",
        f"    └── {base}",
    ]


def test_what_is_not_there_or_not_sound_is_said(built):
    """A deleted file, and a parent whose attestation is not the one that was used."""
    built["state 2"].unlink()
    attestation_path(built["base"]).write_text("{}")
    shown = tree(built["merge"])
    assert "train, file not here]" in shown
    assert "no sound attestation]" in shown
