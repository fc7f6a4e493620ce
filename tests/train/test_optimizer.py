"""Every optimizer of the ledger: its published update, its whole state, and nothing else that decides its bits."""

import logging
import math
import os
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from astolfo import deferred_imports, numerics
from astolfo.checkpoint.architecture import Architecture
from astolfo.errors import PlacementError
from astolfo.ledger import load
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import LearningRate, Optimizer
from astolfo.train import optimizer as optimizers
from tests.conftest import ROOT, SMALL

DECAY = {"weight_decay": 1e-2}
RELATIVE = {"kind": "AdaFactor", "relative_step": True, "warmup_init": True, **DECAY}
APART = ("Prodigy", "AdamWScheduleFree")  # parameters that depend on each other, and weights that are averages
KINDS = [kind for kind in get_args(Optimizer.model_fields["kind"].annotation) if kind not in APART]
CHOICES = [*({"kind": kind, **({"relative_step": False} if kind == "AdaFactor" else {}), **DECAY} for kind in KINDS), RELATIVE]
RATE = 1e-3
SHAPES = ((64, 64), (64, 64), (64,))  # 4,096 elements: the smallest that bitsandbytes and torchao keep in few bits


def named(choice):
    return "relative" if choice is RELATIVE else choice["kind"]


# What compiles takes seconds each time, in the stage `kernels`, and runs alone: a process in which torch has compiled cannot fork trainings any more.
every_choice = pytest.mark.parametrize(
    "choice",
    [
        pytest.param(choice, marks=(pytest.mark.alone, pytest.mark.slow) if choice["kind"] == "AdamW4bit" else ())
        for choice in CHOICES
    ],
    ids=named,
)


@pytest.fixture(scope="module", autouse=True)
def machine(tmp_path_factory):
    """Deterministic algorithms, and an empty cache for what AdamW4bit compiles."""
    numerics.make_deterministic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture
def build(spec_of):
    """A function that gives the optimizer of a choice over parameters, all of one part with the rate RATE."""
    plain = spec_of()["recipe"]

    def make(choice, parameters, rate=RATE):
        rates = LearningRate(unet=rate, text_encoders=rate).model_dump()
        recipe = Recipe.model_validate(
            plain | {"optimizer": Optimizer(**choice).model_dump(exclude_none=True), "learning_rate": rates}
        )
        return optimizers.build(recipe, [("unet", str(index), parameter) for index, parameter in enumerate(parameters)])

    return make


def weights(shapes=SHAPES, dtype=torch.float32):
    return [nn.Parameter(torch.from_numpy(values * 0.1).to(dtype)) for values in normal(shapes, seed=0)]


def normal(shapes, seed):
    generator = np.random.Generator(np.random.Philox(seed))
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def steps(optimizer, parameters, numbers):
    """The steps of these numbers; the gradient of a step depends on its number alone. A rate of 1, 1/2, 1/3, ..."""
    for number in numbers:
        for parameter, values in zip(parameters, normal([p.shape for p in parameters], seed=number + 1), strict=True):
            parameter.grad = torch.from_numpy(values * 1e-2).to(parameter.dtype)
        optimizers.set_rate(optimizer, 1 / (1 + number))
        optimizer.step()


def saved(optimizer, parameters):
    """Weights and states as the bytes of a safetensors file."""
    tensors = {f"w{i}": p.detach() for i, p in enumerate(parameters)}
    for i, p in enumerate(parameters):
        tensors |= {f"{i}/{name}": value for name, value in optimizers.state_of(optimizer, p).items()}
    return safetensors.torch.save(tensors)


def loaded(data, optimizer, parameters):
    tensors = safetensors.torch.load(data)
    for i, p in enumerate(parameters):
        p.data.copy_(tensors[f"w{i}"])
        state = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{i}/")}
        optimizers.restore(optimizer, p, state)


# ---- what holds for every one


@every_choice
def test_an_interrupted_run_is_the_uninterrupted_one(build, choice):
    """Saved as plain tensors after two steps and restored elsewhere, it goes on to the bit; so two builds are equal, too."""
    parameters = weights()
    optimizer = build(choice, parameters)
    steps(optimizer, parameters, range(2))
    middle = saved(optimizer, parameters)
    steps(optimizer, parameters, range(2, 4))
    others = weights()
    another = build(choice, others)
    loaded(middle, another, others)
    assert saved(another, others) == middle
    steps(another, others, range(2, 4))
    assert saved(another, others) == saved(optimizer, parameters) != middle


@every_choice
def test_the_state_counts_its_steps(build, choice):
    """Every parameter's state says how many steps it has done."""
    parameters = weights()
    optimizer = build(choice, parameters)
    assert optimizers.state_of(optimizer, parameters[0]) == {}
    steps(optimizer, parameters, range(2))
    assert [int(optimizers.state_of(optimizer, p)["step"]) for p in parameters] == [2, 2, 2]


@every_choice
def test_a_parameter_depends_on_itself_alone(build, choice):
    """Parameters held by two optimizers get the bits that one gives them: processes may share them out as they like."""
    together, apart = weights(), weights()
    optimizer = build(choice, together)
    steps(optimizer, together, range(2))
    for number in range(2):
        for values, p in zip(normal(SHAPES, seed=number + 1), apart, strict=True):
            p.grad = torch.from_numpy(values * 1e-2)
        if number == 0:
            halves = [build(choice, apart[:1]), build(choice, apart[1:])]
        for half in halves:
            optimizers.set_rate(half, 1 / (1 + number))
            half.step()
    assert [p.tolist() for p in apart] == [p.tolist() for p in together]


@every_choice
def test_weights_may_be_bf16(build, choice):
    """Two steps in bf16 move the weights, draw no random number, and are the same twice."""
    before = torch.get_rng_state()
    results = []
    for _ in range(2):
        parameters = weights(((64, 64),), torch.bfloat16)
        optimizer = build(choice, parameters, rate=1e-2)
        steps(optimizer, parameters, range(2))
        results.append(saved(optimizer, parameters))
        assert parameters[0].isfinite().all()
        moved = (parameters[0] != weights(((64, 64),), torch.bfloat16)[0]).float().mean()
        assert moved > 0 if choice is RELATIVE else moved > 0.1
    assert results[0] == results[1]
    assert torch.equal(torch.get_rng_state(), before)


@every_choice
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gradient_of_zeros_is_harmless(build, choice, dtype):
    """Where a gradient is zero, in part or at all, nothing is divided by zero."""
    parameters = weights(((64, 64), (64, 64)), dtype)
    optimizer = build(choice, parameters)
    for number in range(3):
        values = torch.from_numpy(normal(((64, 64),), seed=number)[0])
        for parameter, gradient in zip(parameters, (values.tril(-1), torch.zeros(64, 64)), strict=True):
            parameter.grad = gradient.to(dtype)
        optimizer.step()
    assert all(p.isfinite().all() for p in parameters)


@every_choice
def test_the_schedule_multiplies_the_rate(build, choice):
    """A rate is the recipe's times the schedule's factor; AdaFactor's relative step has none."""
    optimizer = build(choice, weights())
    optimizers.set_rate(optimizer, 0.25)
    expected = None if choice is RELATIVE else pytest.approx(RATE / 4, rel=1e-7)
    assert [group["lr"] for group in optimizer.param_groups] == [expected]


# ---- the published updates, in float64


def adamw(p, grads, rates, betas=(0.9, 0.999), eps=1e-8, decay=1e-2):
    """Algorithm 2 of arXiv:1711.05101, with the decay times the rate."""
    m = v = np.zeros_like(p)
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        p = p - rate * (m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps) + decay * p)
    return p


def lion(p, grads, rates, betas=(0.9, 0.99), decay=1e-2, cautious=False):
    """Algorithm 2 of arXiv:2302.06675; cautious: the mask of arXiv:2411.16085 with the scale n / (count + 1)."""
    m = np.zeros_like(p)
    for g, rate in zip(grads, rates, strict=True):
        update = np.sign(betas[0] * m + (1 - betas[0]) * g)
        if cautious:
            mask = update * g > 0
            update = update * mask * (mask.size / (mask.sum() + 1))
        p = p - rate * (update + decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


def rms(x):
    return math.sqrt((x**2).mean())


def factored(row, column):
    """The rank-1 second moment of arXiv:1804.04235, algorithm 4, from means in place of sums."""
    return np.outer(row, column) / row.mean()


def adafactor(p, grads, rates, relative=False, decay=1e-2, d=1.0):
    """Algorithms 4 and 5 of arXiv:1804.04235 with eps 1e-30 and 1e-3, beta2 of step t 1 - t^-0.8; `relative` with warm-up."""
    row = column = v = 0.0
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), start=1):
        beta, square = 1 - t**-0.8, g**2 + 1e-30
        if p.ndim == 2:
            row, column = (beta * old + (1 - beta) * square.mean(axis) for old, axis in ((row, 1), (column, 0)))
            v = factored(row, column)
        else:
            v = beta * v + (1 - beta) * square
        u = g / np.sqrt(v)
        u = u / max(1, rms(u) / d)
        step = max(1e-3, rms(p)) * (min(1e-6 * t, 1 / math.sqrt(t)) if relative else rate)
        p = p - step * (u + decay * p)
    return p


def came(p, grads, rates, betas=(0.9, 0.999, 0.9999), decay=1e-2, d=1.0):
    """Algorithm 2 of arXiv:2307.02047 with eps 1e-30 and 1e-16; a vector has no factors and no confidence."""
    m, (row, column, v, u_row, u_column) = np.zeros_like(p), [0.0] * 5
    for g, rate in zip(grads, rates, strict=True):
        square = g**2 + 1e-30
        if p.ndim == 2:
            row, column = (betas[1] * old + (1 - betas[1]) * square.mean(axis) for old, axis in ((row, 1), (column, 0)))
            v = factored(row, column)
        else:
            v = betas[1] * v + (1 - betas[1]) * square
        u = g / np.sqrt(v)
        u = u / max(1, rms(u) / d)
        m = betas[0] * m + (1 - betas[0]) * u
        update = m
        if p.ndim == 2:
            instability = (u - m) ** 2 + 1e-16
            u_row, u_column = (
                betas[2] * old + (1 - betas[2]) * instability.mean(axis) for old, axis in ((u_row, 1), (u_column, 0))
            )
            update = m / np.sqrt(factored(u_row, u_column))
        p = p - rate * (update + decay * p)
    return p


def expected(rule, count, **options):
    """Where `rule` takes the weights in so many steps, and where they began."""
    grads = [normal(SHAPES, seed=number + 1) for number in range(count)]
    rates = [RATE / (1 + number) for number in range(count)]
    before = [p.detach().double().numpy() for p in weights()]
    return [
        rule(p, [(g[i] * np.float32(1e-2)).astype(np.float64) for g in grads], rates, **options) for i, p in enumerate(before)
    ], before


RULES = {
    "AdamW": (adamw, {}),
    "Lion": (lion, {}),
    "CautiousLion": (lion, {"cautious": True}),
    "C-Lion": (lion, {"cautious": True, "betas": (0.95, 0.98)}),
    "AdaFactor": (adafactor, {}),
    "relative": (adafactor, {"relative": True}),
    "CAME": (came, {}),
    "AdamW8bit": (adamw, {}),
    "PagedAdamW8bit": (adamw, {}),
    "AdamW4bit": (adamw, {}),
    "Lion8bit": (lion, {}),
}
FEW_BITS = {"AdamW8bit": 0.01, "PagedAdamW8bit": 0.01, "Lion8bit": 0.01, "AdamW4bit": 0.15}  # of the mean update, in five steps


@every_choice
def test_the_published_update(build, choice):
    """Five steps follow the paper's rule; with few bits exactly where moments are whole, elsewhere within their error."""
    rule, options = RULES[named(choice)]
    parameters = weights()
    steps(build(choice, parameters), parameters, range(5))
    for p, wanted, before in zip(parameters, *expected(rule, 5, **options), strict=True):
        moved, ideal = p.detach().double().numpy() - before, wanted - before
        rounding = 5 * 2**-24 * np.abs(before).mean()  # what five steps in fp32 may lose; a relative step is not much more
        error = (np.abs(moved - ideal).mean() - rounding) / np.abs(ideal).mean()
        assert error < (FEW_BITS.get(choice["kind"], 1e-3) if p.ndim == 2 else 1e-3), error
        if p.ndim == 2 and choice["kind"] in FEW_BITS:
            assert error > 1e-4  # else the moments were whole


@pytest.mark.alone
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "AdamW4bit" else ()) for kind in FEW_BITS])
def test_moments_of_few_bits_are_the_nearest_codes(build, kind):
    """After one step every first moment is within half the code book's widest gap, times its block's largest, of (1 - beta) g."""
    parameters = weights()
    optimizer = build({"kind": kind}, parameters)
    steps(optimizer, parameters, range(1))
    state, found = optimizer.state[parameters[0]], optimizers.state_of(optimizer, parameters[0])
    if kind == "AdamW4bit":
        assert found.keys() == {"step", "exp_avg.codes", "exp_avg.scale", "exp_avg_sq.codes", "exp_avg_sq.scale"}
        book, scales, block = state["exp_avg"].qmap, found["exp_avg.scale"], 128
        codes = torch.stack([found["exp_avg.codes"] >> 4, found["exp_avg.codes"] & 15], dim=-1)
    else:
        book, scales, block, codes = state["qmap1"], found["absmax1"], 256, found["state1"]
    share = 1 - optimizer.param_groups[0]["betas"][1 if kind == "Lion8bit" else 0]
    ideal = (share * parameters[0].grad).reshape(-1, block)
    moments = book[codes.int()].reshape(-1, block) * scales[:, None]
    assert ((moments - ideal).abs() <= book.diff().max() / 2 * scales[:, None] * 1.001).all()


@pytest.mark.parametrize("kind", ["AdamW8bit", "PagedAdamW8bit", "Lion8bit"])
def test_bitsandbytes_to_the_bit(build, kind):
    """What we build is what a direct use of the library gives."""
    ours, theirs = weights(), weights()
    steps(build({"kind": kind, **DECAY}, ours), ours, range(3))
    library = getattr(deferred_imports.load("bitsandbytes").optim, kind.removeprefix("Paged"))(theirs, lr=RATE, weight_decay=1e-2)
    library.param_groups[0]["rate"] = RATE
    steps(library, theirs, range(3))
    assert [p.tolist() for p in ours] == [p.tolist() for p in theirs]


# ---- paging, small tensors, compiling


def test_paging_decides_no_bit(build, caplog):
    """On a CPU PagedAdamW8bit runs unpaged, says so, and gives the bits of AdamW8bit."""
    results = []
    with caplog.at_level(logging.INFO):
        for kind in ("AdamW8bit", "PagedAdamW8bit"):
            parameters = weights()
            optimizer = build({"kind": kind}, parameters)
            steps(optimizer, parameters, range(3))
            results.append(saved(optimizer, parameters))
    assert results[0] == results[1]
    assert "PagedAdamW8bit runs unpaged" in caplog.text


def test_small_tensors_keep_32_bits(build):
    """Of the miniature's UNet exactly the tensors from 4,096 elements on have 8-bit moments: the matrices and the kernels."""
    unet = Architecture.from_mapping(load(SMALL).scale.architectures["sdxl"], "sdxl").build("unet", "cpu")
    names, parameters = zip(*unet.named_parameters(), strict=True)
    optimizer = build({"kind": "AdamW8bit"}, parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = {name: optimizers.state_of(optimizer, p) for name, p in zip(names, parameters, strict=True)}
    eight = {name for name, state in states.items() if state["state1"].dtype == torch.uint8}
    assert eight == {name for name, p in unet.named_parameters() if p.numel() >= 4096}
    assert (len(eight), len(names)) == (72, 328)
    assert all("absmax1" not in states[name] and states[name]["state2"].dtype == torch.float32 for name in set(names) - eight)
    elements = sum(p.numel() for name, p in unet.named_parameters() if name in eight)
    assert elements > 0.85 * sum(p.numel() for p in unet.parameters())


def test_no_compiler_no_4_bits(build, monkeypatch, tmp_path):
    """Without a C++ compiler AdamW4bit is refused before anything runs; nothing else takes its place."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(PlacementError, match="AdamW4bit compiles .* expected g\\+\\+ on PATH, found none"):
        build({"kind": "AdamW4bit"}, weights())
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(PlacementError, match="expected no-such-compiler on PATH"):
        build({"kind": "AdamW4bit"}, weights())
    assert build({"kind": "AdamW8bit"}, weights())


@pytest.mark.slow
def test_the_compile_cache_decides_no_bit(build, tmp_path):
    """Another process that compiles AdamW4bit into a cache of its own gets the same weights and states."""
    shapes = ((64, 64),)
    parameters = weights(shapes)
    optimizer = build({"kind": "AdamW4bit"}, parameters)
    steps(optimizer, parameters, range(2))
    code = (
        "from astolfo import numerics; numerics.pin(); numerics.make_deterministic()\n"
        "import tests.train.test_optimizer as here\n"
        "from astolfo.train.optimizer import _adamw4bit\n"
        f"p = here.weights({shapes})\n"
        f"rows = [{{'params': p, 'lr': {RATE}, 'rate': {RATE}}}]\n"
        "o = _adamw4bit(rows, {'betas': (0.9, 0.999), 'eps': 1e-8, 'weight_decay': 1e-2})\n"
        f"here.steps(o, p, range(2)); open({str(tmp_path / 'out')!r}, 'wb').write(here.saved(o, p))\n"
    )
    cache = tmp_path / "cache"
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
    assert (tmp_path / "out").read_bytes() == saved(optimizer, parameters)
    assert list(cache.rglob("*.so"))


def test_hidden_libraries_look_absent(tmp_path):
    """What others would import only because it is installed is hidden until it is asked for, and then loads silently."""
    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao" / "__init__.py").write_text("import logging; logging.getLogger('torch.utils._pytree').warning('!')")
    code = (
        "import sys, importlib.util; from astolfo import deferred_imports; deferred_imports.defer()\n"
        "assert importlib.util.find_spec('torchao') is None and 'torch' not in sys.modules\n"
        "assert deferred_imports.load('torchao') is sys.modules['torchao']; import torchao\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
