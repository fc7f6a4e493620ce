"""Gradients of the logical ranks are summed in one fixed tree, whoever runs them."""

import pytest
import torch

from astolfo.errors import PlacementError
from astolfo.train import ranks
from astolfo.train.ranks import Flat, PairwiseSum, Processes
from tests.train.conftest import in_child


def test_the_tree_is_pairwise():
    """Eight leaves are summed as ((0+1)+(2+3))+((4+5)+(6+7)), to the bit."""
    leaves = [torch.rand(100, generator=torch.Generator().manual_seed(n)) * 10.0**n for n in range(8)]
    a, b, c, d, e, f, g, h = leaves
    expected = ((a + b) + (c + d)) + ((e + f) + (g + h))
    tree = PairwiseSum()
    for leaf in leaves:
        tree.add(leaf.clone())
    assert torch.equal(tree.total(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_that_wait_in_the_host_are_the_same(monkeypatch, dtype):
    """Partial sums kept on the host and added piece by piece have the same bits; the whole sum is where the leaves are."""
    monkeypatch.setattr(ranks, "PIECE", 32)
    leaves = [torch.rand(100, generator=torch.Generator().manual_seed(n)).mul(10.0**n).to(dtype) for n in range(8)]
    trees = PairwiseSum(), PairwiseSum(host_below=8)
    for leaf in leaves:
        for tree in trees:
            tree.add(leaf.clone())
    assert torch.equal(trees[0].total(), trees[1].total())


@pytest.mark.parametrize("piece", [7, 1 << 24])
def test_four_processes_reduce_to_the_tree_of_one(monkeypatch, piece):
    """Pieces of any length, exchanged by four real processes, give each owner its stretch of the tree's sum, in place."""
    monkeypatch.setattr(ranks, "PIECE", piece)
    leaves = [torch.rand(512, generator=torch.Generator().manual_seed(n)).mul(10.0**n) for n in range(4)]
    expected = (leaves[0] + leaves[1]) + (leaves[2] + leaves[3])

    def work():
        processes = ranks.start(4)
        flat = Flat([torch.nn.Parameter(torch.zeros(n)) for n in (100, 10, 130, 70)], processes)
        block = leaves[processes.index].clone()
        mine = flat.reduce(block)
        low, high = flat._cuts[processes.index : processes.index + 2]
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


def test_gradients_accumulate_in_one_buffer():
    """Parameters and gradients are views of flat buffers that start on cache lines; values are untouched."""
    parameters = [torch.nn.Parameter(torch.full((n,), float(n))) for n in (3, 100, 1)]
    flat = Flat(parameters, Processes())
    assert [p.tolist() for p in parameters] == [[3.0] * 3, [100.0] * 100, [1.0]]
    buffer = flat.fresh_gradients()
    sum((p * p).sum() for p in parameters).backward()
    assert [buffer[start].item() for start in (0, 64, 192)] == [6.0, 200.0, 2.0]
    flat.reduce(buffer)
    assert [p.grad.flatten()[0].item() for p in parameters] == [6.0, 200.0, 2.0]


def test_every_parameter_has_one_owner():
    """Owners hold contiguous stretches of whole parameters, together all of them."""

    def owned(index):
        parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (5000, 10, 3000, 4000, 70)]
        flat = Flat(parameters, Processes(count=2, index=index))
        return [next(i for i, p in enumerate(parameters) if p is q) for q in flat.owned()]

    assert owned(0) + owned(1) == [0, 1, 2, 3, 4]
    assert owned(0)
    assert owned(1)


def test_blocks_of_8_bits_belong_to_parameters(ledger):
    """Whoever owns a parameter, its moments in 8 bits have blocks of 256 that begin with it, and the same bits."""
    from astolfo.ledger import recipe_of
    from astolfo.ledger.schema import Optimizer
    from astolfo.train import optimizer

    recipe = recipe_of(ledger, ledger.run("25112201")).model_copy(update={"optimizer": Optimizer(kind="AdamW8bit")})
    sizes = (5000, 4097, 300, 9999, 4096, 8191, 7000, 5001)

    def states(count):
        found = {}
        for index in range(count):
            parameters = [torch.nn.Parameter(torch.arange(n).remainder(97).float()) for n in sizes]
            flat = Flat(parameters, Processes(count=count, index=index))
            update = optimizer.build(recipe, [("unet", str(n), p) for n, p in zip(sizes, parameters, strict=True)
                                              if any(p is q for q in flat.owned())])  # fmt: skip
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
