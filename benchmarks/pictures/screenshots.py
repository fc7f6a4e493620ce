"""The pictures of docs/site.md: `python -m benchmarks.pictures.screenshots DIRECTORY [--run 26011501] [--out docs/images]`.

DIRECTORY is a working directory with the record (`make ledger`) and evaluations (`make evaluations/26011501/index.html` and
others); what is not built is not shown. The site is made in a temporary folder and opened in a Chromium, which must be there.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from astolfo.ledger import load
from astolfo.site.build import build
from tests.site.chromium import Chromium

ROOT = Path(__file__).parents[2]
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844, "phone": True}
GAP, GREY = 24, (128, 128, 136)  # between the phone's pictures
TO = "document.querySelector({!r}).scrollIntoView({{behavior: 'instant'}})"
ALPHA = "(s => { s.value = 8; s.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('[name=alpha]'))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="a working directory with the record")
    parser.add_argument("--run", default="26011501", help="whose page is shown; it must be evaluated")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        build(load(ROOT / "config"), options.directory, site)
        with Chromium(Path(folder) / "profile") as browser:
            take(browser, site, options.run, options.out)


def take(browser: Chromium, site: Path, run: str, out: Path) -> None:
    """Writes the five pictures into `out`."""

    def shot(name: str, page: str, then: str = "0", **window: object) -> Path:
        path, _, fragment = page.partition("#")
        browser.open(f"{(site / path).as_uri()}#{fragment}", **window)  # type: ignore[arg-type]
        browser.value(f"(() => {{ {then} }})()")
        browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        browser.screenshot(out / name)
        return out / name

    pictures = TO.format("#pictures-1")
    shot("site.png", f"runs/{run}.html", f"{ALPHA}; {pictures}", **WIDE)
    shot("site-lineage.png", "lineage.html#26011101", dark=True, **WIDE)
    shot("site-ledger.png", "index.html#q=merge", **WIDE)
    shot("site-losses.png", "losses.html#25112201+25111002", **WIDE)
    phone: list[Callable[[], Path]] = [
        lambda: shot("1.png", "index.html#era=2511a", TO.format("tbody:not([hidden]) .era"), **PHONE),
        lambda: shot("2.png", f"runs/{run}.html", TO.format("[name=runtime]"), **PHONE),
        lambda: shot("3.png", "lineage.html#26011101", dark=True, **PHONE),
    ]
    parts = []
    for one in phone:
        path = one()
        parts.append(Image.open(path).convert("RGB"))
        path.unlink()
    width = sum(part.width for part in parts) + GAP * (len(parts) - 1)
    sheet, left = Image.new("RGB", (width, parts[0].height), GREY), 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width + GAP
    sheet.save(out / "site-phone.png", optimize=True)


if __name__ == "__main__":
    main()
