"""Model cards and their publication: what a card says of each objective, and that nothing leaves without being told to."""

import os
import shutil

import pytest
import yaml

from astolfo.errors import InputError
from astolfo.provenance import attestation
from astolfo.site import facts, publish
from astolfo.site.card import card, write
from astolfo.site.facts import gather
from tests.ledger.test_cli import astolfo
from tests.site.conftest import OTHER, RUN, write_model

BASE = "bases/AK-NIL-1.2.safetensors"
TOKEN = "hf_a_secret_of_the_user"


@pytest.fixture
def attested(outputs, tmp_path):
    """A copy of the outputs in which the result and its base have attestations of this program."""
    folder = shutil.copytree(outputs, tmp_path / "copy")
    base, path = folder / BASE, folder / "results" / f"{RUN}.safetensors"
    attestation.write("adopt", base, {"verb": "pinned", "scale": "miniature"}, {})
    attestation.write("link", path, {"verb": "link", "scale": "miniature"}, {"base": base})
    return folder


def header_of(text: str) -> dict:
    """The YAML between the first two lines of three dashes."""
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_is_in_the_form_of_the_hub(ledger, outputs):
    """A YAML header that the Hub reads, then lineage, recipe, digests, pictures, and under which uncond it works."""
    text = card(gather(ledger, outputs, RUN), ledger.run(RUN))
    assert header_of(text)["pipeline_tag"] == "text-to-image"
    assert {"v-prediction", "zero-terminal-snr", "stable-diffusion-xl"} <= set(header_of(text)["tags"])
    assert '"null uncond" works out of the box' in text
    assert "| zero | all zeros (A1111, reForge) | Works after merge under v. | 0.90 |" in text
    assert f"](../evaluations/{RUN}/grid.png)" in text
    assert "└── 25112201-0.50 (merge of 25112201 with AK-NIL-1.2 at 0.50)" in text
    digest = gather(ledger, outputs, RUN).models[RUN].sha256
    assert digest in text
    assert f"| its AutoV2 (A1111, Civitai) | `{digest[:10]}` |" in text
    values = text.split("<summary>Every value</summary>")[1].split("</details>")[0]
    assert "| objective | kind v, zero_terminal_snr True, min_snr_gamma 5.0" in values
    assert "| captions | kind " in values
    assert "| min-SNR | min gamma 5 |" in text
    assert "| max_grad_norm | 0.0 |" in text.split("## Recipe")[1].split("<details>")[0]
    assert ", tokens 225" in values


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (OTHER, "- **ComfyUI, A1111, Forge, reForge**: as it is."),
        (RUN, 'prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"'),
        ("26022301", "put a ModelSamplingSD3 node behind the loader, shift"),
        ("24122001", "from diffusers import DDIMScheduler, StableDiffusionPipeline"),
    ],
)
def test_how_to_load_it_follows_from_the_objective(ledger, tmp_path, run, said):
    """eps loads as it is, v by its markers and another scheduler, rectified flow with a node, SD 2.1 with its own pipeline."""
    write_model(tmp_path / "results" / f"{run}.safetensors")
    text = write(ledger, tmp_path, ledger.run(run)).read_text()
    assert said in text
    assert "It has not been evaluated." in text
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")


def test_a_file_of_which_no_digest_is_recorded_is_not_compared(ledger, outputs, monkeypatch):
    """Where the ledger records no digest of a result, its card says so, and speaks of no comparison."""
    monkeypatch.setattr(facts, "records", lambda _: [])
    text = card(gather(ledger, outputs, RUN), ledger.run(RUN))
    assert "No digest is recorded for this file." in text
    assert "Against the recorded digests" not in text


def test_two_cards_are_the_same(ledger, outputs):
    """The same outputs give the same card."""
    run = ledger.run(RUN)
    assert card(gather(ledger, outputs, RUN), run) == card(gather(ledger, outputs), run)


def test_publication_is_a_dry_run_by_default(attested):
    """Without --upload the verb lists names, sizes and digests, needs no token, and says that nothing was uploaded."""
    (attested / "results" / f"{RUN}.safetensors.sig").write_text("signed")
    out = astolfo("publish", RUN, "--to", "me/model", "-d", str(attested)).stdout
    assert f"evaluations/{RUN}/grid.png" in out
    assert f"{RUN}.safetensors.sig" in out
    assert "Nothing was uploaded." in out


class FakeHub:
    """Stands for the Hub's own client, and keeps what it was told."""

    calls: list = []  # noqa: RUF012

    def __init__(self, **options):
        self.calls.append(("client", options))

    def create_repo(self, name, **options):
        self.calls.append(("repository", name, options))

    def create_commit(self, name, operations, commit_message):
        self.calls.append(("commit", name, {one.path_in_repo: one.path_or_fileobj for one in operations}))
        return type("Done", (), {"commit_url": "https://example.org/commit"})()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub

    FakeHub.calls = []
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: os.environ.get("HF_TOKEN"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return FakeHub.calls


def test_an_upload_is_one_commit_with_the_users_token(ledger, attested, hub, monkeypatch, tmp_path):
    """Model, card as README.md with its pictures' links, digest and attestations; private; the token is written nowhere."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    items = publish.collect(ledger, attested, ledger.run(RUN))
    assert publish.upload(items, "me/model", public=False) == "https://example.org/commit"
    assert [call[0] for call in hub] == ["client", "repository", "commit"]
    assert hub[0][1]["token"] == TOKEN
    assert hub[1][2]["private"]
    sent = hub[2][2]
    assert {"README.md", f"{RUN}.safetensors", f"{RUN}.safetensors.sha256", f"evaluations/{RUN}/grid.png"} <= set(sent)
    assert {f"{RUN}.safetensors.attestation.json", f"{BASE}.attestation.json", "ledger/ledger.yaml", "lock.txt"} <= set(sent)
    assert f"](evaluations/{RUN}/grid.png)" in sent["README.md"].getvalue().decode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_without_a_token_nothing_is_asked_of_the_hub(ledger, attested, hub, monkeypatch):
    """The message says how to give one."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(InputError, match="set HF_TOKEN"):
        publish.upload(publish.collect(ledger, attested, ledger.run(RUN)), "me/model", public=False)
    assert hub == []


def test_a_refusal_does_not_show_the_token(ledger, attested, hub, monkeypatch):
    """What the Hub answers is passed on without the token."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def refuse(*_, **__):
        raise OSError(f"401 for {TOKEN}")

    monkeypatch.setattr(FakeHub, "create_repo", refuse)
    with pytest.raises(InputError, match="did not take me/model: 401 for <token>"):
        publish.upload(publish.collect(ledger, attested, ledger.run(RUN)), "me/model", public=False)


def test_a_damaged_result_is_not_published(ledger, outputs, tmp_path):
    """A file that is not what its side-car says is refused before anything else."""
    shutil.copytree(outputs, tmp_path / "copy")
    with open(tmp_path / "copy" / "results" / f"{RUN}.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="is damaged"):
        publish.collect(ledger, tmp_path / "copy", ledger.run(RUN))


def test_a_chain_with_a_gap_is_not_published(ledger, attested):
    """Where an attestation that the result's own names is missing, it is named, and nothing is collected."""
    (attested / f"{BASE}.attestation.json").unlink()
    with pytest.raises(InputError, match=r"AK-NIL-1\.2\.safetensors has no attestation beside it"):
        publish.collect(ledger, attested, ledger.run(RUN))


def test_a_run_that_is_not_built_has_no_card(outputs):
    """The verb says what to build first."""
    done = astolfo("card", "25112201", "-d", str(outputs), check=False)
    assert done.returncode == 1
    assert "results/25112201.safetensors is missing" in done.stderr
    assert "Build it (`make " in done.stderr
