"""A ledger of one's own: the least that works, names, defaults, and each mistake said in a line."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from astolfo import library, program
from astolfo.cli import cli
from astolfo.errors import InputError, LedgerError
from astolfo.ledger import load, recipe_of
from astolfo.ledger.defaults import DEFAULTS
from astolfo.ledger.specs import Specs
from astolfo.ledger.table import markdown, text
from tests.conftest import CONFIG, ROOT, SMALL

LEAST = """\
bases: {my-base: {objective: v}}
datasets: {my-pictures: {images: 100}}
runs:
  my-first: {base: my-base, dataset: my-pictures, epochs: 2, learning_rate: {unet: 1.0e-5}}
"""


@pytest.fixture
def ledger(tmp_path):
    """A function that writes files of a ledger and loads it."""

    def write(scale="miniature", folder="config", **files):
        for name, said in (files or {"ledger": LEAST}).items():
            path = tmp_path / folder / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(said)
        return load(tmp_path / folder, scale)

    return write


def run_of(**keys):
    """An era's file with one run."""
    said = {"base": "my-base", "dataset": "my-pictures", "epochs": "2", "learning_rate": "{unet: 1.0e-5}"} | keys
    return "runs:\n  my-first:\n" + "".join(f"    {key}: {value}\n" for key, value in said.items() if value is not None)


THREE = {"bases": "my-base: {objective: v}\n", "datasets": "my-pictures: {images: 100}\n", "runs__first": run_of()}


def test_the_least_that_works_is_one_base_one_dataset_one_run(ledger):
    """One file of four lines is a whole ledger at both scales, and three files say the same."""
    for scale in ("miniature", "full"):
        one, three = ledger(scale), ledger(scale, folder="three", **THREE)
        assert recipe_of(one, one.run("my-first")).digest == recipe_of(three, three.run("my-first")).digest
        assert Specs(one, "lock").evaluation("my-first")["run"] == "my-first"


def test_what_a_run_leaves_out_has_a_default(ledger):
    """Every key that neither a run nor its era says is that of the defaults; the objective is the base's."""
    fields = ledger().run("my-first").fields
    assert fields.objective.kind == "v"
    assert all(getattr(fields, name) == getattr(DEFAULTS, name) for name in DEFAULTS.model_fields_set)


def test_the_defaults_stand_in_one_table():
    """config/README.md names each default with its value."""
    table = (CONFIG / "README.md").read_text().partition("## Defaults")[2].partition("\n## ")[0]
    for name in DEFAULTS.model_fields_set:
        assert f"| `{name}` |" in table


def test_a_run_goes_on_with_the_objective_of_the_run_before(ledger):
    """A run that starts from another run has that one's objective, unless it says its own."""
    later = run_of() + "  my-second: {base: my-first, dataset: my-pictures, steps: 9, learning_rate: {unet: 1.0e-5}}\n"
    assert ledger(**THREE | {"runs__first": later}).run("my-second").objective.kind == "v"


def test_an_entry_is_laid_over_the_librarys(ledger):
    """A ledger's entry changes the keys that it says of the library's entry of that name, and no other."""
    own = ledger(**THREE, evaluations="default: {seed: 7}\n", scales="miniature: {learning_rate_multiplier: 3}\n")
    shipped = ledger(folder="plain", **THREE)
    assert (own.evaluations["default"].seed, own.scale.learning_rate_multiplier) == (7, 3)
    assert own.evaluations["default"].grids == shipped.evaluations["default"].grids
    assert own.scale.architectures == shipped.scale.architectures


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"runs__first": run_of(epochs=None)}, r"first.yaml:\d+: run my-first needs either epochs or steps"),
        ({"runs__first": run_of(dataset=None)}, r"first.yaml:\d+: run my-first has no dataset"),
        ({"runs__first": run_of(learning_rate=None)}, r"first.yaml:\d+: run my-first has no learning_rate"),
        ({"runs__first": run_of(dataset="my-picture")}, r"first.yaml:\d+: unknown dataset 'my-picture'. Did you mean my-pictures"),
        ({"runs__first": run_of(ema="0.99")}, r"first.yaml:\d+: unknown key 'ema'. (?!Did you mean era)"),
        ({"runs__first": run_of(resume="x")}, r"unknown key 'resume'. (?!Did you mean runtime)"),
        ({"runs__first": run_of(learning_rate="{unett: 1.0e-5}")}, r"unknown key 'unett'. Did you mean unet"),
        ({"runs__first": run_of().replace("my-first", "my first")}, r"first.yaml:\d+: the name 'my first' of a run has ' ' in it"),
        ({"runs__first": run_of().replace("my-first", "x-0.50")}, r"first.yaml:\d+: a run named 'x-0.50' would be mistaken for the merge"),
        ({"runs__first": run_of().replace("my-first", "my-base")}, r"'my-base' is a base already"),
        ({"bases": "my-base: {}\nmy-first-0.50: {}\n"}, r"bases.yaml:2: 'my-first-0.50' would be mistaken for a model of the run my-first"),
        ({"bases": "a/b: {}\nmy-base: {}\n"}, r"bases.yaml:1: the name 'a/b' of bases has '/' in it"),
        ({"datasets": "my-pictures: {images: 9, autoencoder: sdxl_vae}\n"}, r"datasets.yaml:1: unknown autoencoder 'sdxl_vae'. Did you mean sdxl-vae"),
        ({"datasets": "my-pictures: {image: 9}\n"}, r"datasets.yaml:1: unknown key 'image'. Did you mean images"),
        ({"ledger": "datasets: {my-pictures: {images: 9}}\n"}, r"'my-pictures' of datasets stands in .*datasets.yaml:1 already"),
        ({"ledger": "target: [my-first]\n"}, r"ledger.yaml:1: unknown key 'target'. Did you mean targets"),
        ({"ledger": "targets: [my-frst]\n"}, r"ledger.yaml:1: targets: unknown run or base 'my-frst'. Did you mean my-first"),
        ({"ledger": "- a\n"}, r"ledger.yaml:1: expected keys and values"),
        ({"bases": "my-base: sdxl\n"}, r"bases.yaml:1: my-base: expected keys such as .*; found 'sdxl'"),
        ({"datasets": "my-pictures: {images: 0}\n"}, r"datasets.yaml:1: images: expected a number above 0, found 0\."),
        ({"datasets": "my-pictures: {images: -5}\n"}, r"datasets.yaml:1: images: expected a number above 0, found -5\."),
        ({"datasets": "my-pictures: {}\n"}, r"datasets.yaml:1: my-pictures: give one of images"),
        ({"runs__first": run_of(learning_rate="1e-5")}, r"learning_rate: expected keys such as {unet: 1.0e-5}; found 1e-5\."),
        ({"runs__first": run_of(learning_rate="{unet: -1e-5}")}, r"learning_rate.unet: expected a number of at least 0, found -1e-5\."),
        ({"runs__first": run_of(optimizer="adamw8bit")}, r"found 'adamw8bit'\. Did you mean AdamW8bit\?"),
        ({"runs__first": run_of(optimizer="AdamW8bits")}, r"found 'AdamW8bits'\. Did you mean AdamW8bit or "),
        ({"runs__first": run_of(schedule="cosine_with_restarts")}, r"Did you mean cosine-with-restarts\?"),
        ({"runs__first": run_of(epochs="yes")}, r"first.yaml:\d+: runs.my-first.epochs: expected a number; yes, on and true are none"),
        ({"runs__first": run_of(Epochs="3")}, r"unknown key 'Epochs'. Did you mean epochs\?"),
        ({"runs__first": run_of(dataset="My_Pictures")}, r"unknown dataset 'My_Pictures'. Did you mean my-pictures\?"),
        ({"dataset": "more: {images: 9}\n"}, r"dataset.yaml: a ledger has no file of this name, .* Did you mean datasets.yaml\?"),
        ({"run__second": run_of()}, r"config/run: a ledger has no folder run\. Did you mean runs\?"),
    ],
)  # fmt: skip
def test_each_mistake_is_said_with_its_file_and_line(ledger, files, message):
    """What is wrong in a ledger of one's own is said in a sentence, with near names and the keys of that place."""
    with pytest.raises(LedgerError, match=message):
        ledger(**THREE | files)


@pytest.mark.parametrize("alpha", ["0.60", '"0.60"', "0.6", ".6"])
def test_an_alpha_may_be_a_number(ledger, alpha):
    """A merge's alpha is the same however it is written."""
    bases = f"my-base: {{}}\nother: {{}}\nmixed: {{miniature: {{merge: {{base: my-base, trained: other, alpha: {alpha}}}}}}}\n"
    assert ledger(**THREE | {"bases": bases}).bases["mixed"].miniature.merge.alpha == "0.60"


@pytest.mark.parametrize("name", ["0815", "1.0", "on", "1e5", "25112201"])
def test_a_name_may_look_like_a_number(ledger, name):
    """Names of bases, datasets and runs need no quotes."""
    found = ledger(
        bases=f"{name}: {{objective: eps}}\n", datasets=f"{name}: {{images: 50}}\n",
        runs__first=run_of(base=name, dataset=name).replace("my-first", f"r{name}"),
    )  # fmt: skip
    assert found.run(f"r{name}").fields.base == name


def test_what_is_built_without_a_target_is_the_newest_run(ledger):
    """A ledger that names no targets has its last run built, and what supports others does not count."""
    files = THREE | {"runs__z": "support: true\n" + run_of().replace("my-first", "helper")}
    assert ledger(**files).newest().id == "my-first"


def test_tables_of_a_small_ledger_have_no_gaps(ledger):
    """What an era does not set is not said: no BSNone, no GA None, and none of the record's words."""
    found = ledger()
    for said in (text(found), markdown(found)):
        assert "None" not in said
        assert "record" not in said.lower()


def test_an_empty_ledger_is_shown_without_a_traceback(tmp_path, monkeypatch):
    """A ledger without runs has an empty site, and an era of it is refused in words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config" / "runs").mkdir(parents=True)
    assert CliRunner().invoke(cli, ["site"], catch_exceptions=False).exit_code == 0
    with pytest.raises(InputError, match="Unknown era 'x': the ledger has no runs yet"):
        CliRunner().invoke(cli, ["losses", "x"], catch_exceptions=False)
    with pytest.raises(LedgerError, match="There is none yet"):
        CliRunner().invoke(cli, ["ledger", "show", "x"], catch_exceptions=False)
    for verb in ("list", "table"):
        assert "no runs" in CliRunner().invoke(cli, ["ledger", verb], catch_exceptions=False).output


def test_a_list_of_keys_is_where_it_is_said_to_be(ledger):
    """The page that an unknown key is explained by is the program's, not one below a ledger that has none."""
    with pytest.raises(LedgerError) as refused:
        ledger(**THREE | {"runs__first": run_of(ema="0.99")})
    page = Path(re.search(r"(\S+README\.md) lists the keys", str(refused.value))[1])
    assert "## Keys of a run" in page.read_text()


@pytest.mark.parametrize(
    ("base", "place"), [("{miniature: {file: gone.safetensors}}", "config/stand-ins"), ("{}", str(library.STAND_INS))]
)
def test_a_model_of_the_miniature_is_sought_where_it_belongs(ledger, tmp_path, base, place):
    """A file that a ledger's own entry names, and that is nowhere, is missing in the ledger's folder, not in the program's."""
    found = ledger(**THREE | {"bases": f"my-base: {base}\n"})
    assert found.pinned_folder("my-base") == tmp_path / place


def test_zero_and_false_are_shown(ledger, tmp_path):
    """`ledger show` shows values that are 0 or false, and says which are defaults."""
    said = run_of(objective="{kind: v, zero_terminal_snr: false}", max_grad_norm="0")
    ledger(**THREE | {"runs__first": said})
    shown = CliRunner().invoke(cli, ["--config", str(tmp_path / "config"), "ledger", "show", "my-first"]).output
    assert "zero_terminal_snr False" in shown
    assert "text_encoder 0.0" in shown
    assert any(line.split() == ["unet", "100", "(default)"] for line in shown.splitlines())


def test_a_directory_remembers_its_ledger_and_scale(ledger, tmp_path):
    """What a directory was first used with is used again without being named, and another is refused."""
    ledger()
    own = program.Use(config=tmp_path / "config", scale="full")
    work = tmp_path / "work"
    work.mkdir()
    program.remember(work, own)
    found = program.in_use(work)
    assert (found.config.resolve(), found.scale) == (own.config, "full")
    with pytest.raises(InputError, match="holds the ledger .*config, but .* was asked for"):
        program.in_use(work, SMALL)
    with pytest.raises(InputError, match="holds the scale 'full', but the scale 'miniature' was asked for"):
        program.in_use(work, None, "miniature")
    with pytest.raises(InputError, match="holds the ledger"):
        CliRunner().invoke(cli, ["--config", str(SMALL), "site", "-d", str(work)], catch_exceptions=False)


def test_hints_carry_the_ledger_and_the_scale(ledger, tmp_path):
    """A command in a hint names what is in use, so that it works where it is typed."""
    ledger()
    try:
        program.set_use(program.Use(config=tmp_path / "config", scale="full"))
        assert (
            program.command("pin", "my-base", "FILE") == f"astolfo --config {tmp_path / 'config'} --scale full pin my-base FILE"
        )
        assert f"LEDGER={tmp_path / 'config'}" in program.build_command("results/x.safetensors", directory=tmp_path)
        program.set_use(program.Use(config=CONFIG, scale="miniature"))
        assert program.build_command("ledger", directory=ROOT) == f"make -C {ROOT} ledger DIR={ROOT}"
    finally:
        program.set_use(program.Use(config=CONFIG, scale="miniature"))


def test_no_name_of_the_record_is_in_the_program():
    """Code, workflow, Makefile, profiles and site speak of no run or base of the record."""
    names = [*load(CONFIG).runs, *(name for name in load(CONFIG).bases if name.startswith("A"))]
    files = [*(ROOT / "astolfo").rglob("*.py"), *(ROOT / "astolfo").rglob("*.html"), *(ROOT / "astolfo").rglob("*.js"), *(ROOT / "astolfo").rglob("*.md"),
             *(path for path in (ROOT / "workflow").rglob("*") if path.is_file()), ROOT / "Makefile"]  # fmt: skip
    assert [(str(path), name) for path in files for name in names if name in path.read_text()] == []


@pytest.mark.parametrize("name", ["runs/second.yml", "datasets.yml", "Bases.yaml", "evaluations/mine.YAML"])
def test_a_file_that_nothing_would_read_is_refused(ledger, tmp_path, name):
    """An ending or a spelling that is nearly right is an error; other files may lie there."""
    ledger(**THREE)
    (tmp_path / "config" / "config.yaml").write_text("scale: full\n")
    (tmp_path / "config" / "notes.yml").write_text("a: b\n")
    load(tmp_path / "config")
    path = tmp_path / "config" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}\n")
    with pytest.raises(LedgerError, match=rf"{name}: (expected a name that ends in \.yaml|a ledger has no file of this name)"):
        load(tmp_path / "config")


def test_what_a_working_directory_remembers_is_text(tmp_path):
    """A scale in another encoding is an error that names the file."""
    (tmp_path / ".astolfo").mkdir()
    (tmp_path / ".astolfo" / "scale").write_bytes(b"minia\xe9ture")
    with pytest.raises(InputError, match="scale: expected text in UTF-8, found byte 0xe9 at line 1"):
        program.in_use(tmp_path)
