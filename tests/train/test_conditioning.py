"""What the UNet is told besides the latents is what SDXL's inference computes, or what its trainer did."""

import pytest
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.data import vocabulary
from astolfo.data.store import Sample
from astolfo.data.tokens import chunks
from astolfo.train.conditioning import Text, join_chunks, time_ids
from astolfo.train.initialise import initialise


@pytest.fixture(scope="module")
def parts(ledger, tmp_path_factory):
    """Two untrained text encoders and their tokenizers."""
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary.write(folder)
    architecture = Architecture.from_mapping(ledger.scale.architectures["sdxl"], "sdxl")
    encoders = [initialise(architecture.build(part, "cpu"), 1).eval() for part in ("text_encoder", "text_encoder_2")]
    return encoders, vocabulary.tokenizers(folder)


def test_one_chunk_is_the_penultimate_layers(parts):
    """75 tokens: both encoders' hidden states before the last layer, joined, and the second's pooled projection."""
    (first, second), tokenizers = parts
    with torch.no_grad():
        context, pooled = Text(*parts, tokens=75, context="inference")(["a red star"], "cpu")
        ids = [torch.from_numpy(chunks(tokenizer, ["a red star"], 75)[0]) for tokenizer in tokenizers]
        one = first(ids[0], output_hidden_states=True).hidden_states[-2]
        two = second(ids[1], output_hidden_states=True)
    assert torch.equal(context, torch.cat([one, two.hidden_states[-2]], dim=-1))
    assert torch.equal(pooled, two.text_embeds)


def test_pooled_is_the_projected_end_token(parts):
    """The pooled vector is the final-norm state at the first end token times the transposed projection weight."""
    (_, second), tokenizers = parts
    with torch.no_grad():
        _, pooled = Text(*parts, tokens=225, context="stripped")(["a red star"], "cpu")
        ids = torch.from_numpy(chunks(tokenizers[1], ["a red star"], 75)[0])
        last = second(ids).last_hidden_state[0, ids[0].tolist().index(tokenizers[1].eos_token_id)]
        torch.testing.assert_close(pooled[0], last @ second.text_projection.weight.T)


@pytest.mark.parametrize(("context", "positions"), [("inference", 231), ("stripped", 227)])
def test_positions_of_three_chunks(parts, context, positions):
    """Three chunks make 231 positions for inference programs, 227 in training by sd-scripts."""
    with torch.no_grad():
        found, _ = Text(*parts, tokens=225, context=context)(["a red star", ""], "cpu")
    assert found.shape[:2] == (2, positions)


def test_stripped_keeps_the_outer_tokens():
    """Stripped: the first begin token, 75 positions of each chunk, and the last chunk's last token."""
    states = torch.arange(3 * 77).reshape(1, 3, 77, 1)
    found = join_chunks(states, "stripped").flatten().tolist()
    assert found == [0, *range(1, 76), *range(78, 153), *range(155, 230), 230]


def test_time_ids_are_size_crop_target():
    """The six numbers are original height and width, crop top and left, target height and width."""
    sample = Sample(id="a", latents=None, original_size=(800, 600), crop=(3, 5), target_size=(1024, 768), tags="", sentence="")
    assert time_ids([sample]).tolist() == [[800, 600, 3, 5, 1024, 768]]
