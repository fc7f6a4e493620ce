"""docs/sd-scripts.md: how command lines are read, and what becomes of every option. `astolfo ledger options` prints it."""

from collections import Counter
from pathlib import Path

from astolfo.kohya.options import TRAINERS, Option, Table, accelerate, options

_KINDS = {"key": "a key", "placement": "placement", "none": "no effect", "refused": "**refused**"}
_INTRO = Path(__file__).with_name("page.md")


def page() -> str:
    """The whole page, as Markdown."""
    lines = [_INTRO.read_text(encoding="utf-8"), _counts(), ""]
    for table in (options(), accelerate()):
        for title, members in table.groups.items():
            lines += [f"### {title}", "", "| option | becomes | which, or why |", "| --- | --- | --- |"]
            lines += [_row(option) for option in members]
            lines.append("")
    return "\n".join(lines)


def _counts() -> str:
    own = [option for option in options().all.values() if "sdxl" in option.of]
    kinds = Counter(option.becomes for option in own)
    return (
        f"Of the {len(own)} options of `sdxl_train.py` (kohya-ss/sd-scripts at `48d368f`), {kinds['key']} are keys, "
        f"{kinds['placement']} are placement, {kinds['none']} have no effect, {kinds['refused']} are refused. "
        "An option that only other trainers have names them in brackets."
    )


def _row(option: Option) -> str:
    of = "" if "sdxl" in option.of or option.name in accelerate().all else f" ({', '.join(TRAINERS[one] for one in option.of)})"
    return f"| `--{option.name}`{of} | {_KINDS[option.becomes]} | {described(option)} |"


def described(option: Option) -> str:
    """What becomes of an option, as a sentence or two."""
    parts = [f"`{option.key}`" if option.key else "", option.why, f"Nearest: {option.nearest}" if option.nearest else ""]
    default = "" if option.default in (None, "", 0) or option.becomes != "key" else f"Default: `{option.default}`"
    return ". ".join(part for part in [*parts, default] if part).replace("|", "\\|").rstrip(".") + "."


def one(name: str) -> str:
    """What becomes of the option of that name. Raises LedgerError for an unknown one."""
    from astolfo.errors import LedgerError

    found = [(table, option) for table in (options(), accelerate()) if (option := table.find(name))]
    if not found:
        close = [*options().close_matches(name), *accelerate().close_matches(name)]
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise LedgerError(f"unknown option {name!r}.{hint} docs/sd-scripts.md lists them all.")
    return "\n".join(_sentence(table, option) for table, option in found)


def _sentence(table: Table, option: Option) -> str:
    where = "accelerate launch " if table is accelerate() else ""
    kind = _KINDS[option.becomes].strip("*")
    return f"{where}--{option.name}: {kind}: {described(option)}".replace("`", "")
