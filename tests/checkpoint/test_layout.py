"""The key map of the single file, derived from configs: bijective at any size, and SDXL's own at full size."""

import hashlib
from pathlib import Path

import pytest
import yaml

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.layout import block_of, file_key, identify, is_optional, part_of, places
from astolfo.errors import CheckpointError

FULL = yaml.safe_load((Path(__file__).parents[2] / "astolfo/library/scales/full.yaml").read_text())["architectures"]


@pytest.fixture(scope="module", params=["sdxl", "sd2"])
def full(request):
    """Either family as published."""
    return Architecture.from_mapping(FULL[request.param], request.param)


def check_bijection(architecture):
    """Every weight lies in exactly one place, and no two places share a key."""
    for part in architecture.parts:
        found = places(architecture, part)
        assert len({place.key for place in found}) == len(found)
        assert sorted(name for place in found for name in place.names) == sorted(architecture.shapes(part))
        assert {part_of(place.key) for place in found} == {part}
        assert all(block_of(place.key) for place in found)


def test_the_map_is_a_bijection_at_toy_size(architecture):
    """Other block counts, layers and channels than SDXL's have their own, complete map."""
    check_bijection(architecture)


def test_the_map_is_a_bijection_at_full_size(full):
    """The published architectures have a complete map."""
    check_bijection(full)


def test_sdxl_has_its_2515_keys():
    """Keys and shapes are those of the published SDXL file (digest of the list merge tools carry), optional ones included."""
    architecture = Architecture.from_mapping(FULL["sdxl"], "sdxl")
    listed = {place.key: place.shape for part in architecture.parts for place in places(architecture, part)}
    listed |= {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": (1, 77),
        "conditioner.embedders.1.model.logit_scale": (),
    }
    assert len(listed) == 2515
    assert [len(places(architecture, part)) for part in architecture.parts] == [1680, 196, 388 + 1, 248]
    text = "".join(f"{key} {list(shape)}\n" for key, shape in sorted(listed.items()))
    assert hashlib.sha256(text.encode()).hexdigest() == "2086c2ba91745f921763779e5e7d19ed40cf689f25c1dd929bb509a000f8cb6e"


def test_sd2_has_its_keys():
    """SD 2.1's 686 UNet keys, 23 layers of its text encoder, and the VAE."""
    architecture = Architecture.from_mapping(FULL["sd2"], "sd2")
    assert [len(places(architecture, part)) for part in architecture.parts] == [686, 23 * 12 + 4, 248]


def test_the_unet_and_vae_agree_with_diffusers_own_conversion(full):
    """diffusers' converter, given our keys, finds each diffusers name where we put it."""
    convert = pytest.importorskip("diffusers.loaders.single_file_utils")
    import torch

    for part, converter in (("unet", convert.convert_ldm_unet_checkpoint), ("vae", convert.convert_ldm_vae_checkpoint)):
        found = places(full, part)
        tagged = {place.key: torch.empty(place.shape, device="meta") for place in found}
        tags = {id(tensor): key for key, tensor in tagged.items()}
        result = converter(tagged, full.config(part))
        assert set(result) == set(full.shapes(part))
        same = {name: tags[id(tensor)] for name, tensor in result.items() if id(tensor) in tags}
        assert len(same) >= len(result) - 8  # the VAE's linear layers are new tensors
        assert same == {name: place.key for place in found for name in place.names if name in same}
        assert {name: tuple(t.shape) for name, t in result.items()} == full.shapes(part)


def test_the_text_encoders_agree_with_diffusers_own_conversion(full):
    """diffusers' converter of OpenCLIP keys takes our stacked, transposed file apart into our module's tensors."""
    convert = pytest.importorskip("diffusers.loaders.single_file_utils")
    import torch

    part = "text_encoder_2" if full.family == "sdxl" else "text_encoder"
    prefix = "conditioner.embedders.1.model." if full.family == "sdxl" else "cond_stage_model.model."
    tensors = {place.key: torch.empty(place.shape, device="meta") for place in places(full, part)}
    with torch.device("meta"):
        result = convert.convert_open_clip_checkpoint(full.build(part), tensors, prefix=prefix)
    shapes = {name.removeprefix("text_model."): shape for name, shape in full.shapes(part).items()}
    assert {name.removeprefix("text_model."): tuple(tensor.shape) for name, tensor in result.items()} == shapes


@pytest.mark.parametrize(
    ("part", "name", "key"),
    [
        ("unet", "time_embedding.linear_1.weight", "model.diffusion_model.time_embed.0.weight"),
        ("unet", "add_embedding.linear_2.bias", "model.diffusion_model.label_emb.0.2.bias"),
        ("unet", "down_blocks.0.downsamplers.0.conv.weight", "model.diffusion_model.input_blocks.3.0.op.weight"),
        ("unet", "down_blocks.1.resnets.0.conv_shortcut.weight", "model.diffusion_model.input_blocks.4.0.skip_connection.weight"),
        (
            "unet",
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k.weight",
            "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_k.weight",
        ),
        ("unet", "mid_block.resnets.1.time_emb_proj.bias", "model.diffusion_model.middle_block.2.emb_layers.1.bias"),
        ("unet", "up_blocks.0.upsamplers.0.conv.weight", "model.diffusion_model.output_blocks.2.2.conv.weight"),
        ("unet", "up_blocks.2.resnets.2.norm2.weight", "model.diffusion_model.output_blocks.8.0.out_layers.0.weight"),
        ("unet", "conv_out.bias", "model.diffusion_model.out.2.bias"),
        (
            "text_encoder",
            "encoder.layers.11.mlp.fc1.weight",
            "conditioner.embedders.0.transformer.text_model.encoder.layers.11.mlp.fc1.weight",
        ),
        (
            "text_encoder_2",
            "text_model.encoder.layers.31.self_attn.v_proj.bias",
            "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_bias",
        ),
        (
            "text_encoder_2",
            "text_model.embeddings.position_embedding.weight",
            "conditioner.embedders.1.model.positional_embedding",
        ),
        ("text_encoder_2", "text_projection.weight", "conditioner.embedders.1.model.text_projection"),
        ("vae", "decoder.up_blocks.0.resnets.2.conv1.weight", "first_stage_model.decoder.up.3.block.2.conv1.weight"),
        ("vae", "encoder.mid_block.attentions.0.to_out.0.weight", "first_stage_model.encoder.mid.attn_1.proj_out.weight"),
        (
            "vae",
            "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
            "first_stage_model.encoder.down.1.block.0.nin_shortcut.bias",
        ),
    ],
)
def test_well_known_names(part, name, key):
    """Names that people know by heart lie where they know them."""
    assert file_key(Architecture.from_mapping(FULL["sdxl"], "sdxl"), part, name) == key


def test_optional_keys_belong_to_their_part(full):
    """What files may have beyond the modules is known by name, and nothing else is."""
    assert is_optional(full, "text_encoder", "cond_stage_model.model.transformer.resblocks.23.ln_1.bias") == (
        full.family == "sd2"
    )
    assert is_optional(full, "text_encoder", "conditioner.embedders.0.transformer.text_model.embeddings.position_ids") == (
        full.family == "sdxl"
    )
    assert not is_optional(full, "unet", "model.diffusion_model.input_blocks.99.0.weight")
    assert not any(is_optional(full, part, place.key) for part in full.parts for place in places(full, part))


def test_a_name_of_another_architecture_has_no_place(full):
    """A weight that the layout does not know is an error, not a guess."""
    with pytest.raises(CheckpointError, match="no place"):
        file_key(full, "unet", "down_blocks.9.resnets.0.conv1.weight")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["lora_unet_down_blocks_0.lora_down.weight"], "a LoRA or similar adapter"),
        (["unet.down_blocks.0.attn.lora_A.weight"], "a LoRA or similar adapter"),
        (["conditioner.embedders.1.model.ln_final.bias", "model.diffusion_model.out.0.bias"], "sdxl"),
        (["conditioner.embedders.0.model.ln_final.bias"], "sdxl-refiner"),
        (["cond_stage_model.model.ln_final.bias"], "sd2"),
        (["cond_stage_model.transformer.text_model.final_layer_norm.bias"], "sd1"),
        (["model.diffusion_model.double_blocks.0.x"], "flux"),
        (["first_stage_model.encoder.conv_in.bias"], "a part of a model in the single-file layout"),
        (["down_blocks.0.resnets.0.conv1.bias"], "a diffusers UNet"),
        (["x"], "unknown"),
        ([], "unknown"),
    ],
)
def test_what_a_file_is_shows_in_its_names(keys, kind):
    """Other kinds of files are told apart by name, for the messages."""
    assert identify(keys) == kind
