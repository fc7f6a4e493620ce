"""What the static site of a working directory costs: `python benchmarks/site.py DIRECTORY`.

Prints the median of three builds, the time of one byte-for-byte copy of the site beside it, their ratio, and the sizes that a
reader waits for: the first page with all that it loads, and the whole site.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from astolfo.ledger import load
from astolfo.site.build import build

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="a working directory with something built")
    options = parser.parse_args()
    ledger = load(ROOT / "config")
    with tempfile.TemporaryDirectory() as folder:
        site, copy = Path(folder) / "site", Path(folder) / "copy"
        builds = [_seconds(lambda: build(ledger, options.directory, site)) for _ in range(3)]
        copied = _seconds(lambda: shutil.copytree(site, copy))
        median = statistics.median(builds)
        first = sum(path.stat().st_size for path in (site / "index.html", *(site / "assets").iterdir()))
        whole = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    print(f"site: {median:.2f} s, {median / copied:.1f} times a copy of it; first page {first:,} bytes, all {whole:,} bytes")


def _seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
