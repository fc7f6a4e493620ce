"""What the UNet is told besides the latents is what SDXL's inference computes, or what its trainer did."""

import pytest
import torch

from astolfo.checkpoint.architecture import Architecture
from astolfo.data import vocabulary
from astolfo.data.store import Sample
from astolfo.data.tokens import chunks
from astolfo.ledger.recipe import Recipe
from astolfo.ledger.schema import LearningRate
from astolfo.train.conditioning import CachedText, Text, join_chunks, time_ids
from astolfo.train.initialise import initialise
from astolfo.train.loop import Trainer
from astolfo.train.ranks import Processes
from tests.train.conftest import digest


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
        ids = [torch.from_numpy(found[0]) for found in chunks(tokenizers, ["a red star"], 75)]
        one = first(ids[0], output_hidden_states=True).hidden_states[-2]
        two = second(ids[1], output_hidden_states=True)
    assert torch.equal(context, torch.cat([one, two.hidden_states[-2]], dim=-1))
    assert torch.equal(pooled, two.text_embeds)


def test_pooled_is_the_projected_end_token(parts):
    """The pooled vector is the final-norm state at the first end token times the transposed projection weight."""
    (_, second), tokenizers = parts
    with torch.no_grad():
        _, pooled = Text(*parts, tokens=225, context="stripped")(["a red star"], "cpu")
        ids = torch.from_numpy(chunks(tokenizers, ["a red star"], 75)[1][0])
        last = second(ids).last_hidden_state[0, ids[0].tolist().index(tokenizers[1].eos_token_id)]
        torch.testing.assert_close(pooled[0], last @ second.text_projection.weight.T)


def test_the_penultimate_state_is_before_the_last_layer(parts):
    """What is read lacks exactly the last layer and the final norm: with both it is the encoder's output."""
    (first, _), tokenizers = parts
    ids = torch.from_numpy(chunks(tokenizers, ["a red star"], 75)[0][0])
    layer, last = first.encoder.layers[-1], {}
    hook = layer.register_forward_pre_hook(lambda _, args: last.update(given=args[0]))
    with torch.no_grad():
        first(ids)
        context, _ = Text(*parts, tokens=75, context="inference")(["a red star"], "cpu")
    hook.remove()
    assert torch.equal(context[..., : first.config.hidden_size], last["given"])


def test_pooled_is_the_first_chunks(parts):
    """A caption of three chunks has the pooled vector of its first 75 tokens alone."""
    words = " ".join(["star", "red", "disc"] * 50)
    with torch.no_grad():
        long, short = (Text(*parts, tokens=tokens, context="stripped")([words], "cpu")[1] for tokens in (225, 75))
    torch.testing.assert_close(long, short)


def test_without_an_end_token_the_begin_token_is_pooled(parts):
    """A first chunk that lost its end token to a "!" at its end is pooled at its begin token, as in the original trainer."""
    (_, second), tokenizers = parts
    caption = " ".join(["star"] * 74) + " !! star"
    with torch.no_grad():
        _, pooled = Text(*parts, tokens=150, context="stripped")([caption], "cpu")
        last = second(torch.from_numpy(chunks(tokenizers, [caption], 150)[1][0])).last_hidden_state[0, 0]
    torch.testing.assert_close(pooled[0], last @ second.text_projection.weight.T)


@pytest.mark.parametrize(
    ("tokens", "context", "positions"),
    [(75, "inference", 77), (75, "stripped", 77), (150, "inference", 154), (150, "stripped", 152), (225, "inference", 231),
     (225, "stripped", 227)],
)  # fmt: skip
def test_positions(parts, tokens, context, positions):
    """Three chunks make 231 positions for inference programs, 227 in training by sd-scripts; two make 154 and 152."""
    with torch.no_grad():
        found, _ = Text(*parts, tokens=tokens, context=context)(["a red star", ""], "cpu")
    assert found.shape[:2] == (2, positions)


@pytest.fixture(scope="module")
def sd2(ledger, tmp_path_factory):
    """SD 2.1's text encoder, untrained, and the folder of its vocabulary."""
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary.write(folder)
    architecture = Architecture.from_mapping(ledger.scale.architectures["sd2"], "sd2")
    return {"text_encoder": initialise(architecture.build("text_encoder", "cpu"), 1).eval()}, folder


def test_sd2_reads_its_encoder_after_the_final_norm(sd2):
    """SD 2.x: one encoder, whose last layer is dropped in its config already; its output with final norm, nothing pooled."""
    parts, folder = sd2
    encoder = parts["text_encoder"]
    text = Text.of(parts, folder, tokens=75, context="inference")
    with torch.no_grad():
        context, pooled = text(["a red star"], "cpu")
        ids = torch.from_numpy(chunks(text.tokenizers, ["a red star"], 75)[0][0])
        expected = encoder.final_layer_norm(encoder(ids, output_hidden_states=True).hidden_states[-1])
    assert pooled is None
    torch.testing.assert_close(context, expected)


def test_sd2_pads_with_the_bang(sd2):
    """SD 2.x's tokenizer pads with id 0, in the manner of SDXL's second."""
    text = Text.of(*sd2, tokens=225, context="stripped")
    (tokenizer,) = text.tokenizers
    ids = chunks([tokenizer], ["a star"], 225)[0][0]
    assert tokenizer.pad_token_id == 0
    assert ids[0, 3:].tolist() == [tokenizer.eos_token_id, *[0] * 73]
    assert ids[1].tolist() == [tokenizer.bos_token_id, tokenizer.eos_token_id, *[0] * 75]
    with torch.no_grad():
        assert text(["a star"], "cpu")[0].shape[:2] == (1, 227)


def test_stripped_keeps_the_outer_tokens():
    """Stripped: the first begin token, 75 positions of each chunk, and the last chunk's last token."""
    states = torch.arange(3 * 77).reshape(1, 3, 77, 1)
    found = join_chunks(states, "stripped").flatten().tolist()
    assert found == [0, *range(1, 76), *range(78, 153), *range(155, 230), 230]


def test_time_ids_are_size_crop_target():
    """The six numbers are original height and width, crop top and left, target height and width."""
    sample = Sample(id="a", latents=None, original_size=(800, 600), crop=(3, 5), target_size=(1024, 768), tags="", sentence="")
    assert time_ids([sample]).tolist() == [[800, 600, 3, 5, 1024, 768]]


def test_sizes_are_sinusoids_cosine_first(ledger):
    """SDXL's UNet sees each of the six numbers as cosines, then sines, of frequencies 10000^(-i/half)."""
    sdxl = ledger.scale.architectures["sdxl"]
    unet = Architecture.from_mapping(sdxl, "sdxl").build("unet", "cpu")
    half = sdxl["unet"]["addition_time_embed_dim"] // 2
    values = torch.tensor([800.0, 0.0, 3.0])
    angles = values[:, None] * 10000.0 ** (-torch.arange(half) / half)
    torch.testing.assert_close(unet.add_time_proj(values), torch.cat([angles.cos(), angles.sin()], dim=1), atol=1e-4, rtol=1e-4)


def test_frozen_encoders_are_asked_once(inputs, spec_of, monkeypatch):
    """A caption's conditioning is computed once and is the same bits later; without room for the dataset it is not kept."""
    recipe = Recipe.model_validate(spec_of()["recipe"] | {"learning_rate": LearningRate(unet=1e-5).model_dump()})
    trainer = Trainer(recipe, inputs, Processes())
    calls, encode = [], trainer.text.encode
    monkeypatch.setattr(trainer.text, "encode", lambda *given: (calls.append(1), encode(*given))[1])

    def ask(*captions):
        return trainer.conditioning.encode(trainer.text.read(captions), "cpu")

    first, again = (ask("red star") for _ in range(2))
    plain = trainer.text(["red star"], "cpu")
    assert len(calls) == 2
    for a, b, c in zip(first, again, plain, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    ask("a", "b"), ask("a")
    assert len(calls) == 4
    # The first tokenizer's padding, written out at a caption's end, is a word to the second.
    both = [ask(text)[1] for text in ("a star", "a star<|endoftext|>")]
    assert len(calls) == 6
    assert torch.equal(both[1], trainer.text(["a star<|endoftext|>"], "cpu")[1])
    calls.clear()
    trainer.conditioning = CachedText(trainer.text, 24, room=24 * first[0].nbytes)
    ask("c"), ask("c")
    assert len(calls) == 2
    calls.clear()
    size = sum(value.nbytes for value in first)
    trainer.conditioning = CachedText(trainer.text, 2, room=2 * size)
    asked = [ask(text) and len(calls) for text in ("d", "e", "f", "d", "e", "f")]
    assert asked == [1, 2, 3, 3, 3, 4]  # captions that are drawn anew each time fill the room, and no more


def test_encoders_that_train_are_always_asked(inputs, spec_of):
    """Nothing is remembered of encoders that learn."""
    trainer = Trainer(Recipe.model_validate(spec_of()["recipe"]), inputs, Processes())
    assert trainer.conditioning is trainer.text


def test_remembered_conditioning_leaves_no_trace(train, spec_of, monkeypatch):
    """A run with frozen encoders over two epochs is the same file, remembered or encoded anew."""
    spec = spec_of(learning_rate=LearningRate(unet=1e-5))
    remembered = digest(train(spec, "remembered"))
    monkeypatch.setattr(CachedText, "encode", lambda self, tokens, device: self.text.encode(tokens, device))
    assert digest(train(spec, "anew")) == remembered
