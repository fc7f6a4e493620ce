"""Whole models: saved and loaded without loss, refused when they are not what the recipe means."""

import numpy as np
import pytest
import torch

from astolfo.checkpoint.folder import write_folder
from astolfo.checkpoint.layout import PREFIXES, places
from astolfo.checkpoint.metadata import HASH_KEY, describe, markers
from astolfo.checkpoint.model import Overflow, load, load_state_dicts, save
from astolfo.checkpoint.safefile import open_file, write_file
from astolfo.errors import CheckpointError, LedgerError, NumericsError
from astolfo.files import read_sidecar, sha256_of


def equal(first, second):
    """Whether two sets of state dicts are the same to the last bit, names and dtypes included."""
    return {p: {n: t.dtype for n, t in s.items()} for p, s in first.items()} == {
        p: {n: t.dtype for n, t in s.items()} for p, s in second.items()
    } and all(torch.equal(first[p][n], second[p][n]) for p in first for n in first[p])


def halved(states, dtype=torch.float16):
    """The states in another dtype."""
    return {part: {name: tensor.to(dtype) for name, tensor in state.items()} for part, state in states.items()}


def rewritten(path, to, change):
    """A copy of a file with `change` applied to its mapping of tensors."""
    with open_file(path) as file:
        tensors = {key: file.tensor(key).clone() for key in file}
    change(tensors)
    write_file(to, tensors)
    return to


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_saved_and_loaded_is_the_same(tmp_path, architecture, states, dtype, kind):
    """Each dtype keeps its own values exactly, on both families, and the file's second copy has the same bytes."""
    mine = halved(states(architecture), kind)
    saved = save(tmp_path / "x", mine, architecture, dtypes=dtype)
    assert equal(load_state_dicts(tmp_path / "x", architecture), mine)
    again = save(tmp_path / "y", load(tmp_path / "x", architecture), architecture, dtypes=dtype)
    assert again.digest == saved.digest == sha256_of(tmp_path / "x") == read_sidecar(tmp_path / "y")


def test_modules_work_and_own_their_weights(tmp_path, sdxl, states):
    """Loaded modules compute, are in eval mode on the CPU, and training them cannot reach the file."""
    digest = save(tmp_path / "x", states(sdxl), sdxl, dtypes="fp32").digest
    modules = load(tmp_path / "x", sdxl)
    with torch.no_grad():
        for module in modules.values():
            assert not module.training
            assert all(parameter.requires_grad for parameter in module.parameters())
            for parameter in module.parameters():
                parameter.mul_(1.5)
        tokens = torch.arange(77)[None] % 60
        hidden, pooled = modules["text_encoder"](tokens)[0], modules["text_encoder_2"](tokens).text_embeds
        latent, added = torch.zeros(1, 4, 8, 8), {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        context = torch.cat([hidden, modules["text_encoder_2"](tokens).last_hidden_state], -1)
        assert modules["unet"](latent, 5, context, added_cond_kwargs=added).sample.shape == latent.shape
        assert modules["vae"].decode(latent).sample.shape[1] == 3
    assert sha256_of(tmp_path / "x") == digest


def test_dtypes_by_part_when_saving_and_loading(tmp_path, sdxl, states):
    """Each part is stored, and given back, in the dtype asked for it."""
    save(tmp_path / "x", states(sdxl), sdxl, dtypes={"vae": "fp32", "unet": "bf16", "text_encoder": "fp16"})
    with open_file(tmp_path / "x") as file:
        kinds = {part: {file.dtype(key) for key in file if key.startswith(prefix)} for part, prefix in PREFIXES["sdxl"].items()}
    assert kinds == {"vae": {"F32"}, "unet": {"BF16"}, "text_encoder": {"F16"}, "text_encoder_2": {"F16"}}
    loaded = load_state_dicts(tmp_path / "x", sdxl, parts=["unet", "vae"], dtype={"unet": "fp32"})
    assert {part: next(iter(state.values())).dtype for part, state in loaded.items()} == {
        "unet": torch.float32,
        "vae": torch.float32,
    }


def test_the_second_text_encoder_lies_as_openclip_has_it(tmp_path, sdxl, states):
    """q, k and v are stacked in this order, the projection is transposed, the VAE's attention is 1x1 convolutions."""
    mine = states(sdxl)
    save(tmp_path / "x", mine, sdxl, dtypes="fp32")
    te2, vae = mine["text_encoder_2"], mine["vae"]
    with open_file(tmp_path / "x") as file:
        stacked = torch.cat([te2[f"text_model.encoder.layers.1.self_attn.{x}_proj.weight"] for x in "qkv"])
        assert torch.equal(file.tensor("conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"), stacked)
        assert torch.equal(file.tensor("conditioner.embedders.1.model.text_projection"), te2["text_projection.weight"].T)
        key = "first_stage_model.encoder.mid.attn_1.q.weight"
        assert torch.equal(file.tensor(key)[:, :, 0, 0], vae["encoder.mid_block.attentions.0.to_q.weight"])


def test_the_pooled_vector_is_that_of_openclip(tmp_path, sdxl, states):
    """`reference` gives last hidden state at EOS times the file's matrix; `kohya` gives that trainer's transposed product."""
    save(tmp_path / "x", states(sdxl), sdxl, dtypes="fp32")
    matrix = open_file(tmp_path / "x").tensor("conditioner.embedders.1.model.text_projection")
    tokens = torch.arange(77)[None] % 60
    eos = int(tokens[0].argmax())
    for pooled, expected in (("reference", matrix), ("kohya", matrix.T)):
        module = load(tmp_path / "x", sdxl, ["text_encoder_2"], pooled_projection=pooled)["text_encoder_2"]
        with torch.no_grad():
            found = module(tokens)
        torch.testing.assert_close(found.text_embeds[0], found.last_hidden_state[0, eos] @ expected)
        models = load(tmp_path / "x", sdxl, pooled_projection=pooled)
        assert save(tmp_path / "y", models, sdxl, dtypes="fp32", pooled_projection=pooled).digest == sha256_of(tmp_path / "x")
    with pytest.raises(CheckpointError, match="pooled_projection"):
        load(tmp_path / "x", sdxl, pooled_projection="other")


def test_untouched_parts_are_copied_byte_for_byte(tmp_path, sdxl, states):
    """A run that trains the UNet alone keeps the base's other parts, their dtypes, and the keys no module holds."""
    save(tmp_path / "base", states(sdxl), sdxl, dtypes={"unet": "fp16", "vae": "fp32", "text_encoder": "bf16"})
    ids, scale = (
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.logit_scale",
    )
    extra = {ids: torch.arange(77)[None], scale: torch.tensor(4.6055), "v_pred": torch.empty(0), "alphas_cumprod": torch.ones(3)}
    base = rewritten(tmp_path / "base", tmp_path / "base2", lambda tensors: tensors.update(extra))
    save(tmp_path / "x", {"unet": states(sdxl, 1)["unet"]}, sdxl, copy_from=base)
    with open_file(base) as old, open_file(tmp_path / "x") as new:
        assert set(old.keys()) - set(new.keys()) == {"v_pred", "alphas_cumprod"}
        assert set(new.keys()) <= set(old.keys())
        for key in new:
            if not key.startswith("model."):
                assert (old.dtype(key), bytes(old.raw(key))) == (new.dtype(key), bytes(new.raw(key)))
    assert equal({"unet": load_state_dicts(tmp_path / "x", sdxl)["unet"]}, halved({"unet": states(sdxl, 1)["unet"]}))
    models = load(tmp_path / "x", sdxl)
    kinds = {"unet": "fp16", "vae": "fp32", "text_encoder": "bf16"}
    assert save(tmp_path / "y", models, sdxl, dtypes=kinds, copy_from=tmp_path / "x").digest == sha256_of(tmp_path / "x")


def test_what_fp16_cannot_hold_is_clamped_and_reported(tmp_path, sdxl, states):
    """Values beyond 65504 become 65504, never infinity, and the report says how many and how large."""
    mine = states(sdxl)
    mine["unet"]["conv_in.bias"][:3] = torch.tensor([1e5, -7e4, 65519.0])
    saved = save(tmp_path / "x", mine, sdxl, dtypes="fp16")
    assert saved.overflows == {"model.diffusion_model.input_blocks.0.0.bias": Overflow(2, 1e5)}
    assert load_state_dicts(tmp_path / "x", sdxl)["unet"]["conv_in.bias"][:3].tolist() == [65504, -65504, 65504]
    assert save(tmp_path / "x", mine, sdxl, dtypes="bf16").overflows == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_wrong_number_is_never_saved(tmp_path, sdxl, states, value):
    """A NaN or an infinity stops the save, says where, and leaves no file."""
    mine = states(sdxl)
    mine["vae"]["decoder.conv_out.bias"][1] = value
    with pytest.raises(NumericsError, match="conv_out"):
        save(tmp_path / "x", mine, sdxl)
    assert list(tmp_path.iterdir()) == []


def test_missing_keys_are_listed(tmp_path, sdxl, states):
    """The first ten missing keys are named, and how many there are."""
    save(tmp_path / "x", states(sdxl), sdxl)
    gone = [place.key for place in places(sdxl, "unet")][:12]
    rewritten(tmp_path / "x", tmp_path / "y", lambda tensors: [tensors.pop(key) for key in gone])
    with pytest.raises(CheckpointError, match=r"unet lacks 12 keys.*and 2 more") as caught:
        load(tmp_path / "y", sdxl)
    assert sum(key in str(caught.value) for key in gone) == 10


def test_other_shapes_and_strange_keys_are_refused(tmp_path, sdxl, states):
    """A wrong shape or a block too many is another architecture; keys outside all parts are ignored."""
    save(tmp_path / "x", states(sdxl), sdxl)
    bias, strange = "model.diffusion_model.out.2.bias", "model.diffusion_model.input_blocks.99.0.weight"
    changes = {
        "wrong shapes.*out.2.bias": lambda tensors: tensors.update({bias: torch.zeros(5)}),
        "beyond this architecture.*input_blocks.99": lambda tensors: tensors.update({strange: torch.zeros(5)}),
        "found a LoRA": lambda tensors: tensors.update({"lora_unet_x.lora_up.weight": torch.zeros(5)}),
    }
    for says, change in changes.items():
        with pytest.raises(CheckpointError, match=says):
            load(rewritten(tmp_path / "x", tmp_path / "y", change), sdxl)
    load(rewritten(tmp_path / "x", tmp_path / "y", lambda tensors: tensors.update({"alphas_cumprod": torch.zeros(5)})), sdxl)


def test_another_architecture_is_refused(tmp_path, architecture, another, states):
    """A file of the other family is called by its name."""
    save(tmp_path / "x", states(architecture), architecture)
    other = another(architecture)
    with pytest.raises(CheckpointError, match=f"expected a whole {other.family} model.*found {architecture.family}"):
        load(tmp_path / "x", other)


def test_what_is_saved_must_fit_its_config(tmp_path, sdxl, states):
    """A missing part, weight or shape is refused before anything is written; so is an unknown dtype."""
    mine = states(sdxl)
    with pytest.raises(CheckpointError, match="found no text_encoder, text_encoder_2, vae"):
        save(tmp_path / "x", {"unet": mine["unet"]}, sdxl)
    with pytest.raises(CheckpointError, match="conv_in"):
        save(tmp_path / "x", mine | {"unet": {k: v for k, v in mine["unet"].items() if k != "conv_in.bias"}}, sdxl)
    with pytest.raises(CheckpointError, match="fp16, bf16, fp32"):
        save(tmp_path / "x", mine, sdxl, dtypes="float16")
    with pytest.raises(CheckpointError, match="not text_encoder_3"):
        load(tmp_path / "x", sdxl, parts=["text_encoder_3"])
    assert list(tmp_path.iterdir()) == []


def test_metadata_and_markers_reach_the_file(tmp_path, sdxl, states):
    """ModelSpec with its hash, our lineage and the markers are there; two saves are the same file; no date is."""
    about = describe(
        family="sdxl", title="t", objective="v", zero_terminal_snr=True, parents={"base": "ab"}, recipe="cd", scale="miniature"
    )
    first = save(tmp_path / "x", states(sdxl), sdxl, metadata=about, markers=markers("v", True))
    assert save(tmp_path / "y", states(sdxl), sdxl, metadata=about, markers=markers("v", True)).digest == first.digest
    with open_file(tmp_path / "x") as file:
        assert file.shape("v_pred") == file.shape("ztsnr") == (0,)
        assert len(file.metadata[HASH_KEY]) == 66
        assert file.metadata["astolfo.parents"] == '{"base":"ab"}'
        assert not [key for key in file.metadata if "date" in key]
    assert equal(load_state_dicts(tmp_path / "x", sdxl), halved(states(sdxl)))


def test_a_diffusers_folder_is_read_like_a_file(tmp_path, architecture, states):
    """Our folder, older spellings in it, and shards all give the same weights; `kohya` turns the projection here too."""
    mine = states(architecture)
    write_folder(tmp_path / "new", mine, architecture)
    assert equal(load_state_dicts(tmp_path / "new", architecture), mine)
    old = {part: dict(state) for part, state in mine.items()}
    old["text_encoder"] = {f"text_model.{name}": tensor for name, tensor in old["text_encoder"].items()}
    old["vae"] = {name.replace(".to_q.", ".query.").replace(".to_out.0.", ".proj_attn."): t for name, t in old["vae"].items()}
    write_folder(tmp_path / "old", old, architecture)
    assert equal(load_state_dicts(tmp_path / "old", architecture), mine)
    if architecture.family == "sdxl":
        turned = load_state_dicts(tmp_path / "new", architecture, pooled_projection="kohya")["text_encoder_2"][
            "text_projection.weight"
        ]
        assert torch.equal(turned, mine["text_encoder_2"]["text_projection.weight"].T)


def test_a_folder_that_does_not_fit_is_refused(tmp_path, sdxl, states):
    """Missing files, weights and shards outside the folder are refused."""
    mine = states(sdxl)
    with pytest.raises(CheckpointError, match="no diffusers folder"):
        load(tmp_path, sdxl)
    mine["unet"].pop("conv_in.bias")
    write_folder(tmp_path / "x", mine, sdxl)
    with pytest.raises(CheckpointError, match="no conv_in"):
        load(tmp_path / "x", sdxl)
    weights = tmp_path / "x" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "away")
    weights.with_name(weights.name + ".index.json").write_text('{"weight_map": {"a": "../../away"}}')
    with pytest.raises(CheckpointError, match="outside its folder"):
        load(tmp_path / "x", sdxl)


def test_architectures_are_checked(sdxl):
    """Unknown families, parts and config keys are errors of the ledger."""
    from astolfo.checkpoint.architecture import Architecture

    whole = {part: sdxl.config(part) for part in sdxl.parts}
    for mapping, family, says in ((whole, "sd9", "family"), (whole, "sd2", "parts"), ({"unet": {}}, "sdxl", "parts")):
        with pytest.raises(LedgerError, match=says):
            Architecture.from_mapping(mapping, family)
    for part in sdxl.parts:
        with pytest.raises(LedgerError, match="colour"):
            Architecture.from_mapping(whole | {part: whole[part] | {"colour": 1}}, "sdxl").build(part)
    assert Architecture.from_mapping(whole | {"family": "sdxl"}).digest == sdxl.digest
    assert np.isfinite(len(sdxl.shapes("unet")))
