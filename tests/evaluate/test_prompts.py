"""The prompts: fixed, diverse, and spelt as captions are."""

from astolfo.data.procedural import COLOURS, SHAPES, sentence
from astolfo.evaluate.prompts import Prompt, procedural_prompts


def prompts(seed, count):
    return procedural_prompts(seed, count, width=48, height=48)


def test_they_are_a_function_of_the_seed():
    """The same seed gives the same prompts, a shorter set is the beginning of a longer one, another seed gives others."""
    assert prompts(1, 9)[:4] == prompts(1, 4)
    assert prompts(1, 4) != prompts(2, 4)


def test_they_are_diverse():
    """The first have all shapes in different colours, none has one colour on itself, and no shape and colour meet twice."""
    scenes = [prompt.scene for prompt in prompts(3, len(SHAPES) * len(COLOURS))]
    assert {scene.shape for scene in scenes[: len(SHAPES)]} == set(SHAPES)
    assert len({scene.colour for scene in scenes[: len(SHAPES)]}) == min(len(SHAPES), len(COLOURS))
    assert all(scene.colour != scene.background for scene in scenes)
    assert len({(scene.shape, scene.colour) for scene in scenes}) == len(scenes)


def test_they_are_spelt_as_captions():
    """Tags with spaces, then the sentence; the label is the sentence alone, or the text where no scene is known."""
    prompt = prompts(1, 1)[0]
    scene = prompt.scene
    assert prompt.text.startswith(f"1{scene.shape}, solo, {scene.colour} {scene.shape}, {scene.background} background, ")
    assert prompt.text.endswith(f", {prompt.label}")
    assert prompt.label == sentence(scene)
    assert Prompt("astolfo").label == "astolfo"
