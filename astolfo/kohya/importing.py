"""Where an import is written: `astolfo ledger import`.

A folder without a ledger gets ledger.yaml. In a ledger every import has files of its own: the era in runs/, and each base and
dataset by its name in bases/ and datasets/. No file that is there is changed but imported.yaml, which says what was read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from astolfo.errors import AstolfoError, InputError, LedgerError
from astolfo.files import write_text
from astolfo.kohya import write
from astolfo.kohya.entries import Imported, plain_name
from astolfo.kohya.known import Known
from astolfo.kohya.read import imported as read
from astolfo.kohya.values import printed
from astolfo.ledger import load, schema
from astolfo.ledger.files import Layer, validated
from astolfo.ledger.references import problem_of
from astolfo.ledger.yamlfile import Document

_KINDS: dict[str, type[BaseModel]] = {"runs": schema.Era, "bases": schema.Base, "datasets": schema.Dataset}
"""What a file of each folder holds."""


def import_files(
    folder: Path,
    paths: Sequence[Path],
    *,
    era: str | None = None,
    ranks: int | None = None,
    lossy: bool = False,
    write: bool = True,
) -> str:
    """Reads files and writes what they say into the ledger in `folder`; returns the report.

    Raises InputError for what cannot be read, and, unless `lossy`, LedgerError naming all that has no counterpart.
    """
    ledger = load(folder, "full") if is_ledger(folder) else None
    known = Known.read(folder) if ledger else Known()
    found = read(paths, ledger, ranks, known)
    if found.refusals and not lossy:
        raise LedgerError(_refused(found))
    if not found.runs:
        raise InputError("No launch is left that a ledger can hold. " + " ".join(found.left_out))
    name = era or plain_name(paths[0].stem) or "imported"
    if problem := problem_of(name):
        raise LedgerError(f"The era's name {name!r} {problem}. Name another with --era.")
    files = _files(folder, found, name, "From " + ", ".join(path.name for path in paths), bool(ledger))
    if not write:
        _check(folder, files)
        return "\n".join(text if len(files) == 1 else f"# {path}\n{text}" for path, text in files.items())
    _write(folder, files)
    known.add(found)
    return _report(found, [*files, known.write(folder)], folder)


def is_ledger(folder: Path) -> bool:
    """Whether a folder holds a ledger."""
    from astolfo.ledger.files import is_ledger as known

    return known(folder)


def _files(folder: Path, found: Imported, name: str, title: str, there: bool) -> dict[Path, str]:
    if not there:
        return {folder / "ledger.yaml": write.whole(found, title, folder)}
    files = {folder / "runs" / f"{name}.yaml": write.era(found, name, title, folder)}
    files |= {folder / "bases" / f"{one}.yaml": text + "\n" for one, text in write.bases(found).items()}
    files |= {folder / "datasets" / f"{one}.yaml": text + "\n" for one, text in write.datasets(found).items()}
    return files


def _write(folder: Path, files: dict[Path, str]) -> None:
    for path in files:
        if path.exists():
            raise LedgerError(f"{path} is there already, and an import changes no file. Name another --era, or move it.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    try:
        load(folder, "full")
    except AstolfoError as error:
        for path in files:
            path.unlink()
        raise LedgerError(f"What was read is no ledger, and nothing was written: {error}") from None


def _check(folder: Path, files: Mapping[Path, str]) -> None:
    """Raises LedgerError for files that no ledger could hold, before they are printed: a whole ledger, or files of one."""
    with TemporaryDirectory() as place:
        for path, text in files.items():
            file = Path(place) / path.name
            write_text(file, text)
            try:
                if kind := _KINDS.get(path.relative_to(folder).parent.name):
                    document = Document(file)
                    validated([Layer(document=document, path=(), value=document.value)], kind)
                else:
                    load(Path(place), "full")
            except AstolfoError as error:
                raise LedgerError(f"What was read is no ledger: {error}") from None


def _refused(found: Imported) -> str:
    lines = [f"  {one}" for one in found.refusals]
    count = f"{len(lines)} things have" if len(lines) > 1 else "One thing has"
    return (
        f"{count} no counterpart in a ledger:\n" + "\n".join(lines) + "\nNothing was written. "
        "`--lossy` takes the runs without, and their notes say so; docs/sd-scripts.md has the whole table."
    )


def _report(found: Imported, files: Sequence[Path], folder: Path) -> str:
    """What was read, where it is, what became of every option, and what follows."""
    lines = [f"{len(found.runs)} run{'s' if len(found.runs) > 1 else ''}: {', '.join(run.name for run in found.runs)}"]
    lines += ["", "What became of every option:", *(f"  {line}" for line in write.account(found))]
    if remarks := [*found.left_out, *found.remarks, *write.uncounted(found)]:
        lines += ["", "To know:", *(f"  {printed(line)}" for line in remarks)]
    lines += [
        "",
        f"{write.FOLLOWS}:",
        *(f"  {line}" for line in write.commands(found, folder)),
    ]
    return "\n".join([*lines, "", "Written:", *(f"  {path}" for path in files)])
