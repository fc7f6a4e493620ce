"""Merges by sd-mecha, with the record's recipes: the method's own values, in a file that depends on nothing but the models and the recipe."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.model import save
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.cli import cli
from astolfo.errors import CheckpointError, LedgerError, NumericsError
from astolfo.files import read_sidecar, sha256_of
from astolfo.ledger import load
from astolfo.merging.mecha import merge_mecha, normalised
from astolfo.train.initialise import initialise
from tests.conftest import CONFIG, ROOT, SMALL, STAND_INS

RECIPES = CONFIG / "mecha"
MODEL = STAND_INS / "sdxl-eps.safetensors"
UNET, TE2 = "model.diffusion_model.input_blocks.4.0.w", "conditioner.embedders.1.model.transformer.resblocks.0.w"
IDS = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"
MENDED = f"b: 0 to 76 is written for {IDS}, which holds no such numbers in int64"
WHOLE = (("215c", "ab"), ("255b", "abc"), ("255c", "abc"))
SUM = 'version 0.1.0\nmodel "a"\nmodel "b"\nmerge "weighted_sum" &0 &1 alpha=0.3\n'


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three miniature models, each the pinned one with noise of its own."""
    folder = tmp_path_factory.mktemp("models")
    with open_file(MODEL) as file:
        for seed, name in enumerate("abc"):
            random = np.random.default_rng(seed)
            noisy = {key: (file.array(key) + 0.01 * random.standard_normal(file.shape(key))).astype("f2") for key in file}
            write_file(folder / name, noisy, file.metadata)
    return {name: folder / name for name in "abc"}


@pytest.fixture(scope="module")
def merged(models, tmp_path_factory):
    """A function that gives the merge of a recipe over some of the models, made once; it is never written."""
    folder, results = tmp_path_factory.mktemp("merged"), {}

    def merge(recipe, names):
        if recipe not in results:
            given = {name: models[name] for name in names}
            results[recipe] = merge_mecha(RECIPES / f"{recipe}.mecha", given, folder / recipe)
        return folder / recipe, results[recipe]

    return merge


@pytest.fixture
def toys(tmp_path):
    """Two toy models under keys that sd-mecha has never seen, and a recipe that sums them."""
    for seed, name in enumerate("ab"):
        random = np.random.default_rng(seed)
        tensors = {key: random.standard_normal((7, 5)).astype("f2") for key in (UNET, TE2)}
        about = {"modelspec.title": name, "modelspec.date": "2026", "modelspec.hash_sha256": "0x0", "ss_seed": "1"}
        write_file(tmp_path / name, tensors | {IDS: np.arange(77)[None] + seed}, about)
    (tmp_path / "sum.mecha").write_text(SUM)
    return tmp_path / "sum.mecha", {name: tmp_path / name for name in "ab"}


def change(path, **tensors):
    """Replaces tensors of a file, or adds some; None removes one."""
    with open_file(path) as file:
        kept = {key: np.array(file.array(key)) for key in file} | tensors
        write_file(path, {key: value for key, value in kept.items() if value is not None}, file.metadata)


def amplified(a, b):
    """a, half way to b + 2 (a - b)."""
    return torch.lerp(a, a + (a - b), 0.5)


def mean(a, b, c):
    """The mean as sd-mecha takes it: model by model."""
    return torch.lerp(torch.lerp(a, b, 1 / 2), c, 1 / 3)


def median(*models):
    """Weiszfeld's iteration for the point with the smallest sum of distances."""
    point = sum(models) / len(models)
    before, weights = sum(torch.dist(model, point) for model in models), torch.ones(len(models))
    for _ in range(100):
        weights = 1 / torch.stack([torch.dist(model, point) for model in models]).clamp(min=1e-6)
        point = sum(model * weight for model, weight in zip(models, weights, strict=True)) / sum(weights)
        now = sum(torch.dist(model, point) for model in models)
        if abs(before - now) <= 1e-6 * now:
            break
        before = now
    return point


@pytest.mark.parametrize(("recipe", "names", "formula"), [(*WHOLE[0], amplified), (*WHOLE[1], mean), (*WHOLE[2], median)])
def test_the_ledgers_recipes_do_what_their_formulas_say(merged, models, recipe, names, formula):
    """Each recipe, on whole miniature models: every tensor is the formula's in fp32, rounded once; nothing is only copied."""
    path, result = merged(recipe, names)
    assert (result.copied, result.dropped, result.clamped) == ({}, [], {})
    files = [open_file(models[name]) for name in names]
    with open_file(path) as file:
        assert file.keys() == files[0].keys()
        for key in file:
            wanted = formula(*(source.tensor(key).float() for source in files))
            # the median's stopping point moves by a rounding; the others are exact
            exact = torch.equal(file.tensor(key), wanted.half())
            assert exact or (recipe == "255c" and torch.allclose(file.tensor(key).float(), wanted, rtol=2e-3, atol=2e-4)), key


def test_two_builds_are_the_same_file_wherever_and_whatever_the_inputs_are_called(tmp_path, models, merged):
    """Another process, directory, file names, hash seed and number of cores: the same bytes, and no path among them."""
    for name, path in models.items():
        (tmp_path / f"other-{name}.safetensors").symlink_to(path)
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from astolfo import numerics; numerics.pin()\n"
        "from astolfo.merging.mecha import merge_mecha\n"
        f"for recipe, names in {WHOLE}:\n"
        "    given = {name: f'../other-{name}.safetensors' for name in names}\n"
        f"    merge_mecha(f'{RECIPES}/{{recipe}}.mecha', given, recipe)"
    )
    (tmp_path / "there").mkdir()
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "there", env=environment, check=True)
    for recipe, names in WHOLE:
        path, _ = merged(recipe, names)
        assert sha256_of(path) == sha256_of(tmp_path / "there" / recipe) == read_sidecar(path)
        assert all(str(folder).encode() not in path.read_bytes() for folder in (tmp_path.parent, path.parent))


def test_the_file_is_that_of_our_writer(tmp_path, toys):
    """Order, alignment and header are ours; dtypes and integers are the first model's, also where others made floats of them."""
    change(toys[1]["b"], **{IDS: np.arange(77, dtype="f2")[None]})
    result = merge_mecha(*toys, tmp_path / "x")
    with open_file(toys[1]["a"]) as a, open_file(toys[1]["b"]) as b, open_file(tmp_path / "x") as file:
        sums = {key: torch.lerp(a.tensor(key).float(), b.tensor(key).float(), 0.3).half() for key in (UNET, TE2)}
        assert write_file(tmp_path / "y", sums | {IDS: a.array(IDS)}, file.metadata) == result.digest == sha256_of(tmp_path / "x")
    assert result.copied == {IDS: "a"}
    assert f"copied from a: {IDS}" in str(result)


def test_metadata_names_recipe_and_parents_and_forgets_what_no_longer_holds(tmp_path, toys):
    """The first model's metadata less hash and date; version, recipe and models by digest; a comment changes no byte."""
    digest = merge_mecha(*toys, tmp_path / "x", metadata={"astolfo.scale": "miniature"}).digest
    found = open_file(tmp_path / "x").metadata
    parents = {name: sha256_of(path) for name, path in toys[1].items()}
    merge = json.loads(found["astolfo.merge"])
    recipe = hashlib.sha256(SUM.strip().encode()).hexdigest()
    assert merge == {"method": "sd-mecha", "version": "1.1.8", "recipe": recipe, "models": parents}
    assert json.loads(found["astolfo.parents"]) == parents
    assert (found["modelspec.title"], found["astolfo.scale"]) == ("a", "miniature")
    assert not {"modelspec.date", "modelspec.hash_sha256", "ss_seed"} & set(found)
    toys[0].write_text("# why\n\n" + SUM.replace("merge", "  merge"))
    assert merge_mecha(*toys, tmp_path / "y", metadata={"astolfo.scale": "miniature"}).digest == digest


def test_lonely_keys_and_markers_follow_their_rule(tmp_path, toys):
    """Markers are the first model's; any other key that one model lacks is copied from the first that has it, and listed."""
    empty, odd = np.empty(0, "f4"), "model.diffusion_model.odd"
    change(toys[1]["a"], v_pred=empty)
    change(toys[1]["b"], ztsnr=empty, **{odd: np.ones(3, "f2")})
    result = merge_mecha(*toys, tmp_path / "x")
    assert (result.copied[odd], result.dropped) == ("b", ["ztsnr"])
    with open_file(tmp_path / "x") as file:
        assert "v_pred" in file
        assert "ztsnr" not in file
        assert file.array(odd).tolist() == [1, 1, 1]


def test_what_the_recipe_leaves_out_is_the_first_models(tmp_path, models):
    """A recipe for some parts only yields a whole model; sd-mecha's own zeros for missing layers do not get in."""
    text = 'version 0.1.0\nmodel "a"\nmodel "b"\nmerge "weighted_sum" &0 &1 alpha=1.0\nmerge "omit_component" &2 "clip_g"\n'
    (tmp_path / "r").write_text(text)
    merge_mecha(tmp_path / "r", {name: models[name] for name in "ab"}, tmp_path / "x")
    with open_file(models["a"]) as a, open_file(models["b"]) as b, open_file(tmp_path / "x") as file:
        for key in file:
            source = a if key.startswith("conditioner.embedders.1.") else b
            assert bytes(file.raw(key)) == bytes(source.raw(key)), key


def test_dtypes_may_be_chosen_and_overflows_are_listed(tmp_path, toys):
    """`dtype` replaces the first model's; what it cannot hold is clamped and counted."""
    for path in toys[1].values():
        change(path, **{UNET: np.array([1e6, 1, -2e5], "f4")})
    result = merge_mecha(*toys, tmp_path / "x", dtype="fp16")
    assert result.clamped == {UNET: (2, 1e6)}
    assert open_file(tmp_path / "x").array(UNET).tolist() == [65504, 1, -65504]
    merge_mecha(*toys, tmp_path / "x", dtype="bf16")
    assert {open_file(tmp_path / "x").dtype(key) for key in (UNET, TE2)} == {"BF16"}
    with pytest.raises(CheckpointError, match="fp16, bf16, fp32"):
        merge_mecha(*toys, tmp_path / "x", dtype="int8")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no recipe that sd-mecha understands.*version"),
        ("hello", "no recipe that sd-mecha understands.*version"),
        ("version 0.1.0\n", "no recipe that sd-mecha understands"),
        ("version 9\nmodel \"a\"", "bad recipe version"),
        (SUM.replace("weighted_sum", "weighted_sun"), "unknown merge method: 'weighted_sun'"),
        (SUM.replace("alpha", "beta"), "beta"),
        (SUM + 'model "c"', "names a, b and does not use it"),
        (SUM.replace('"b"', '"c"'), "needs a file for each of: a, c; found a, b"),
        (SUM.replace('"b"', '"/models/b"'), "names, not paths"),
        (SUM.replace("&1", "&0"), "names b and does not use it"),
        (SUM.replace("weighted_sum", "subtract").replace(" alpha=0.3", ""), "(?s)cannot be carried out.*weight"),
        (SUM.replace("weighted_sum", "stack").replace(" alpha=0.3", ""), "makes a tensor of"),
        ('version 0.1.0\nmodel "a"\nmodel "b"\nmerge "subtract" &1 &0\nmerge "dropout" &2\nmerge "add_difference" &0 &3', "seed=0"),
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_followed_are_refused(tmp_path, toys, text, says):
    """No recipe, unknown methods, other names than those given, a difference for a model, unseeded noise: nothing is written."""
    toys[0].write_text(text)
    with pytest.raises(LedgerError, match=says):
        merge_mecha(*toys, tmp_path / "x")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "x"))]


def test_models_that_do_not_fit_are_refused(tmp_path, toys):
    """A pickle, a missing file, another architecture, another shape, a LoRA: refused by our reader, before sd-mecha sees them."""
    recipe, given = toys
    (tmp_path / "p.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    write_file(tmp_path / "sd2", {"cond_stage_model.model.w": np.ones(3, "f2")})
    write_file(tmp_path / "lora", {"lora_unet_x.lora_up.weight": np.ones((3, 3), "f2")})
    write_file(tmp_path / "small", {UNET: np.ones((7, 4), "f2"), TE2: np.ones((7, 5), "f2")})
    cases = (
        ("p.ckpt", "pickle"),
        ("none", "found none"),
        ("sd2", "same architecture"),
        ("lora", "LoRA"),
        ("small", "same shape"),
    )
    for name, says in cases:
        with pytest.raises(CheckpointError, match=says):
            merge_mecha(recipe, given | {"b": tmp_path / name}, tmp_path / "x")
    with pytest.raises(LedgerError, match="needs a file for each of: a, b; found a"):
        merge_mecha(recipe, {"a": given["a"]}, tmp_path / "x")
    with pytest.raises(LedgerError, match="cannot be read"):
        merge_mecha(tmp_path / "none", given, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_wrong_number_stops_the_merge(tmp_path, toys):
    """A NaN in a model, or one that the method makes, is refused with its key."""
    toys[0].write_text(SUM.replace("weighted_sum", "multiply_quotient").replace("&1 alpha=0.3", "&1 &1"))
    change(toys[1]["a"], **{UNET: np.full((7, 5), 0, "f2")})
    change(toys[1]["b"], **{UNET: np.full((7, 5), 3e4, "f2")})
    (tmp_path / "big.mecha").write_text(SUM.replace("0.3", "1e38"))
    with pytest.raises(NumericsError, match=f"makes a NaN or an infinity of {UNET}"):
        merge_mecha(tmp_path / "big.mecha", toys[1], tmp_path / "x")
    change(toys[1]["b"], **{UNET: np.full((7, 5), np.nan, "f2")})
    with pytest.raises(NumericsError, match=f"{UNET} holds a NaN or an infinity in b"):
        merge_mecha(*toys, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_command_and_the_job_give_the_same_weights(tmp_path, toys):
    """`astolfo mecha` and `astolfo job mecha` do the same; the job checks the recipe and the models' digests first."""
    recipe, given = toys
    named = [f"{name}={path}" for name, path in given.items()]
    run = CliRunner().invoke
    done = run(cli, ["mecha", str(recipe), *named, "-o", str(tmp_path / "x")], catch_exceptions=False)
    assert (done.exit_code, done.output) == (0, f"{done.output.splitlines()[0]}\ncopied from a: {IDS}\n{MENDED}\n")
    assert sha256_of(tmp_path / "x") in done.output
    spec = {
        "verb": "mecha",
        "code": "",
        "lock": "",
        "recipe": "sum",
        "recipe_sha256": sha256_of(recipe),
        "title": "t",
        "scale": "miniature",
        "models": {"a": "1", "b": "2"},
    }
    job = ["job", "mecha", "--recipes", str(tmp_path), "--out", str(tmp_path / "y"), "--log", str(tmp_path / "log")]
    job += [part for pair in named for part in ("--model", pair)]
    run(cli, [*job, "--spec", json.dumps(spec)], catch_exceptions=False)
    with open_file(tmp_path / "x") as first, open_file(tmp_path / "y") as second:
        assert all(bytes(first.raw(key)) == bytes(second.raw(key)) for key in first)
        assert (second.metadata["modelspec.title"], second.metadata["astolfo.scale"]) == ("t", "miniature")
    recipe.write_text(SUM + "\n")
    with pytest.raises(LedgerError, match="expected sha256"):
        run(cli, [*job, "--spec", json.dumps(spec)], catch_exceptions=False)
    with pytest.raises(LedgerError, match="expected models named a"):
        spec |= {"recipe_sha256": sha256_of(recipe), "models": {"a": "1"}}
        run(cli, [*job, "--spec", json.dumps(spec)], catch_exceptions=False)
    assert run(cli, ["mecha", str(recipe), "a", "-o", "x"]).exit_code == 2


def test_block_weights_are_written_as_sd_mecha_writes_them(tmp_path):
    """A literal of SuperMerger's blocks, converted to the model's keys, weighs each block by its own alpha.

    That conversion knows SDXL's own blocks, of two layers each, and nothing else.
    """
    config = load(SMALL).scale.architectures["sdxl"]
    found = Architecture.from_mapping(config | {"unet": config["unet"] | {"layers_per_block": 2}}, "sdxl")
    models = {name: tmp_path / name for name in "ab"}
    for seed, path in enumerate(models.values()):
        save(path, {part: initialise(found.build(part, "cpu"), seed) for part in found.parts}, found, dtypes="fp16")
    blocks = {f"{side}{index:02}": 0.25 for side in ("IN", "OUT") for index in range(12)} | {"M00": 1.0, "BASE": 0.0, "VAE": 0.0}
    lines = [
        "version 0.1.0", 'model "a"', 'model "b"', "dict " + " ".join(f"{name}={alpha}" for name, alpha in blocks.items()),
        'literal &2 model_config="sdxl-supermerger_blocks" merge_space="param"',
        'merge "convert_sdxl_blocks_to_sgm" &3', 'merge "weighted_sum" &0 &1 &4',
    ]  # fmt: skip
    (tmp_path / "r").write_text("\n".join(lines))
    merge_mecha(tmp_path / "r", {name: models[name] for name in "ab"}, tmp_path / "x")
    with open_file(models["a"]) as a, open_file(models["b"]) as b, open_file(tmp_path / "x") as file:
        for key, alpha in (("input_blocks.4.0.out_layers.3", 0.25), ("middle_block.0.out_layers.3", 1.0), ("out.2", 0.25)):
            key = f"model.diffusion_model.{key}.weight"
            wanted = torch.lerp(a.tensor(key).float(), b.tensor(key).float(), torch.tensor(alpha)).half()
            assert torch.equal(file.tensor(key), wanted), key


def test_the_records_recipes_name_models_and_nothing_else():
    """Every recipe of config/mecha holds names only, and no method that draws random numbers."""
    for recipe in RECIPES.glob("*.mecha"):
        lines = normalised(recipe).splitlines()
        named = [line for line in lines if line.startswith("model")]
        assert named == [f'model "{name}"' for name in "abc"[: len(named)]]
        assert not any(word in line for word in ("dropout", "randperm", "seed") for line in lines)
