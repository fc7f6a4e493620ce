"""The pages in a real Chromium: filters, keys, lineage, comparison, slider, themes, and a phone's width."""

import pytest

from tests.site.conftest import OTHER, RUN

RUN_PAGE = f"runs/{RUN}.html"
PAGES = ("index.html", "lineage.html", "losses.html", "digests.html", RUN_PAGE, "runs/25112201.html")
VISIBLE = "[...document.querySelectorAll('.run:not([hidden]) th a')].map(a => a.textContent)"
CONTRAST = """(() => {
  const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parts = (colour) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const light = (rgb) => rgb.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(parts(getComputedStyle(at).backgroundColor));
    return layers.reduce((under, [r, g, b, a]) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a)), [1, 1, 1]);
  };
  const poor = [];
  for (const element of document.querySelectorAll('main *, header *, footer')) {
    if (!element.checkVisibility() || ![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (element.closest('svg, option, .choosing')) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color).slice(0, 3)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${element.className || element.tagName} ${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(poor)];
})()"""


@pytest.mark.parametrize("page", PAGES)
def test_a_page_fits_a_phone_and_asks_nobody(chromium, site, page):
    """At 390 pixels nothing sticks out sideways; nothing throws, nothing is missing, and no host is asked for anything."""
    chromium.open(site / page, width=390, height=844, phone=True)
    assert chromium.value("document.documentElement.scrollWidth") <= 390
    assert chromium.problems() == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", PAGES)
def test_texts_can_be_read(chromium, site, page, dark):
    """Every text stands out from its ground by 4.5 to 1 at least (WCAG 2.2, AA), in light and in dark."""
    chromium.open(site / page, dark=dark)
    assert chromium.value(CONTRAST) == []


def test_the_filter_finds_runs_by_word_and_by_choice(chromium, ledger, site):
    """`/` leads to the search; every word must occur; choices narrow further; the address brings it all back."""
    chromium.open(site / "index.html")
    assert chromium.value("document.querySelector('[data-found]').textContent") == f"{len(ledger.runs)} runs"
    chromium.press("/")
    chromium.type("lion 2503")
    assert chromium.value(VISIBLE) == ["25031501", "25031504"]
    chromium.value(
        "(s => { s.value = 'Lion8bit'; s.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('[name=optimizer]'))"
    )
    assert chromium.value(VISIBLE) == ["25031504"]
    assert chromium.value("document.querySelector('[data-found]').textContent") == f"1 of {len(ledger.runs)} runs"
    assert chromium.value("[...document.querySelectorAll('tbody:not([hidden])')].length") == 1
    address = chromium.value("location.href")
    chromium.open(address)
    assert chromium.value(VISIBLE) == ["25031504"]
    chromium.click("[type=reset]")
    chromium.wait(f"document.querySelector('[data-found]').textContent === '{len(ledger.runs)} runs'")


def test_a_filter_that_finds_nothing_says_so(chromium, ledger, site):
    """No match is said in words, with a way back."""
    chromium.open(site / "index.html")
    chromium.press("/")
    chromium.type("nonsense")
    assert chromium.value("document.querySelector('[data-none]').checkVisibility()")
    chromium.click("[data-clear]")
    chromium.wait(f"{VISIBLE}.length === {len(ledger.runs)}")


def test_the_keyboard_reaches_everything(chromium, site):
    """Tab leads from the skip link through the bar to the runs, and what has the focus is seen to have it."""
    chromium.open(site / "index.html")
    seen = []
    for _ in range(18):
        chromium.press("Tab")
        seen.append(chromium.value("document.activeElement.textContent.trim().slice(0, 14)"))
        assert chromium.value("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert seen[0] == "To the content"
    assert {"Ledger", "Lineage", "Losses", "Digests", "System", "24120801"} <= set(seen)


def test_choosing_a_model_marks_its_lineage(chromium, site):
    """A click marks ancestors and descendants and tells of the run; arrows walk, Escape lets go, Enter twice opens the run."""
    chromium.open(site / "lineage.html")
    chromium.click("li[data-name='26011101'] a")
    chromium.wait("document.querySelector('li.at')?.dataset.name === '26011101'")
    kin = set(chromium.value("[...document.querySelectorAll('li.kin')].map(row => row.dataset.name)"))
    assert {"AK-NIL-1.2", "25112201", "AK-Evo-2EP", "26011102", RUN, "26022301"} <= kin
    assert not {"26011001", "25111701", "215c"} & kin
    assert "The record says" in chromium.value("document.querySelector('[data-chosen]').textContent")
    chromium.press("Escape")
    assert chromium.value("document.querySelector('[data-chosen]').hidden")
    chromium.press("ArrowDown")
    assert chromium.value("document.activeElement.closest('li').dataset.name") == "26011102"
    chromium.press("Enter")
    chromium.wait("document.querySelector('li.at')?.dataset.name === '26011102'")
    chromium.press("Enter")
    chromium.wait("document.title === '26011102 · astolfo'")


def test_two_loss_curves_are_compared(chromium, site):
    """The address names two runs; both are drawn, the slider reads both off, and choosing another changes the address."""
    chromium.open((site / "losses.html").as_uri() + f"#{RUN}+{OTHER}")
    chromium.wait("document.querySelectorAll('.chart .mean').length === 2")
    chromium.value("document.querySelector('.reading input').focus()")
    chromium.press("Home")
    said = chromium.value("document.querySelector('.reading p').textContent")
    assert f"{RUN}, step 1: 0.5000" in said
    assert f"{OTHER}, step 1: 0.3000" in said
    chromium.press("End")
    said = chromium.value("document.querySelector('.reading p').textContent")
    assert f"{RUN}, step 90: 0.1000" in said
    assert f"{OTHER}, not here" in said
    chromium.value(
        "(s => { s.value = ''; s.dispatchEvent(new Event('input', {bubbles: true})) })(document.querySelector('[name=b]'))"
    )
    chromium.wait("document.querySelectorAll('.chart .mean').length === 1")
    assert chromium.value("location.hash") == f"#{RUN}"


def test_a_run_page_draws_its_own_curve(chromium, site):
    """The page of a run loads its losses and draws them."""
    chromium.open(site / RUN_PAGE)
    chromium.wait("document.querySelectorAll('.chart .mean').length === 1")
    assert chromium.problems() == []


def test_the_slider_walks_over_alpha(chromium, site):
    """Arrow keys move alpha: pictures, verdict and reading change; `best` jumps; what was not sampled shows the nearest."""
    chromium.open(site / RUN_PAGE)
    shown = "document.querySelector('[data-picture]').getAttribute('src').split('/').pop()"
    assert chromium.value(shown) == "v-null-1.00-01.png"
    chromium.value("document.querySelector('[name=alpha]').focus()")
    chromium.press("ArrowLeft")
    assert chromium.value(shown) == "v-null-0.90-01.png"
    assert chromium.value("document.querySelector('[data-cell]').textContent.includes('works 0.9 was looked at.')")
    chromium.press("Home")
    assert chromium.value(shown) == "v-null-0.00-01.png"
    chromium.click("[data-best]")
    assert chromium.value(shown) == "v-null-0.90-01.png"
    chromium.value("document.querySelector('[name=uncond]').focus()")
    chromium.press("ArrowRight")
    assert chromium.value(shown) == "v-zero-0.90-01.png"
    chromium.click("[name=runtime][value='1']")
    assert chromium.value(shown) == "eps-null-1.00-01.png"
    assert chromium.value("document.querySelector('[data-alpha]').textContent") == "1.00"
    assert chromium.value("document.querySelector('[data-cell]').textContent.includes('this is the nearest')")
    assert chromium.value("[...document.querySelectorAll('.prompt')].map(one => one.className)") == [
        "prompt shows",
        "prompt misses",
    ]
    chromium.wait("document.querySelector('[data-picture]').naturalWidth === 8")
    assert chromium.problems() == []


def test_the_theme_follows_the_system_until_told(chromium, site):
    """Dark where the system is dark; the button goes on to light and dark, and the next page remembers."""
    ground = "getComputedStyle(document.body).backgroundColor"
    chromium.open(site / "index.html", dark=True)
    dark = chromium.value(ground)
    chromium.click("[data-theme-button]")
    light = chromium.value(ground)
    assert light != dark
    chromium.open(site / "lineage.html", dark=True)
    assert chromium.value(ground) == light
    chromium.click("[data-theme-button]")
    assert chromium.value(ground) == dark
    chromium.click("[data-theme-button]")
    assert chromium.value("document.querySelector('[data-theme-button]').textContent") == "System"
