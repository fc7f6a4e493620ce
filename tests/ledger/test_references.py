"""A reference names a model by run, checkpoint and alpha, and is the file's name."""

import pytest
import yaml

from astolfo.errors import LedgerError
from astolfo.ledger import load, parse
from astolfo.ledger.references import FOLDERS, mistaken_for, problem_of
from tests.conftest import SMALL

BASES = ("my-base", "other-0.90", "base-step00000001")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("my-base", "bases/my-base.safetensors"),
        ("other-0.90", "bases/other-0.90.safetensors"),
        ("base-step00000001", "bases/base-step00000001.safetensors"),
        ("25112201", "results/25112201.safetensors"),
        ("my_run.2-b", "results/my_run.2-b.safetensors"),
        ("my-run-0.50", "results/my-run-0.50.safetensors"),
        ("my-run-step00011274", "results/my-run-step00011274.safetensors"),
        ("my-run-step00011274-0.75", "results/my-run-step00011274-0.75.safetensors"),
        ("my-run-epoch000008", "results/my-run-epoch000008.safetensors"),
    ],
)
def test_a_reference_is_its_files_name(text, path):
    """Parsing and printing a reference gives it back, and its path follows; what is a base is no merge or checkpoint."""
    assert str(parse(text, BASES)) == text
    assert parse(text, BASES).path == path


@pytest.mark.parametrize("text", ["plain-0.5", "plain-step11274", "plain-epoch8", "plain-", "plain-final"])
def test_a_malformed_reference_says_the_forms(text):
    """What begins like a run but is none of the forms is refused with the forms."""
    with pytest.raises(LedgerError, match="is no reference: expected RUN"):
        load(SMALL).known(text)


def test_alpha_is_a_weight():
    """An alpha above 1 is refused."""
    with pytest.raises(LedgerError, match="alpha must lie between"):
        parse("my-run-1.50")


@pytest.mark.parametrize("name", ["a", "0815", "my-first", "_x", "v1.2", "25112201", "a--b", "x-step1", "x-0.5"])
def test_a_free_name_is_taken(name):
    """Letters, digits, '_', '.' and '-' make a name, in any order that no checkpoint, merge or option has."""
    assert problem_of(name) is None
    assert mistaken_for(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"), ("my run", "has ' ' in it"), ("a/b", "has '/' in it"), ("Übung", "has 'Ü' in it"), ("-x", "begins with '-'"),
        (".x", "begins with '.'"), ("x.safetensors", "ends like the file"), ("a{b}", "has '{', '}' in it"),
    ],
)  # fmt: skip
def test_a_name_that_no_file_could_have_is_refused_in_words(name, problem):
    """What is wrong with a name is said of its letters, without a pattern."""
    assert problem in problem_of(name)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("section", ["runs", "datasets"])
def test_a_name_of_a_builds_own_folder_is_refused(section, name, tmp_path):
    """No run or dataset is named like a folder of artifacts: what lies in datasets/results/ would be attested as results/..."""
    dataset, run = (name, "first") if section == "datasets" else ("d", name)
    entry = {"base": "mine", "dataset": dataset, "epochs": 1, "learning_rate": {"unet": 1e-5}}
    ledger = {"bases": {"mine": {}}, "datasets": {dataset: {"images": 50}}, "runs": {run: entry}}
    (tmp_path / "ledger.yaml").write_text(yaml.safe_dump(ledger))
    with pytest.raises(LedgerError, match=rf"ledger.yaml:\d+: the name '{name}' of .* is that of a folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("x-0.50", "the merge of x at alpha 0.50"), ("x-1.50", "the merge of x at alpha 1.50"), ("x-step00000100", "a checkpoint of the run x"),
        ("x-epoch000002", "a checkpoint of the run x"), ("x-step00000100-0.50", "the merge of x-step00000100 at alpha 0.50"),
    ],
)  # fmt: skip
def test_a_run_cannot_be_named_like_a_model_of_another(name, other):
    """A run's name that reads as a checkpoint or a merge would have two meanings."""
    assert mistaken_for(name) == other
