"""The page of an evaluation, from its report alone: one static HTML file beside its pictures.

No script, no outside host, no date; light or dark as the reader's system is; a phone scrolls the wide parts sideways.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1c1c20; --grey: #5c5c64; --line: #d6d6d8;
  --works: #116e30; --blur: #945400; --broken: #be1828; }
@media (prefers-color-scheme: dark) { :root { --paper: #16161a; --ink: #ececee; --grey: #a4a4ac; --line: #3a3a40;
  --works: #5fd38a; --blur: #f0b45a; --broken: #ff8a8f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1.2rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
.sub, figcaption, .note { color: var(--grey); }
.sub { margin: 0 0 1.2rem; }
.verdicts { list-style: none; margin: 0; padding: 0; }
.verdicts li { border-left: .3rem solid; padding: .1rem 0 .1rem .8rem; margin: .7rem 0; }
.verdicts span { color: var(--ink); }
.works { color: var(--works); } .kinda, .blur { color: var(--blur); } .broken { color: var(--broken); }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 2px solid var(--works); }
figure { margin: 0; }
figure img { display: block; border: 1px solid var(--line); max-width: none; width: 100%; height: auto; }
figure.plot { margin: 1.5rem 0; } figure.plot img { max-width: 100%; width: auto; background: white; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.numbers th, .numbers td, th[scope=row] { white-space: nowrap; } .numbers .n { text-align: right; }
td { overflow-wrap: anywhere; } td code { font-size: .85em; }
ol { padding-left: 1.6rem; }
"""


def page(report: Mapping[str, Any]) -> str:
    """The HTML of a report (what `metrics.json` holds)."""
    title = f"Evaluation of run {report['run']}" + ("" if report["set"] == "default" else f": {report['set']}")
    sections = [
        f"<h1>{escape(title)}</h1>", f"<p class=sub>{escape(_about(report))}</p>",
        _verdicts(report), _skipped(report), *map(lambda grid: _figure(report, grid), report["grids"]),
        *map(_plot, report["plots"]), _numbers(report), _how(report), _prompts(report), _settings(report),
    ]  # fmt: skip
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
    )
    return head + "<body>\n<main>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"


def trained_for(objective: Mapping[str, Any]) -> str:
    """An objective in words: "v, zero terminal SNR"."""
    return objective["kind"] + (", zero terminal SNR" if objective.get("zero_terminal_snr") else "")


def _about(report: Mapping[str, Any]) -> str:
    scale = f" Scale: {report['scale']}." if report.get("scale") else ""
    outcome = f" The record says: {report['outcome'].rstrip('.')}." if report.get("outcome") else ""
    return f"Trained for {trained_for(report['objective'])}.{scale}{outcome}"


def _verdicts(report: Mapping[str, Any]) -> str:
    items = []
    for one in report["summary"]:
        word = _class(one["verdict"])
        other = "" if one["own"] else " (not what it was trained for)"
        where = f"{one['runtime']} runtime, {one['uncond']} uncond{other}"
        best = "" if one["best"] in (None, one["alpha"]) else f" Best alpha: {one['best']:.2f}."
        items.append(f"<li class={word}><strong>{escape(where)}:</strong> <span>{escape(one['sentence'] + best)}</span></li>")
    return "<ul class=verdicts>\n" + "\n".join(items) + "\n</ul>"


def _class(verdict: str) -> str:
    """Of a verdict, its first word: what decides its colour."""
    return verdict.split()[0]


def _skipped(report: Mapping[str, Any]) -> str:
    return "\n".join(f"<p class=note>{escape(why)}</p>" for why in report["skipped"])


def _figure(report: Mapping[str, Any], grid: Mapping[str, Any]) -> str:
    count, columns = len(report["prompts"]), sum(map(len, grid["cells"]))
    alt = f"Grid of pictures: {count} prompts by {columns} ways of sampling; the table below has their numbers."
    merge = " Alpha 0 is the base, 1 the trained model, between them their weighted sum." if "base" in report["models"] else ""
    name, file = escape(grid["name"]), escape(grid["file"])
    return (
        f'<h2>{name.capitalize()}</h2>\n<figure>\n<div class=wide tabindex=0 role=region aria-label="Grid of pictures: {name}">'
        f'<a href="{file}"><img src="{file}" alt="{escape(alt)}" width={grid["width"]} height={grid["height"]}'
        f' style="min-width: {grid["width"] // 2}px"></a></div>\n'
        f"<figcaption>The same prompts and noise in every column.{merge}</figcaption>\n</figure>"
    )


def _plot(plot: Mapping[str, Any]) -> str:
    file, alt = escape(plot["file"]), escape(plot["alt"])
    return (
        f'<figure class=plot>\n<img src="{file}" alt="{alt}" width={plot["width"]} height={plot["height"]}>\n'
        f"<figcaption>{alt}</figcaption>\n</figure>"
    )


def _numbers(report: Mapping[str, Any]) -> str:
    attributes = _attributes(report)
    known = bool(attributes)
    heads = [
        *(["shown"] if known else []),
        "sharpness",
        "contrast",
        "colourfulness",
        "reading",
        "finite",
        *attributes,
    ]
    rows = [_row(column, attributes) for column in report["cells"]]
    explained = "Sharpness, contrast, colourfulness: 1.00 is the dataset's own pictures, seen through the model's autoencoder."
    explained += (
        " Reading: on held-out samples at high noise, the loss under the runtime's objective over that of a guess which knows the"
        " noise level only; from 1.00 on the model adds nothing to what the prompt tells."
    )
    explained += " The columns after finite: the fraction of the pictures that have it as asked." if known else ""
    return (
        "<h2>Numbers</h2>\n<div class=wide tabindex=0 role=region aria-label=Numbers>\n<table class=numbers>\n<thead><tr>"
        + "".join(f"<th scope=col>{head}</th>" for head in ("checkpoint", "sampling", "alpha", "verdict"))
        + "".join(f"<th scope=col class=n>{head}</th>" for head in heads)
        + "</tr></thead>\n<tbody>\n" + "\n".join(rows) + f"\n</tbody>\n</table>\n</div>\n<p class=note>{explained}</p>"
    )  # fmt: skip


def _attributes(report: Mapping[str, Any]) -> list[str]:
    """What a picture can have right or wrong, where the truth is known."""
    return sorted(set(report["cells"][0]["agreement"] or {}) - {"all", "explained", "strength"})


def _row(column: Mapping[str, Any], attributes: Sequence[str]) -> str:
    word, count = column["verdict"], column["pictures"]
    way = f"{column['runtime']}, {column['uncond']} uncond, {column['sampler']}, {column['steps']} steps, CFG {column['cfg']:g}"
    cells = [escape(column["checkpoint"]), way, f"{column['alpha']:.2f}", f"<strong class={_class(word)}>{word}</strong>"]
    numbers = [f"{column['shown']} of {count}"] if attributes else []
    numbers += [f"{column['looks'][name]:.2f}" if column["looks"] else "" for name in ("sharpness", "contrast", "colour")]
    numbers += ["" if column["reading"] is None else f"{column['reading']:.2f}", f"{column['finite']} of {count}"]
    numbers += [f"{column['agreement'][name]:.2f}" for name in attributes]
    return (
        "<tr>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "".join(f"<td class=n>{number}</td>" for number in numbers)
        + "</tr>"
    )


def _how(report: Mapping[str, Any]) -> str:
    rules = [(word, report["thresholds"][word]) for word in ("works", "kinda works", "blur", "broken")]
    rows = [(f"<strong class={_class(word)}>{word}</strong>", escape(f"{rule[0].upper()}{rule[1:]}.")) for word, rule in rules]
    return "<h2>How it is judged</h2>\n" + _table(rows)


def _prompts(report: Mapping[str, Any]) -> str:
    return (
        "<h2>Prompts</h2>\n<ol>\n" + "\n".join(f"<li>{escape(prompt['text'])}</li>" for prompt in report["prompts"]) + "\n</ol>"
    )


def _settings(report: Mapping[str, Any]) -> str:
    settings, columns = report["settings"], report["cells"]
    samplers = dict.fromkeys(f"{c['runtime']}: {c['sampler']}" + _spacing(c) for c in columns)
    rows = [
        ("Sampler", escape("; ".join(samplers))), ("Steps", str(settings["steps"])), ("CFG scale", f"{settings['cfg']:g}"),
        ("Seed", str(settings["seed"])), ("Size", f"{settings['width']} x {settings['height']} pixels"),
    ]  # fmt: skip
    rows += [
        (role.capitalize(), f"{escape(model['file'])}<br><code>{model['sha256']}</code>")
        for role, model in sorted(report["models"].items())
    ]
    return "<h2>Settings and models</h2>\n" + _table(rows) + '\n<p><a href="metrics.json">All numbers as JSON</a></p>'


def _spacing(column: Mapping[str, Any]) -> str:
    if column["zero_terminal_snr"]:
        return " with zero terminal SNR and trailing spacing"
    return f" with shift {column['shift']:g}" if column["shift"] else ""


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "<table>\n" + "\n".join(f"<tr><th scope=row>{name}</th><td>{value}</td></tr>" for name, value in rows) + "\n</table>"
