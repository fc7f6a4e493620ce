"""Pinned inputs: files from outside that are used only when their sha256 is the recorded one.

`inputs/` of a working directory holds what the user brings; `pins.yaml` beside it records digests for bases that the
ledger marks `unknown`, and for models of runs that are adopted instead of built. A pin is never changed silently.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from astolfo import library, program
from astolfo.checkpoint.finite import not_finite, summary
from astolfo.checkpoint.layout import identify
from astolfo.checkpoint.safefile import open_file
from astolfo.errors import CheckpointError, InputError, LedgerError
from astolfo.files import json_digest, sha256_of, write_sidecar, write_text, written
from astolfo.ledger import Ledger
from astolfo.ledger.files import unknown
from astolfo.ledger.ledger import INPUTS, PINS, SCORER, read_pins
from astolfo.ledger.schema import Family, Origin
from astolfo.ledger.steps import step_of

log = logging.getLogger(__name__)
VOCABULARY_FILES = ("vocab.json", "merges.txt")
SCORER_FILES = ("config.json", "model.safetensors", "preprocessor_config.json", *VOCABULARY_FILES)


def pin(ledger: Ledger, name: str, file: Path, directory: Path) -> str:
    """Records the sha256 of `file` as the base `name`, links it into `inputs/`, and says so; "vocabulary" and
    "clip-score" take a folder.

    A dataset takes the folder of a store, whose own digest is recorded. Raises InputError for what is not pinned, and when the
    ledger or an earlier pin names another digest, LedgerError for an unknown name, CheckpointError when it is no model file,
    StoreError when it is no store.
    """
    _check_name(ledger, name, file, directory)
    if name in ledger.datasets and name not in ledger.bases:
        return _pin_dataset(ledger, name, file, directory)
    origin = _origin(ledger, name)
    if name == "vocabulary" and ledger.scale.vocabulary.sha256 == clip_digest():
        return _clip(file)
    if not origin.file or (name in ledger.bases and ledger.scale_name != "full"):
        raise InputError(_unpinned(ledger, name, file, directory))
    remarks: list[str] = []
    if name in _FOLDERS:
        digest = _FOLDERS[name](file)
    else:
        base = ledger.base(name)
        digest, remarks = _checked(ledger, file, base.family, base.kind)
    recorded = origin.sha256 if origin.sha256 != "unknown" else read_pins(directory).get(name, digest)
    if recorded != digest:
        raise InputError(f"{file} is not the {name} that is recorded: expected sha256 {recorded}, found {digest}.")
    target = _linked(name, file, digest, directory, origin.file)
    return "\n".join([f"{name} is pinned: sha256 {digest}, linked at {target}.", *remarks])


def _check_name(ledger: Ledger, name: str, file: Path, directory: Path) -> None:
    """Raises InputError for a name that no file or this one cannot be pinned as, LedgerError for an unknown one."""
    reference, known = ledger.reference(name), [*ledger.bases, *ledger.datasets, "vocabulary", SCORER]
    own = str(reference.base or reference.run)
    if ledger.of_the_library(own) or (name in ledger.stand_ins and name not in known):
        path = f"datasets/{own}/store.json" if own in ledger.datasets else ledger.reference(own).path
        made = f" (`{program.build_command(path, directory=directory)}` makes it)" if own in ledger.lent else ""
        raise InputError(
            f"{name} is the program's, for stand-ins at the miniature{made}; nothing is to be pinned. To have a file of yours in "
            f"a base's place there, put it into {ledger.folder / library.STAND_INS.name} and name it in the base's entry: "
            "miniature: {file: NAME.safetensors, sha256: DIGEST}."
        )
    if name not in known and own in ledger.runs:
        adopts = program.command("adopt", name, file, directory=directory)
        raise InputError(f"{name} is a run's model, which is adopted, not pinned: `{adopts}`.")
    if name not in known:
        raise LedgerError(unknown("base or dataset", name, known))
    if name not in ledger.bases and file.is_file():
        raise InputError(f"{name} is pinned as a folder, and {file} is a file. Name the folder that holds it.")


def _unpinned(ledger: Ledger, name: str, file: Path, directory: Path) -> str:
    """What is said of what has no pin at this scale: where it is pinned, or what makes it and how a file takes its place."""
    scale, base = ledger.scale_name, ledger.bases.get(name)
    here = base and ledger.origin(name).file
    what = f"the file {ledger.pinned_folder(name) / here}" if here else "made by the graph"
    lines = [f"{name} is {what} at the scale {scale}; nothing is to be pinned."]
    if base is None or (base.full and base.full.file):
        other = program.command("pin", name, file, "-d", "OTHER", scale="full")
        lines.append(f"What you hold is for the real thing, in a directory of its own: `{other}`.")
    elif not here:
        build = program.build_command(ledger.reference(name).path, directory=directory)
        lines.append(f"`{build}` makes it. To use a file that you have, say {scale}: {{file: NAME.safetensors}} in its entry.")
    return " ".join(lines)


def _pin_dataset(ledger: Ledger, name: str, folder: Path, directory: Path) -> str:
    from astolfo.data.join import Repeated
    from astolfo.data.store import Store

    if parts := ledger.datasets[name].parts:
        raise InputError(f"{name} is made of its parts: pin those ({', '.join(parts)}).")
    kind, place = ledger.dataset_source(name)
    if kind == "drawn":
        raise InputError(
            f"{name} is made by the graph at the scale {ledger.scale_name}: its pictures are drawn, and there is nothing to pin. "
            "See --scale; or name pictures of your own in its entry, such as miniature: {folder: PATH}."
        )
    if kind == "folder" or ledger.dataset(name).store is not None:
        raise InputError(f"The ledger names {place} as the {kind} of {name}: the graph takes it, and there is nothing to pin.")
    store, expected = Store(folder), ledger.dataset(name).images
    if (counted := len(Repeated(store))) != expected:
        at = ledger.files.error("datasets", name, ["images"], "")
        raise InputError(
            f"{at}{folder} has {counted:,} images, {name} has {expected:,}. Is it the whole dataset? Then say images: {counted}."
        )
    recorded = ledger.dataset_digest(name)
    recorded = read_pins(directory).get(name, store.digest) if recorded == "unknown" else recorded
    if recorded != store.digest:
        raise InputError(f"{folder} is not the {name} that is recorded: expected the digest {recorded}, found {store.digest}.")
    target = _linked(name, folder, store.digest, directory, name)
    return f"{name} is pinned: digest {store.digest}, linked at {target}."


def adopt(ledger: Ledger, name: str, file: Path, directory: Path) -> str:
    """Records `file` as the model `name` of a run (a result, a checkpoint, a merge), which is then not built; says so.

    Raises InputError for a base, for a file that this program made as another model, or when another file was adopted before,
    LedgerError for a model that the ledger does not know, CheckpointError when the file is no model of the run's architecture.
    """
    reference = ledger.reference(name)
    if not reference.run:
        pinned = program.command("pin", name, file, directory=directory)
        raise InputError(f"{name} is no model of a run, so it cannot be adopted. A base is pinned: `{pinned}`.")
    step_of(ledger, reference)
    digest, remarks = _checked(ledger, file, ledger.family(ledger.run(reference.run)), "model")
    with open_file(file) as opened:
        title = opened.metadata.get("modelspec.title", name) if "astolfo.scale" in opened.metadata else name
    if title != name:
        raise InputError(f"{file} is not {name}: its header says that this program made it as {title}. Adopt the file you mean.")
    before = read_pins(directory).get(name, digest)
    if before != digest:
        raise InputError(
            f"{directory / PINS} has another file for {name}: sha256 {before}, and {file} has {digest}. Remove its line first."
        )
    target = _linked(name, file, digest, directory, f"{name}.safetensors")
    done = f"{name} is adopted, not rebuilt: sha256 {digest}, linked at {target}. To build it after all, remove it from {PINS}."
    return "\n".join([done, *remarks])


def _checked(ledger: Ledger, file: Path, family: Family, kind: str) -> tuple[str, list[str]]:
    """The sha256 of a model file that is to be used, and what its user should know of it.

    Raises CheckpointError when it is not of the scale's architecture.
    """
    _check_kind(file, family, kind)
    from astolfo.checkpoint import autoencoder, model
    from astolfo.checkpoint.architecture import Architecture

    check = model.check if kind == "model" else autoencoder.check
    more = check(file, Architecture.from_mapping(ledger.scale.architectures[family], family))
    remarks = [f"Where it is used, {line}." for line in (more.lines() if more else ())]
    with open_file(file) as opened:
        if wrong := summary(not_finite(opened)):
            remarks.append(f"WARNING: it holds {wrong}. Nothing that is trained or merged from these comes out whole.")
    return sha256_of(file), remarks


def _linked(name: str, file: Path, digest: str, directory: Path, place: str) -> Path:
    """Links `file` to its place below `inputs/` and records its digest; returns the link.

    Raises InputError where something else than a link is there: it may be its owner's only copy.
    """
    target = directory / INPUTS / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.realpath(target) != os.path.realpath(file):
        if target.exists() and not target.is_symlink():
            raise InputError(
                f"{target} is there already, and is no link to {file}. Move it to another folder first; or, if it is the file "
                "that you mean, name that one."
            )
        target.unlink(missing_ok=True)
        target.symlink_to(file.resolve())
    write_text(directory / PINS, yaml.safe_dump({**read_pins(directory), name: digest}, sort_keys=True))
    return target


def _origin(ledger: Ledger, name: str) -> Origin:
    """Where a pinned thing belongs, with the digest that is known of it."""
    if name == SCORER:
        return Origin(file=SCORER, sha256=ledger.scorer or "unknown")
    return ledger.vocabulary_origin() if name == "vocabulary" else ledger.origin(name)


def vocabulary_digest(folder: Path) -> str:
    """One sha256 over the two files of a CLIP vocabulary. Raises InputError when one is missing."""
    digests = {}
    for name in VOCABULARY_FILES:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name} is missing: the CLIP vocabulary is a folder that you bring, with {VOCABULARY_FILES[0]}"
                f" and {VOCABULARY_FILES[1]} of openai/clip-vit-large-patch14. "
                f"Pin it with `{program.command('pin', 'vocabulary', 'FOLDER', scale='full')}`."
            )
        digests[name] = sha256_of(folder / name)
    return json_digest(digests)


@cache
def clip_digest() -> str:
    """The digest of CLIP's own vocabulary, which comes with the program."""
    from astolfo.data.vocabulary import write_clip

    with tempfile.TemporaryDirectory() as folder:
        write_clip(folder)
        return vocabulary_digest(Path(folder))


def _clip(folder: Path) -> str:
    """What is said to who pins CLIP's vocabulary. Raises InputError when the folder holds another one."""
    from astolfo.data.vocabulary import write_clip

    vocabulary_digest(folder)
    with tempfile.TemporaryDirectory() as own:
        write_clip(own)
        if _entries(folder) != _entries(Path(own)):
            raise InputError(
                f"{folder} is another vocabulary than CLIP's, which every SDXL model has: expected the entries and merges of "
                f"openai/clip-vit-large-patch14, found others. They come with the program; nothing needs to be pinned."
            )
    return f"{folder} holds CLIP's vocabulary, as the program does: there is nothing to pin."


def _entries(folder: Path) -> tuple[Any, list[str]]:
    """A vocabulary's entries and merges, however its files are laid out."""
    try:
        words, merges = ((folder / name).read_text(encoding="utf-8") for name in VOCABULARY_FILES)
        return json.loads(words), merges.split("\n", 1)[1].split()
    except (ValueError, IndexError) as error:
        raise InputError(f"{folder} holds no CLIP vocabulary: {error}.") from None


def scorer_digest(folder: Path) -> str:
    """One sha256 over the files of a CLIP model that scores pictures. Raises InputError when one is missing."""
    missing = [name for name in SCORER_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}: the scorer is a CLIP model's folder as the Hub has it, such as that of "
            f"openai/clip-vit-large-patch14, with {', '.join(SCORER_FILES)}."
        )
    return json_digest({name: sha256_of(folder / name) for name in SCORER_FILES})


def place_vocabulary(folder: Path, expected: str, out: Path) -> None:
    """Makes CLIP's own vocabulary at `out`, or copies a pinned one that is the right one. Raises InputError as `place` does."""
    if expected == clip_digest():
        from astolfo.data.vocabulary import write_clip

        write_clip(out)
        return
    found = vocabulary_digest(folder)
    if expected == "unknown":
        raise InputError(
            f"{folder} is not pinned. If it is the right one: `{program.command('pin', 'vocabulary', folder, scale='full')}`."
        )
    if found != expected:
        raise InputError(f"{folder} is not the pinned vocabulary: expected sha256 {expected}, found {found}.")
    for name in VOCABULARY_FILES:
        with written(out / name) as beside:
            shutil.copyfile(folder / name, beside)


def place(source: Path, spec: Mapping[str, str], out: Path) -> None:
    """Puts a copy of the pinned file `source` at `out` after checking it.

    `spec` holds its sha256, family and kind. Raises InputError when it is missing, unpinned or not the pinned file,
    CheckpointError when it is damaged or of another architecture.
    """
    expected, adopted = spec["sha256"], spec.get("verb") == "adopted"
    if not source.exists() and adopted:
        raise InputError(f"{source} is missing: it was adopted as {out.stem}. Put it back, or remove {out.stem} from {PINS}.")
    if not source.exists():
        raise InputError(
            f"{source} is missing: the base {out.stem} is a file that you bring. Pin it with "
            f"`{program.command('pin', out.stem, 'FILE', '-d', Path.cwd())}`, which hashes it and links it there."
            if source.parent.name == INPUTS
            else f"{source} is missing: it stands in for {out.stem} at the miniature. {_restored(source)}"
        )
    if expected == "unknown":
        raise InputError(
            f"{source} is there, but nobody has recorded its sha256, so it could be any file. If it is the right one: "
            + (
                f"`{program.command('pin', out.stem, source, '-d', Path.cwd())}`."
                if source.parent.name == INPUTS
                else f"write it into bases.yaml, as the sha256 of {out.stem}: {sha256_of(source)}."
            )
        )
    _check_kind(source, spec["family"], spec["kind"])
    found = sha256_of(source)
    if found != expected:
        what = "adopted" if adopted else "pinned"
        raise InputError(f"{source} is not the {what} {out.stem}: expected sha256 {expected}, found {found}. Get the right file.")
    with written(out) as beside:  # a copy: what happens to it must not happen to the user's file
        shutil.copyfile(source, beside)
    write_sidecar(out, found)
    log.info("%s is the %s file (sha256 %s)", out, "adopted" if adopted else "pinned", found)


def link(source: Path, out: Path, digest: str) -> None:
    """Puts `source`, which the graph made, at `out` with its `digest`: the same file under a second name where it can be."""
    with written(out) as beside:
        try:
            os.link(source.resolve(), beside)
        except OSError:
            shutil.copyfile(source, beside)
    write_sidecar(out, digest)


def _restored(source: Path) -> str:
    """How a file that is missing comes back: the library's from the program's checkout, a ledger's own from whoever has it."""
    if source.is_relative_to(library.FOLDER):
        return f"It belongs to the program: `git -C {program.ROOT} checkout {source.relative_to(program.ROOT)}` restores it."
    return "The ledger names it: put the file there, or leave `miniature` out of the base's entry for a stand-in of the program."


_FOLDERS = {"vocabulary": vocabulary_digest, SCORER: scorer_digest}


def _check_kind(path: Path, family: str, kind: str) -> None:
    """Raises CheckpointError when the file is damaged, or no model (or autoencoder) of the family."""
    with open_file(path) as file:
        keys = file.keys()
    found = "autoencoder" if "encoder.conv_in.weight" in keys else identify(keys)
    expected = family if kind == "model" else kind
    if found != expected and not (kind == "autoencoder" and found == family):  # a whole model has one, too
        raise CheckpointError(
            f"{path}: expected a single-file checkpoint of kind {expected}, found {found}. Is it the right file?"
        )
