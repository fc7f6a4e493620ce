"""What is typed at merge, adopt and inspect may lose no file of its user's, and ends with a word, not with a traceback."""

import shutil

import pytest
from click.testing import CliRunner

from astolfo import cli as program
from astolfo.cli import cli
from astolfo.errors import AstolfoError, LedgerError
from astolfo.files import sidecar
from astolfo.ledger.ledger import INPUTS, PINS, read_pins
from tests.conftest import SMALL, STAND_INS


@pytest.fixture
def models(tmp_path):
    """Two whole models of the miniature, with nothing beside them."""
    found = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path, source in zip(found, ("sdxl-eps", "sdxl-v"), strict=True):
        shutil.copyfile(STAND_INS / f"{source}.safetensors", path)
    return found


def typed(*words):
    """What the command says; raises what ended it."""
    done = CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


def test_each_alpha_has_its_output(models, tmp_path):
    """An alpha that is given twice is an error: the first of the two outputs would not be written."""
    with pytest.raises(AstolfoError, match="each --alpha once, found 0.5 more than once"):
        typed("merge", *models, "--alpha", 0.5, "--alpha", 0.5, "-o", tmp_path / "1", "-o", tmp_path / "2")
    assert not (tmp_path / "2").exists()


def test_a_list_of_sums_is_not_written_over(models, tmp_path):
    """A .sha256 of other files stays; that of a merge which was moved away is written anew."""
    out = tmp_path / "out.safetensors"
    sidecar(out).write_text("0" * 64 + "  another.safetensors\n")
    with pytest.raises(AstolfoError, match="out.safetensors.sha256 is there already, and is of another file"):
        typed("merge", *models, "--alpha", 0.5, "-o", out)
    sidecar(out).unlink()
    typed("merge", *models, "--alpha", 0.5, "-o", out)
    before = sidecar(out).read_text()
    out.unlink()
    typed("merge", *models, "--alpha", 0.5, "-o", out)
    assert sidecar(out).read_text() == before


def test_a_file_in_inputs_is_not_replaced(models, tmp_path):
    """adopt links a file to inputs/, and never in the place of one that its user put there; that one can be adopted itself."""
    own = tmp_path / INPUTS / "plain.safetensors"
    own.parent.mkdir()
    plain = models[0].read_bytes().replace(b"astolfo.scale", b"another.scale")
    own.write_bytes(plain)
    models[0].write_bytes(plain[:-1] + b"\0")
    with pytest.raises(AstolfoError, match="is there already, and is no link"):
        typed("--config", SMALL, "adopt", "plain", models[0], "-d", tmp_path)
    assert (own.read_bytes(), own.is_symlink(), read_pins(tmp_path)) == (plain, False, {})
    assert "is adopted" in typed("--config", SMALL, "adopt", "plain", own, "-d", tmp_path)
    assert (own.read_bytes(), own.is_symlink()) == (plain, False)


@pytest.mark.parametrize("text", [b"{[", b"\xff\xfe", b"- a\n- b\n", b"a: {"])
def test_pins_that_are_none(tmp_path, text):
    """A pins.yaml that somebody spoilt is named with what it should hold, or with its encoding."""
    (tmp_path / PINS).write_bytes(text)
    with pytest.raises(LedgerError, match="pins.yaml.*([Ee]xpected lines of NAME: SHA256|expected text in UTF-8)"):
        read_pins(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "loop", "binary", "empty"])
def test_a_side_car_of_any_kind(models, kind):
    """What lies beside a model under a side-car's name is no model's end: inspect says what it says without one."""
    beside = sidecar(models[0])
    {"folder": beside.mkdir, "loop": lambda: beside.symlink_to(beside), "binary": lambda: beside.write_bytes(b"\xff" * 99),
     "empty": beside.touch}[kind]()  # fmt: skip
    assert "sha256: not computed" in typed("inspect", models[0])


def test_what_the_system_refuses_is_said_in_a_line(models, tmp_path, monkeypatch, caplog):
    """A path that no system takes, or a folder below a file, ends with the path and the system's word, without a traceback."""
    for out in (tmp_path / ("x" * 300), models[0] / "x"):
        words = ["astolfo", "merge", str(models[0]), str(models[1]), "--alpha", "0.5", "-o", str(out)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as ended:
            program.main()
        assert ended.value.code == 1
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2
    assert "cannot be used: File name too long" in said[0]
