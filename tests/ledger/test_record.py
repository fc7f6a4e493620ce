"""The ledger holds the record: every run ID, and of each run what its line says.

RECORD was transcribed by hand from the record, not printed by the program. `?`: the record does not say; rates are those
that act (a rate written for what does not train is left out); SD 2.1's objective is that of its command lines.
"""

import pytest

from astolfo.ledger import load, plan_of, recipe_of, step_of
from astolfo.ledger.rates import at_scale
from astolfo.ledger.show import tree
from astolfo.ledger.table import facets
from tests.conftest import CONFIG

# ID | base | dataset | captions | length | GPU | TTE | UNET | GA | rates | objective | optimizer | engine, placement | outcome
RECORD = """
24120801 | 215c | 20 | tags | 10EP | 1 | on | 100 | 1 | 1e-5 + 1e-5 | eps | AdamW8bit | - | -
24121001 | 215c | 6k | tags | 10EP | 1 | on | 100 | 1 | 1e-5 + 1e-5 | eps | AdamW8bit | - | -
24121401 | 215c | 6k | tags | 10EP | 1 | off | 100 | 1 | 1e-5 | eps | AdamW8bit | - | -
24121901 | 215c | 6k | tags | 10EP | 1 | only | 100 | 1 | 1e-5 | eps | AdamW8bit | - | -
24121902 | 215c | 20 | tags | 10EP | 1 | only | 100 | 1 | 1e-5 | eps | AdamW8bit | - | -
24122001 | 21b | 6k | tags | 10EP | 1 | on | 100 | 1 | 1e-5 + 1e-5 | v zstnr 5 | AdamW8bit | - | -
24122002 | 215c | 20 | tags | 10EP | 1 | only | 100 | 1 | 1e-5 | eps | AdamW8bit | - | -
24122101 | 21b | 6k | tags | 10EP | 1 | off | 100 | 1 | 1e-5 | v zstnr 5 | AdamW8bit | - | -

25012301 | 215c | 6k | tags | 10EP | 4 | only | 100 | 1 | 3e-6 | eps | AdamW8bit | - | -
25012801 | 215c | 6k | tags | 10EP | 4 | on | 63 | 1 | 5e-6 + 3e-6 | eps | AdamW8bit | - | -
25022101 | 215c | 6k | pick | 10EP | 4 | on | 63 | 1 | 5e-6 + 3e-6 | eps | AdamW8bit | - | -
25022102 | 215c | 6k | concat 225 | 10EP | 4 | on | 63 | 1 | 5e-6 + 3e-6 | eps | AdamW8bit | - | -
25022103 | 215c | 6k | concat 225 | 10EP | 4 | on | 63 | 1 | 1e-6 + 1e-5 | eps | AdamW8bit | - | -
25022301 | 215c | 6k | concat 225 | 10EP | 4 | on | 100 | 4 | 2e-6 + 2e-5 | eps | AdamW8bit | deepspeed 2 dynamo mem_eff | -
25022401 | 215c | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 4e-7 + 4e-6 | eps | AdamW8bit | - | -
25022501 | 215c | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1e-6 + 1e-5 | eps | AdamW8bit | - | -
25022502 | 215c | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 2e-6 + 8e-6 | eps | AdamW8bit | - | -
25022601 | 215c | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | ramdisk | -

25030301 | 255b | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | ramdisk | -
25030401 | 255c | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | ramdisk numa 0 | -
25030402 | 255c | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | ramdisk numa 1 | -
25030403 | 255c | 6k | concat 225 | 10EP | 1 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | ramdisk ? | -
25030801 | 255c | 6k | concat 225 | 10EP | 4 | on | 68 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | ramdisk | -

25031501 | 255c | 6k | concat 225 | 10EP | 4 | on | ? | 4 | 1e-7 + 1e-6 | eps | Lion | - | -
25031502 | 255c | 6k | concat 225 | 10EP | 4 | on | ? | 4 | 1e-6 + 1e-5 | eps | AdaFactor relative | - | -
25031503 | 255c | 6k | concat 225 | 10EP | 4 | on | ? | 4 | 1e-6 + 1e-5 | eps | AdaFactor | - | -
25031504 | 255c | 6k | concat 225 | 10EP | 4 | on | ? | 4 | 1e-7 + 1e-6 | eps | Lion8bit | - | -
25031505 | 255c | 6k | concat 225 | 10EP | 4 | on | ? | 4 | 1e-6 + 1e-5 | eps | AdamW8bit | - | -
25033102 | 255c | 6k | concat 225 | 10EP | 4 | on | ? | 4 | 1e-6 + 1e-5 | eps | AdamW8bit | - | -

25030802 | 255c | 12.4M | concat 225 | 0-10k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25031101 | 25030802 | 12.4M | concat 225 | 10-40k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25031401 | 25031101 | 12.4M | concat 225 | 40-50k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25031402 | 25031401 | 12.4M | concat 225 | 50-60k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25031601 | 25031402 | 12.4M | concat 225 | 60-70k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25031701 | 25031601 | 12.4M | concat 225 | 70-100k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25032201 | 25031701 | 12.4M | concat 225 | 100-170k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25032901 | 25032201 | 12.4M | concat 225 | 170-190k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25033101 | 25032901 | 12.4M | concat 225 | 190-210k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25040601 | 25033101 | 12.4M | concat 225 | 210-220k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25040602 | 25040601 | 12.4M | concat 225 | 220-240k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25040901 | 25040602 | 12.4M | concat 225 | 240-320k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -
25041301 | 25040901 | 12.4M | concat 225 | 320-778k | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | -

25111001 | AK-NIL-1.2 | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | v zstnr 5 | AdamW8bit | - | failure
25111002 | AK-NIL-1.2 | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | success
25111201 | AK-NIL-1.2 | 6k | concat 225 | 10EP | 4 | off | 100 | 4 | 1.5e-6 | v zstnr | AdamW8bit | - | failure
25111202 | AC-NoobAI-1.0 | 6k | concat 225 | 10EP | 4 | off | 100 | 4 | 1.5e-6 | v zstnr | AdamW8bit | - | success
25111301 | AC-NIL-0.1 | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1.5e-6 + 1.2e-5 | v zstnr 5 | AdamW8bit | - | works-after-merge 0.55
25111501 | AC-NIL-0.1 | 6k | concat 225 | 10EP | 4 | on | 71 | 4 | 1e-5 + 1e-5 | v zstnr 5 | AdamW8bit | - | partial
25111601 | AK-NIL-1.2 | 6k | concat 225 | 10EP | 4 | off | ? | 4 | 1e-5 | v zstnr 5 | AdamW8bit | - | partial

25111701 | AK-NIL-1.2 | 12.4M | concat 225 | 0-55k | 4 | on | ? | 4 | 1.5e-6 + 1.2e-5 | v zstnr 5 | AdamW8bit | - | stopped
25112101 | AC-NIL-0.11 | 12.4M | concat 225 | 1EP | 4 | on | ? | 4 | 1.5e-6 + 1.2e-5 | v zstnr 5 | AdamW8bit | - | nan
25112201 | AK-NIL-1.2 | 12.4M | concat 225 | 0-778k | 4 | on | ? | 4 | 1.5e-6 + 1.2e-5 | eps | AdamW8bit | - | works-after-merge ?

26011001 | 2EP | 6k | concat 225 | 10EP | 4 | off | ? | 4 | 1e-5 | v zstnr 5 | AdamW8bit | - | failure
26011101 | AK-Evo-2EP | 6k | concat 225 | 8EP | 4 | off | ? | 4 | 1e-5 | v zstnr 5 | AdamW8bit | - | works-after-merge 0.85
26011102 | 26011101 | 6k | concat 225 | 8+49EP | 4 | off | ? | 4 | 1e-5 | v zstnr 5 | AdamW8bit | - | works-after-merge 0.82
26011501 | 26011102 | 12.4M | concat 225 | ? | 4 | off | ? | 4 | 1e-5 | v zstnr 5 | AdamW8bit | - | works-after-merge 0.82

26022301 | AstolfoVL-2.5EP | 6k | concat 225 | 10EP | 1 | off | ? | 4 | 1e-5 | rf 3 | AdamW8bit | - | success
"""
ROWS = {row[0]: row[1:] for row in ([cell.strip() for cell in line.split("|")] for line in RECORD.split("\n") if line)}
COLUMNS = [
    "base",
    "dataset",
    "captions",
    "length",
    "GPU",
    "TTE",
    "UNET",
    "GA",
    "rates",
    "objective",
    "optimizer",
    "engine",
    "outcome",
]
EXTRA = {"24121601", "25012802", "25012803", "26020101", "26020102"}
PRODUCTION = [run for run, row in ROWS.items() if row[1] == "12.4M" and run.startswith(("2503", "2504"))]

# What the public command line of a run says: ID, seed (- for none), rate of the UNet, rate of the text encoders, epochs.
COMMAND_LINES = """
24120801 - 1e-5 1e-5 10
24121401 - 1e-5 0 10
24121601 - 1e-5 0 2
24121901 - 0 1e-5 10
24121902 - 0 1e-5 20
24122001 - 1e-5 0 5
24122002 - 1e-6 0 5
24122101 - 1e-5 1e-5 9
25012301 - 0 3e-6 10
25012801 - 5e-6 3e-6 10
25012802 - 5e-6 0 10
25012803 - 5e-6 3e-6 10
25022101 - 5e-6 3e-6 10
25022102 25022102 5e-6 3e-6 10
25022103 25022103 1e-6 1e-5 10
25022301 25022301 2e-6 2e-5 10
25022401 25022401 4e-7 4e-6 10
25022501 25022501 1e-6 1e-5 10
25022502 25022502 2e-6 8e-6 10
25022601 25022601 1.5e-6 1.2e-5 10
25030301 25030301 1.5e-6 1.2e-5 10
25030401 25030401 1.5e-6 1.2e-5 10
25030402 25030401 1.5e-6 1.2e-5 10
25030403 25030401 1.5e-6 1.2e-5 10
25030801 25030801 1.5e-6 1.2e-5 10
25030802 25030802 1.5e-6 1.2e-5 1
25031101 25030802 1.5e-6 1.2e-5 1
25031401 25030802 1.5e-6 1.2e-5 1
25031402 25030802 1.5e-6 1.2e-5 1
25031501 25031501 1.5e-7 1.2e-6 10
25031502 25031501 1.5e-6 1.2e-5 10
25031503 25031501 1.5e-6 1.2e-5 10
25031504 25031501 1.5e-7 1.2e-6 10
25031505 25031501 1.5e-6 1.2e-5 10
25031601 25030802 1.5e-6 1.2e-5 1
25031701 25030802 1.5e-6 1.2e-5 1
25032201 25030802 1.5e-6 1.2e-5 1
25032901 25030802 1.5e-6 1.2e-5 1
25033101 25030802 1.5e-6 1.2e-5 1
25033102 25033101 1.5e-6 1.2e-5 10
25040601 25030802 1.5e-6 1.2e-5 1
25040602 25030802 1.5e-6 1.2e-5 1
25040901 25030802 1.5e-6 1.2e-5 1
25041301 25030802 1.5e-6 1.2e-5 1
25111001 25111001 1.5e-6 1.2e-5 10
25111002 25111002 1.5e-6 1.2e-5 10
25111201 25111201 1.5e-6 0 10
25111202 25111202 1.5e-6 0 10
25111301 25111301 1.5e-6 1.2e-5 10
25111501 25111301 1e-5 1e-5 10
25111601 25111601 1e-5 0 10
25111701 25111701 1.5e-6 1.2e-5 1
25112101 251112101 1.5e-6 1.2e-5 1
25112201 25112101 1.5e-6 1.2e-5 1
26011001 26011001 1e-5 0 10
26011101 26011101 1.2e-5 0 10
26011102 26011102 1e-5 0 50
26011501 26011501 1e-5 0 1
26020101 26020101 1e-5 0 50
26020102 26020102 1e-5 0 1
26022301 26022301 1e-5 0 10
"""


@pytest.fixture(scope="module")
def full():
    return load(CONFIG, "full")


def facts(ledger, run):
    """What the effective entry says of each column of RECORD, in its words."""
    fields, said = run.fields, facets(ledger, run)
    objective, optimizer, engine = fields.objective, fields.optimizer, fields.engine
    return {
        "base": ledger.reference(fields.base).run or fields.base,
        "dataset": said["dataset"].removesuffix(" dataset"),
        "captions": fields.captions.kind + (" 225" if fields.captions.tokens == 225 else ""),
        "length": _length(ledger, run, said["length"]),
        "GPU": str(fields.ranks),
        "TTE": said["encoders"].removeprefix("TTE "),
        "UNET": str(fields.unet),
        "GA": str(fields.accumulation),
        "rates": said["rates"],
        "objective": " ".join(
            [objective.kind, *["zstnr"] * objective.zero_terminal_snr]
            + [f"{number:g}" for number in (objective.min_snr_gamma, objective.shift) if number]
        ),
        "optimizer": optimizer.kind + (" relative" if optimizer.relative_step else ""),
        "engine": _engine(engine, fields.placement),
        "outcome": _outcome(run.entry.outcome),
    }


def _length(ledger, run, said):
    if ROWS[run.id][3].endswith("EP"):
        return said
    plan = plan_of(ledger, run)
    return f"{round(plan.start / 1000)}-{round(plan.end / 1000)}k"


def _engine(engine, placement):
    words = [f"deepspeed {engine.stage}", "dynamo" * (engine.compile == "inductor")] if engine else []
    words += ["mem_eff"] if engine and engine.attention == "memory-efficient" else []
    words += ["ramdisk"] if placement and placement.ramdisk else []
    words += [f"numa {placement.numa}"] if placement and placement.numa is not None else []
    return " ".join(words) or "-"


def _outcome(found):
    return "-" if found.kind == "unstated" else found.kind + (f" {found.alpha:.2f}" if found.alpha else "")


def test_every_run_of_the_record_is_there(full):
    """The record's 57 runs, five more known by their command lines, the foundations, and nothing else."""
    assert len(ROWS) == 57
    assert {run.id for run in full.runs.values() if run.counts} == set(ROWS)
    assert {run for run in full.runs if run.isdecimal()} == set(ROWS) | EXTRA
    assert {run.era.era for run in full.runs.values() if not run.id.isdecimal()} == {"foundations"}


@pytest.mark.parametrize("run_id", ROWS)
def test_a_run_is_what_its_line_says(full, run_id):
    """Base, dataset, captions, length, GPUs, what trains, rates, objective, optimizer, engine and outcome of the record."""
    found = facts(full, full.run(run_id))
    for column, expected in zip(COLUMNS, ROWS[run_id], strict=True):
        if expected.endswith("?"):
            assert found[column].startswith(expected[:-1])
        else:
            assert found[column] == expected, column


def test_common_to_all(full):
    """Every run of the record trains with a batch of 1 and weight decay 1e-2."""
    runs = [full.run(run_id) for run_id in ROWS]
    assert {(run.fields.batch_size, run.fields.optimizer.weight_decay) for run in runs} == {(1, 1e-2)}
    assert {full.family(run) for run in runs if run.fields.base == "21b"} == {"sd2"}
    assert {full.family(run) for run in runs if run.fields.base != "21b"} == {"sdxl"}


def test_semantics_are_those_of_the_trainer(full):
    """Upstream's until 25022103, with its captions of that time in the three runs under wildcards; then the fork's."""
    for run in (full.run(run_id) for run_id in {*ROWS, *EXTRA}):
        assert run.fields.semantics == ("kohya-native" if run.id >= "25022301" else "kohya"), run.id
        with_wildcards = {"25022101", "25022102", "25022103"}
        assert run.fields.choices == ({"captions": "kohya-native"} if run.id in with_wildcards else None), run.id


def test_production_is_one_epoch(full):
    """The 13 production runs cover the epoch's 777,917 steps without gap or overlap, with one seed, each from the one before."""
    plans = [plan_of(full, full.run(run_id)) for run_id in PRODUCTION]
    assert len(PRODUCTION) == 13
    assert (plans[0].start, plans[-1].end) == (0, 777_917)
    assert [plan.start for plan in plans[1:]] == [plan.end for plan in plans[:-1]]
    assert {full.run(run_id).fields.seed for run_id in PRODUCTION} == {25030802}
    assert [full.run(b).fields.base for b in PRODUCTION[1:]] == [
        f"{a}-step{plan.end:08d}" for a, plan in zip(PRODUCTION, plans, strict=False)
    ][:-1]
    assert {step % 10_000 for plan in plans for step in plan.boundaries[:-1]} == {0}


@pytest.mark.parametrize(
    ("run_id", "end", "segments"),
    [("25112201", 777_917, 69), ("26011501", 777_917, 138), ("25111701", 55_000, 5), ("25012801", 15_560, 10), ("25022401", 3_890, 10), ("24121001", 62_240, 10)],
)  # fmt: skip
def test_steps_and_segments_are_derived(full, run_id, end, segments):
    """Steps follow from images, ranks, batch and accumulation; segments from the save cadence."""
    plan = plan_of(full, full.run(run_id))
    assert (plan.end, len(plan.boundaries) - 1) == (end, segments)


@pytest.mark.parametrize("scale", ["full", "miniature"])
def test_every_run_has_a_plan_and_a_recipe(scale):
    """At both scales every run has steps to train and a recipe."""
    ledger = load(CONFIG, scale)
    for run in ledger.runs.values():
        assert plan_of(ledger, run).end > plan_of(ledger, run).start
        assert recipe_of(ledger, run).learning_rate.unet == at_scale(ledger.scale, run.fields)(run.fields.learning_rate.unet)


@pytest.mark.parametrize("scale", ["full", "miniature"])
@pytest.mark.parametrize(
    "merge",
    ["25111301-0.55", "26011101-0.85", "26011102-0.82", "26011501-0.82", "25112201-0.50", "AK-NIL-AC-NoobAI-0.90", "AC-NIL-0.11"],
)
def test_the_records_merges_are_models(scale, merge, tmp_path):
    """Each merge that the record names is a target whose ancestors are known up to its bases."""
    ledger = load(CONFIG, scale)
    reference = ledger.reference(merge)
    drawn = tree(ledger, reference, tmp_path).splitlines()
    assert drawn[0].startswith(merge)
    if reference.run:
        assert ledger.run(reference.run).entry.outcome.alpha == float(reference.alpha)
        assert step_of(ledger, reference) == plan_of(ledger, ledger.run(reference.run)).end


def test_the_parts_of_the_records_merges(full):
    """What is merged into what: AC-NoobAI-1.0 into AK-NIL-1.2 at 0.9; runs into what they, or their chain, started from."""
    origin = full.origin("AK-NIL-AC-NoobAI-0.90").merge
    assert (origin.base, origin.trained, origin.alpha) == ("AK-NIL-1.2", "AC-NoobAI-1.0", "0.90")
    bases = {run: str(full.merge_base(full.run(run))) for run in ("25111301", "26011101", "26011102", "26011501", "25112201")}
    assert bases == {
        "25111301": "AC-NIL-0.1", "26011101": "AK-Evo-2EP", "26011102": "AK-Evo-2EP", "26011501": "AK-Evo-2EP",
        "25112201": "AK-NIL-1.2",
    }  # fmt: skip


@pytest.mark.parametrize("line", COMMAND_LINES.split("\n")[1:-1], ids=lambda line: line[:8])
def test_a_note_where_record_and_command_line_disagree(full, line):
    """Where the ledger's seed, rates or epochs are not the command line's, the run's note says so; the record stands."""
    run_id, seed, unet, encoders, epochs = line.split()
    run = full.run(run_id)
    fields, rates = run.fields, run.fields.learning_rate
    assert fields.seed == int(run_id if seed == "-" else seed)
    same = (rates.unet, rates.text_encoder, fields.epochs) == (float(unet), float(encoders), int(epochs))
    assert same or run.entry.note
    if seed == "-":
        assert "have their ID" in run.era.note or "seed here is its ID" in run.era.note
    elif seed != run_id:
        assert seed in run.entry.note or seed in run.era.note


def test_notes_where_other_settings_disagree(full):
    """Also where dataset, optimizer, accumulation or the checkpoint handed over are not the command line's."""
    words = {
        "24120801": "dataset 6k", "24122002": "dataset 6k", "25031501": "CautiousLion", "25033102": "accumulation 16",
        "25031401": "at-step00070000", "25031601": "25031501", "25032201": "25032101", "26022301": "contrastive",
    }  # fmt: skip
    assert {run_id: word in full.run(run_id).entry.note for run_id, word in words.items()} == dict.fromkeys(words, True)


def test_runs_that_were_restarted(full):
    """Three early runs went on from their own epoch checkpoint, for ten epochs in all."""
    found = {run.id: run.fields.restart_epochs for run in full.runs.values() if run.fields.restart_epochs}
    assert found == {"24122001": (5,), "24122002": (5,), "24122101": (1,)}
