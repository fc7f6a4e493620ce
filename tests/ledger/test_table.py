"""`astolfo ledger table` prints the record in its own form, computed from the data."""

import pytest
import yaml

from astolfo.ledger import load, schema, table
from astolfo.ledger.table import COLUMNS, line, markdown, text
from astolfo.provenance import digests, verdicts
from tests.conftest import CONFIG
from tests.ledger.conftest import RUN

LINES = {
    "24120801": "20 dataset, TTE on, 1e-5 + 1e-5. Very first run.",
    "24122001": "SD2, 21b base, restarted after epoch 5, TTE on, 1e-5 + 1e-5, VPred mode, zstnr, min gamma 5",
    "24121601": "2EP, TTE off, 1e-5 (not in the record)",
    "25012301": "Tag only, TTE only + 100% UNET, 3e-6. Test for Linux multigpu.",
    "25022101": "Dual Tag (pick caption or tags), TTE on + 63% UNET, 5e-6 + 3e-6",
    "25022301": "TTE on + 100% UNET + GA 4 step, 2e-6 + 2e-5, Deepspeed Zero Stage 2 + Pytorch Dynamo + mem_eff_attn",
    "25022601": "TTE on + 71% UNET + GA 4 step, ramdisk on, 1.5e-6 + 1.2e-5",
    "25030301": "255b base, ramdisk on",
    "25030402": "ramdisk on, numa process 1",
    "25030403": "Single GPU, ramdisk on, numa process 0. Speed reference.",
    "25030801": "68% UNET, ramdisk on. Adjusted for new trainer code / OS / hardware config.",
    "25031502": "AdaFactor, relative step",
    "25031503": "AdaFactor, overridden schedule",
    "25031504": "Lion 8bit, 1e-7 + 1e-6",
    "25031101": "steps 10-40k out of 778k",
    "25041301": "steps 320-1EP (778k)",
    "25111201": "TTE off + 100% UNET, 1.5e-6, min gamma off. Failure with blur image.",
    "25111301": "AC-NIL-0.1 base, TTE on + 71% UNET, 1.5e-6 + 1.2e-5. Success after merge (0.55).",
    "25112101": "AC-NIL-0.11 base. Got nan after 14k steps.",
    "26011001": "2EP base, 10EP. Failed.",
    "26011102": "from 26011101-epoch000008, 8+49EP. Has hope after merge (0.82).",
    "26022301": "6k dataset, 10EP, Single GPU, contrastive 0.05. Validation run in development machine. Success.",
}


@pytest.fixture(scope="module")
def ledger():
    return load(CONFIG)


@pytest.mark.parametrize("run_id", LINES)
def test_the_line_of_a_run(ledger, run_id):
    """A line has what its run's era does not say already, in the record's words, then what became of it."""
    assert line(ledger, ledger.run(run_id)) == LINES[run_id]


def test_an_era_begins_with_its_title_and_its_defaults(ledger):
    """Title, "Unless specified", then the runs."""
    found = text(ledger).splitlines()
    at = found.index("2511a: Cracking the way how vpred works")
    assert found[at + 1] == (
        "Unless specified: SDXL, AK-NIL-1.2 base, AdamW8bit, 6k dataset, 10EP, Dual Tag (concat, a1111 token trick), 4GPU, BS1, "
        "GA 4 step, VPred mode, zstnr, min gamma 5."
    )
    assert found[at + 3] == f"  25111001: {line(ledger, ledger.run('25111001'))}"
    assert "  AK-NIL-AC-NoobAI-0.90: SDXL, v: AC-NoobAI-1.0 merged into AK-NIL-1.2, 0.90" in found


def test_lines_do_not_depend_on_the_scale(ledger):
    """The record counts at full scale; a smaller one prints the same lines."""
    full = load(CONFIG, "full")
    assert [line(full, run) for run in full.runs.values()] == [line(ledger, run) for run in ledger.runs.values()]


def test_markdown_has_a_row_per_run_and_takes_more_columns(ledger):
    """Every run is a row of as many cells as there are columns, and a column can be added by whoever calls."""
    rows = [row for row in markdown(ledger).splitlines() if row[2:10].isdecimal()]
    assert len(rows) == sum(run.isdecimal() for run in ledger.runs)
    assert rows[0] == (
        "| 24120801 | 215c | 20 dataset, Tag only | 10EP | eps mode | TTE on + 100% UNET | 1e-5 + 1e-5 | AdamW8bit "
        "| Single GPU, BS1 | Very first run. |"
    )
    assert {row.count(" | ") for row in rows} == {len(COLUMNS) - 1}
    wider = markdown(ledger, {**COLUMNS, "seed": lambda ledger, run: str(run.fields.seed)})
    assert "| 251112101 |" in wider


def test_every_column_is_explained_above_the_tables(ledger):
    """A reader finds what each column holds before the first table, those of rebuilds with their brackets."""
    columns = table.COLUMNS | verdicts.columns(ledger) | digests.columns(ledger)
    above = markdown(ledger, columns).partition("\n## ")[0]
    assert [title for title in columns if f"- **{title.partition(' (')[0]}**: " not in above] == []
    assert "in the brackets" in above
    assert "in the brackets" not in markdown(ledger).partition("\n## ")[0]


def test_every_key_of_a_run_is_said(mine):
    """What a run says beyond the record's keys is in its line, in the words of the entry."""
    ledger = mine(
        objective={
            "kind": "eps",
            "noise_offset": 0.05,
            "multires_noise": {"iterations": 6},
            "loss": "huber",
            "max_timestep": 900,
        },
        captions={"kind": "tags", "shuffle": True, "keep_tokens": 1, "tag_dropout": 0.1},
        schedule={"kind": "cosine-with-restarts", "warmup_steps": 3, "cycles": 2},
    )
    said = table.facets(ledger, ledger.run(RUN))
    assert said["captions"] == "Tag only, shuffle, keep tokens 1, tag dropout 0.1"
    assert said["schedule"] == "cosine-with-restarts schedule (warm-up 3, cycles 2)"
    assert said["further"] == (
        "max timestep 900, noise offset 0.05, multires noise (iterations 6, discount 0.3), loss huber (schedule snr, c 0.1, scale 1)"
    )
    assert all(said[name] in table.text(ledger) for name in ("captions", "schedule", "further"))


def test_no_key_is_unsaid():
    """Every field of objective and captions is in some facet."""
    own = {"kind", "zero_terminal_snr", "min_snr_gamma", "shift", "contrastive"}
    assert set(schema.Objective.model_fields) - own == set(table._FURTHER)
    assert set(schema.Captions.model_fields) - {"kind", "tokens", "dropout", "wildcards"} == set(table._VARIATIONS)


ALONE = {
    "base": "b", "dataset": "d", "epochs": 3, "until_step": 40, "restart_epochs": [1], "objective": "v", "captions": "tags",
    "unet": 68, "learning_rate": {"unet": 1e-5}, "optimizer": {"kind": "AdaFactor", "relative_step": False},
    "schedule": {"kind": "warmup", "warmup_ratio": 0.1}, "ranks": 2, "batch_size": 2, "accumulation": 3, "max_grad_norm": 0.5,
    "precision": {"weights": "fp32"}, "save_every": {"epochs": 1}, "semantics": "kohya", "choices": {"warmup": "kohya"}, "seed": 5,
    "engine": {"kind": "deepspeed", "stage": 2}, "loss_spike": 9.0, "on_failure": "keep", "merge_base": "b", "placement": {"numa": 1},
    "miniature_steps": None, "steps": None, "continues": None,
}  # fmt: skip


def test_an_era_may_share_any_key_alone(tmp_path):
    """Whatever one key the defaults have, and nothing else, the table is printed; no key is left out of this test."""
    assert set(ALONE) == set(schema.RunFields.model_fields)
    own = {"base": "b", "dataset": "d", "epochs": 3, "learning_rate": {"unet": 1e-5}}
    ledger = {"bases": {"b": {}}, "datasets": {"d": {"images": 90}}}
    for key, value in ALONE.items():
        shared = {} if value is None else {key: value}
        runs = {"one": {name: said for name, said in own.items() if name not in shared}}
        (tmp_path / "ledger.yaml").write_text(yaml.safe_dump({**ledger, "defaults": shared, "runs": runs}))
        found = load(tmp_path, "full")
        assert "one: " in table.text(found)
        assert "one" in table.markdown(found, table.COLUMNS)
