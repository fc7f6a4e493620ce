"""Merging files: the right bits whatever the threads, and a stated rule for everything that is no plain sum."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from astolfo.checkpoint import stream
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.cli import cli
from astolfo.errors import AstolfoError, CheckpointError, NumericsError, PlacementError
from astolfo.files import read_sidecar, sha256_of
from astolfo.merging import writer
from astolfo.merging.weighted_sum import merge

UNET, TE, TE2, VAE = (
    "model.diffusion_model.input_blocks.4.0.w",
    "conditioner.embedders.0.transformer.text_model.encoder.layers.0.w",
    "conditioner.embedders.1.model.transformer.resblocks.0.w",
    "first_stage_model.decoder.w",
)
IDS = "conditioner.embedders.0.transformer.text_model.embeddings.position_ids"
MIDDLE = "model.diffusion_model.middle_block.1.w"


def model(seed, dtype="f2", size=1000):
    """A file's tensors: one per part, an odd number of elements, more than one block, integers and a scalar."""
    random = np.random.default_rng(seed)
    shapes = {UNET: (size, 303), MIDDLE: (3, 5), TE: (77,), TE2: (size, 7), VAE: (), f"{VAE}2": (0, 4)}
    return {key: (random.standard_normal(shape) * 0.05).astype(dtype) for key, shape in shapes.items()} | {
        IDS: np.arange(77)[None] + seed
    }


def total(first, second, alpha, dtype=None):
    """The reference: numpy's own conversions and two products and a sum in float32."""
    result = first.astype("f4") * np.float32(1 - alpha) + second.astype("f4") * np.float32(alpha)
    return np.asarray(result).astype(dtype or first.dtype)


@pytest.fixture
def pair(tmp_path):
    """Two files and their tensors."""
    first, second = model(0), model(1)
    write_file(tmp_path / "a", first, {"modelspec.title": "a"})
    write_file(
        tmp_path / "b", second, {"modelspec.title": "b", "modelspec.date": "2026", "modelspec.hash_sha256": "0x0", "ss_seed": "1"}
    )
    return tmp_path / "a", tmp_path / "b", first, second


@pytest.mark.parametrize("direct", [True, False])
def test_the_file_is_that_of_a_plain_sum(tmp_path, pair, direct):
    """Written by our writer from numpy's own sums, the file has the same bytes; its side-car is right."""
    result = merge(pair[0], pair[1], {0.3: tmp_path / "x"}, direct=direct)
    sums = {key: total(value, pair[3][key], 0.3) if value.dtype == "f2" else value for key, value in pair[2].items()}
    with open_file(tmp_path / "x") as file:
        assert write_file(tmp_path / "y", sums, file.metadata) == result.digests[0.3]
    assert result.digests[0.3] == sha256_of(tmp_path / "x") == read_sidecar(tmp_path / "x")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("name", "message"), [("a", "is an input"), ("./b", "is an input"), ("c.ckpt", "never a pickle"), ("c.CKPT", "a pickle")]
)
def test_no_input_is_overwritten_and_no_pickle_named(tmp_path, pair, name, message):
    """An output that is an input, however it is spelt, or is named like a pickle, is refused; the inputs stay."""
    before = [path.read_bytes() for path in pair[:2]]
    target = {"a": pair[0], "./b": pair[1].parent / "." / pair[1].name}.get(name, tmp_path / name)
    with pytest.raises(CheckpointError, match=message):
        merge(pair[0], pair[1], {0.5: target})
    assert [path.read_bytes() for path in pair[:2]] == before


def test_threads_blocks_pieces_and_company_do_not_matter(tmp_path, pair, monkeypatch):
    """Any number of threads, any block and piece, alone or in a sweep: the same files."""
    alphas = (0.1, 0.25, 0.5)
    wanted = [merge(pair[0], pair[1], {alpha: tmp_path / "x"}).digests[alpha] for alpha in alphas]
    for threads, block, piece in ((1, 1 << 18, 1 << 22), (3, 4096, 4096), (2, 1000, 8192), (5, 77, 1 << 16)):
        monkeypatch.setattr(writer, "BLOCK", block)
        monkeypatch.setattr(writer, "PIECE", piece)
        monkeypatch.setattr(stream, "PIECE", piece)
        outputs = {alpha: tmp_path / f"x{alpha}" for alpha in alphas}
        found = merge(pair[0], pair[1], outputs, threads=threads, metadata=None)
        assert list(found.digests.values()) == wanted
        assert [sha256_of(path) for path in outputs.values()] == wanted


def test_a_sweep_reads_its_inputs_once(tmp_path, pair, monkeypatch):
    """Five alphas need no more bytes than one, but for a few at the edges of pieces."""
    count = [0]
    plain = writer._read

    def counting(file, into, offset, path):
        count[0] += len(into)
        plain(file, into, offset, path)

    monkeypatch.setattr(writer, "_read", counting)
    merge(pair[0], pair[1], {alpha: tmp_path / f"{alpha}" for alpha in (0, 0.1, 0.25, 0.5, 1)})
    assert count[0] <= 1.01 * (os.path.getsize(pair[0]) + os.path.getsize(pair[1]))


def test_alpha_zero_and_one_copy(tmp_path, pair):
    """The tensors of the base, or of the trained model, byte for byte; NaN on the side not looked at does no harm."""
    damaged = pair[3] | {MIDDLE: np.full((3, 5), np.nan, "f2")}
    write_file(pair[1], damaged)
    merge(pair[0], pair[1], {0: tmp_path / "zero", 1: tmp_path / "one"})
    with open_file(tmp_path / "zero") as zero, open_file(tmp_path / "one") as one:
        for key, value in pair[2].items():
            assert bytes(zero.raw(key)) == value.tobytes()
            assert bytes(one.raw(key)) == (value if key == IDS else damaged[key]).tobytes()


def test_a_wrong_number_stops_the_merge(tmp_path, pair):
    """A NaN or an infinity in a sum is refused with its key; no output, no side-car, no remains; a part's alpha helps."""
    for value in (np.nan, np.inf):
        write_file(pair[1], pair[3] | {VAE: np.array(value, "f2")})
        with pytest.raises(NumericsError, match="first_stage_model"):
            merge(pair[0], pair[1], {0.5: tmp_path / "x", 0.7: tmp_path / "y"})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.sha256", "b", "b.sha256"]
    merge(pair[0], pair[1], {0.5: tmp_path / "x"}, per_part={"vae": 0.0})


def test_alphas_by_part_and_block(tmp_path, pair):
    """A block's alpha goes before its part's, that before the output's; unknown names are refused with the known ones."""
    merge(pair[0], pair[1], {0.5: tmp_path / "x"}, per_part={"unet": 0.25, "vae": 0}, per_block={"unet.middle_block": 1.0})
    alphas = {UNET: 0.25, MIDDLE: 1.0, TE: 0.5, TE2: 0.5, VAE: 0.0}
    with open_file(tmp_path / "x") as file:
        for key, alpha in alphas.items():
            assert np.array_equal(file.array(key), total(pair[2][key], pair[3][key], alpha))
        assert json.loads(file.metadata["astolfo.merge"])["per_part"] == {"unet": 0.25, "vae": 0}
    with pytest.raises(CheckpointError, match=r"unet\.input_blocks\.4.*middle_block\.7"):
        merge(pair[0], pair[1], {0.5: tmp_path / "y"}, per_block={"unet.middle_block.7": 1})
    with pytest.raises(CheckpointError, match=r"text_encoder_2.*clip"):
        merge(pair[0], pair[1], {0.5: tmp_path / "y"}, per_part={"clip": 1})


@pytest.mark.parametrize(
    ("first", "second", "out"), [("f2", "f4", None), ("f4", "f2", None), ("f4", "f4", "fp16"), ("f2", "f2", "fp32")]
)
def test_dtypes_may_differ(tmp_path, first, second, out):
    """Inputs of different dtypes are summed in fp32 and rounded once, to the base's dtype or the one asked for."""
    mine, theirs = model(0, first), model(1, second)
    write_file(tmp_path / "a", mine)
    write_file(tmp_path / "b", theirs)
    merge(tmp_path / "a", tmp_path / "b", {0.3: tmp_path / "x", 0: tmp_path / "zero", 1: tmp_path / "one"}, dtype=out)
    wanted = {"fp16": "f2", "fp32": "f4", None: first}[out]
    for name, alpha in (("x", 0.3), ("zero", 0), ("one", 1)):
        with open_file(tmp_path / name) as file:
            for key in (UNET, MIDDLE, TE, VAE):
                assert np.array_equal(file.array(key), total(mine[key], theirs[key], alpha, wanted))
            assert np.array_equal(file.array(IDS), mine[IDS])


def test_bf16_files_merge_as_torch_would(tmp_path):
    """bf16 in, bf16 out, by way of fp32."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    mine, theirs = ({UNET: torch.randn(300, 301, generator=generator).bfloat16()} for _ in range(2))
    write_file(tmp_path / "a", mine)
    write_file(tmp_path / "b", theirs)
    merge(tmp_path / "a", tmp_path / "b", {0.3: tmp_path / "x"})
    weights = torch.tensor([0.7, 0.3], dtype=torch.float64).float()
    wanted = (mine[UNET].float() * weights[0] + theirs[UNET].float() * weights[1]).bfloat16()
    assert torch.equal(open_file(tmp_path / "x").tensor(UNET), wanted)


def test_integers_that_became_floats_are_copied(tmp_path, pair):
    """Other tools turn position_ids into halves; whichever side has them so, the base's are copied."""
    write_file(pair[1], pair[3] | {IDS: pair[3][IDS].astype("f2")})
    merge(pair[0], pair[1], {0.5: tmp_path / "x"})
    assert np.array_equal(open_file(tmp_path / "x").array(IDS), pair[2][IDS])


def test_what_fp16_cannot_hold_is_listed(tmp_path):
    """A sum beyond 65504 is clamped, and the result says where, how often and how large."""
    write_file(tmp_path / "a", {UNET: np.array([1e6, 1, -2e5], "f4")})
    write_file(tmp_path / "b", {UNET: np.array([1e6, 1, -2e5], "f4")})
    result = merge(tmp_path / "a", tmp_path / "b", {0.5: tmp_path / "x"}, dtype="fp16")
    assert result.clamped == {UNET: (2, 1e6)}
    assert open_file(tmp_path / "x").array(UNET).tolist() == [65504, 1, -65504]


def test_keys_of_one_side_follow_their_rule(tmp_path, pair):
    """Markers are the trained model's, anything else lonely is copied, and all of it is listed."""
    empty, odd = np.empty(0, "f4"), "model.diffusion_model.odd"
    write_file(pair[0], pair[2] | {"ztsnr": empty, f"{odd}1": np.ones(3, "f2")})
    write_file(pair[1], pair[3] | {"v_pred": empty, f"{odd}2": np.full(3, 2, "f2")})
    result = merge(pair[0], pair[1], {0.5: tmp_path / "x"})
    assert (result.only_in_base, result.only_in_trained, result.dropped) == ([f"{odd}1"], ["v_pred", f"{odd}2"], ["ztsnr"])
    assert "dropped, as the other side lacks it: ztsnr" in str(result)
    with open_file(tmp_path / "x") as file:
        assert "v_pred" in file
        assert "ztsnr" not in file
        assert (file.array(f"{odd}1")[0], file.array(f"{odd}2")[0]) == (1, 2)


def test_metadata_names_the_parents_and_forgets_what_no_longer_holds(tmp_path, pair):
    """The trained model's metadata stays, less hash, date and training; parents are named by digest; the caller has the last word."""
    merge(pair[0], pair[1], {0.5: tmp_path / "x"}, metadata={"modelspec.title": "mine"})
    found = open_file(tmp_path / "x").metadata
    assert json.loads(found["astolfo.parents"]) == {"base": sha256_of(pair[0]), "trained": sha256_of(pair[1])}
    assert json.loads(found["astolfo.merge"]) == {"method": "weighted_sum", "alpha": 0.5}
    assert found["modelspec.title"] == "mine"
    assert not {"modelspec.date", "modelspec.hash_sha256", "ss_seed"} & set(found)
    merge(
        pair[0],
        pair[1],
        {alpha: tmp_path / f"{alpha}" for alpha in (0.1, 0.25)},
        metadata=lambda alpha: {"k": "x" * int(100 * alpha)},
    )
    assert open_file(tmp_path / "0.25").metadata["k"] == "x" * 25


def test_headers_of_different_lengths_share_a_sweep(tmp_path, pair):
    """A sweep whose headers differ in length gives the files that single merges give."""
    about = {0.1: {}, 0.25: {"k": "x" * 5000}, 0.5: {"k": "x" * 11}}
    swept = merge(pair[0], pair[1], {alpha: tmp_path / f"{alpha}" for alpha in about}, metadata=about.get)
    for alpha, wanted in swept.digests.items():
        assert merge(pair[0], pair[1], {alpha: tmp_path / "x"}, metadata=about[alpha]).digests[alpha] == wanted
        assert sha256_of(tmp_path / f"{alpha}") == wanted


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors | {UNET: tensors[UNET][1:]}, "same shape"),
        (lambda tensors: {"cond_stage_model.model.w": tensors[TE]}, "found sdxl.*and sd2"),
        (lambda tensors: tensors | {"lora_unet_x.lora_up.weight": tensors[TE]}, "LoRA"),
        (lambda tensors: tensors | {UNET: tensors[UNET].astype("f8")}, "found F64"),
    ],
)
def test_what_cannot_be_merged_is_refused(tmp_path, pair, change, says):
    """Other shapes, families and LoRAs are refused before anything is written; so is F64."""
    write_file(pair[1], change(pair[3]))
    with pytest.raises(CheckpointError, match=says):
        merge(pair[0], pair[1], {0.5: tmp_path / "x"})
    assert not (tmp_path / "x").exists()


def test_outputs_are_checked(tmp_path, pair):
    """No alpha, one that is no number, an unknown dtype, and one path for two alphas are refused."""
    for outputs, dtype in (
        ({}, None),
        ({float("nan"): tmp_path / "x"}, None),
        ({0.5: tmp_path / "x"}, "int8"),
        (dict.fromkeys((0.1, 0.2), tmp_path / "x"), None),
    ):
        with pytest.raises(CheckpointError):
            merge(pair[0], pair[1], outputs, dtype=dtype)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.sha256", "b", "b.sha256"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, pair, monkeypatch):
    """When there is no room, the error says so, and neither output nor remains are left."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(PlacementError, match="disk is full"):
        merge(pair[0], pair[1], {0.5: tmp_path / "x", 0.7: tmp_path / "y"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.sha256", "b", "b.sha256"]


def test_a_file_system_without_direct_writes_is_served(tmp_path, pair, monkeypatch):
    """Where O_DIRECT is refused, at opening or at writing, the same bytes are written through the cache."""
    wanted = merge(pair[0], pair[1], {0.5: tmp_path / "x"}).digests[0.5]
    plain = {"open": os.open, "pwrite": os.pwrite}

    def refuse_open(path, flags, mode=0o777):
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return plain["open"](path, flags, mode)

    refused = []

    def refuse_write(file, data, offset):
        if not refused:
            refused.append(offset)
            raise OSError(22, "Invalid argument")
        return plain["pwrite"](file, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse_write)
    assert merge(pair[0], pair[1], {0.5: tmp_path / "y"}, threads=1).digests[0.5] == wanted == sha256_of(tmp_path / "y")
    monkeypatch.setattr(os, "open", refuse_open)
    result = merge(pair[0], pair[1], {0.5: tmp_path / "y"})
    assert (result.digests[0.5], result.direct) == (wanted, False)


def test_memory_does_not_grow_with_the_model(tmp_path):
    """A merge of 200 MB files takes less than 150 MB, without importing torch."""
    for seed, name in enumerate("ab"):
        write_file(tmp_path / name, {UNET: np.full((340_000, 303), 0.1 + seed, "f2")})
    code = (
        "import resource, sys; from astolfo.merging.weighted_sum import merge;"
        f"merge({str(tmp_path / 'a')!r}, {str(tmp_path / 'b')!r}, {{0.5: {str(tmp_path / 'x')!r}}});"
        "assert 'torch' not in sys.modules; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    # A shell in between: a forked child starts with its parent's peak.
    done = subprocess.run(["sh", "-c", '"$0" -c "$1"', sys.executable, code], capture_output=True, text=True, check=True)
    assert os.path.getsize(tmp_path / "x") > 200e6
    assert int(done.stdout) < 150


def test_a_result_of_the_graph_is_not_overwritten(tmp_path, pair):
    """Where an artifact with an attestation lies, a merge by hand is refused and the artifact stays."""
    for name in ("x.safetensors", "x.safetensors.attestation.json"):
        (tmp_path / name).write_bytes(b"made")
    command = ["merge", str(pair[0]), str(pair[1]), "--alpha", "0.5", "-o", str(tmp_path / "x.safetensors")]
    with pytest.raises(AstolfoError, match="was made by the graph"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert (tmp_path / "x.safetensors").read_bytes() == b"made"
