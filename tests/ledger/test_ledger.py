"""The ledger is checked as a whole, and says where and how to mend what is wrong."""

import shutil

import pytest

from astolfo.errors import LedgerError
from astolfo.ledger import load, parse, plan_of, recipe_of, step_of
from astolfo.ledger.rates import AT, kept
from astolfo.ledger.specs import Specs, identity
from astolfo.ledger.yamlfile import Document
from tests.conftest import CONFIG


@pytest.fixture
def edited(tmp_path):
    """A function that loads the ledger after one replacement in one file."""

    def edit(name, old, new):
        folder = tmp_path / "config"
        shutil.copytree(CONFIG, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
        return load(folder)

    return edit


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("runs/2511b.yaml", "objective: eps", "objectiv: eps", r"2511b\.yaml:\d+: unknown key 'objectiv'. Did you mean objective"),
        ("runs/2511b.yaml", "base: AK-NIL-1.2", "base: AK-NIL-1.3", r"2511b\.yaml:\d+: unknown run or base 'AK-NIL-1.3'. Did you mean AK-NIL-1.2"),
        ("runs/2511b.yaml", "dataset: 12.4M", "dataset: 12M", r"2511b\.yaml:\d+: unknown dataset '12M'"),
        ("runs/2511b.yaml", "accumulation: 4", "accumulation: four", r"2511b\.yaml:\d+: defaults.accumulation: .*Found 'four'"),
        ("runs/2511b.yaml", "  dataset: 12.4M\n", "", r"2511b\.yaml:\d+: run 25111701 has no dataset"),
        ("runs/2511b.yaml", "  objective: eps", "  objective: {kind: eps, zero_terminal_snr: true}", "eps cannot be trained with zero_terminal"),
        ("runs/2602.yaml", "{kind: rf, shift: 3}", "{kind: rf, min_snr_gamma: 5}", r"rf .* has no SNR schedule"),
        ("runs/2601.yaml", "base: 26011101-epoch000008", "base: 26011101-epoch000009", r"2601\.yaml:\d+: .*has 8 epochs, so there is no epoch 9"),
        ("runs/2601.yaml", "base: 26011101-epoch000008", "base: 26011101-epoch8", r"2601\.yaml:\d+: .*is no reference"),
        ("runs/2511b.yaml", "base: AK-NIL-1.2", "base: AK-Evo-2EP", r"2511b\.yaml:\d+: a cycle: .*25112201"),
        ("runs/2511b.yaml", "semantics: kohya-native", "semantics: kohya-native\n  choices: {noise: shared}", "choice noise cannot be 'shared': expected sample or micro-step"),
        ("runs/2601.yaml", "merge_base: AK-Evo-2EP", "restart_epochs: [49]", r"2601\.yaml:\d+: restart_epochs must lie within"),
        ("runs/2412.yaml", "base: 21b", "base: 21b\n    unet: 71", r"2412\.yaml:\d+: unet: 71 is a set of frozen blocks of SDXL's UNet; sd2"),
        ("runs/2602.yaml", "semantics: kohya-native", "semantics: reference", r"2602\.yaml:\d+: objective.contrastive compares the samples"),
        ("bases.yaml", "trained: 25111701-step00011274", "trained: 25111701-epoch000002", r"bases\.yaml:\d+: .*has 1 epochs"),
        ("bases.yaml", "trained: 25111701-step00011274", "trained: 25111701-step00060000", r"bases\.yaml:\d+: .*ends at step 55,000, so there is no step 60,000"),
        ("runs/2601.yaml", "base: AK-Evo-2EP", "base: sdxl-vae", r"2601\.yaml:\d+: sdxl-vae is an autoencoder"),
        ("runs/2601.yaml", "dataset: 6k", "dataset: 6k-sd2", r"2601\.yaml:\d+: dataset 6k-sd2 is encoded for sd2, but the run's model is sdxl"),
        ("runs/2503b.yaml", "optimizer: {kind: Lion8bit, weight_decay: 0.01}", "optimizer: {kind: Lion8bit, eps: 1.0e-8}", r"2503b\.yaml:\d+: .*Lion8bit has no eps"),
        ("evaluations.yaml", "default: {", "default: {prompts: standart, ", r"evaluations\.yaml:\d+: unknown prompt set 'standart'. Did you mean standard"),
        ("evaluations.yaml", "default: {", "default: {grids: {course: {x: {checkpoint: []}}}, ", r"evaluations\.yaml:\d+: .*evaluation is empty: the axis checkpoint has no values"),
        ("evaluations.yaml", "default: {", "default: {grids: {course: {x: {runtime: [eps, edm]}}}, ", r"evaluations\.yaml:\d+: .*Found 'edm'"),
        ("evaluations.yaml", "default: {", "default: {grids: {course: {x: {alfa: [0.0, 1.0]}}}, ", r"evaluations\.yaml:\d+: unknown key 'alfa'. Did you mean alpha"),
        ("prompts.yaml", "  full:", "  miniature: {}\n  full:", r"prompts\.yaml:\d+: .*give procedural or texts"),
        ("runs/2511b.yaml", "{loader_workers: 8}", "{gradient_checkpointing: [middle]}", r"2511b\.yaml:\d+: .*expected true, false, or a list of some of text_encoders, mid_block,"),
        ("runs/2511b.yaml", "{loader_workers: 8}", "{gradient_checkpointing: []}", r"2511b\.yaml:\d+: .*expected true, false, or a list"),
        ("runs/2511b.yaml", "epochs: 1", "epochs: 1\n  epochs: 2", r"2511b\.yaml:\d+: 'epochs' stands twice, first in line \d+"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(edited, name, old, new, message):
    """Each mistake is refused with its file, its line and what to do."""
    with pytest.raises(LedgerError, match=message):
        edited(name, old, new)


def test_an_unknown_run_suggests_a_near_one():
    """A mistyped run ID suggests the one that was meant."""
    with pytest.raises(LedgerError, match="unknown run '25112202'. Did you mean 25112201"):
        load(CONFIG).run("25112202")


def test_a_checkpoint_that_a_run_does_not_save():
    """A step beyond a run's end is refused with the range that it trains."""
    with pytest.raises(LedgerError, match="777,917 steps at full scale, so there is no step 800,000"):
        step_of(load(CONFIG), parse("25112201-step00800000"))


def test_a_checkpoint_behind_a_planned_stop():
    """25111701 stopped at 55,000 steps: what lies behind is refused, whoever asks for it."""
    with pytest.raises(LedgerError, match="there is no 25111701-step00060000: run 25111701 trains steps 0 to 55,000"):
        step_of(load(CONFIG, "full"), parse("25111701-step00060000"))


def test_a_restart_hands_over_weights_only():
    """24122101 began anew after its first epoch: what follows starts from its own checkpoint, and its draws count from there."""
    specs = Specs(load(CONFIG, "full"), "lock")
    before, after = specs.segment("24122101", 6224), specs.segment("24122101", 2 * 6224)
    assert (before["recipe"]["first_step"], after["recipe"]["first_step"]) == (0, 6224)
    assert after["parents"]["base"] == identity(specs.model(parse("24122101-epoch000001")))
    assert specs.model(parse("24122101"))["parents"]["base"] == after["parents"]["base"]


def test_a_result_that_stopped_early_says_so():
    """The spec of a stopped run's result carries what the record says; its earlier checkpoints do not."""
    specs = Specs(load(CONFIG, "full"), "lock")
    assert specs.model(parse("25111701"))["stopped"] == "at step 55,000 of 777,917: Failed. Stopped after 55k steps."
    assert "stopped" not in specs.model(parse("25111701-step00011274"))
    assert "stopped" not in specs.model(parse("25030802"))


def test_steps_of_the_record():
    """Steps, epochs and segments of the record follow from images, ranks, accumulation and cadence."""
    ledger = load(CONFIG, "full")
    production, vpred = plan_of(ledger, ledger.run("25112201")), plan_of(ledger, ledger.run("26011501"))
    assert (production.end, len(production.boundaries) - 1) == (777_917, 69)
    assert (vpred.end, len(vpred.boundaries) - 1) == (777_917, 138)
    assert plan_of(ledger, ledger.run("26011102")).end == 49 * 389
    assert plan_of(ledger, ledger.run("26011102")).boundaries[1] == 7 * 389


def test_a_scale_maps_steps_in_proportion():
    """At a smaller scale a named step keeps its place in the run, at least one step from its start."""
    ledger = load(CONFIG)
    total = plan_of(ledger, ledger.run("25112201")).end
    assert step_of(ledger, parse("26011101-epoch000008")) == plan_of(ledger, ledger.run("26011101")).end
    from astolfo.ledger.steps import to_scale

    run = ledger.run("25112201")
    assert [to_scale(ledger, run, step) for step in (0, 1, 388_959, 777_917)] == [0, 1, (total + 1) // 2, total]


def test_a_recipe_knows_no_placement():
    """Where a run is executed, and what is noted about it, is no part of its recipe."""
    recipe = recipe_of(load(CONFIG), load(CONFIG).run("25112201")).canonical()
    assert not {"placement", "note", "outcome", "id", "device"} & set(recipe)


def test_a_recipe_spells_out_every_choice():
    """The recipe holds the choices of its semantics by name, so its digest covers them."""
    recipe = recipe_of(load(CONFIG), load(CONFIG).run("25112201"))
    assert recipe.canonical()["choices"] == {
        "noise": "micro-step", "snr_table": "original", "pooled_projection": "kohya", "schedule_dtype": "fp32",
        "context": "stripped", "short_step": "full", "rf_timestep": "floor", "warmup": "kohya", "latents": "fp32", "text": "ftfy",
        "captions": "kohya-native", "clipping": "never", "lion": "lerp", "untrained": "compute",
    }  # fmt: skip


def test_rates_follow_the_scale():
    """The full scale has the record's rates; the miniature multiplies them by its factor, less what bf16 rounds away."""
    full = recipe_of(load(CONFIG, "full"), load(CONFIG, "full").run("25112201")).learning_rate
    small, factor = (
        recipe_of(load(CONFIG), load(CONFIG).run("25112201")).learning_rate,
        load(CONFIG).scale.learning_rate_multiplier,
    )
    assert (full.unet, full.text_encoder, full.text_encoder_2) == (1.5e-6, 1.2e-5, 1.2e-5)
    assert small.unet == pytest.approx(1.5e-6 * factor * kept(1.5e-6) / kept(AT), rel=1e-5)


def test_the_digest_is_of_the_canonical_json(edited):
    """A note changes no digest; a learning rate does."""
    ledger = load(CONFIG)
    before = recipe_of(ledger, ledger.run("25112201")).digest
    noted = edited("runs/2511b.yaml", "note: The command line's seed", "note: A changed note; the command line's seed")
    assert recipe_of(noted, noted.run("25112201")).digest == before


def test_a_changed_value_changes_the_digest(edited):
    """Learning rate and weight decay cannot be swapped unnoticed."""
    before = recipe_of(load(CONFIG), load(CONFIG).run("25112201")).digest
    changed = edited("runs/2511b.yaml", "{unet: 1.5e-6, text_encoders: 1.2e-5}", "{unet: 1.2e-5, text_encoders: 1.5e-6}")
    assert recipe_of(changed, changed.run("25112201")).digest != before


def test_a_mapping_can_take_over_another(tmp_path):
    """YAML's merge key: what the other mapping has and this one does not say, wherever the key stands."""
    path = tmp_path / "a.yaml"
    path.write_text("one: &one {a: 1, b: 2}\ntwo:\n  b: 3\n  <<: *one\n  c: 4\n")
    assert Document(path).value["two"] == {"a": 1, "b": 3, "c": 4}


@pytest.mark.parametrize("scale", ["miniature", "full"])
def test_architectures_hold_nothing_but_configs(scale):
    """The families differ where their authors' configs do, and no YAML syntax is left in them."""
    families = load(CONFIG, scale).scale.architectures
    assert families["sd2"]["vae"] == families["sdxl"]["vae"] | {
        "scaling_factor": 0.18215, "force_upcast": False, "sample_size": families["sd2"]["vae"]["sample_size"]
    }  # fmt: skip
