"""What the graph needs for each job, asked without Snakemake, of a ledger of two runs."""

import json
import re
import subprocess
import sys

import pytest

from astolfo.errors import InputError
from astolfo.graph import VOCABULARY, Graph, one_of, with_side_cars
from astolfo.ledger import load, plan_of
from tests.conftest import ROOT

LEDGER = """\
bases:
  own: {}
  twin: {miniature: &merged {merge: {trained: first, base: own, alpha: "0.50"}}, full: *merged}
datasets: {pictures: {images: 64}}
runs:
  first: {base: own, dataset: pictures, epochs: 2, save_every: {epochs: 1}, learning_rate: {unet: 1.0e-5}, ranks: 4}
  second:
    base: twin
    dataset: pictures
    steps: 3
    learning_rate: {unet: 1.0e-5}
    placement: {ramdisk: true, numa: 1, loader_workers: 3, keep_states: 2, sample_every: 3, gradient_checkpointing: [mid_block]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "config"
    path.mkdir()
    (path / "ledger.yaml").write_text(LEDGER)
    return path


@pytest.fixture(scope="module")
def graph(folder):
    return Graph(load(folder), "0" * 64, folder)


@pytest.fixture(scope="module")
def full(folder):
    """A function that gives the graph at full scale, whose device is a card and whose results are kept."""
    return lambda **options: Graph(load(folder, "full"), "0" * 64, folder, **options)


def test_a_chain_hangs_together(graph):
    """The first segment starts from the base, the next from the state before it; the checkpoint takes the last."""
    first, last = (graph.segment_inputs("first", step) for step in steps(graph, "first"))
    shared = {"dataset": "datasets/pictures/store.json", "vocabulary": VOCABULARY, "base": "bases/own.safetensors"}
    middle, end = (f"states/first/{step}.safetensors" for step in steps(graph, "first"))
    assert first == shared | {"state": []}
    assert last == shared | {"state": middle}
    assert graph.checkpoint_inputs("first") == {"base": shared["base"], "state": end, "autoencoder": []}
    (era,) = graph.eras
    assert end in graph.losses_inputs(era)["states"]


def steps(graph, run):
    """The steps of a run's states, as file names have them."""
    return [f"{step:08d}" for step in plan_of(graph.ledger, graph.ledger.run(run)).boundaries[1:]]


def test_what_is_made_of_a_result(graph):
    """A merge takes the trained model and its base, a later run the merge, an evaluation the result and its base."""
    assert graph.merge_inputs("first", "0.50") == {"trained": "results/first.safetensors", "base": "bases/own.safetensors"}
    assert graph.base_merged_inputs("twin") == graph.merge_inputs("first", "0.50")
    assert graph.segment_inputs("second", steps(graph, "second")[0])["base"] == "bases/twin.safetensors"
    assert graph.evaluation_inputs("first") == {
        "trained": "results/first.safetensors",
        "vocabulary": VOCABULARY,
        "checkpoints": [],
        "base": "bases/own.safetensors",
    }
    assert graph.targets() == ["results/second.safetensors", "evaluations/second/index.html"]


def test_bases_and_datasets_by_what_makes_them(graph):
    """Each base and each dataset has exactly one way to come to be, so exactly one rule."""
    ways = {maker: graph.bases_by(maker) for maker in ("file", "made_by", "stand_in", "merge", "mecha")}
    assert sorted(name for names in ways.values() for name in names) == sorted(graph.ledger.bases)
    assert ways["merge"] == ["twin"]
    assert [graph.datasets_by(way) for way in ("drawn", "folder", "store", "parts")] == [["pictures"], [], [], []]


def test_an_input_has_its_side_car():
    """A file's time does not count and its side-car's content does, also of several files and of none."""
    found = with_side_cars({"base": "a", "models": ["b", "c"], "state": []}, lambda path: ("untimed", path))
    assert found == {
        "base": ("untimed", "a"), "base_digest": "a.sha256",
        "models": ("untimed", ["b", "c"]), "models_digest": ["b.sha256", "c.sha256"],
        "state": ("untimed", []), "state_digest": [],
    }  # fmt: skip


def test_what_the_ledger_does_not_know(graph):
    """A step without a state, a run, and an evaluation set are refused with the ledger's words."""
    with pytest.raises(ValueError, match=r"run first saves no state at step 1 at this scale; it does at \d+, \d+"):
        graph.segment_inputs("first", "00000001")
    with pytest.raises(ValueError, match="unknown run 'thrid'"):
        graph.checkpoint_inputs("thrid")
    with pytest.raises(ValueError, match="evaluation"):
        graph.evaluation_inputs("first-corse")


@pytest.mark.parametrize(
    ("cores", "cards", "here", "on_cards"), [(1, 1, 1, 1), (3, 1, 2, 1), (4, 2, 4, 2), (64, 64, 4, 4), (0, 0, 1, 1)]
)
def test_processes_share_the_ranks_evenly(graph, full, cores, cards, here, on_cards):
    """Four ranks are run by 1, 2 or 4 processes: as many as the cores are, or the cards where it trains on cards."""
    assert graph.processes("first", cores, cards) == here
    assert full().processes("first", cores, cards) == on_cards
    assert full(device="cpu").processes("first", cores, cards) == 1


def test_a_placement_is_said_in_options(graph):
    """What decides no bit goes to the job as options, steps in those of the scale; a run without a placement has only its end."""
    end = int(steps(graph, "second")[-1])
    assert graph.placement("second") == (
        f"--run-end {end} --ramdisk --numa 1 --loader-workers 3 --sample-every {end} --keep-states 2 --gradient-checkpointing mid_block "
        "--samples logs/samples/second"
    )
    assert graph.placement("first") == f"--run-end {int(steps(graph, 'first')[-1])}"


def test_a_line_survives_snakemakes_formatting(folder):
    """Braces in the ledger's path are doubled, as Snakemake formats shell lines; placeholders of the rule are not."""
    graph = Graph(load(folder), "0" * 64, folder.parent / "a {b} c")
    assert f"--config '{folder.parent}/a {{{{b}}}} c' --scale miniature job --tied" in graph.job("train {input}", device=True)
    assert graph.job("train {input}", device=True).endswith("train {input} --device cpu")


def test_a_spec_is_canonical_json(graph):
    """The only param of a rule is one string, which names all that decides the bytes."""
    text = graph.canonical(graph.segment("first", steps(graph, "first")[0]), "states/first/x")
    assert json.loads(text)["verb"] == "train"
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_what_cannot_be_asked_for(graph, full):
    """Another device, an unknown name to rebuild, and reasons that would restart what is kept are refused, saying what is expected."""
    with pytest.raises(InputError, match="device=tpu: expected cpu or cuda"):
        full(device="tpu")
    with pytest.raises(InputError, match="rebuild=first,thrid: thrid is no run, base or dataset"):
        full(rebuild=["first", "thrid"])
    with pytest.raises(InputError, match="expected the rerun triggers mtime and params, found code, params"):
        full().check_triggers(["params", "code"])
    full().check_triggers(["mtime", "params"])
    graph.check_triggers(["code", "input"])  # the miniature is made again, whatever the reason


def test_a_pattern_matches_just_the_names():
    """Names are taken literally, and no name matches nothing."""
    assert re.fullmatch(one_of(["a.b", "c"]), "a.b")
    assert not re.fullmatch(one_of(["a.b", "c"]), "axb")
    assert not re.fullmatch(one_of([]), "")


def test_it_needs_neither_torch_nor_snakemake():
    """A plan's Python imports nothing heavy, and can be asked without Snakemake."""
    code = "import sys, astolfo.graph; assert not {'torch', 'snakemake', 'PIL', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
