"""bf16 weights that learn: stochastic rounding and fp32 masters, with the same bits however they are executed."""

import numpy as np
import pytest
import torch
from torch import nn

from astolfo import randomness
from astolfo.checkpoint import model
from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.autoencoder import save_autoencoder
from astolfo.errors import LedgerError
from astolfo.ledger import load, recipe_of
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import LearningRate, Optimizer, Precision
from astolfo.ledger.specs import identity
from astolfo.train import state, update
from astolfo.train.export import export
from astolfo.train.initialise import initialise
from astolfo.train.rounding import stochastic, words
from astolfo.train.update import Fp32Update
from tests.conftest import SMALL
from tests.train.conftest import digest
from tests.train.test_optimizer import CHOICES, named

BF16 = {"weights": "bf16", "compute": "bf16"}
UPDATES = ("stochastic", "master")


def test_the_devices_integers_are_the_generators():
    """Words computed with torch's operations are those of the numpy generator, at any offset and at large positions."""
    for position in (0, 7, 2**40 + 3):
        expected = randomness.words(3, "rounding unet.a", position, 50)
        found = words(3, "rounding unet.a", position, 50, "cpu")
        assert np.array_equal(found.numpy(), expected)
        assert torch.equal(words(3, "rounding unet.a", position, 14, "cpu", first=9), found[36:])


def test_rounding_is_its_definition():
    """Element i adds half a word of the generator to its bits and drops the low ones: literally, in numpy."""
    values = torch.from_numpy(randomness.normal(1, "values", 0, (3, 7))).mul(1e-3)
    drawn = randomness.words(5, "rounding w", 2, 11).view("<u2")[:21].astype(np.uint32)
    expected = ((values.numpy().view(np.uint32).ravel() + drawn) >> 16).astype(np.uint16)
    assert np.array_equal(stochastic(values, 5, "w", 2).view(torch.int16).numpy().view(np.uint16).ravel(), expected)


def test_pieces_leave_no_trace(monkeypatch):
    """How many elements are rounded at once decides nothing."""
    values = torch.from_numpy(randomness.normal(1, "values", 0, (100,)))
    whole = stochastic(values, 5, "w", 2)
    monkeypatch.setattr("astolfo.train.rounding.PIECE", 16)
    assert torch.equal(stochastic(values, 5, "w", 2), whole)


def test_rounding_is_right_on_average():
    """The mean over steps is the value itself; what bf16 can hold, infinities and NaN stay as they are."""
    value = torch.full((4096,), 1.0 + 2.0**-9)  # a quarter of the way between two bf16 numbers
    mean = torch.stack([stochastic(value, 1, "w", step).double() for step in range(8)]).mean()
    assert abs(mean.item() - value[0].item()) < 4 * 2.0**-7 * (3 / 16 / (8 * 4096)) ** 0.5
    kept = torch.tensor([1.0, -0.02001953125, 0.0, float("inf"), -float("inf"), 2.0**-130])
    assert torch.equal(stochastic(kept, 1, "w", 0), kept.bfloat16())
    payload = torch.tensor([0x7FFFFFFF, 0x7F800001], dtype=torch.int32).view(torch.float32)
    assert stochastic(payload, 1, "w", 0).isnan().all()


@pytest.mark.parametrize("kind", UPDATES)
def test_processes_and_segments_leave_no_trace(train, spec_of, kind):
    """One process uncut, four processes, and two then one with a cut between: the same state file."""
    changes = {"precision": Precision(**BF16, update=kind), "accumulation": 1, "steps_per_epoch": None}
    whole = digest(train(spec_of(0, 2, **changes), "whole"))
    assert digest(train(spec_of(0, 2, **changes), "four", processes=4)) == whole
    first = train(spec_of(0, 1, **changes), "cut", processes=2)
    assert digest(train(spec_of(1, 2, **changes), "cut", first)) == whole


@pytest.fixture
def widened(spec_of, monkeypatch):
    """A function that makes an update of a choice over two small bf16 weights, in stretches of one weight each."""
    monkeypatch.setattr(update, "STRETCH", 4096)

    def make(choice, kind):
        recipe = Recipe.model_validate(spec_of()["recipe"] | {
            "optimizer": Optimizer(**choice).model_dump(exclude_none=True), "precision": {**BF16, "update": kind},
            "learning_rate": LearningRate(unet=1e-3).model_dump(),
        })  # fmt: skip
        values = [torch.from_numpy(randomness.normal(9, "weights", n, (64, 64))).mul(0.02) for n in range(2)]
        parameters = [nn.Parameter(value.bfloat16()) for value in values]
        rows = [("unet", str(n), parameter) for n, parameter in enumerate(parameters)]
        masters = {id(p): p.detach().float() for p in parameters} if kind == "master" else None
        return parameters, Fp32Update(recipe, rows, masters)

    return make


def steps(parameters, subject, numbers):
    for step in numbers:
        for n, parameter in enumerate(parameters):
            parameter.grad = torch.from_numpy(randomness.normal(9, f"gradient {n}", step, (64, 64))).bfloat16()
        subject.step(step)


@pytest.mark.parametrize("kind", UPDATES)
@pytest.mark.parametrize(
    "choice",
    [pytest.param(c, marks=(pytest.mark.alone, pytest.mark.slow) if c["kind"] == "AdamW4bit" else ()) for c in CHOICES],
    ids=named,
)
def test_every_optimizer_goes_on_to_the_bit(widened, choice, kind):
    """Four steps, and two then two more by an update restored from its saved state, give the same weights and states."""
    parameters, whole = widened(choice, kind)
    before = [parameter.detach().clone() for parameter in parameters]
    steps(parameters, whole, range(4))
    assert not any(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
    first, half = widened(choice, kind)
    steps(first, half, range(2))
    again, second = widened(choice, kind)
    for old, new in zip(first, again, strict=True):
        new.data.copy_(old)
        saved = half.state_of(old)
        second.restore(new, saved.pop(update.MASTER, old), saved)
    steps(again, second, range(2, 4))
    for a, b in zip(parameters, again, strict=True):
        assert torch.equal(a, b)
        one, other = whole.state_of(a), second.state_of(b)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_master_is_what_is_saved_and_begun_with(train, spec_of):
    """A state with a master holds fp32 weights, whose rounding the model computes with; none is saved twice."""
    found = state.load(train(spec_of(0, 1, precision=Precision(**BF16, update="master"))))
    assert {value.dtype for value in found.weights.values()} == {torch.float32}
    assert not any(update.MASTER in entries for entries in found.optimizer.values())
    value = found.weights["unet.mid_block.attentions.0.proj_in.weight"]
    assert not torch.equal(value, value.bfloat16().float())


def test_a_result_is_made_from_the_master(train, spec_of, ledger, tmp_path):
    """The exported checkpoint's fp16 weights are the master's, not those of its coarser bf16 rounding."""
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    save_autoencoder(tmp_path / "vae.safetensors", initialise(architecture.build("vae", "cpu"), 1), architecture)
    spec = spec_of(0, 1, precision=Precision(**BF16, update="master"), ranks=1, accumulation=1, steps_per_epoch=None)
    path = train(spec)
    about = {"title": "a test", "semantics": "kohya", "scale": "miniature", "images": 16, "recipe": spec["recipe"]}
    export(about | {"parents": {"state": identity(spec)}}, path, None, tmp_path / "vae.safetensors", tmp_path / "r.safetensors")
    unet = model.load(tmp_path / "r.safetensors", architecture, ["unet"])["unet"]
    master = state.load(path).weights["unet.mid_block.attentions.0.proj_in.weight"]
    assert torch.equal(unet.mid_block.attentions[0].proj_in.weight, master.half())


def test_a_recipe_without_it_does_not_mention_it():
    """A recipe without the choice has the digest that it had before the choice existed."""
    ledger = load(SMALL, "full")
    assert "update" not in recipe_of(ledger, ledger.run("plain")).canonical()["precision"]


def test_fp32_weights_need_no_update():
    """Asking for it where no update is lost is refused."""
    with pytest.raises(ValueError, match="fp32 weights lose no update"):
        Precision(weights="fp32", compute="fp32", update="master")


def test_deepspeed_has_its_own():
    """DeepSpeed keeps a master of its own, so the choice beside it is refused with the entry's place."""
    full = load(SMALL, "full")
    run = full.run("engine")
    fields = run.fields.model_copy(update={"precision": Precision(**BF16, update="master")})
    object.__setattr__(run, "fields", fields)
    with pytest.raises(LedgerError, match="ledger.yaml:.*deepspeed keeps a master"):
        recipe_of(full, run)
