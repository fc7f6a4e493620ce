"""A plan says what a run needs, from where each figure comes, and refuses what cannot be, saying by how much; the record fits."""

import dataclasses
import re

import pytest
import yaml
from click.testing import CliRunner

from astolfo import library
from astolfo.cli import cli
from astolfo.errors import LedgerError, PlacementError
from astolfo.ledger import load, schema
from astolfo.ledger.recipe import recipe_of
from astolfo.plan import memory
from astolfo.plan import plan as planner
from astolfo.plan.speed import speed
from tests.conftest import CONFIG, SMALL


@pytest.fixture(scope="module")
def ledger():
    return load(SMALL, "full")


@pytest.fixture(scope="module")
def record():
    return load(CONFIG, "full")


def needs(ledger, run, hardware):
    return planner.plan(ledger, ledger.run(run), planner.machine_of(ledger, hardware))


def test_the_epoch_costs_what_was_written_down(ledger):
    """The 12.4M epoch on four RTX 3090: 777,917 steps, 69 segments, about 45 days and about 2,000 kWh."""
    found = needs(ledger, "plain", "4x3090")
    assert (found.steps, found.images, found.segments) == (777_917, 12_446_670, 69)
    assert found.days == pytest.approx((45, 45), rel=0.03)
    assert found.kwh == pytest.approx((2_000, 2_000), rel=0.03)


def test_every_run_of_the_record_fits_the_machine_that_made_it(record):
    """Four ranks on four RTX 3090, one on one: no run of the record is refused."""
    runs = [run for run in record.runs.values() if re.fullmatch("[0-9]{8}", run.id)]
    for run in runs:
        needs(record, run.id, "4x3090" if run.fields.ranks == 4 else "1x3090")
    assert len(runs) >= 57


def test_what_does_not_fit_is_refused_by_how_much(ledger):
    """Four logical ranks on one 16 GiB card: the message has what is needed, what is there, and the difference."""
    small = planner.machine_of(ledger, "1x3090").model_copy(update={"device_memory_gib": 16})
    with pytest.raises(PlacementError, match="does not fit One RTX 3090") as refusal:
        planner.plan(ledger, ledger.run("plain"), small)
    needed, has, lacking = (
        float(re.search(rf"{before} ([0-9.]+) GB", str(refusal.value))[1]) for before in ("about", "has", "so")
    )
    assert needed - has == pytest.approx(lacking, abs=0.11)
    assert has == pytest.approx(16 * 1.0737 * planner.USABLE, abs=0.1)


def test_what_saves_memory_is_asked_for_only_where_it_is_needed(ledger):
    """Four cards hold the epoch's activations; one wants some blocks' again, and four ranks on it partial sums in the host."""
    assert memory.named(needs(ledger, "plain", "4x3090").placement) == ""
    blocks = memory.named(needs(ledger, "short", "1x3090").placement)
    assert blocks == f"gradient_checkpointing: [{', '.join(memory.BLOCKS[:6])}]"
    found = needs(ledger, "plain", "1x3090").placement
    assert found == {"gradient_checkpointing": memory.BLOCKS[:3], "offload_gradients": True}
    assert memory.named(found) == f"gradient_checkpointing: [{', '.join(memory.BLOCKS[:3])}], offload_gradients: true"


def test_what_fits_nowhere_needs_least(ledger):
    """Where nothing fits, what is chosen is what needs least of all. A compiled model is offered nothing."""
    recipe = recipe_of(ledger, ledger.run("plain"))
    placement, needed = memory.fitting(recipe, 1, usable=0)
    assert placement == {"gradient_checkpointing": True, "offload_gradients": True}
    assert needed.total == min(memory.memory(recipe, 1, **each).total for each in memory.placements(recipe, 1))
    compiled = recipe_of(ledger, ledger.run("engine"))
    assert memory.placements(compiled, 4) == [dict.fromkeys(placement, False)]
    assert all(len(memory.ACTIVATIONS[family]) == len(memory.OPERATIONS[family]) for family in ("sdxl", "sd2"))
    assert len(memory.ACTIVATIONS["sdxl"]) == len(memory.BLOCKS) + 1


def test_what_costs_a_step_least_comes_first(ledger):
    """Sums go to the host once a step, activations are made again for every sample: many samples want the former, few the latter."""
    many = recipe_of(ledger, ledger.run("plain"))
    few = many.model_copy(update={"accumulation": 1})
    first, second = ([each["offload_gradients"] for each in memory.placements(one, 1)] for one in (many, few))
    assert (first[0], second[0]) == (False, False)
    assert first.index(True) < second.index(True) == len(memory.BLOCKS) + 1
    assert not any(each["offload_gradients"] for each in memory.placements(many, 2))  # no sum waits for another


def test_the_entrys_own_placement_is_planned(ledger):
    """What a run's entry says of saving memory is what its plan counts, and what is refused when it does not fit."""
    run = ledger.run("plain")

    def with_placement(**given):
        fields = run.fields.model_copy(update={"placement": schema.Placement(**given)})
        return dataclasses.replace(run, fields=fields)

    machine = planner.machine_of(ledger, "1x3090")
    found = planner.plan(ledger, with_placement(gradient_checkpointing=True, offload_gradients=True), machine)
    assert found.placement == {"gradient_checkpointing": True, "offload_gradients": True}
    assert found.memory.total < needs(ledger, "plain", "1x3090").memory.total
    with pytest.raises(PlacementError, match="does not fit"):
        planner.plan(ledger, with_placement(gradient_checkpointing=False), machine)
    assert planner.plan(ledger, with_placement(ramdisk=True), machine).placement == needs(ledger, "plain", "1x3090").placement


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "processes", "updates"),
    [
        ("25112201", 4, (None, "master")),
        ("25112201", 1, (None, "master")),
        ("24121001", 1, (None, "master")),
        ("26022301", 1, (None, "master")),
        ("24122001", 1, (None, "master")),
        ("foundation-sd2", 2, (None,)),  # in fp32, without a master beside it
    ],
)
def test_arithmetic_agrees_with_what_is_counted(record, run, processes, updates):
    """What the plan computes of runs of the record is within 3 % of the peak that is counted on the meta device, operator by operator."""
    from astolfo.train.memory import predict

    recipe = recipe_of(record, record.run(run))
    for update in updates:
        one = recipe.model_copy(update={"precision": recipe.precision.model_copy(update={"update": update})})
        for checkpointing in (True, False) if update is None else (True,):
            counted = predict(one, processes=processes, checkpointing=checkpointing).peak
            computed = memory.memory(one, processes, gradient_checkpointing=checkpointing)
            assert computed.total - computed.overhead == pytest.approx(counted, rel=0.03), (update, checkpointing)


@pytest.mark.slow
def test_activations_are_those_counted(record):
    """The tables by blocks that are computed again, of activations and of operations, are what is counted of runs of the record."""
    from astolfo.train.memory import flops, predict

    recipe = recipe_of(record, record.run("25112201")).model_copy(update={"unet": 100})
    older = recipe_of(record, record.run("24122001"))
    for one, blocks in ((recipe, [memory.BLOCKS[:count] for count in range(len(memory.BLOCKS))]), (older, [False])):
        counted = [predict(one, checkpointing=given).activations for given in (*blocks, True)]
        assert counted == [pytest.approx(known, rel=0.03) for known in memory.ACTIVATIONS[one.family]]
        work = [flops(one, checkpointing=given) for given in (*blocks, True)]
        assert work[0] == pytest.approx(memory.FLOP[one.family], rel=0.03)
        assert [each / work[0] for each in work] == [pytest.approx(known, abs=0.002) for known in memory.OPERATIONS[one.family]]


def test_the_pinned_build_has_no_volta(ledger):
    """A V100 is refused for its compute capability, and the message names the page that helps."""
    with pytest.raises(PlacementError, match=r"7\.0.*from 7\.5 on.*docs/environments\.md"):
        needs(ledger, "plain", "4xV100")


def test_deepspeed_needs_its_devices(ledger):
    """DeepSpeed's world size decides bits, so fewer devices than ranks are refused; with them the run is planned."""
    with pytest.raises(PlacementError, match="DeepSpeed"):
        needs(ledger, "engine", "1x3090")
    assert needs(ledger, "engine", "4x3090").processes == 4


def test_an_unknown_machine_has_near_names(ledger):
    """A misspelt machine is refused with the names that it may have meant."""
    with pytest.raises(LedgerError, match="4x3090"):
        planner.machine_of(ledger, "4x309")


def test_a_machine_of_the_ledger_goes_before_one_of_cards(ledger):
    """4x3090 is the ledger's, with what was measured there; 2x3090, which it does not have, is made of cards."""
    assert planner.machine_of(ledger, "4x3090").measured
    assert not planner.machine_of(ledger, "2x3090").measured


@pytest.mark.parametrize(
    ("name", "devices"), [("3090", 1), ("1x3090", 1), ("1 x RTX 3090", 1), ("4 x 3090", 4), ("H100", 1), ("1xh100", 1)]
)
def test_a_card_finds_the_machine_that_has_it(ledger, name, devices):
    """However a card is spelt, the machine with so many of it that the library knows, with its measurements, is meant."""
    found = planner.machine_of(ledger, name)
    assert found in ledger.hardware.values()
    assert (found.devices, found.device) == (devices, "cuda")


def test_only_the_same_recipe_was_measured(ledger):
    """A speed counts as measured for a run that does just what was measured; for others it is a range around the nearest."""
    measured, other = needs(ledger, "plain", "4x3090").speed, needs(ledger, "short", "4x3090").speed
    assert measured.source.startswith("measured:")
    assert measured.slow == measured.fast == 3.259
    assert other.source.startswith("not measured: from 3.259")
    assert "accumulation 1 here" in other.source
    assert other.slow < 3.259 * 1.04 < other.fast
    frozen = recipe_of(ledger, ledger.run("plain")).model_copy(update={"learning_rate": schema.LearningRate(unet=1e-6)})
    assert "text encoders frozen here" in speed(frozen, planner.machine_of(ledger, "4x3090"), 4).source


TRAINED = [  # run, what of its recipe was different, processor seconds of one process a step (docs/log.md)
    ("stand-in-sdxl-rf", {}, 325 / 600), ("stand-in-sdxl-rf", {}, 409 / 600), ("stand-in-sd2-eps", {}, 407 / 600),
    ("25112201", {}, 1.89), ("25112201", {"unet": 100}, 2.37), ("25112201", {"batch_size": 8, "accumulation": 1}, 1.96),
    ("foundation-eps", {"batch_size": 1}, 0.31), ("foundation-eps", {"batch_size": 4}, 0.34), ("foundation-eps", {}, 0.56),
    ("foundation-sd2", {"batch_size": 1}, 0.21), ("foundation-sd2", {"batch_size": 8}, 0.66),
]  # fmt: skip


@pytest.mark.parametrize(("run", "changed", "seconds"), TRAINED)
def test_a_core_takes_what_it_was_seen_to_take(record, run, changed, seconds):
    """What trainings of the miniature took of a core lies in the range that a plan gives of it, whose ends are at most twofold apart."""
    ledger = load(library.MAKERS) if run.startswith("stand-in") else record
    recipe = recipe_of(ledger, ledger.run(run)).model_copy(update=changed)
    found = speed(recipe, schema.Hardware(title="A core", device="cpu"), 1)
    assert found.slow < recipe.ranks * recipe.batch_size * recipe.accumulation / seconds < found.fast < 2 * found.slow
    assert "with nothing else to do; beside other work" in found.source


def test_a_core_that_was_measured_is_planned_in_proportion(ledger):
    """A speed that was measured on a machine moves the others there as much: half as fast for one recipe is so for every one."""
    recipe = recipe_of(ledger, ledger.run("plain"))
    large = recipe.model_copy(update={"batch_size": 8})
    plain = schema.Hardware(title="Cores", device="cpu", devices=2)
    small, big = (speed(one, plain, 2) for one in (recipe, large))
    row = {
        "images_per_second": (small.slow + small.fast) / 4,
        "batch_size": recipe.batch_size,
        "accumulation": recipe.accumulation,
    }
    slow = plain.model_copy(update={"measured": (schema.Measurement(**row, note="mine"),)})
    for one, before in ((recipe, small), (large, big)):
        found = speed(one, slow, 2)
        assert (found.slow, found.fast) == pytest.approx((before.slow / 2, before.fast / 2))
        assert "measured there: mine" in found.source


def test_a_scale_needs_its_device(ledger):
    """The full scale on a CPU is refused."""
    with pytest.raises(PlacementError, match="CPU builds the miniature"):
        needs(ledger, "plain", "cpu")


def test_states_are_as_large_as_trainings_write(ledger):
    """A state holds weights and moments of what trains; a result every part in fp16: SDXL's 6.94 GB."""
    recipe = recipe_of(ledger, ledger.run("plain"))
    trained = 1_827_058_244 + 123_060_480 + 694_659_840
    assert memory.trained_parameters(recipe) == trained
    assert memory.state_bytes(recipe) == pytest.approx(trained * (2 + 2 * (1 + 4 / 256)))
    assert memory.result_bytes(recipe) == pytest.approx(6.94e9, rel=0.001)


def test_frozen_weights_need_no_gradients(ledger):
    """A run with its text encoders frozen needs less than one that trains them; more devices need less each."""
    on = recipe_of(ledger, ledger.run("plain"))
    off = on.model_copy(update={"learning_rate": schema.LearningRate(unet=1.5e-6)})
    assert memory.memory(on, 1).total > memory.memory(off, 1).total
    totals = [memory.memory(on, processes).total for processes in (1, 2, 4)]
    assert totals == sorted(totals, reverse=True)


def test_an_unmeasured_machine_gets_a_range_that_says_so(ledger):
    """Nothing was measured on an H100: its days are a range, and the source says that it is an estimate."""
    found = needs(ledger, "plain", "1xH100")
    assert found.days[0] < found.days[1]
    assert found.speed.source.startswith("not measured")


def test_every_machine_of_the_ledger_is_described():
    """The ledger has the machines that the documentation names, each readable."""
    assert set(load(SMALL).hardware) >= {"cpu", "1x3090", "4x3090", "4xV100", "1xH100"}


def test_a_machine_with_an_unknown_key_is_an_error(small_config):
    """A misspelt key of a machine's file is refused with file and line."""
    path = small_config / "hardware" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"title": "Mine", "device": "cuda", "device_memory": 24}))
    with pytest.raises(LedgerError, match=r"mine\.yaml:\d+: unknown key 'device_memory'"):
        load(small_config)


@pytest.fixture
def small_config(tmp_path):
    import shutil

    return shutil.copytree(SMALL, tmp_path / "config")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plain", "--hardware", "4x3090"], ["full scale", "777,917", "44.2 days", "1,963 kWh", "EPYC 7F52"]),
        (["plain", "--hardware", "4x3090"], ["of 23.5 GB to use (25.8 GB a device)"]),
        (["plain", "--hardware", "cpu"], ["miniature scale", "1,245"]),
        (["flow", "--hardware", "4x3090"], ["made from", "velocity", "together"]),
        (
            ["--all", "--hardware", "2x4090"],
            ["runs on Two GeForce RTX 4090", "engine", "its engine needs 4 devices, there are 2", "cannot run there"],
        ),
    ],
)
def test_the_verb_prints_figures_with_their_sources(arguments, expected):
    """`astolfo plan` takes the machine's own scale and names every run that comes before."""
    found = CliRunner().invoke(cli, ["--config", str(SMALL), "plan", *arguments], catch_exceptions=False)
    assert found.exit_code == 0
    for text in expected:
        assert text in found.output


def test_a_plan_remarks_on_what_is_not_here(tmp_path):
    """A folder of pictures that is not on this machine is a remark, since a build may run elsewhere; a warm-up of no steps is one too."""
    entry = {"base": "one", "dataset": "few", "epochs": 2, "learning_rate": {"unet": 1e-5}, "schedule": "warmup"}
    said = {
        "bases": {"one": {}},
        "datasets": {"few": {"images": 2000, "miniature": {"folder": "gone"}}},
        "runs": {"a": entry, "b": {**entry, "schedule": {"kind": "warmup", "warmup_steps": 0}}},
    }
    (tmp_path / "ledger.yaml").write_text(yaml.safe_dump(said))
    for words in (["a"], ["--all"]):
        found = CliRunner().invoke(cli, ["--config", str(tmp_path), "plan", *words, "--hardware", "cpu"], catch_exceptions=False)
        assert f"{tmp_path / 'gone'} is not here, where the ledger has pictures of few" in found.output
        assert "a has schedule: warmup without warmup_steps or warmup_ratio: there is no warm-up." in found.output
        assert "b has schedule" not in found.output
