"""Which weights train: the record's partial UNets are exact sets of blocks, by the single file's own names."""

import re
from itertools import pairwise

import pytest

from astolfo.checkpoint.architecture import Architecture
from astolfo.checkpoint.layout import file_key
from astolfo.errors import LedgerError
from astolfo.ledger import load, recipe_of
from astolfo.ledger.schema import LearningRate
from astolfo.train.trainable import trainable_parameters
from tests.conftest import SMALL

# The modules that the record's sdxl_original_unet_{71,68,63}.py leave untrained, each wholly (sgm names).
FROZEN_71 = {
    "input_blocks.1.0", "input_blocks.2.0", "input_blocks.3.0", "input_blocks.6.0", "input_blocks.8.1",
    "output_blocks.0.1", "output_blocks.2.2", "output_blocks.5.2", "output_blocks.6.0", "output_blocks.7.0", "output_blocks.8.0",
}  # fmt: skip
FROZEN_68 = FROZEN_71 | {"middle_block.0", "middle_block.2"}
FROZEN_63 = FROZEN_68 | {
    "input_blocks.4.0", "input_blocks.5.0", "input_blocks.8.0",
    "output_blocks.0.0", "output_blocks.3.0", "output_blocks.4.0", "output_blocks.5.0",
}  # fmt: skip
EXPECTED = {
    63: (FROZEN_63, 1_629_562_564, 1104),
    68: (FROZEN_68, 1_764_781_124, 1184),
    71: (FROZEN_71, 1_827_058_244, 1204),
    100: (set(), 2_567_463_684, 1680),
}
RATES = {"unet": 1e-6, "text_encoder": 1e-5, "text_encoder_2": 2e-5}


@pytest.fixture(scope="module")
def full():
    return load(SMALL, "full")


@pytest.fixture(scope="module")
def architecture(full):
    return Architecture.from_mapping(full.scale.architectures["sdxl"], "sdxl")


@pytest.fixture(scope="module")
def unet(architecture):
    """SDXL's UNet as the library's scales/full.yaml has it, without storage."""
    return architecture.build("unet")


@pytest.fixture
def recipe(full):
    """A function that gives a full-scale recipe with changes."""
    return lambda **changes: recipe_of(full, full.run("plain")).model_copy(update=changes)


@pytest.mark.parametrize("percent", [63, 68, 71, 100])
def test_trainable_unets_have_their_exact_size(recipe, unet, percent):
    """Parameters and tensors of 63, 68, 71 and 100 % of SDXL's UNet of 2,567,463,684 in 1680."""
    _, parameters, tensors = EXPECTED[percent]
    found = [parameter.numel() for _, _, parameter in trainable_parameters(recipe(unet=percent), {"unet": unet})]
    assert (sum(found), len(found)) == (parameters, tensors)
    assert round(100 * sum(found) / 2_567_463_684, 4) == {63: 63.4697, 68: 68.7364, 71: 71.162, 100: 100}[percent]


@pytest.mark.parametrize("percent", [63, 68, 71, 100])
def test_trainable_unets_freeze_whole_blocks_of_the_file(recipe, unet, architecture, percent):
    """By the single file's keys, exactly the named blocks are left out, each with everything in it."""
    keep = {name for _, name, _ in trainable_parameters(recipe(unet=percent), {"unet": unet})}
    keys = {True: set(), False: set()}
    for name, _ in unet.named_parameters():
        key = file_key(architecture, "unet", name).removeprefix("model.diffusion_model.")
        keys[name in keep].add(re.match(r"(?:(?:in|out)put_blocks\.\d+\.\d+)|(?:middle_block\.\d)|\w+", key).group())
    assert keys[False] == EXPECTED[percent][0]
    assert not keys[False] & keys[True]
    assert {"time_embed", "label_emb", "input_blocks.0.0", "out", "input_blocks.7.1", "middle_block.1"} <= keys[True]


def test_each_set_contains_the_next(recipe, unet):
    """What trains at 63 % trains at 68, 71 and 100."""
    sets = [{name for _, name, _ in trainable_parameters(recipe(unet=percent), {"unet": unet})} for percent in (63, 68, 71, 100)]
    assert all(small < large for small, large in pairwise(sets))


@pytest.mark.parametrize(
    ("rates", "parts"),
    [({"unet": 1e-6}, {"unet"}), ({"unet": 0.0, "text_encoders": 1e-6}, {"text_encoder", "text_encoder_2"}),
     (RATES, set(RATES)), ({"unet": 1e-6, "text_encoder": 1e-6}, {"unet", "text_encoder"})],
)  # fmt: skip
def test_a_part_trains_when_it_has_a_rate(recipe, architecture, unet, rates, parts):
    """Text encoders off, only, both and one: what trains are the parts with a rate above 0."""
    models = {"unet": unet} | {part: architecture.build(part) for part in ("text_encoder", "text_encoder_2")}
    assert {
        part for part, _, _ in trainable_parameters(recipe(learning_rate=LearningRate.model_validate(rates)), models)
    } == parts


def test_the_first_encoders_unread_layers_do_not_train(recipe, architecture):
    """SDXL's first encoder trains without its last layer and final norm (sdxl_train.py:476-478), the second with all."""
    models = {part: architecture.build(part) for part in ("text_encoder", "text_encoder_2")}
    found = list(trainable_parameters(recipe(learning_rate=LearningRate(**RATES)), models))
    left = {part: set(dict(models[part].named_parameters())) - {n for p, n, _ in found if p == part} for part in models}
    assert left["text_encoder_2"] == set()
    assert {re.search(r"encoder\.layers\.\d+|final_layer_norm", name).group() for name in left["text_encoder"]} == {
        "encoder.layers.11", "final_layer_norm",
    }  # fmt: skip


def test_sd2_trains_its_whole_encoder(recipe, full):
    """SD 2.x reads its encoder's output, so all of it trains."""
    encoder = Architecture.from_mapping(full.scale.architectures["sd2"], "sd2").build("text_encoder")
    found = trainable_parameters(recipe(family="sd2", unet=100, learning_rate=LearningRate(**RATES)), {"text_encoder": encoder})
    assert [name for _, name, _ in found] == [name for name, _ in encoder.named_parameters()]


@pytest.mark.parametrize("percent", [63, 68, 71])
def test_sd2_has_no_partial_unet(recipe, full, percent):
    """A partial UNet of SD 2.x is refused by name, not trained by chance of names."""
    unet = Architecture.from_mapping(full.scale.architectures["sd2"], "sd2").build("unet")
    with pytest.raises(LedgerError, match=f"unet: {percent} is a set of frozen blocks .* sd2 has none. Say unet: 100"):
        list(trainable_parameters(recipe(family="sd2", unet=percent), {"unet": unet}))
