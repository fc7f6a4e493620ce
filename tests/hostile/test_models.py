"""Every verb that reads a model takes it, with a word for what it changes, or refuses it by name; no file of a user's changes."""

import os
import re
import socket

import numpy as np
import pytest
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.autoencoder import load_autoencoder
from astolfo.checkpoint.extras import extras
from astolfo.checkpoint.finite import not_finite, summary
from astolfo.checkpoint.inspect import inspect, report
from astolfo.checkpoint.model import check, load_state_dicts, save
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.errors import CheckpointError, NumericsError
from astolfo.files import sidecar
from astolfo.merging.mecha import merge_mecha
from astolfo.merging.weighted_sum import merge
from astolfo.provenance.compare import DIFFERENT, Bounds, compare
from astolfo.provenance.verify import verify
from tests.checkpoint.conftest import SDXL, random_states
from tests.hostile.models import BROKEN, IDS, NORM, ODD, TAKEN, VAE, ids, put, without

BOUNDS = Bounds(measured="for the test", weights=0.1, tensor=0.2, loss=0.01, pictures=2.0)
RECIPE = 'version 0.1.0\nmodel "a"\nmodel "b"\nmerge "weighted_sum" &0 &1 alpha=0.5\n'


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A whole toy SDXL model in fp16, without a side-car."""
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save(path, random_states(toy()), toy())
    sidecar(path).unlink()
    return path


def toy():
    return Architecture.from_mapping(SDXL, "sdxl")


def tensors_of(path):
    with open_file(path) as file:
        return {key: file.array(key).copy() for key in file}


def odd(good, path, change):
    """The good model with a change, at `path`, without a side-car."""
    write_file(path, change(tensors_of(good)))
    sidecar(path).unlink()
    return path


def mecha(a, b, out):
    out.with_suffix(".mecha").write_text(RECIPE)
    return merge_mecha(out.with_suffix(".mecha"), {"a": a, "b": b}, out)


def verbs(good, tmp_path):
    """Everything that reads a model file, as functions of its path."""
    return {
        "inspect": lambda path: inspect(path, scan=True),
        "adopt, pin": lambda path: check(path, toy()),
        "train from it": lambda path: load_state_dicts(path, toy()),
        "take its autoencoder": lambda path: load_autoencoder(path, toy()),
        "save beside it": lambda path: save(tmp_path / "saved", {}, toy(), copy_from=path),
        "merge it": lambda path: merge(good, path, {0.5: tmp_path / "merged"}),
        "merge into it": lambda path: merge(path, good, {0.5: tmp_path / "merged"}),
        "mecha": lambda path: mecha(good, path, tmp_path / "mixed"),
        "compare": lambda path: compare(path, good, BOUNDS, base=good),
        "compare with it": lambda path: compare(good, path, BOUNDS, base=good),
    }


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_model_is_refused_by_every_verb(good, tmp_path, what):
    """Every verb says the same of it, writes nothing, and leaves the file as it is."""
    change, reason = BROKEN[what]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content := change(good.read_bytes()))
    for name, verb in verbs(good, tmp_path).items():
        with pytest.raises(CheckpointError, match=reason):
            verb(path)
        left = {one.name for one in tmp_path.iterdir()} - {"mixed.mecha"}
        assert (left, path.read_bytes()) == ({"x.safetensors"}, content), name


@pytest.mark.parametrize("what", ODD)
def test_what_programs_save_is_taken_or_refused_by_name(good, tmp_path, what):
    """A peculiar model is taken, with what is said of it, or refused; what a merge makes of it is taken without a word."""
    change, verdict, said = ODD[what]
    path = odd(good, tmp_path / "x.safetensors", change)
    if verdict != TAKEN:
        for use in (lambda: check(path, toy()), lambda: save(tmp_path / "saved", {}, toy(), copy_from=path)):
            with pytest.raises(CheckpointError, match=re.escape(said)):
                use()
        report(inspect(path, scan=True))
        assert {one.name for one in tmp_path.iterdir()} == {"x.safetensors"}
        return
    assert compare(path, good, BOUNDS, base=good).verdict in (DIFFERENT, "identical") or "linear" in what
    with open_file(path) as file:
        heard = [*check(path, toy()).lines(), summary(not_finite(file))]
    assert said in "\n".join(heard)
    assert bool(said) == any(heard)
    assert said in report(inspect(path, scan=True)) or "NaN" in said
    load_state_dicts(path, toy())
    load_autoencoder(path, toy())
    assert not sidecar(path).exists()


def ways():
    """Each model that is taken, by each way of merging; a recipe costs a second, so that most of those are left to a longer proof."""
    always = (
        "plain",
        "position ids of a half merge",
        "a second spelling of the projection",
        "schedules in half",
        "NaN in a weight",
    )
    for what, (_, verdict, _) in ODD.items():
        if verdict == TAKEN:
            yield from ((way, what) for way in ("merge it", "merge into it"))
            yield pytest.param("mecha", what, marks=() if what in always else pytest.mark.slow)


@pytest.mark.parametrize(("way", "what"), ways())
def test_what_a_merge_makes_is_a_model_without_peculiarities(good, tmp_path, what, way):
    """Nothing that is left out is passed on, position ids are whole, a NaN stops it; what it wrote can be adopted and merged."""
    path = odd(good, tmp_path / "x.safetensors", ODD[what][0])
    verb = verbs(good, tmp_path)[way]
    if "weight" in what and ("NaN" in what or "infinity" in what):
        with pytest.raises(NumericsError, match="NaN or an infinity"):
            verb(path)
        return
    done = str(verb(path))
    if ODD[what][2] and "NaN" not in ODD[what][2]:
        assert ODD[what][2] in done
    made = tmp_path / ("mixed" if way == "mecha" else "merged")
    assert not any(check(made, toy()).lines())
    merge(made, good, {0.5: tmp_path / "again"})
    with open_file(made) as file:
        if IDS in file:
            assert file.dtype(IDS) == "I64"
            assert np.array_equal(file.array(IDS).reshape(-1), np.arange(77))


@pytest.mark.parametrize("what", [name for name, (_, verdict, _) in ODD.items() if verdict == TAKEN])
def test_what_a_run_saves_over_it_has_whole_positions(good, tmp_path, what):
    """A result that copies what its base has beyond weights copies no peculiarity."""
    path = odd(good, tmp_path / "x.safetensors", ODD[what][0])
    save(tmp_path / "saved", {}, toy(), copy_from=path)
    with open_file(tmp_path / "saved") as file:
        assert not extras(file).dropped
        assert not extras(file).replaced


def test_no_file_at_all(good, tmp_path):
    """A folder, a pipe, a socket, a loop of links, a name too long, a missing file: an error at once, by every verb."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s"))
        for name in ("pipe", "loop", "broken", "s", ".", "gone", "x" * 300, "good/under"):
            for verb, use in verbs(good, tmp_path).items():
                if name == "." and verb == "train from it":
                    continue  # a diffusers folder may be
                with pytest.raises(CheckpointError, match="safetensors"):
                    use(tmp_path / name)


@pytest.mark.parametrize(
    ("dtype", "bits", "nan", "inf"),
    [
        ("float8_e4m3fn", [0x7F, 0xFF, 0x7E, 0x78, 0x00], 2, 0),
        ("float8_e5m2", [0x7D, 0xFE, 0x7C, 0xFC, 0x7B], 2, 2),
        ("float8_e4m3fnuz", [0x80, 0x7F, 0x00, 0xFF, 0x01], 1, 0),
        ("float8_e5m2fnuz", [0x80, 0x7F, 0x00, 0xFF, 0x01], 1, 0),
        ("float8_e8m0fnu", [0xFF, 0x7F, 0x00, 0xFE, 0x01], 1, 0),
    ],
)
def test_a_nan_is_seen_in_eight_bits(good, tmp_path, dtype, bits, nan, inf):
    """NaN and infinities of fp8 are counted as that dtype has them; no merge makes a sum of fp8."""
    tensors = {key: torch.from_numpy(value) for key, value in tensors_of(good).items()}
    size = tensors[NORM].numel()
    tensors[NORM] = (
        torch.tensor((bits + [0] * size)[:size], dtype=torch.uint8).view(getattr(torch, dtype)).reshape(tensors[NORM].shape)
    )
    write_file(tmp_path / "x", tensors)
    expected = {NORM: {"nan": nan, "inf": inf}}
    assert inspect(tmp_path / "x", scan=True)["not_finite"] == expected
    if dtype in ("float8_e4m3fn", "float8_e5m2"):
        values = tensors[NORM].float()
        assert (int(values.isnan().sum()), int(values.isinf().sum())) == (nan, inf)
    with pytest.raises(CheckpointError, match=r"expected F16, BF16 or F32 to sum, found F8"):
        merge(good, tmp_path / "x", {0.5: tmp_path / "m"})
    tensors[NORM] = (tensors[NORM].view(torch.uint8) ^ 1).view(tensors[NORM].dtype)
    write_file(tmp_path / "y", tensors)
    assert compare(tmp_path / "x", tmp_path / "y", BOUNDS, base=good).verdict == DIFFERENT


SCHEDULES = ("alphas_cumprod", "betas", "log_one_minus_alphas_cumprod", "denoiser.sigmas", "edm_mean", "bundle_emb.a.clip_g")


def test_no_sum_is_made_of_schedules(good, tmp_path):
    """What lies beside the parts is the trained model's (of a recipe the first's), byte for byte and in its dtype, and named."""
    models = []
    for number in (1, 2):
        more = {key: np.linspace(number, 3, 1000, dtype="f4") for key in SCHEDULES}
        models.append(odd(good, tmp_path / f"{number}", lambda tensors, more=more: tensors | more))
    same = odd(good, tmp_path / "3", lambda tensors: tensors | {key: np.linspace(2, 3, 1000, dtype="f4") for key in SCHEDULES})
    done = str(merge(*models, {0.3: tmp_path / "merged"}, dtype="fp16"))
    assert all(key in done.partition("copied from the trained model, as it is no weight: ")[2] for key in SCHEDULES)
    assert "no weight" not in str(merge(models[1], same, {0.3: tmp_path / "alike"}))
    done = str(mecha(*models, tmp_path / "mixed"))
    assert all(key in done.partition("copied from a: ")[2] for key in SCHEDULES)
    for made, source in (("merged", models[1]), ("alike", same), ("mixed", models[0])):
        with open_file(tmp_path / made) as found, open_file(source) as expected:
            assert [bytes(found.raw(key)) for key in SCHEDULES] == [bytes(expected.raw(key)) for key in SCHEDULES]


def test_a_model_of_another_kind_is_summed_but_for_its_schedules(tmp_path):
    """Where no part is known, every tensor is a weight whose name is no schedule's: an autoencoder alone is summed whole."""
    for number in (1, 3):
        tensors = {key: np.full(4, number, "f4") for key in ("encoder.conv_in.weight", "decoder.conv_in.weight", "betas")}
        write_file(tmp_path / f"{number}", tensors)
    merge(tmp_path / "1", tmp_path / "3", {0.5: tmp_path / "out"})
    with open_file(tmp_path / "out") as file:
        assert {key: file.array(key)[0] for key in file} == {"encoder.conv_in.weight": 2, "decoder.conv_in.weight": 2, "betas": 3}


def test_what_has_no_distance_is_not_equivalent(good, tmp_path):
    """Two files that differ in a tensor without a distance are different, by its name; a base that does not fit is refused."""
    ours = odd(good, tmp_path / "a", put(IDS, ids("i8")))
    other = odd(good, tmp_path / "b", put(IDS, ids("i8")[:, ::-1]))
    found = compare(ours, other, BOUNDS, base=good)
    assert (found.verdict, found.first_tensor) == (DIFFERENT, IDS)
    other = odd(good, tmp_path / "b", lambda tensors: tensors | {IDS: ids("i8"), NORM: tensors[NORM] + 1})
    for wrong in (lambda t: t[NORM][:3], lambda t: t[NORM].astype("i1"), None):
        base = odd(good, tmp_path / "c", put(NORM, wrong) if wrong else without(NORM))
        with pytest.raises(CheckpointError, match=f"is not what .* was trained from: expected {NORM}"):
            compare(ours, other, BOUNDS, base=base)


def test_a_marker_that_the_base_lacks_is_no_distance(good, tmp_path):
    """Models of a v run whose base was an eps model are compared: the marker has no values to lie apart."""
    first = odd(good, tmp_path / "a", put("v_pred", np.empty(0, "f4")))
    moved = odd(good, tmp_path / "b", lambda tensors: tensors | {"v_pred": np.empty(0, "f4"), NORM: tensors[NORM] + 1})
    assert compare(first, moved, BOUNDS, base=good).first_tensor == NORM


def test_an_autoencoder_of_integers_is_refused(good, tmp_path):
    """Integers are not taken for an autoencoder's weights, neither in a whole model nor by themselves."""
    path = odd(good, tmp_path / "x", put(VAE, lambda tensors: tensors[VAE].astype("i1")))
    alone = {key.removeprefix("first_stage_model."): value for key, value in tensors_of(path).items() if "first_stage" in key}
    write_file(tmp_path / "y", alone)
    for file in (path, tmp_path / "y"):
        with pytest.raises(CheckpointError, match="expected floats as .*, found I8"):
            load_autoencoder(file, toy())


def test_a_quantised_weight_is_not_taken_for_another_in_silence(good, tmp_path):
    """Where one side of a merge has no float, the base's bytes are copied, and the merge says so by name."""
    path = odd(good, tmp_path / "x", ODD["weights in int8"][0])
    assert f"copied from the base, as it is no float on both sides: {NORM}" in str(merge(good, path, {0.5: tmp_path / "m"}))


def test_random_changes_of_a_byte_are_read_or_refused(good, tmp_path):
    """A header with any byte changed is a model still, or an error of ours: no traceback, no hang, nothing written."""
    content, random = bytearray(good.read_bytes()), np.random.Generator(np.random.PCG64(7))
    size = int.from_bytes(content[:8], "little") + 8
    refused = 0
    for place, value in zip(random.integers(0, size, 300).tolist(), random.integers(0, 256, 300).tolist(), strict=True):
        before, content[place] = content[place], value
        (tmp_path / "x").write_bytes(content)
        content[place] = before
        try:
            report(inspect(tmp_path / "x"))
            check(tmp_path / "x", toy())
        except CheckpointError as error:
            refused += str(error).isprintable()
    assert refused > 100


def test_whole_positions_stay_as_they_are(good, tmp_path):
    """Position ids that are right are copied byte for byte, whatever the alpha."""
    path = odd(good, tmp_path / "x", ODD["position ids"][0])
    for alpha in (0.0, 0.3, 1.0):
        merge(good, path, {alpha: tmp_path / "m"})
        with open_file(tmp_path / "m") as file:
            assert bytes(file.raw(IDS)) == ids("i8").tobytes()


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_no_model_is_verified_as_bytes(good, tmp_path, what):
    """`verify` reads bytes and no model: of any file without an attestation it says so, changes nothing and leaves nothing beside it."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content := BROKEN[what][0](good.read_bytes()))
    found = verify(path)
    assert not found.good
    assert "attestation" in found.verdict
    assert ([one.name for one in tmp_path.iterdir()], path.read_bytes()) == (["x.safetensors"], content)
