"""Verbs about what was built and how far it can be trusted: `lineage`, `verify`, `compare`, `reproduce`, `adopt` and others."""

import json
import tempfile
from pathlib import Path

import click

from astolfo import program
from astolfo.commands import FILE, FOLDER, WHERE, WHOLE, ledger_of, naming_scale, reference_of, use_of
from astolfo.errors import InputError


@click.command()
@click.argument("target")
@WHERE
@click.pass_context
def lineage(context: click.Context, target: str, directory: Path) -> None:
    """Draws what a model is made from, up to its base: from its attestations if it is built, else from the plan."""
    from astolfo.ledger.show import tree
    from astolfo.provenance import lineage as built
    from astolfo.provenance.attestation import attestation_path

    ledger = ledger_of(context, directory, pins=True)
    path = directory / ledger.reference(target).path
    found = path.exists() and attestation_path(path).exists()
    click.echo(built.tree(path) if found else tree(ledger, reference_of(ledger, target), directory))


@click.command()
@click.argument("file", type=FILE, required=False)
@WHERE
@click.option("--record", is_flag=True, help="Write what the directory holds as the record of this numerics class.")
@click.option("--json", "as_json", is_flag=True, help="With FILE: print everything as JSON.")
@click.option("--digest", is_flag=True, help="With FILE: no more than its sha256, and whether it is the recorded one.")
@click.option("--attestations-only", is_flag=True, help="With FILE: follow its ancestors without reading their bytes.")
@click.option("--key", type=WHOLE, help="With FILE: it must be signed, and by the owner of this public key (PEM).")
@click.option(
    "--certificates", type=WHOLE, multiple=True, help="With FILE: it must be signed by a certificate below these (PEM)."
)
@click.pass_context
def verify(
    context: click.Context, file: Path | None, directory: Path, record: bool, as_json: bool, digest: bool,
    attestations_only: bool, key: Path | None, certificates: tuple[Path, ...],
) -> None:  # fmt: skip
    """Verifies FILE and everything that it comes from; without FILE, compares every model of the ledger with its digest.

    With FILE it checks its bytes and side-car, the attestations up to its bases, every ancestor that is still there, and the
    recorded digests, and answers in one line. Exit status 1 if a bit is wrong. Without FILE the exit status is 1 if a model
    differs or is damaged; models that are not built are only counted.
    """
    if file is None:
        if as_json or digest or attestations_only or key or certificates:
            raise click.UsageError("--json, --digest, --attestations-only, --key and --certificates go with a FILE.")
        _verify_record(context, directory, record)
        return
    if record:
        raise click.UsageError("--record goes without a FILE: a record is whole.")
    if key and certificates:
        raise click.UsageError("name --key or --certificates: a file is signed with a bare key or with a certificate.")
    if digest:
        from astolfo.provenance import digests

        click.echo(digests.line_on(ledger_of(context, directory), file))
        return
    from astolfo.provenance import sign as signatures
    from astolfo.provenance.verify import verify as look

    found = look(file, ledger_of(context, directory), parents=not attestations_only)
    if key or certificates:
        try:
            found.signed_by = signatures.check(file, signatures.Trust(key=key, certificates=certificates))
        except InputError as error:
            found.problems.append(str(error))
    click.echo(json.dumps(found.as_data(), indent=2) if as_json else found.verdict)
    context.exit(0 if found.good else 1)


def _verify_record(context: click.Context, directory: Path, record: bool) -> None:
    from astolfo.numerics import class_here, numerics_class
    from astolfo.provenance import digests

    found = ledger_of(context, directory)
    if record:
        click.echo(f"recorded in {digests.record(found, directory, numerics_class(found.scale.device))}")
        return
    numerics = class_here(found.scale.device)
    findings = digests.compare(found, directory, numerics)
    click.echo(digests.report(found, findings, numerics))
    if any(finding.verdict in (digests.DIFFERS, digests.DAMAGED) for finding in findings):
        context.exit(1)


@click.command("verdicts")
@WHERE
@click.option("--record", is_flag=True, help="Add them to the record of this numerics class.")
@click.pass_context
def verdicts(context: click.Context, directory: Path, record: bool) -> None:
    """Prints the verdicts of a directory's evaluations, beside the outcomes that the ledger names."""
    from astolfo.numerics import numerics_class
    from astolfo.provenance import verdicts as judged

    found = ledger_of(context, directory)
    if record:
        path, count = judged.record(found, directory, numerics_class(found.scale.device))
        click.echo(f"{count} recorded in {path}")
        return
    click.echo(judged.report(found, directory))


@click.command()
@click.argument("a", type=WHOLE)
@click.argument("b", type=WHOLE)
@click.option("--base", type=WHOLE, help="What both were trained from. [default: as their attestations tell]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def compare(context: click.Context, a: Path, b: Path, base: Path | None, as_json: bool) -> None:
    """Says whether two checkpoint files are identical, equivalent or different, and where they differ first.

    A and B are paths such as results/RUN.safetensors. Exit status 0 for identical and equivalent, 1 for different.
    docs/reproduce.md derives the bounds.
    """
    from astolfo.provenance.compare import DIFFERENT, bounds_of
    from astolfo.provenance.compare import compare as look

    found = look(a, b, bounds_of(ledger_of(context)), base=base)
    click.echo(json.dumps(vars(found), indent=2) if as_json else str(found))
    context.exit(1 if found.verdict == DIFFERENT else 0)


@click.command()
@click.argument("target")
@click.option("--output", "-o", type=FOLDER, help="The fresh folder. [default: a temporary one, kept when bits differ]")
@WHERE
@click.pass_context
def reproduce(context: click.Context, target: str, output: Path | None, directory: Path) -> None:
    """Rebuilds a model from its base in a fresh folder and compares it with the one in DIRECTORY, or with the record.

    TARGET is a model's name, or a published folder: one that `astolfo publish` or `astolfo crate` made, with a model, its
    attestation, ledger/ and lock.txt. Then DIRECTORY gives what its author could not: the files in inputs/.
    Exit status 0 for identical and equivalent, 1 for different.
    """
    import shutil

    from astolfo.provenance.compare import DIFFERENT, IDENTICAL, bounds_of
    from astolfo.provenance.published import read
    from astolfo.provenance.reproduce import reproduce as rebuild

    published = read(Path(target)) if target and Path(target).is_dir() else None
    if published is None and "/" in target and not target.endswith(".safetensors"):
        raise InputError(f"{target} is no folder: expected the name of a model, or a published folder with a model in it.")
    if published:
        from astolfo.ledger import load
        from astolfo.ledger.ledger import read_pins

        pins = read_pins(directory) | read_pins(published.folder)
        ledger, reference = load(published.ledger, published.scale, pins=pins), published.reference
    else:
        ledger = ledger_of(context, directory)
        reference = reference_of(ledger, target)
    folder = output or Path(tempfile.mkdtemp(prefix="astolfo-reproduce-"))
    found = rebuild(ledger, reference, directory, folder, bounds_of(ledger), published)
    click.echo(str(found))
    if output is None and found.comparison.verdict == IDENTICAL:
        shutil.rmtree(folder)
    context.exit(1 if found.comparison.verdict == DIFFERENT else 0)


@click.command()
@click.argument("target", metavar="ID")
@click.option("--output", "-o", type=FOLDER, required=True, help="The crate's folder, new or empty.")
@click.option("--license", help="Under which licence you give it away: an address, or words. [default: not stated]")
@WHERE
@click.pass_context
def crate(context: click.Context, target: str, output: Path, license: str | None, directory: Path) -> None:
    """Packs a built model as a Workflow Run RO-Crate: with its workflow, ledger, jobs, attestations and environment.

    That is the form in which journals and archives take it. What it started from is named by digest, not copied.
    """
    from astolfo.provenance.crate import NO_LICENSE
    from astolfo.provenance.crate import crate as write

    ledger = ledger_of(context, directory)
    click.echo(write(ledger, reference_of(ledger, target), directory, output, license or NO_LICENSE))


@click.command()
@click.argument("name", metavar="ID")
@click.argument("file", type=FILE)
@WHERE
@click.pass_context
def adopt(context: click.Context, name: str, file: Path, directory: Path) -> None:
    """Takes FILE as the model ID of a run (RUN, RUN-epoch000008, RUN-0.50), which is then not built.

    Its attestation, and the lineage of all that is made from it, say so: adopted, not rebuilt.
    """
    from astolfo.pins import adopt as take

    ledger = ledger_of(context, directory, pins=True)
    reference = reference_of(ledger, name)
    with naming_scale(ledger, file):
        click.echo(take(ledger, str(reference), file, directory))
    program.remember(directory, use_of(context, directory))


@click.command()
@click.argument("file", type=WHOLE)
@click.option("--key", type=WHOLE, required=True, help="Your private key: PEM, on P-256, P-384 or P-521.")
@click.option("--certificate", type=WHOLE, help="The key's own certificate (PEM), when it has one.")
@click.option("--chain", type=WHOLE, multiple=True, help="Certificates between that one and the root (PEM).")
def sign(file: Path, key: Path, certificate: Path | None, chain: tuple[Path, ...]) -> None:
    """Signs FILE and its attestation, and so everything that FILE comes from, with a key of yours. No verb needs a signature.

    Leaves FILE.sig, which `model_signing verify` accepts, and FILE.intoto.jsonl, which verifiers of DSSE and in-toto read.
    """
    from astolfo.provenance.sign import encrypted
    from astolfo.provenance.sign import sign as write

    if chain and not certificate:
        raise click.UsageError("--chain goes with --certificate.")
    password = click.prompt(f"Password of {key}", hide_input=True).encode() if encrypted(key) else None
    for made in write(file, key, password=password, certificate=certificate, chain=chain):
        click.echo(f"signed: {made}")
