"""Gradients of the logical ranks are summed in one fixed tree, whoever runs them."""

import pytest
import torch

from astolfo.errors import PlacementError
from astolfo.train import ranks
from astolfo.train.ranks import GradientTree, Processes
from tests.train.conftest import in_child


def leaves_of(count, dtype=torch.float32, size=100):
    """Gradients of ranks, of very different sizes, so that the order of their sum shows."""
    return [torch.rand(size, generator=torch.Generator().manual_seed(n)).mul(10.0**n).to(dtype) for n in range(count)]


def summed(leaves, host=False, passes=1):
    """What one process makes of its ranks' gradients, each of `passes` equal backward passes."""
    parameters = [torch.nn.Parameter(torch.zeros(n, dtype=leaves[0].dtype)) for n in (60, 40)]
    gradient_tree = GradientTree(parameters, Processes())
    gradient_tree.begin(len(leaves), host)
    for leaf in leaves:
        loss = sum((p * g).sum() for p, g in zip(parameters, leaf.split([60, 40]), strict=True))
        for _ in range(passes - 1):
            loss.backward(retain_graph=True)
        with gradient_tree.leaf():
            loss.backward()
    gradient_tree.reduce()
    return torch.cat([p.grad for p in parameters])


def test_the_tree_is_pairwise():
    """Eight leaves are summed as ((0+1)+(2+3))+((4+5)+(6+7)), to the bit; two as 0+1; one is itself."""
    leaves = leaves_of(8)
    a, b, c, d, e, f, g, h = leaves
    assert torch.equal(summed(leaves), ((a + b) + (c + d)) + ((e + f) + (g + h)))
    assert torch.equal(summed(leaves[:4]), (a + b) + (c + d))
    assert torch.equal(summed(leaves[:2]), a + b)
    assert torch.equal(summed(leaves[:1]), a)


def test_a_rank_sums_its_passes_first():
    """Several backward passes of a rank are one leaf: (0+0)+(1+1), not ((0+0)+1)+1."""
    a, b = leaves_of(2)
    assert torch.equal(summed([a, b], passes=3), (a + a + a) + (b + b + b))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_that_wait_in_the_host_are_the_same(count, dtype):
    """Partial sums kept on the host have the same bits."""
    leaves = leaves_of(count, dtype)
    assert torch.equal(summed(leaves), summed(leaves, host=True))


def test_what_a_pass_does_not_reach_counts_as_zero():
    """A parameter that takes no part in a rank's pass, and a rank without any pass, add nothing; nothing is left of the last step."""
    first, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    gradient_tree = GradientTree([first, second], Processes())
    for _ in range(2):
        gradient_tree.begin(4)
        with gradient_tree.leaf():
            (first * 2).sum().backward()
        with gradient_tree.leaf():
            pass
        (second * 5).sum().backward()  # a pass before the leaf's last, which is another parameter's
        with gradient_tree.leaf():
            (first * 3).sum().backward()
        with gradient_tree.leaf():
            (first * 4 + second).sum().backward()
        gradient_tree.reduce()
        assert first.grad.tolist() == [9.0] * 3
        assert second.grad.tolist() == [6.0] * 3


def test_few_gradients_live_at_once():
    """Of four ranks' gradients two sums live, and of a rank's own no more than has not been added yet."""
    parameters = [torch.nn.Parameter(torch.zeros(1000)) for _ in range(50)]
    gradient_tree = GradientTree(parameters, Processes())
    gradient_tree.begin(4)
    most = 0

    def watch(parameter):
        nonlocal most
        most = max(most, sum(p.grad is not None for p in parameters) + sum(map(len, gradient_tree._waiting)))

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(watch)
    for _ in range(4):
        with gradient_tree.leaf():
            sum((p * 2).sum() for p in parameters).backward()
    assert most <= len(parameters) + 1
    assert not any(gradient_tree._waiting)


@pytest.mark.parametrize("piece", [7, 1 << 24])
def test_four_processes_reduce_to_the_tree_of_one(monkeypatch, piece):
    """Pieces of any length, exchanged by four real processes, give each owner its stretch of the tree's sum, in place."""
    monkeypatch.setattr(ranks, "PIECE", piece)
    leaves = [torch.rand(512, generator=torch.Generator().manual_seed(n)).mul(10.0**n) for n in range(4)]
    expected = (leaves[0] + leaves[1]) + (leaves[2] + leaves[3])

    def work():
        processes = ranks.start(4)
        gradient_tree = GradientTree([torch.nn.Parameter(torch.zeros(n)) for n in (100, 10, 130, 70)], processes)
        gradient_tree.begin(1)
        block = gradient_tree._total.copy_(leaves[processes.index])
        mine = gradient_tree.reduce()
        low, high = gradient_tree._cuts[processes.index : processes.index + 2]
        assert torch.equal(mine, expected[low:high])
        assert high == low or mine.data_ptr() == block[low:].data_ptr()
        ranks.finish(processes)

    assert in_child(work) == 0


def test_blocks_are_subtrees():
    """A process runs a contiguous block of ranks, so that its own sum is a node of the tree."""
    assert [list(Processes(count=2, index=index).block(4)) for index in range(2)] == [[0, 1], [2, 3]]
    assert list(Processes().block(4)) == [0, 1, 2, 3]


def test_ranks_must_be_shared_out_evenly():
    """Three processes cannot run four ranks; the message says what can."""
    with pytest.raises(PlacementError, match="use a divisor of 4"):
        Processes(count=3).block(4)


def test_weights_and_sums_are_flat():
    """Parameters and the sums of their gradients are views of flat buffers that start on cache lines; values are untouched."""
    parameters = [torch.nn.Parameter(torch.full((n,), float(n))) for n in (3, 100, 1)]
    gradient_tree = GradientTree(parameters, Processes())
    assert [p.tolist() for p in parameters] == [[3.0] * 3, [100.0] * 100, [1.0]]
    gradient_tree.begin(1)
    with gradient_tree.leaf():
        sum((p * p).sum() for p in parameters).backward()
    whole = gradient_tree.reduce()
    assert [whole[start].item() for start in (0, 64, 192)] == [6.0, 200.0, 2.0]
    assert [p.grad.flatten()[0].item() for p in parameters] == [6.0, 200.0, 2.0]


def test_every_parameter_has_one_owner():
    """Owners hold contiguous stretches of whole parameters, together all of them."""

    def owned(index):
        parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (5000, 10, 3000, 4000, 70)]
        gradient_tree = GradientTree(parameters, Processes(count=2, index=index))
        return [next(i for i, p in enumerate(parameters) if p is q) for q in gradient_tree.owned()]

    assert owned(0) + owned(1) == [0, 1, 2, 3, 4]
    assert owned(0)
    assert owned(1)


def test_blocks_of_8_bits_belong_to_parameters(ledger):
    """Whoever owns a parameter, its moments in 8 bits have blocks of 256 that begin with it, and the same bits."""
    from astolfo.ledger import recipe_of
    from astolfo.ledger.schema import Optimizer
    from astolfo.train import optimizer

    recipe = recipe_of(ledger, ledger.run("plain")).model_copy(update={"optimizer": Optimizer(kind="AdamW8bit")})
    sizes = (5000, 4097, 300, 9999, 4096, 8191, 7000, 5001)

    def states(count):
        found = {}
        for index in range(count):
            parameters = [torch.nn.Parameter(torch.arange(n).remainder(97).float()) for n in sizes]
            gradient_tree = GradientTree(parameters, Processes(count=count, index=index))
            update = optimizer.build(recipe, [("unet", str(n), p) for n, p in zip(sizes, parameters, strict=True)
                                              if any(p is q for q in gradient_tree.owned())])  # fmt: skip
            for size, parameter in zip(sizes, parameters, strict=True):
                parameter.grad = torch.arange(size).remainder(89).sub(40).float()
            update.step()
            found |= {n: s for n, p in zip(sizes, parameters, strict=True) if (s := optimizer.state_of(update, p))}
        return found

    whole = states(1)
    for size in sizes:
        if size >= 4096:
            assert (whole[size]["state1"].dtype, whole[size]["absmax1"].numel()) == (torch.uint8, -(-size // 256))
    for count in (2, 4):
        shared = states(count)
        assert shared.keys() == whole.keys()
        for size in sizes:
            assert all(torch.equal(shared[size][name], value) for name, value in whole[size].items()), (count, size)
