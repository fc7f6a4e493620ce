"""The path of a card, on cards that do not exist: every recipe of the record, the sampler, and several processes."""

import traceback
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from astolfo.checkpoint.architecture import Architecture
from astolfo.evaluate.sample import RUNTIMES, Settings, sample
from astolfo.ledger import load, recipe_of
from astolfo.plan.memory import memory as planned
from astolfo.train import ranks
from astolfo.train.conditioning import Text
from astolfo.train.deepspeed import DeepSpeedTrainer
from astolfo.train.loop import Trainer
from astolfo.train.memory import _Living, predict
from astolfo.train.model import DTYPES, architecture_of, held_dtype
from astolfo.train.placement import Placement
from astolfo.train.ranks import Processes
from tests.conftest import CONFIG
from tests.train.card import REFUSED, Card, parts_on_card
from tests.train.conftest import few
from tests.train.test_samples import MOVES
from tests.train.wire import Mismatch, checked

FULL, SHAPES = load(CONFIG, "full"), load(CONFIG).scale.architectures
BLOCKS = {"sdxl": ["Down", "CrossAttnDown"], "sd2": ["CrossAttnDown", "Down"]}  # of a UNet of which a step takes a second
ENGINE_MOVES = MOVES | {
    ("number", "stage_1_and_2.DeepSpeedZeroOptimizer.has_overflow"): ("after",),  # one byte: a gradient of any rank is not finite
    ("to card", "utils.mask_nan_or_inf_with_val_inplace"): ("after",),  # the -1 that marks such a norm, for each group
    ("number", "utils.is_invalid_grad_norm"): ("after",),  # whether a norm is marked so
    ("to card", "stage_1_and_2.DeepSpeedZeroOptimizer._optimizer_step"): ("after",),  # first step: code books of 8-bit moments
    ("number", "stage_1_and_2.DeepSpeedZeroOptimizer._optimizer_step"): ("after",),  # bitsandbytes waits after each partition
}
"""What steps of DeepSpeed's engine move or wait for besides: its own checks, and the optimizer that it calls."""


def aspects(run):
    """All of a run's recipe that its steps on a card depend on, as values that recipes share or do not."""
    recipe = recipe_of(FULL, FULL.run(run))
    trains = tuple(part for part, rate in recipe.learning_rate.model_dump().items() if rate)
    return {
        ("model", recipe.family, recipe.unet, trains),
        ("objective", recipe.family, recipe.objective.model_dump_json()),
        ("optimizer", recipe.optimizer.kind, recipe.optimizer.relative_step, bool(recipe.max_grad_norm)),
        ("numbers", recipe.precision.model_dump_json(), recipe.choices.schedule_dtype, recipe.choices.snr_table),
        ("text", recipe.captions.tokens, recipe.choices.context, bool(len(trains) > 1)),
        ("batch", min(recipe.batch_size, 2), recipe.objective.kind),
    }


def kinds():
    """The first run of the record for each set of aspects. DeepSpeed's engine is none: it has tests of its own below."""
    return list({frozenset(aspects(run)): run for run in reversed(FULL.runs)}.values())[::-1]


def cover():
    """Few runs that have every aspect of the record between them."""
    left, chosen = set().union(*map(aspects, FULL.runs)), []
    while left:
        chosen.append(max(kinds(), key=lambda run: len(aspects(run) & left)))
        left -= aspects(chosen[-1])
    return chosen


class OnCard(Trainer):
    """The trainer, with a model that is made on the card."""

    def _parts(self, base):
        return parts_on_card(architecture_of(self.recipe), DTYPES[held_dtype(self.recipe)])


class EngineOnCard(DeepSpeedTrainer):
    """DeepSpeed's trainer, with the same."""

    _parts = OnCard._parts


class FullSize(OnCard):
    """The same with latents of 1024x1024 pixels."""

    def _ready(self, batch):
        given = self.reader.batch(batch)
        latents, noise = (torch.zeros(len(batch.rows), 4, 128, 128) for _ in range(2))
        return replace(given, latents=latents, noise=noise).on(self.device, DTYPES[self.recipe.precision.weights])


class EngineFullSize(EngineOnCard):
    """DeepSpeed's trainer with such latents."""

    _ready = FullSize._ready


class Memory(_Living):
    """What the card's storages take, and took at most."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if kwargs and kwargs.get("device") == torch.device("meta"):  # DeepSpeed keeps such tensors, which take nothing
            return func(*args, **kwargs)
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _begin(self, storage):
        if storage.device.type == "meta":
            super()._begin(storage)


@pytest.fixture
def recipe():
    """A function that gives a run's recipe at full scale with the miniature's shapes, but for the UNet's `blocks`, and `changes`."""

    def of(run, blocks=BLOCKS, **changes):
        found = recipe_of(FULL, FULL.run(run))
        shapes = dict(SHAPES[found.family])
        if blocks:
            shapes["unet"] = shapes["unet"] | few(blocks[found.family])
        small = {"architecture": shapes, "steps_per_epoch": None, "engine": None}
        return found.model_copy(update=small | {"ranks": 1, "accumulation": 1, "batch_size": min(found.batch_size, 2)} | changes)

    return of


def judged(card, moves=MOVES):
    """Fails for what a step of training moves or waits for besides what `moves` lists; returns how often each happened."""
    begun = card.operators.index("convolution")
    ended = next(move.at for move in card.moves if move.by == "loop.Trainer._mean")
    for move in card.moves:
        when = "before" if move.at <= begun else "within" if move.at < ended else "after"
        assert (move.kind, move.by) in moves, f"{move} is listed nowhere"
        assert when in moves[move.kind, move.by], f"{move} comes {when} the passes"
        assert when != "within" or not move.waits, f"{move} keeps the host waiting between micro-batches"
    assert not set(card.operators) & set(REFUSED)
    return Counter(move.by for move in card.moves)


@pytest.mark.parametrize("run", cover()[:4])
def test_a_step_of_the_record_runs_on_a_card(inputs, recipe, run):
    """Forward and backward pass, tree, update and guards, with tensors on one device alone and no wait but the listed ones.

    The four runs have more than half of the aspects in which the record's runs differ; the stage full-size does them all.
    """
    run_a_step(inputs, recipe(run))


@pytest.mark.slow
@pytest.mark.parametrize("run", kinds())
def test_a_step_of_every_recipe_runs_on_a_card(inputs, recipe, run):
    """The same for all recipes of the record, with the miniature's own shapes: every model, objective, optimizer and precision."""
    run_a_step(inputs, recipe(run, blocks=None, ranks=2))


def run_a_step(inputs, recipe):
    with Card() as card:
        trainer = OnCard(recipe, inputs, Processes(), Placement(device="cuda"))
        card.clear()
        assert trainer.step(0) == 1.0
        judged(card)
        assert all(parameter.is_cuda for parameter in trainer.parameters)
        trainer.close()


@pytest.mark.parametrize("run", ["25112201", "25012803", "25031501", "25031502"])
def test_a_card_goes_on_from_a_state(inputs, recipe, run):
    """With each optimizer of the record: a state is tensors of the host, and a trainer that takes it up does the next step."""
    with Card() as card:
        trainers = [OnCard(recipe(run), inputs, Processes(), Placement(device="cuda")) for _ in range(2)]
        trainers[0].step(0)
        state = trainers[0].state(1)
        tensors = [*state.weights.values(), *(value for row in state.optimizer.values() for value in row.values())]
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
        trainers[1].restore(state)
        card.clear()
        trainers[1].step(1)
        judged(card)
        for trainer in trainers:
            trainer.close()


@pytest.mark.parametrize(("update", "ranks", "waiting"), [("stochastic", 1, 0), ("master", 4, 2)])
def test_wide_updates_run_on_a_card(inputs, recipe, update, ranks, waiting):
    """Stochastic rounding and fp32 masters, with blocks computed again and sums of ranks that wait in pinned memory of the host."""
    few = recipe("25112201", ranks=ranks, precision=recipe("25112201").precision.model_copy(update={"update": update}))
    placement = Placement(device="cuda", gradient_checkpointing=("text_encoders", "mid_block"), offload_gradients=True)
    with Card() as card:
        trainer = OnCard(few, inputs, Processes(), placement)
        card.clear()
        trainer.step(0)
        assert judged(card)["ranks.GradientTree._on_host"] == waiting * len(trainer.parameters)
        trainer.close()


def test_remembered_captions_go_to_the_card_at_a_step_s_beginning(inputs, recipe):
    """What has been encoded once is not encoded again, and goes to the host and back when nothing is computed."""
    with Card() as card:
        trainer = OnCard(recipe("26022301"), inputs, Processes(), Placement(device="cuda"))
        asked = []
        for step in (0, 0, 0):
            card.clear()
            trainer.step(step)
            asked.append(judged(card)["conditioning.Text.encode"])
        trainer.close()
    assert (asked[0] > 0, asked[1:]) == (True, [0, 0])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("sampler", ["DDIM", "Euler"])
def test_the_sampler_runs_on_a_card(ledger, inputs, runtime, sampler):
    """Pictures in every runtime: between the first forward pass and the last nothing is waited for."""
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    with Card() as card:
        parts = parts_on_card(architecture, torch.bfloat16)
        parts["vae"] = torch.nn.Module.to(architecture.build("vae"), torch.float32).to_empty(device="cuda").eval()
        text = Text.of(parts, inputs.vocabulary, tokens=75, context="inference")
        pictures, finite = sample(parts, text, ["a red star"], Settings(runtime=runtime, sampler=sampler, steps=3), seed=1)
        names = card.operators
        waits = [move for move in card.moves if move.waits]
        first, last = names.index("convolution"), max(at for at, name in enumerate(names) if name == "convolution")
    assert pictures.shape == (1, 64, 64, 3)
    assert finite.all()
    assert not [move for move in waits if first < move.at <= last]


def test_a_card_refuses_what_a_card_refuses(inputs):
    """Tensors on two devices are an error; a number that is asked for, a copy and a synchronisation are known."""
    with Card() as card:
        here, there = torch.ones(4), torch.ones(4, device="cuda")
        with pytest.raises(RuntimeError, match="device"):
            here + there
        there.sum().item()
        there.cpu()
        here.to("cuda", non_blocking=True)
        torch.cuda.synchronize()
    assert [(move.kind, move.waits) for move in card.moves] == [
        ("number", True), ("to host", True), ("to card", False), ("number", True),
    ]  # fmt: skip


def two(work):
    """Runs `work` in two processes that know each other."""
    processes = ranks.start(2)
    try:
        work(processes)
    except BaseException:
        traceback.print_exc()
        ranks.finish(processes, failed=True)
        raise
    ranks.finish(processes)


@pytest.mark.alone
def test_two_processes_make_the_same_collectives(inputs, recipe):
    """Reduction, guards, clipping, shared weights and a state of two processes with a card each: every call fits the other's."""

    def work(processes):
        with Card() as card, checked(processes) as wire:
            trainer = OnCard(recipe("25012801", ranks=4), inputs, processes, Placement(device="cuda", processes=2))
            card.clear()
            trainer.step(0)
            judged(card)
            trainer.state(1)
        kinds = Counter(wire.calls)
        assert kinds["all_to_all_single", "cuda", "torch.bfloat16"]
        assert kinds["broadcast", "cuda", "torch.bfloat16"] == 2
        assert kinds["all_gather", "cpu", "torch.float64"] == 2  # losses and the norm, over gloo

    two(work)


@pytest.mark.alone
def test_processes_that_disagree_are_told(inputs):
    """A collective of another dtype than the other process's is named by both, with both calls."""

    def work(processes):
        with Card(), checked(processes):
            dtype = (torch.bfloat16, torch.float32)[processes.index]
            with pytest.raises(Mismatch, match="call 0: process . makes .*bfloat16|float32"):
                processes.broadcast(torch.ones(4, dtype=dtype, device="cuda"), 0)

    two(work)


@pytest.fixture
def engine_recipe(recipe):
    """A function that gives the recipe of the record's run by DeepSpeed, at its smallest, with blocks that are not compiled."""
    engine = recipe_of(FULL, FULL.run("25022301")).engine.model_copy(update={"compile": None})
    return lambda **changes: recipe("25022301", **{"blocks": {"sdxl": ["Down"]}, "engine": engine, "accumulation": 2} | changes)


@pytest.mark.alone
def test_deepspeed_s_engine_runs_on_a_card(inputs, engine_recipe):
    """A step, a state and a step after it: the engine's own checks wait for the device after the passes, and nothing before.

    Its gradients are clipped, which the recorded run's are not; the next test leaves that as it is recorded. Nothing is compiled
    in either, since the card computes nothing that compiled code could.
    """
    ranks.form("cpu")
    with Card() as card, checked(Processes()):
        clips = engine_recipe(max_grad_norm=1.0)
        trainers = [EngineOnCard(clips, inputs, Processes(), Placement(device="cuda")) for _ in range(2)]
        trainers[0].engine.tput_timer.start_step = 0  # as from its third step on
        card.clear()
        assert trainers[0].step(0) == 2.0  # of two micro-batches
        assert judged(card, ENGINE_MOVES)["guards._finite"] == 2
        kernels = {name for name in card.operators if name.endswith("_attention")}
        assert kernels == {"_scaled_dot_product_efficient_attention"}
        state = trainers[0].state(1)
        assert {tensor.device.type for tensor in [*state.weights.values(), *state.engine.values()]} == {"cpu"}
        assert {name.rpartition("/")[2] for name in state.engine} == {"fp32", "step", "state1", "state2", "absmax1", "absmax2"}
        trainers[1].restore(state)
        card.clear()
        trainers[1].step(1)
        judged(card, ENGINE_MOVES)
        for trainer in trainers:
            trainer.close()


@pytest.mark.alone
def test_two_engines_make_the_same_collectives(inputs, engine_recipe):
    """The engine's reductions, its overflow check, norms and shared weights, and a state: every call fits the other process's."""

    def work(processes):
        with Card() as card, checked(processes) as wire:
            trainer = EngineOnCard(engine_recipe(ranks=2), inputs, processes, Placement(device="cuda", processes=2))
            card.clear()
            begun = len(wire.calls)
            trainer.step(0)
            judged(card, ENGINE_MOVES)
            trainer.state(1)
        assert Counter(call for call in wire.calls[begun:] if call[1] == "cuda") == {
            ("all_reduce", "cuda", "torch.bfloat16"): 2,  # a bucket of gradients for each micro-batch
            ("all_reduce", "cuda", "torch.uint8"): 1,
            ("all_reduce", "cuda", "torch.float32"): 3,  # the norms of UNet and text encoders
            ("all_gather_into_tensor", "cuda", "torch.bfloat16"): 3,
        }

    two(work)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "changes"), [("25112201", {"ranks": 4}), ("26022301", {"ranks": 1})])
def test_true_size_runs_on_a_card(inputs, run, changes):
    """Steps of the true shapes at 1024²: one device, the listed moves, and the memory that is predicted, to 3 %."""
    recipe = recipe_of(FULL, FULL.run(run)).model_copy(update={"steps_per_epoch": None, "accumulation": 1, **changes})
    with Card() as card, Memory() as memory:
        trainer = FullSize(recipe, inputs, Processes(), Placement(device="cuda", gradient_checkpointing=True))
        for step in range(2):
            card.clear()
            trainer.step(step)
            judged(card)
    expected = predict(recipe, checkpointing=True).peak
    print(f"{memory.peak / 1e9:.2f} GB, predicted {expected / 1e9:.2f}")
    assert memory.peak == pytest.approx(expected, rel=0.03)


@pytest.mark.alone
@pytest.mark.slow
def test_true_size_of_deepspeed_s_engine_runs_on_a_card(inputs, engine_recipe):
    """Two steps of the true shapes by one of four ranks, the others being torch's pretended ones; the planned memory, to 3 %.

    Each has one micro-batch, since the graph of one before would stay: the walk of a card frees no part of it.
    """
    true = recipe_of(FULL, FULL.run("25022301"))
    recipe = engine_recipe(ranks=4, accumulation=1, architecture=true.architecture)
    distributed.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    with Card() as card, Memory() as memory:
        trainer = EngineFullSize(recipe, inputs, Processes(4), Placement(device="cuda", processes=4))
        for step in range(2):
            card.clear()
            trainer.step(step)
            judged(card, ENGINE_MOVES)
    plan = planned(recipe, 4, gradient_checkpointing=False)
    expected = plan.total - plan.overhead
    print(f"{memory.peak / 1e9:.2f} GB, planned {expected / 1e9:.2f}")
    assert memory.peak == pytest.approx(expected, rel=0.03)
