"""Publication: a run's result, with its card, digests, attestation and pictures, as one commit to the Hugging Face Hub.

    files = collect(ledger, Path("."), run)       what would go, each file hashed against its side-car
    upload(files, "you/my-first", public=False)

The token is the user's: HF_TOKEN, or what `hf auth login` keeps. It is handed to the Hub's own library and to nothing else.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from astolfo import program
from astolfo.errors import InputError
from astolfo.files import sha256_of, sidecar, verified
from astolfo.ledger.ledger import PINS, Ledger, Run
from astolfo.ledger.references import Reference
from astolfo.program import LOCK
from astolfo.provenance.attestation import attestation_path, name_of
from astolfo.provenance.crate import chain, texts
from astolfo.provenance.published import LEDGER, LOCKED
from astolfo.provenance.sign import envelope_path, signature_path
from astolfo.site import card as cards
from astolfo.site.facts import gather


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file to publish: its name in the repository, and where it lies, or its text."""

    name: str
    source: Path | None = None
    text: str = ""

    @property
    def bytes(self) -> int:
        """How long it is."""
        return self.source.stat().st_size if self.source else len(self.text.encode())


def collect(ledger: Ledger, directory: Path, run: Run) -> list[Item]:
    """What belongs to the publication of a run's result: all that `astolfo reproduce` and `astolfo verify` ask of a folder.

    The attestations of what it comes from lie where its own names them, `states/`, `bases/` ..., so that a stranger follows the
    whole chain. Raises InputError when the result is not built, or is not the file that its side-car names, and where the chain
    has a gap.
    """
    path = directory / Reference(run=run.id).path
    if not path.exists():
        first = program.build_command(f"results/{run.id}.safetensors", directory=directory)
        raise InputError(f"{path} is missing: build it (`{first}`) before you publish it.")
    verified(path)
    facts = gather(ledger, directory, run.id)
    card = cards.card(facts, run).replace("](../evaluations/", "](evaluations/")
    items = [Item(name="README.md", text=card), Item(name=path.name, source=path)]
    beside = (sidecar(path), attestation_path(path), signature_path(path), envelope_path(path))
    items += [Item(name=one.name, source=one) for one in beside if one.exists()]
    if attestation_path(path).exists():
        items += [Item(name=name_of(one.path), source=one.path) for one in chain(path)[:-1]]
    items += [Item(name=f"{LEDGER}/{file.relative_to(ledger.folder)}", source=file) for file in texts(ledger.folder)]
    items += [Item(name=LOCKED, source=LOCK)]
    items += [Item(name=PINS, source=directory / PINS)] if (directory / PINS).exists() else []
    for folder, report in facts.evaluations.get(run.id, {}).items():
        shown = [one["file"] for key in ("grids", "plots") for one in report[key]]
        items += [Item(name=f"evaluations/{folder}/{file}", source=directory / "evaluations" / folder / file) for file in shown]
    if missing := [item.source for item in items if item.source and not item.source.exists()]:
        raise InputError(f"{missing[0]} is missing, though its evaluation names it. Evaluate again, then publish.")
    return items


def plan(items: list[Item], repository: str) -> str:
    """What would be uploaded, as text for a terminal."""
    width = max(len(item.name) for item in items)
    lines = [f"{repository} would get, in one commit:"]
    for item in items:
        digest = sha256_of(item.source) if item.source else "made for the Hub from the ledger and the evaluation"
        lines.append(f"  {item.name:{width}}  {item.bytes:>13,} bytes  {digest}")
    return "\n".join(lines)


def upload(items: list[Item], repository: str, *, public: bool) -> str:
    """Makes the repository where there is none (private unless `public`), commits, and returns the commit's address.

    Raises InputError without a token, for a name that is none, and for whatever the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = get_token()
    if not token:
        raise InputError(
            "Publishing needs your token for the Hub, and none is there: set HF_TOKEN for this command, or call `hf auth login`. "
            "It is used for this upload and kept nowhere by astolfo."
        )
    operations = [
        CommitOperationAdd(path_in_repo=item.name, path_or_fileobj=item.source or io.BytesIO(item.text.encode()))
        for item in items
    ]
    hub = HfApi(token=token, library_name="astolfo")
    try:
        hub.create_repo(repository, private=not public, exist_ok=True)
        done = hub.create_commit(repository, operations, commit_message=f"Publish {items[1].name}")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(f"The Hub did not take {repository}: {str(error).replace(token, '<token>')}") from None
    return str(done.commit_url)
