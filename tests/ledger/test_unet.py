"""A UNet's blocks by their names: what there is, what trains, at which rate, and what is refused."""

import re

import pytest

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.layout import file_key
from astolfo.errors import LedgerError
from astolfo.ledger import load, recipe_of, show, table
from astolfo.ledger.schema import LearningRate, UNetBlocks
from astolfo.ledger.schema.blocks import SD_SCRIPTS_BLOCKS
from astolfo.ledger.unet import parameters, trained
from astolfo.plan import memory, speed
from astolfo.train.trainable import trainable_parameters as trained_of
from tests.conftest import SMALL
from tests.ledger.conftest import RUN

RATE = LearningRate(unet=1e-6)


@pytest.fixture(scope="module")
def full():
    return load(SMALL, "full")


@pytest.fixture(scope="module")
def config(full):
    return full.scale.architectures["sdxl"]["unet"]


@pytest.mark.parametrize("family", ["sdxl", "sd2"])
@pytest.mark.parametrize("scale", ["miniature", "full"])
def test_the_parameters_are_diffusers(scale, family):
    """Names and sizes that are derived from a configuration are those of the model that diffusers makes of it."""
    mapping = load(SMALL, scale).scale.architectures[family]
    model = Architecture.from_mapping(mapping, family).build("unet")
    assert parameters(mapping["unet"]) == {name: p.numel() for name, p in model.named_parameters()}


def size(config, rates=RATE, **blocks):
    return sum(trained(UNetBlocks(**blocks), rates, config).values())


def test_trained_and_frozen_blocks_complete_each_other(config):
    """What `train` takes and `freeze` leaves is the whole UNet, for whole blocks, parts of them and kinds of modules."""
    for names in (
        ["down_blocks.1"],
        ["mid_block.attentions.0", "conv_in"],
        ["attentions"],
        ["attn2"],
        ["attn2.to_k"],
        ["resnets"],
    ):
        assert 0 < size(config, train=names) < 2_567_463_684
        assert size(config, train=names) + size(config, freeze=names) == 2_567_463_684
    assert size(config, train=["attentions", "resnets"]) == size(config, train=["attentions"]) + size(config, train=["resnets"])
    assert size(config, train=["down_blocks.1"]) > size(config, train=["down_blocks.1.attentions"])


def test_cross_attention_is_what_reads_the_text(config):
    """`attn2` names the cross-attentions alone: 70 of them, whose keys read 2,048 channels."""
    found = trained(UNetBlocks(train=("attn2",)), RATE, config)
    assert {name.split(".attn2.")[1] for name in found} == {
        "to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"
    }  # fmt: skip
    assert len([name for name in found if name.endswith("to_k.weight")]) == 70
    assert {size // 2048 for name, size in found.items() if name.endswith("to_k.weight")} == {640, 1280}


def test_the_trainer_trains_what_the_ledger_counts(full, config):
    """The names that a recipe trains are one set, with torch and without, whatever names it."""
    unet = Architecture.from_mapping(full.scale.architectures["sdxl"], "sdxl").build("unet")
    plain = recipe_of(full, full.run("plain"))
    for given, rates in (
        (63, RATE), (UNetBlocks(train=("attn2", "mid_block")), RATE), (UNetBlocks(freeze=("up_blocks.2",)), RATE),
        (100, LearningRate(unet=0, blocks={"up_blocks": 1e-6, "up_blocks.0": 0})),
    ):  # fmt: skip
        recipe = plain.model_copy(update={"unet": given, "learning_rate": rates})
        names = {name: parameter.numel() for _, name, parameter in trained_of(recipe, {"unet": unet})}
        assert names == trained(given, rates, config)
        assert memory.trained_parameters(recipe) == sum(names.values())


def test_the_longest_name_has_the_rate():
    """A weight has the rate of the longest of its block's names, else the part's; text encoders have no blocks."""
    rates = LearningRate(unet=1e-6, text_encoders=1e-5, blocks={"up_blocks": 2e-6, "up_blocks.0": 3e-6, "attn2": 0})
    assert rates.of("unet", "conv_in.weight") == 1e-6
    assert rates.of("unet", "up_blocks.1.resnets.0.conv1.weight") == 2e-6
    assert rates.of("unet", "up_blocks.0.resnets.0.conv1.weight") == 3e-6
    assert rates.of("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight") == 0
    assert rates.of("text_encoder", "up_blocks.weight") == 1e-5
    assert rates.largest == {"unet": 3e-6, "text_encoder": 1e-5, "text_encoder_2": 1e-5}
    assert LearningRate(unet=0, blocks={"conv_in": 1e-6}).largest["unet"] == 1e-6


def _of_sd_scripts(key):
    """Which of sd-scripts' 23 rates a weight of the single file has, as `sdxl_train.py:49-77` sorts them."""
    kind, _, rest = key.partition(".")
    first = {"time_embed": 0, "label_emb": 0, "out": 22}
    begin = {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}
    return first[kind] if kind in first else begin[kind] + int(rest.split(".")[0])


def test_sd_scripts_23_rates_reach_its_blocks(full, config):
    """A list of 23 rates gives every weight the rate that sd-scripts gives it, by the single file's keys."""
    rates = LearningRate(unet=9e-1, blocks=[(number + 1) * 1e-6 for number in range(23)])
    architecture = Architecture.from_mapping(full.scale.architectures["sdxl"], "sdxl")
    for name in parameters(config):
        key = file_key(architecture, "unet", name).removeprefix("model.diffusion_model.")
        assert rates.of("unet", name) == (_of_sd_scripts(key) + 1) * 1e-6, (name, key)
    assert len(SD_SCRIPTS_BLOCKS) == 23
    with pytest.raises(ValueError, match="23 values, found 22"):
        LearningRate(unet=1e-6, blocks=[1e-6] * 22)


def test_the_order_of_names_is_no_other_recipe():
    """Names in another order, or twice, are the same set."""
    assert UNetBlocks(train=("conv_in", "mid_block", "conv_in")) == UNetBlocks(train=("mid_block", "conv_in"))


def test_speed_and_memory_know_any_set(full):
    """A set that nobody measured is planned: less than the whole UNet, more than its forward pass."""
    recipe = recipe_of(full, full.run("plain")).model_copy(update={"unet": UNetBlocks(freeze=("mid_block",))})
    assert speed.TERAFLOP[100] - 5.977 < speed.teraflop(recipe) < speed.TERAFLOP[100]
    for percent in (63, 68, 71):  # the estimate, where operations were counted
        same = recipe.model_copy(update={"unet": UNetBlocks(train=tuple(trained(percent, RATE, recipe.architecture["unet"])))})
        assert speed.teraflop(same) == pytest.approx(speed.TERAFLOP[percent], rel=0.03)
    assert memory.memory(recipe, 1).total < memory.memory(recipe.model_copy(update={"unet": 100}), 1).total


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"unet": {"train": ["mid_blok"]}}, r"unknown block of the UNet 'mid_blok'. Did you mean mid_block"),
     ({"unet": {"freeze": ["down_blocks.3"]}}, r"unknown block of the UNet 'down_blocks.3'. Did you mean down_blocks"),
     ({"unet": {"train": ["mid_block"], "freeze": ["conv_in"]}}, "give either train or freeze"),
     ({"unet": {"train": []}}, "give either train or freeze"), ({"unet": {"trains": ["conv_in"]}}, "unknown key 'trains'"),
     ({"unet": 70}, r"expected 63, 68, 71 or 100, \{train: \[blocks\]\}, or \{freeze: \[blocks\]\}. Found 70"),
     ({"unet": {"train": ["0"]}}, "unet.*'0'"), ({"unet": {"train": "conv_in"}}, "unet.*'conv_in'"),
     ({"learning_rate": {"unet": 1e-6, "blocks": {"conv_im": 1e-6}}}, "unknown block of the UNet 'conv_im'. Did you mean conv_in"),
     ({"learning_rate": {"unet": 0, "blocks": {"conv_in": 1e-6}}, "unet": {"freeze": ["conv_in"]}}, "nothing of the UNet trains")],
)  # fmt: skip
def test_what_a_unet_does_not_have_is_refused(mine, keys, message):
    """A misspelt block, a set that is none, and a rate for nothing are errors with file, line and near names."""
    with pytest.raises(LedgerError, match=rf"mine\.yaml:\d+: .*{message}"):
        mine(**keys)


def test_a_named_set_is_a_recipe_of_its_own(mine):
    """A run with a named set has it in its recipe, in the ledger's table and in its listing."""
    ledger = mine(unet={"train": ["attn2"]})
    run = ledger.run(RUN)
    assert recipe_of(ledger, run).canonical()["unet"] == {"train": ["attn2"]}
    assert table.facets(ledger, run)["unet"] == "UNET: train attn2"
    assert re.search(r"unet +train \['attn2'\]", show.as_text(ledger, run))


def test_rates_of_blocks_scale_with_the_others(mine):
    """At a scale that multiplies rates those of blocks are multiplied too; the listing says them."""
    ledger = mine(learning_rate={"unet": 1e-5, "blocks": {"up_blocks": 2e-5}})
    run, factor = ledger.run(RUN), ledger.scale.learning_rate_multiplier
    assert factor != 1
    assert recipe_of(ledger, run).learning_rate == LearningRate(unet=1e-5 * factor, blocks={"up_blocks": 2e-5 * factor})
    assert "1e-5 (up_blocks 2e-5)" in table.facets(ledger, run)["rates"]
