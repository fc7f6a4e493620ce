"""The ledger is checked as a whole, and says where and how to mend what is wrong."""

import shutil

import pytest

from astolfo.errors import LedgerError
from astolfo.ledger import load, parse, plan_of, recipe_of, step_of
from astolfo.ledger.rates import AT, kept
from astolfo.ledger.specs import Specs, identity
from astolfo.ledger.yamlfile import Document
from tests.conftest import SMALL


@pytest.fixture
def edited(tmp_path):
    """A function that loads the small ledger after one replacement in one file, and with entries added to another section."""

    def edit(old, new, scale="miniature", **sections):
        folder = shutil.copytree(SMALL, tmp_path / "config", dirs_exist_ok=True)
        text = (SMALL / "ledger.yaml").read_text()
        assert old in text
        (folder / "ledger.yaml").write_text(text.replace(old, new, 1))
        for name, said in sections.items():
            (folder / f"{name}.yaml").write_text(said)
        return load(folder, scale)

    return edit


def merged(trained):
    """An entry of a base that is merged from a model of the graph."""
    return f'late: {{objective: v, miniature: &merge {{merge: {{trained: {trained}, base: one, alpha: "0.50"}}}}, full: *merge}}'


OLDER, FIRST = "older: {family: sd2, objective: v}", "    dataset: many\n    epochs: 1\n"
STOPPED = FIRST + "    until_step: 55000\n    outcome: {kind: stopped, text: Failed. Stopped after 55k steps.}\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("objective: eps\n  captions", "objectiv: eps\n  captions", r"ledger\.yaml:\d+: unknown key 'objectiv'. Did you mean objective"),
        ("base: velocity-0.50", "base: velocty-0.50", r"ledger\.yaml:\d+: unknown run or base 'velocty-0.50'. Did you mean velocity"),
        ("dataset: many", "dataset: manny", r"ledger\.yaml:\d+: unknown dataset 'manny'"),
        ("accumulation: 4", "accumulation: four", r"ledger\.yaml:\d+: defaults.accumulation: expected a whole number, found 'four'"),
        ("  dataset: few\n", "", r"ledger\.yaml:\d+: run velocity has no dataset"),
        ("  objective: eps\n", "  objective: {kind: eps, zero_terminal_snr: true}\n", "eps cannot be trained with zero_terminal"),
        ("shift: 3, contrastive: 0.05", "min_snr_gamma: 5", r"rf .* has no SNR schedule"),
        ("base: velocity-0.50", "base: velocity-epoch000009", r"ledger\.yaml:\d+: .*has 8 epochs, so there is no epoch 9"),
        ("base: velocity-0.50", "base: velocity-epoch8", r"ledger\.yaml:\d+: .*is no reference"),
        ("base: two", "base: flow", r"ledger\.yaml:\d+: a cycle: .*velocity"),
        ("semantics: kohya", "semantics: kohya\n  choices: {noise: shared}", "choice noise cannot be 'shared': expected sample or micro-step"),
        ("epochs: 8", "epochs: 8\n    restart_epochs: [8]", r"ledger\.yaml:\d+: restart_epochs must lie within"),
        ("base: older\n", "base: older\n    unet: 71\n", r"ledger\.yaml:\d+: unet: 71 is a set of frozen blocks of SDXL's UNet; sd2"),
        ("semantics: kohya", "semantics: reference", r"ledger\.yaml:\d+: objective.contrastive compares the samples"),
        (OLDER, OLDER + "\n  " + merged("plain-epoch000002"), r"ledger\.yaml:\d+: .*has 1 epochs"),
        ("base: velocity-0.50", "base: sdxl-vae", r"ledger\.yaml:\d+: sdxl-vae is an autoencoder"),
        ("dataset: few-older", "dataset: few", r"ledger\.yaml:\d+: dataset few is encoded for sdxl, but the run's model is sd2"),
        ("{kind: AdamW8bit, weight_decay: 0.01}", "{kind: Lion8bit, eps: 1.0e-8}", r"ledger\.yaml:\d+: .*Lion8bit has no eps"),
        ("{loader_workers: 8}", "{gradient_checkpointing: [middle]}", r"ledger\.yaml:\d+: .*expected true, false, or a list of some of text_encoders, mid_block,"),
        ("{loader_workers: 8}", "{gradient_checkpointing: []}", r"ledger\.yaml:\d+: .*expected true, false, or a list"),
        ("epochs: 1", "epochs: 1\n    epochs: 2", r"ledger\.yaml:\d+: 'epochs' stands twice, first in line \d+"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(edited, old, new, message):
    """Each mistake is refused with its file, its line and what to do."""
    with pytest.raises(LedgerError, match=message):
        edited(old, new)


@pytest.mark.parametrize(
    ("section", "said", "message"),
    [
        ("evaluations", "default: {prompts: standart}", r"evaluations\.yaml:\d+: unknown prompt set 'standart'. Did you mean standard"),
        ("evaluations", "default: {grids: {course: {x: {checkpoint: []}}}}", r"evaluations\.yaml:\d+: .*evaluation is empty: the axis checkpoint has no values"),
        ("evaluations", "default: {grids: {course: {x: {runtime: [eps, edm]}}}}", r"evaluations\.yaml:\d+: .*found 'edm'"),
        ("evaluations", "default: {grids: {course: {x: {alfa: [0.0, 1.0]}}}}", r"evaluations\.yaml:\d+: unknown key 'alfa'. Did you mean alpha"),
        ("prompts", "mine: {miniature: {}, full: {texts: [a]}}", r"prompts\.yaml:\d+: .*give procedural or texts"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_another_section_is_named(edited, section, said, message):
    """A mistake in what is sampled is refused as one of a run is."""
    with pytest.raises(LedgerError, match=message):
        edited(OLDER, OLDER, **{section: said})


def test_a_base_of_what_a_stopped_run_does_not_reach(edited):
    """A base that is merged from a step behind a planned stop is refused where the base stands."""
    with pytest.raises(LedgerError, match=r"bases\.yaml:\d+: .*ends at step 55,000, so there is no step 60,000"):
        edited(FIRST, STOPPED, bases=merged("plain-step00060000"))


def test_an_unknown_run_suggests_a_near_one():
    """A mistyped run suggests the one that was meant."""
    with pytest.raises(LedgerError, match="unknown run 'plane'. Did you mean plain"):
        load(SMALL).run("plane")


def test_a_checkpoint_that_a_run_does_not_save():
    """A step beyond a run's end is refused with the range that it trains."""
    with pytest.raises(LedgerError, match="777,917 steps at full scale, so there is no step 800,000"):
        step_of(load(SMALL), parse("plain-step00800000"))


def test_a_checkpoint_behind_a_planned_stop(edited):
    """Of a run that stopped at 55,000 steps what lies behind is refused, whoever asks for it."""
    with pytest.raises(LedgerError, match="there is no plain-step00060000: run plain trains steps 0 to 55,000"):
        step_of(edited(FIRST, STOPPED, "full"), parse("plain-step00060000"))


def test_a_restart_hands_over_weights_only(edited):
    """A run began anew after its first epoch: what follows starts from its own checkpoint, and its draws count from there."""
    specs = Specs(edited("epochs: 8", "epochs: 2\n    restart_epochs: [1]", "full"), "lock")
    before, after = specs.segment("velocity", 389), specs.segment("velocity", 2 * 389)
    assert (before["recipe"]["first_step"], after["recipe"]["first_step"]) == (0, 389)
    assert after["parents"]["base"] == identity(specs.model(parse("velocity-epoch000001")))
    assert specs.model(parse("velocity"))["parents"]["base"] == after["parents"]["base"]


def test_a_result_that_stopped_early_says_so(edited):
    """The spec of a stopped run's result carries what the ledger says; its earlier checkpoints, and other results, do not."""
    specs = Specs(edited(FIRST, STOPPED, "full"), "lock")
    assert specs.model(parse("plain"))["stopped"] == "at step 55,000 of 777,917: Failed. Stopped after 55k steps."
    assert "stopped" not in specs.model(parse("plain-step00011274"))
    assert "stopped" not in specs.model(parse("velocity"))


def test_steps_and_segments():
    """Steps, epochs and segments follow from images, ranks, accumulation and cadence."""
    ledger = load(SMALL, "full")
    plain, velocity, flow = (plan_of(ledger, ledger.run(name)) for name in ("plain", "velocity", "flow"))
    assert (plain.end, len(plain.boundaries) - 1) == (777_917, 69)
    assert velocity.boundaries == tuple(epoch * 389 for epoch in (0, 2, 4, 6, 8))
    assert flow.boundaries == tuple(epoch * 1556 for epoch in (0, 3, 6, 9, 10))


def test_a_scale_maps_steps_in_proportion():
    """At a smaller scale a named step keeps its place in the run, at least one step from its start."""
    ledger = load(SMALL)
    total = plan_of(ledger, ledger.run("plain")).end
    assert step_of(ledger, parse("velocity-epoch000008")) == plan_of(ledger, ledger.run("velocity")).end
    from astolfo.ledger.steps import to_scale

    run = ledger.run("plain")
    assert [to_scale(ledger, run, step) for step in (0, 1, 388_959, 777_917)] == [0, 1, (total + 1) // 2, total]


def test_a_recipe_knows_no_placement():
    """Where a run is executed, and what is noted about it, is no part of its recipe."""
    recipe = recipe_of(load(SMALL), load(SMALL).run("plain")).canonical()
    assert not {"placement", "note", "outcome", "id", "device"} & set(recipe)


def test_a_recipe_spells_out_every_choice():
    """The recipe holds the choices of its semantics by name, so its digest covers them."""
    recipe = recipe_of(load(SMALL), load(SMALL).run("plain"))
    assert recipe.canonical()["choices"] == {
        "noise": "micro-step", "snr_table": "original", "pooled_projection": "kohya", "schedule_dtype": "compute",
        "context": "stripped", "short_step": "full", "rf_timestep": "floor", "warmup": "kohya", "latents": "compute", "text": "ftfy",
        "captions": "kohya", "clipping": "gradients", "lion": "add", "untrained": "compute",
    }  # fmt: skip


def test_rates_follow_the_scale():
    """The full scale has the ledger's rates; the miniature multiplies them by its factor, less what bf16 rounds away."""
    full = recipe_of(load(SMALL, "full"), load(SMALL, "full").run("plain")).learning_rate
    small, factor = (
        recipe_of(load(SMALL), load(SMALL).run("plain")).learning_rate,
        load(SMALL).scale.learning_rate_multiplier,
    )
    assert (full.unet, full.text_encoder, full.text_encoder_2) == (1.5e-6, 1.2e-5, 1.2e-5)
    assert small.unet == pytest.approx(1.5e-6 * factor * kept(1.5e-6) / kept(AT), rel=1e-5)


def test_the_digest_is_of_the_canonical_json(edited):
    """A note changes no digest; a learning rate does."""
    ledger = load(SMALL)
    before = recipe_of(ledger, ledger.run("plain")).digest
    noted = edited("    seed: 25112101\n", "    seed: 25112101\n    note: Why it was made.\n")
    assert recipe_of(noted, noted.run("plain")).digest == before


def test_a_changed_value_changes_the_digest(edited):
    """Learning rate and weight decay cannot be swapped unnoticed."""
    before = recipe_of(load(SMALL), load(SMALL).run("plain")).digest
    changed = edited("{unet: 1.5e-6, text_encoders: 1.2e-5}", "{unet: 1.2e-5, text_encoders: 1.5e-6}")
    assert recipe_of(changed, changed.run("plain")).digest != before


def test_a_mapping_can_take_over_another(tmp_path):
    """YAML's merge key: what the other mapping has and this one does not say, wherever the key stands."""
    path = tmp_path / "a.yaml"
    path.write_text("one: &one {a: 1, b: 2}\ntwo:\n  b: 3\n  <<: *one\n  c: 4\n")
    assert Document(path).value["two"] == {"a": 1, "b": 3, "c": 4}


@pytest.mark.parametrize("scale", ["miniature", "full"])
def test_architectures_hold_nothing_but_configs(scale):
    """The families differ where their authors' configs do, and no YAML syntax is left in them."""
    families = load(SMALL, scale).scale.architectures
    assert families["sd2"]["vae"] == families["sdxl"]["vae"] | {
        "scaling_factor": 0.18215, "force_upcast": False, "sample_size": families["sd2"]["vae"]["sample_size"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a: 1\nb: caf\xe9\n", r"a\.yaml: expected text in UTF-8, found byte 0xe9 at line 2\. Save it as UTF-8"),
        (b"a: 1\nb: &x {c: *x}\n", r"a\.yaml:2: b\.c is an alias of what it stands in"),
        (b"a: &x\n  - *x\n", r"a\.yaml:1: a\.0 is an alias of what it stands in"),
        (b"a: " + b"[" * 3000 + b"]" * 3000, r"a\.yaml: lists and mappings stand too deep in each other"),
        (b"a: 1\n<<: 5\n", r"a\.yaml:2: <<: expected a mapping, or a list of them, found 5"),
        (b"a: 1\nb: 2026-02-30\n", r"a\.yaml:2: '2026-02-30' cannot be read: day is out of range for month"),
        (b"a: !!python/name:os.system\n", r"a\.yaml:1: '' cannot be read: could not determine a constructor"),
        (b"? [a, b]\n: c\n", r"a\.yaml:1: expected a name as a key"),
    ],
)
def test_yaml_that_nothing_can_be_made_of_is_named(tmp_path, raw, message):
    """Another encoding, what contains itself, and values that cannot be built are errors with the file and, where there is one, the line."""
    (tmp_path / "a.yaml").write_bytes(raw)
    with pytest.raises(LedgerError, match=message):
        Document(tmp_path / "a.yaml")


def test_a_mapping_takes_over_several(tmp_path):
    """Of a list after `<<` each key is the first one's that has it; an alias of another mapping may stand twice."""
    (tmp_path / "a.yaml").write_text("x: &x {a: 1, b: 2}\ny: &y {b: 3}\nz: {<<: [*y, *x]}\nw: [*x, *x]\n")
    found = Document(tmp_path / "a.yaml").value
    assert found["z"] == {"a": 1, "b": 3}
    assert found["w"] == [{"a": 1, "b": 2}] * 2
