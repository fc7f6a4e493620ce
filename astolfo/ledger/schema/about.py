"""What a ledger says of itself, in `ledger.yaml`: what is built when nothing is named, and how tables and pages speak of it."""

from pydantic import Field

from astolfo.ledger.schema.entry import Entry


class About(Entry):
    """A ledger's title, its default targets, and the words for its runs."""

    title: str = "The ledger"
    note: str = ""
    targets: tuple[str, ...] | None = Field(None, min_length=1)  # None: the newest run and its evaluation
    runs_are: str = "runs"  # the runs that count, after their number
    asides_are: str = "aside"  # what is said of one that does not
    outcomes_are: str = "Outcome"  # the heading of what became of a run where the ledger says so
